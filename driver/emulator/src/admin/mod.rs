//! Admin commands (Base 5).

pub(crate) mod abort;
pub(crate) mod doorbell_buffer;
pub(crate) mod effects;
pub(crate) mod events;
pub(crate) mod features;
pub(crate) mod health;
pub(crate) mod identify;
pub(crate) mod namespaces;

use nvio_spec::opcode::admin;
use nvio_spec::{
    CQE_SIZE, CommandEffects, ErrorLogEntry, FirmwareSlotLog, HostBehaviorSupport,
    ManagementEffects, NSID_ALL, Sqe, Status, critical_warning, feature_id, health_event, log_id,
    opcode::nvm, status,
};
use vm_memory::Bytes;
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::admin::effects::add_scopes;
use crate::admin::events::Event;
use crate::admin::features::Conditions;
use crate::admin::health::ERROR_LOG_ENTRIES;
use crate::admin::identify::{FIRMWARE, pad};
use crate::controller::queue::CompletionQueue;
use crate::controller::state::Controller;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::prp::DataPointer;

/// The outcome of an admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The command completes now, with this DW0.
    Done(u32),
    /// The command waits for an event.
    Held,
}

/// PC: the queue is physically contiguous.
const CONTIGUOUS: u32 = 1;
/// IEN: interrupts are enabled.
const INTERRUPTS: u32 = 1 << 1;

impl Controller {
    /// Executes an admin command.
    pub(crate) fn execute_admin(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
    ) -> Result<Outcome, Status> {
        // Refuse fused commands and SGLs, because PCIe has no SGLs for admin commands (Base
        // 3.3.3.1).
        if sqe.flags != 0 {
            return Err(status::INVALID_FIELD);
        }
        let dw0 = match sqe.opcode {
            admin::DELETE_IO_SQ => self.delete_sq(sqe)?,
            admin::CREATE_IO_SQ => self.create_sq(sqe)?,
            admin::GET_LOG_PAGE => self.get_log_page(sqe, memory)?,
            admin::DELETE_IO_CQ => self.delete_cq(sqe)?,
            admin::CREATE_IO_CQ => self.create_cq(sqe)?,
            admin::IDENTIFY => {
                let data = self.identity.identify(sqe, &self.media.namespaces)?;
                self.send(sqe, memory, &data)?
            }
            admin::ABORT => self.abort(low_half(sqe.cdw10.get()), high_half(sqe.cdw10.get())),
            admin::SET_FEATURES => self.set_features(sqe, memory)?,
            admin::GET_FEATURES => self.get_features(sqe, memory)?,
            admin::KEEP_ALIVE => {
                self.restart_keep_alive();
                0
            }
            admin::ASYNC_EVENT_REQUEST => {
                self.events.request(sqe.cid.get())?;
                return Ok(Outcome::Held);
            }
            admin::DOORBELL_BUFFER_CONFIG if self.has_shadow => {
                self.doorbell_buffer_config(sqe, memory)?
            }
            opcode => match self.manage(opcode, sqe, memory)? {
                Some(dw0) => dw0,
                None => return Err(status::INVALID_OPCODE),
            },
        };
        Ok(Outcome::Done(dw0))
    }

