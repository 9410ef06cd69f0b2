//! Format NVM, Namespace Management and Namespace Attachment (Base 5.14, 5.23, 5.22).

use nvio_spec::namespace::{ControllerList, FormatSettings, attach, erase, manage};
use nvio_spec::{ChangedNamespaces, IdentifyNamespace, Sqe, Status, status};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::admin::identify::CONTROLLER_ID;
use crate::controller::state::Controller;
use crate::host::request::Request;

/// Mask of the operation, CDW10 bits 3:0.
const SELECT: u32 = 0xf;

impl Controller {
    /// Executes Format NVM.
    pub(crate) fn format_nvm(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let settings = FormatSettings::from_dword(sqe.cdw10.get());
        // FNA announces no cryptographic erase.
        if !matches!(settings.erase, erase::NONE | erase::USER_DATA) {
            return Err(status::INVALID_FIELD);
        }
        self.media.namespaces.format(sqe.nsid.get(), settings)?;
        Ok(0)
    }

    /// Executes Namespace Management.
    pub(crate) fn namespace_management(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let (sqe, nsid) = (request.sqe, request.nsid());
        match sqe.cdw10.get() & SELECT {
            manage::CREATE => {
                let mut data = IdentifyNamespace::new_zeroed();
                self.media.transfers.receive(request, data.as_mut_bytes())?;
                let settings = check_new(sqe, &data)?;
                self.media.namespaces.create(data.nsze.get(), settings)
            }
            manage::DELETE => self.media.namespaces.delete(nsid).map(|()| 0),
            _ => Err(status::INVALID_FIELD),
        }
    }

    /// Executes Namespace Attachment.
    pub(crate) fn namespace_attachment(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let nsid = request.nsid();
        let select = request.sqe.cdw10.get() & SELECT;
        if !matches!(select, attach::ATTACH | attach::DETACH) {
            return Err(status::INVALID_FIELD);
        }
        let mut list = ControllerList::new_zeroed();
        self.media.transfers.receive(request, list.as_mut_bytes())?;
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
