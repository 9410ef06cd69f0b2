//! Format NVM, Namespace Management and Namespace Attachment (Base 5.14, 5.23, 5.22).

use nvio_spec::namespace::{
    ControllerList, FormatSettings, NAMESPACE_ATTRIBUTE_NOTICES, attach, erase, manage,
    notice_event,
};
use nvio_spec::opcode::admin;
use nvio_spec::{
    ChangedNamespaces, CommandEffects, EventType, IdentifyNamespace, Sqe, Status, log_id, status,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::admin::events::Event;
use crate::admin::identify::CONTROLLER_ID;
use crate::controller::state::Controller;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::prp::DataPointer;
use crate::host::stream::Stream;

/// Mask of the operation, CDW10 bits 3:0.
const SELECT: u32 = 0xf;

impl Controller {
    /// Executes a command that changes namespaces and returns DW0; `None` if the command is not
    /// supported.
    pub(crate) fn manage(
        &mut self,
        opcode: u8,
        sqe: &Sqe,
        memory: &HostMemory,
    ) -> Result<Option<u32>, Status> {
        let namespaces = &self.media.namespaces;
        let before = namespaces.changes();
        let result = match opcode {
            admin::FORMAT_NVM if namespaces.can_be_formatted() => self.format_nvm(sqe),
            admin::NAMESPACE_MANAGEMENT if namespaces.can_be_managed() => {
                self.namespace_management(sqe, memory)
            }
            admin::NAMESPACE_ATTACHMENT if namespaces.can_be_managed() => {
                self.namespace_attachment(sqe, memory)
            }
            _ => return Ok(None),
        };
        // A failed format of all namespaces may have changed some.
        let changed = self.media.namespaces.changes() != before;
        if changed && self.features.wants(NAMESPACE_ATTRIBUTE_NOTICES) {
            self.events.raise(Event {
                kind: EventType::NOTICE,
                info: notice_event::NAMESPACE_ATTRIBUTE_CHANGED,
                log: log_id::CHANGED_NAMESPACES,
            });
        }
        result.map(Some)
    }

    fn format_nvm(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let settings = FormatSettings::from_dword(sqe.cdw10.get());
        // FNA announces no cryptographic erase.
        if !matches!(settings.erase, erase::NONE | erase::USER_DATA) {
            return Err(status::INVALID_FIELD);
        }
        self.media.namespaces.format(sqe.nsid.get(), settings)?;
        Ok(0)
    }

    fn namespace_management(&mut self, sqe: &Sqe, memory: &HostMemory) -> Result<u32, Status> {
        let nsid = sqe.nsid.get();
        match sqe.cdw10.get() & SELECT {
            manage::CREATE => {
                let mut data = IdentifyNamespace::new_zeroed();
                self.receive(sqe, memory, data.as_mut_bytes())?;
                let settings = check_new(sqe, &data)?;
                self.media.namespaces.create(data.nsze.get(), settings)
            }
            manage::DELETE => self.media.namespaces.delete(nsid).map(|()| 0),
            _ => Err(status::INVALID_FIELD),
        }
    }

    fn namespace_attachment(&mut self, sqe: &Sqe, memory: &HostMemory) -> Result<u32, Status> {
        let nsid = sqe.nsid.get();
        let select = sqe.cdw10.get() & SELECT;
        if !matches!(select, attach::ATTACH | attach::DETACH) {
            return Err(status::INVALID_FIELD);
        }
        let mut list = ControllerList::new_zeroed();
        self.receive(sqe, memory, list.as_mut_bytes())?;
        // There is one controller, so only one list is valid.
        if !list.ids().is_some_and(|ids| ids.eq([CONTROLLER_ID])) {
            return Err(status::CONTROLLER_LIST_INVALID);
        }
        let namespaces = &mut self.media.namespaces;
        let changed = match select {
            attach::ATTACH => namespaces.attach(nsid),
            _ => namespaces.detach(nsid),
        };
        changed.map(|()| 0)
    }

    /// Returns the Changed Namespace List (Base 5.16.1.5). All identifiers always fit.
    pub(crate) fn changed_namespaces(&self) -> ChangedNamespaces {
        let mut page = ChangedNamespaces::new_zeroed();
        for (to, nsid) in page.nsid.iter_mut().zip(self.media.namespaces.changed()) {
            *to = U32::new(nsid);
        }
        page
    }

    /// Adds the supported commands of this file to the effects.
    pub(crate) fn add_management(&self, page: &mut CommandEffects) {
        let namespaces = &self.media.namespaces;
        let supported = CommandEffects::SUPPORTED;
        if namespaces.can_be_formatted() {
            let changes = CommandEffects::CHANGES_CONTENT | CommandEffects::CHANGES_NAMESPACE;
            page.admin[usize::from(admin::FORMAT_NVM)] = U32::new(supported | changes);
        }
        if namespaces.can_be_managed() {
            for opcode in [admin::NAMESPACE_MANAGEMENT, admin::NAMESPACE_ATTACHMENT] {
                let changes = CommandEffects::CHANGES_INVENTORY;
                page.admin[usize::from(opcode)] = U32::new(supported | changes);
            }
        }
    }

    /// Reads data from the host memory of the command's data pointer.
    pub(crate) fn receive(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
        to: &mut [u8],
    ) -> Result<(), Status> {
        let pointer = DataPointer::Prp {
            prp1: sqe.prp1.get(),
            prp2: sqe.prp2.get(),
            page_shift: self.registers.cc().page_shift(),
        };
        self.segments.resolve(memory, pointer, to.len() as u64, Access::READ)?;
        Stream::new(memory, self.segments.iter()).get(to)
    }
}

/// Checks the settings of a namespace that a host creates (Base 5.23, figure 245).
fn check_new(sqe: &Sqe, data: &IdentifyNamespace) -> Result<FormatSettings, Status> {
    // CSI: the NVM command set is the only one.
    if sqe.cdw11.get() >> 24 != 0 {
        return Err(status::IO_COMMAND_SET_NOT_SUPPORTED);
    }
    // The namespace is private, and in no NVM set and endurance group, because there are none.
    let is_plain = data.nmic == 0 && data.nvmsetid.get() == 0 && data.endgid.get() == 0;
    let (size, capacity) = (data.nsze.get(), data.ncap.get());
    if sqe.nsid.get() != 0 || !is_plain || size == 0 || capacity > size {
        return Err(status::INVALID_FIELD);
    }
    if data.anagrpid.get() != 0 {
        return Err(status::ANA_GROUP_ID_INVALID);
    }
    if capacity < size {
        return Err(status::THIN_PROVISIONING_NOT_SUPPORTED);
    }
    Ok(FormatSettings::from_namespace(data.flbas, data.dps))
}