    /// Executes Create I/O Completion Queue (Base 5.4).
    fn create_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (qid, entries) = self.queue_to_create(sqe, self.features.granted().completion)?;
        require(self.registers.cc().cqe_shift() == 4, status::INVALID_QUEUE_SIZE)?;
        require(self.cq(qid).is_none(), status::INVALID_QUEUE_ID)?;
        let cdw11 = sqe.cdw11.get();
        let vector = (cdw11 & INTERRUPTS != 0).then(|| high_half(cdw11));
        let known = vector.is_none_or(|vector| vector < self.vectors());
        require(known, status::INVALID_INTERRUPT_VECTOR)?;
        let base = self.queue_base(sqe)?;
        self.refuse_controller_memory(base, u64::from(entries) * CQE_SIZE as u64)?;
        self.doorbells().ring_cq(qid, 0);
        self.insert_cq(qid, CompletionQueue::new(base, entries, vector));
        Ok(0)
    }

    /// Executes Create I/O Submission Queue (Base 5.5).
    fn create_sq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (qid, entries) = self.queue_to_create(sqe, self.features.granted().submission)?;
        require(self.registers.cc().sqe_shift() == 6, status::INVALID_QUEUE_SIZE)?;
        require(!self.sq_exists(qid), status::INVALID_QUEUE_ID)?;
        let cqid = high_half(sqe.cdw11.get());
        let in_range = (1..=self.features.granted().completion).contains(&cqid);
        require(in_range, status::INVALID_QUEUE_ID)?;
        require(self.cq(cqid).is_some(), status::COMPLETION_QUEUE_INVALID)?;
        let queue = self.submission_queue(self.queue_base(sqe)?, entries, cqid)?;
        self.doorbells().ring_sq(qid, 0);
        self.insert_sq(qid, queue);
        Ok(0)
    }

    /// Returns identifier and entries of a new queue, from CDW10.
    fn queue_to_create(&self, sqe: &Sqe, granted: u16) -> Result<(u16, u32), Status> {
        let qid = low_half(sqe.cdw10.get());
        require((1..=granted).contains(&qid), status::INVALID_QUEUE_ID)?;
        let entries = u32::from(high_half(sqe.cdw10.get())) + 1;
        let allowed = 2..=self.registers.cap().max_queue_entries();
        require(allowed.contains(&entries), status::INVALID_QUEUE_SIZE)?;
        Ok((qid, entries))
    }

    /// Returns the address of a new queue, which is contiguous, because CAP.CQR is set, and aligned
    /// to a page.
    fn queue_base(&self, sqe: &Sqe) -> Result<u64, Status> {
        require(sqe.cdw11.get() & CONTIGUOUS != 0, status::INVALID_FIELD)?;
        let base = sqe.prp1.get();
        let aligned = base.is_multiple_of(1 << self.registers.cc().page_shift());
        require(aligned, status::PRP_OFFSET_INVALID)?;
        Ok(base)
    }

    /// Executes Delete I/O Submission Queue (Base 5.7). Commands that have not completed are
    /// dropped.
    fn delete_sq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let qid = low_half(sqe.cdw10.get());
        require(qid != 0 && self.sq_exists(qid), status::INVALID_QUEUE_ID)?;
        self.remove_sq(qid);
        Ok(0)
    }

    /// Executes Delete I/O Completion Queue (Base 5.6).
    fn delete_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let qid = low_half(sqe.cdw10.get());
        require(qid != 0 && self.cq(qid).is_some(), status::INVALID_QUEUE_ID)?;
        require(!self.cq_is_used(qid), status::INVALID_QUEUE_DELETION)?;
        self.remove_cq(qid);
        Ok(0)
    }

    /// Executes Set Features (Base 5.27).
    fn set_features(&mut self, sqe: &Sqe, memory: &HostMemory) -> Result<u32, Status> {
        let cdw10 = sqe.cdw10.get();
        // SV: no feature can be saved.
        require(cdw10 >> 31 == 0, status::FEATURE_NOT_SAVEABLE)?;
        let when = self.conditions(sqe);
        let feature = cdw10.to_le_bytes()[0];
        if feature == feature_id::HOST_BEHAVIOR_SUPPORT {
            let mut data = HostBehaviorSupport::new_zeroed();
            self.receive(sqe, memory, data.as_mut_bytes())?;
            return self.features.set_host_behavior(data).map(|()| 0);
        }
        let notified = self.features.notified_warnings();
        let dw0 = self.features.set(feature, sqe.cdw11.get(), when)?;
        match feature {
            // The write cache is written through from now on: make its contents durable.
            feature_id::VOLATILE_WRITE_CACHE if self.features.write_through() => {
                self.media.flush(NSID_ALL)?;
            }
            feature_id::KEEP_ALIVE_TIMER => self.restart_keep_alive(),
            _ => {}
        }
        if self.features.notified_warnings() & !notified & critical_warning::TEMPERATURE != 0 {
            self.events.raise(Event::health(health_event::TEMPERATURE));
        }
        Ok(dw0)
    }

    /// Executes Get Features (Base 5.15): current values only, because ONCS bit 4 is 0.
    fn get_features(&mut self, sqe: &Sqe, memory: &HostMemory) -> Result<u32, Status> {
        let cdw10 = sqe.cdw10.get();
        require(cdw10 >> 8 & 7 == 0, status::INVALID_FIELD)?;
        if cdw10.to_le_bytes()[0] == feature_id::HOST_BEHAVIOR_SUPPORT {
            return self.send(sqe, memory, self.features.host_behavior().as_bytes());
        }
        let when = self.conditions(sqe);
        self.features.get(cdw10.to_le_bytes()[0], sqe.cdw11.get(), when)
    }

    fn conditions(&self, sqe: &Sqe) -> Conditions {
        let nsid = sqe.nsid.get();
        Conditions {
            io_queues_exist: self.has_io_queues(),
            nsid_is_zero: nsid == 0,
            nsid_is_active: nsid == NSID_ALL || self.media.namespaces.active(nsid).is_some(),
        }
    }

    /// Executes Get Log Page (Base 5.16).
    fn get_log_page(&mut self, sqe: &Sqe, memory: &HostMemory) -> Result<u32, Status> {
        let cdw10 = sqe.cdw10.get();
        let log = cdw10.to_le_bytes()[0];
        let page = self.log_page(log, sqe.nsid.get())?;
        let dwords = u64::from(low_half(sqe.cdw11.get())) << 16 | u64::from(high_half(cdw10));
        let offset = u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get());
        require(offset.is_multiple_of(4), status::INVALID_FIELD)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| page.get(offset..));
        let rest = rest.ok_or(status::INVALID_FIELD)?;
        let wanted = (dwords + 1) * 4;
        require(wanted <= self.max_transfer, status::INVALID_FIELD)?;
        // Bytes beyond the end of the page are not transferred.
        let len = rest.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.send(sqe, memory, &rest[..len])?;
        // RAE keeps the events of the page masked.
        if cdw10 >> 15 & 1 == 0 {
            self.events.log_read(log);
            if log == log_id::CHANGED_NAMESPACES {
                self.media.namespaces.clear_changed();
            }
        }
        Ok(0)
    }

    pub(crate) fn log_page(&self, log: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let health = &self.media.health;
        Ok(match log {
            log_id::SUPPORTED_LOG_PAGES => self.supported_log_pages().as_bytes().to_vec(),
            log_id::ERROR_INFORMATION => {
                let mut page: Vec<u8> =
                    health.errors().flat_map(|entry| entry.as_bytes()).copied().collect();
                page.resize(usize::from(ERROR_LOG_ENTRIES) * size_of::<ErrorLogEntry>(), 0);
                page
            }
            log_id::HEALTH => {
                // The log is of the controller: LPA announces none for a namespace.
                require(matches!(nsid, 0 | NSID_ALL), status::INVALID_FIELD)?;
                health.log(self.features.critical_warning()).as_bytes().to_vec()
            }
            log_id::FIRMWARE_SLOT => {
                let mut page = FirmwareSlotLog::new_zeroed();
                page.active = 1;
                pad(&mut page.revision[0], FIRMWARE);
                page.as_bytes().to_vec()
            }
            log_id::CHANGED_NAMESPACES if self.media.namespaces.notices() != 0 => {
                self.changed_namespaces().as_bytes().to_vec()
            }
            log_id::COMMAND_EFFECTS => {
                let mut page = command_effects(self.has_shadow);
                self.add_management(&mut page);
                add_scopes(&mut page);
                page.as_bytes().to_vec()
            }
            log_id::FEATURE_EFFECTS => self.features.effects().as_bytes().to_vec(),
            // There is no management interface.
            log_id::MANAGEMENT_EFFECTS => ManagementEffects::new_zeroed().as_bytes().to_vec(),
            _ => return Err(status::INVALID_LOG_PAGE),
        })
    }

    /// Writes data to the host memory of the command's data pointer, and returns DW0, 0.
    fn send(&mut self, sqe: &Sqe, memory: &HostMemory, data: &[u8]) -> Result<u32, Status> {
        let pointer = DataPointer::Prp {
            prp1: sqe.prp1.get(),
            prp2: sqe.prp2.get(),
            page_shift: self.registers.cc().page_shift(),
        };
        self.segments.resolve(memory, pointer, data.len() as u64, Access::WRITE)?;
        let mut rest = data;
        for segment in self.segments.iter() {
            let to = memory.at(segment.place, segment.len);
            let to = to.ok_or(status::DATA_TRANSFER_ERROR)?;
            let (now, later) = rest.split_at(to.len().min(rest.len()));
            to.write_slice(now, 0).map_err(|_| status::DATA_TRANSFER_ERROR)?;
            rest = later;
        }
        Ok(0)
    }
}

