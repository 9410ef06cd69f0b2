//! Admin commands (Base 5).

use nvio_spec::opcode::admin;
use nvio_spec::{
    CQE_SIZE, CommandEffects, ErrorLogEntry, FirmwareSlotLog, ManagementEffects, NSID_ALL, Sqe,
    Status, feature_id, log_id, opcode::nvm, status,
};
use vm_memory::Bytes;
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::Controller;
use crate::feature::Conditions;
use crate::health::ERROR_LOG_ENTRIES;
use crate::identify::{FIRMWARE, pad};
use crate::memory::{Access, ClientMemory};
use crate::prp::DataPointer;
use crate::queue::CompletionQueue;
use crate::supported::add_scopes;

/// How an admin command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Now, with this DW0.
    Done(u32),
    /// Later: it waits for an event.
    Held,
}

/// PC: the queue is physically contiguous.
const CONTIGUOUS: u32 = 1;
/// IEN: interrupts are enabled.
const INTERRUPTS: u32 = 1 << 1;

impl Controller {
    /// Executes one admin command.
    pub(crate) fn execute_admin(
        &mut self,
        sqe: &Sqe,
        memory: &ClientMemory,
    ) -> Result<Outcome, Status> {
        // Not a fused command; PRPs, as PCIe has no SGLs for admin commands (Base 3.3.3.1).
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
            admin::SET_FEATURES => self.set_features(sqe)?,
            admin::GET_FEATURES => self.get_features(sqe)?,
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

    /// Create I/O Completion Queue (Base 5.4).
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

    /// Create I/O Submission Queue (Base 5.5).
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

    /// Identifier and entries of a queue to create, CDW10 of both commands.
    fn queue_to_create(&self, sqe: &Sqe, granted: u16) -> Result<(u16, u32), Status> {
        let qid = low_half(sqe.cdw10.get());
        require((1..=granted).contains(&qid), status::INVALID_QUEUE_ID)?;
        let entries = u32::from(high_half(sqe.cdw10.get())) + 1;
        let allowed = 2..=self.registers.cap().max_queue_entries();
        require(allowed.contains(&entries), status::INVALID_QUEUE_SIZE)?;
        Ok((qid, entries))
    }

    /// Address of a queue to create: contiguous, as CAP.CQR asks, and of a page.
    fn queue_base(&self, sqe: &Sqe) -> Result<u64, Status> {
        require(sqe.cdw11.get() & CONTIGUOUS != 0, status::INVALID_FIELD)?;
        let base = sqe.prp1.get();
        let aligned = base.is_multiple_of(1 << self.registers.cc().page_shift());
        require(aligned, status::PRP_OFFSET_INVALID)?;
        Ok(base)
    }

    /// Delete I/O Submission Queue (Base 5.7). Commands that have not been completed are gone.
    fn delete_sq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let qid = low_half(sqe.cdw10.get());
        require(qid != 0 && self.sq_exists(qid), status::INVALID_QUEUE_ID)?;
        self.remove_sq(qid);
        Ok(0)
    }

    /// Delete I/O Completion Queue (Base 5.6).
    fn delete_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let qid = low_half(sqe.cdw10.get());
        require(qid != 0 && self.cq(qid).is_some(), status::INVALID_QUEUE_ID)?;
        require(!self.cq_is_used(qid), status::INVALID_QUEUE_DELETION)?;
        self.remove_cq(qid);
        Ok(0)
    }

    /// Set Features (Base 5.27).
    fn set_features(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let cdw10 = sqe.cdw10.get();
        // SV: no feature can be saved.
        require(cdw10 >> 31 == 0, status::FEATURE_NOT_SAVEABLE)?;
        let when = self.conditions(sqe);
        let feature = cdw10.to_le_bytes()[0];
        let dw0 = self.features.set(feature, sqe.cdw11.get(), when)?;
        if feature == feature_id::VOLATILE_WRITE_CACHE && self.features.write_through() {
            // What the cache held is not volatile any more.
            self.media.flush(NSID_ALL)?;
        }
        Ok(dw0)
    }

    /// Get Features (Base 5.15): current values only, as ONCS bit 4 says.
    fn get_features(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let cdw10 = sqe.cdw10.get();
        require(cdw10 >> 8 & 7 == 0, status::INVALID_FIELD)?;
        let when = self.conditions(sqe);
        self.features.get(cdw10.to_le_bytes()[0], sqe.cdw11.get(), when)
    }

    fn conditions(&self, sqe: &Sqe) -> Conditions {
        let nsid = sqe.nsid.get();
        Conditions {
            io_queues_exist: self.has_io_queues(),
            nsid_is_active: nsid == NSID_ALL || self.media.namespaces.active(nsid).is_some(),
        }
    }

    /// Get Log Page (Base 5.16).
    fn get_log_page(&mut self, sqe: &Sqe, memory: &ClientMemory) -> Result<u32, Status> {
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
        // What is asked for beyond the end of the page is not transferred.
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
                // Of the controller as a whole: LPA says that there is none for a namespace.
                require(matches!(nsid, 0 | NSID_ALL), status::INVALID_FIELD)?;
                health.log().as_bytes().to_vec()
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

    /// Sends data to the host where the command's data pointer says.
    fn send(&mut self, sqe: &Sqe, memory: &ClientMemory, data: &[u8]) -> Result<u32, Status> {
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