fn command_effects(has_shadow: bool) -> CommandEffects {
    let mut page = CommandEffects::new_zeroed();
    if has_shadow {
        let opcode = usize::from(admin::DOORBELL_BUFFER_CONFIG);
        page.admin[opcode] = U32::new(CommandEffects::SUPPORTED);
    }
    for opcode in [
        admin::DELETE_IO_SQ,
        admin::CREATE_IO_SQ,
        admin::GET_LOG_PAGE,
        admin::DELETE_IO_CQ,
        admin::CREATE_IO_CQ,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT_REQUEST,
        admin::KEEP_ALIVE,
    ] {
        page.admin[usize::from(opcode)] = U32::new(CommandEffects::SUPPORTED);
    }
    for opcode in [nvm::FLUSH, nvm::READ, nvm::COMPARE, nvm::VERIFY] {
        page.io[usize::from(opcode)] = U32::new(CommandEffects::SUPPORTED);
    }
    for opcode in [nvm::WRITE, nvm::WRITE_ZEROES, nvm::DATASET_MANAGEMENT, nvm::COPY] {
        let effects = CommandEffects::SUPPORTED | CommandEffects::CHANGES_CONTENT;
        page.io[usize::from(opcode)] = U32::new(effects);
    }
    page
}

fn low_half(dword: u32) -> u16 {
    (dword & 0xffff) as u16
}

fn high_half(dword: u32) -> u16 {
    (dword >> 16) as u16
}

fn require(good: bool, otherwise: Status) -> Result<(), Status> {
    if good { Ok(()) } else { Err(otherwise) }
}
