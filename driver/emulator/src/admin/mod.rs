//! Admin commands (Base 5).

pub(crate) mod abort;
pub(crate) mod doorbell_buffer;
pub(crate) mod effects;
pub(crate) mod events;
pub(crate) mod features;
pub(crate) mod fields;
pub(crate) mod health;
pub(crate) mod identify;
pub(crate) mod namespaces;

use nvio_spec::namespace::{NAMESPACE_ATTRIBUTE_NOTICES, notice_event};
use nvio_spec::opcode::admin;
use nvio_spec::{
    CQE_SIZE, ErrorLogEntry, EventType, FirmwareSlotLog, HostBehaviorSupport, ManagementEffects,
    NSID_ALL, Sqe, Status, SupportedLogPages, critical_warning, feature_id, health_event, log_id,
    status,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::admin::events::Event;
use crate::admin::fields::{high_half, low_half, require};
use crate::admin::health::ERROR_LOG_ENTRIES;
use crate::admin::identify::{FIRMWARE, pad};
use crate::config::quirk::Quirk;
use crate::controller::queue::CompletionQueue;
use crate::controller::state::Controller;
use crate::host::request::Request;

/// PC: the queue is physically contiguous.
const CONTIGUOUS: u32 = 1;
/// IEN: interrupts are enabled.
const INTERRUPTS: u32 = 1 << 1;
/// QPRIO of an urgent queue, in bits 2:1.
const URGENT: u32 = 0;
/// Times that the identifier of a deleted queue is refused, with [`Quirk::QueuesRest`].
const RESTS: u8 = 4;

impl Controller {
    /// Executes an admin command. Returns DW0; `None` if the command waits for an event.
    pub(crate) fn execute_admin(&mut self, request: Request<'_>) -> Result<Option<u32>, Status> {
        // Refuse fused commands and SGLs, because PCIe has no SGLs for admin commands (Base
        // 3.3.3.1).
        require(request.sqe.flags == 0, status::INVALID_FIELD)?;
        require(self.has_admin_command(request.sqe.opcode), status::INVALID_OPCODE)?;
        let changes = self.media.namespaces.changes();
        let result = self.dispatch(request);
        // A failed format of all namespaces may have changed some.
        let changed = self.media.namespaces.changes() != changes;
        if changed && self.features.wants(NAMESPACE_ATTRIBUTE_NOTICES) {
            self.events.raise(Event {
                kind: EventType::NOTICE,
                info: notice_event::NAMESPACE_ATTRIBUTE_CHANGED,
                log: log_id::CHANGED_NAMESPACES,
            });
        }
        result
    }

    fn dispatch(&mut self, request: Request<'_>) -> Result<Option<u32>, Status> {
        let sqe = request.sqe;
        let dw0 = match sqe.opcode {
            admin::DELETE_IO_SQ => self.delete_sq(sqe),
            admin::CREATE_IO_SQ => self.create_sq(sqe),
            admin::GET_LOG_PAGE => self.get_log_page(request),
            admin::DELETE_IO_CQ => self.delete_cq(sqe),
            admin::CREATE_IO_CQ => self.create_cq(sqe),
            admin::IDENTIFY => {
                let data = self.identify(sqe)?;
                self.send(request, &data)
            }
            admin::ABORT => Ok(self.abort(low_half(sqe.cdw10.get()), high_half(sqe.cdw10.get()))),
            admin::SET_FEATURES => self.set_features(request),
            admin::GET_FEATURES => self.get_features(request),
            admin::ASYNC_EVENT_REQUEST => {
                return self.events.request(sqe.cid.get()).map(|()| None);
            }
            admin::KEEP_ALIVE => {
                self.restart_keep_alive();
                Ok(0)
            }
            admin::DOORBELL_BUFFER_CONFIG => self.doorbell_buffer_config(request),
            admin::FORMAT_NVM => self.format_nvm(sqe),
            admin::NAMESPACE_MANAGEMENT => self.namespace_management(request),
            admin::NAMESPACE_ATTACHMENT => self.namespace_attachment(request),
            _ => Err(status::INVALID_OPCODE),
        };
        dw0.map(Some)
    }

    /// Executes Create I/O Completion Queue (Base 5.4).
    fn create_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (qid, entries) = self.queue_to_create(sqe, self.features.granted().completion)?;
        require(self.registers.cc().cqe_shift() == 4, status::INVALID_QUEUE_SIZE)?;
        require(!self.cqs.contains(qid), status::INVALID_QUEUE_ID)?;
        self.refuse_resting(qid)?;
        let cdw11 = sqe.cdw11.get();
        let vector = (cdw11 & INTERRUPTS != 0).then(|| high_half(cdw11));
        let known = vector.is_none_or(|vector| vector < self.vectors());
        require(known, status::INVALID_INTERRUPT_VECTOR)?;
        let base = self.queue_base(sqe)?;
        self.refuse_controller_memory(base, u64::from(entries) * CQE_SIZE as u64)?;
        self.doorbells().ring_cq(qid, 0);
        self.cqs.insert(qid, CompletionQueue::new(base, entries, vector));
        Ok(0)
    }

    /// Executes Create I/O Submission Queue (Base 5.5).
    fn create_sq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (qid, entries) = self.queue_to_create(sqe, self.features.granted().submission)?;
        require(self.registers.cc().sqe_shift() == 6, status::INVALID_QUEUE_SIZE)?;
        require(!self.sqs.contains(qid), status::INVALID_QUEUE_ID)?;
        let cqid = high_half(sqe.cdw11.get());
        let in_range = (1..=self.features.granted().completion).contains(&cqid);
        require(in_range, status::INVALID_QUEUE_ID)?;
        require(self.cqs.contains(cqid), status::COMPLETION_QUEUE_INVALID)?;
        let mut queue = self.submission_queue(self.queue_base(sqe)?, entries, cqid)?;
        let is_urgent = sqe.cdw11.get() >> 1 & 3 == URGENT;
        queue.starves = is_urgent && self.config.has_quirk(Quirk::Weighted);
        self.doorbells().ring_sq(qid, 0);
        self.sqs.insert(qid, queue);
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
        require(qid != 0 && self.sqs.remove(qid), status::INVALID_QUEUE_ID)?;
        if let Some(schedule) = &mut self.schedule {
            schedule.drop_queue(qid);
        }
        Ok(0)
    }

    /// Executes Delete I/O Completion Queue (Base 5.6).
    fn delete_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let qid = low_half(sqe.cdw10.get());
        require(qid != 0 && self.cqs.contains(qid), status::INVALID_QUEUE_ID)?;
        require(!self.cq_is_used(qid), status::INVALID_QUEUE_DELETION)?;
        self.cqs.remove(qid);
        if self.config.has_quirk(Quirk::QueuesRest) {
            self.resting.insert(qid, RESTS);
        }
        Ok(0)
    }

    /// Refuses the identifier of a queue that was deleted, a few times.
    fn refuse_resting(&mut self, qid: u16) -> Result<(), Status> {
        let Some(left) = self.resting.get_mut(&qid) else { return Ok(()) };
        *left -= 1;
        if *left == 0 {
            self.resting.remove(&qid);
        }
        Err(status::INVALID_QUEUE_ID)
    }

    /// Executes Set Features (Base 5.27).
    fn set_features(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let (cdw10, nsid) = (request.sqe.cdw10.get(), request.nsid());
        // SV: no feature can be saved.
        require(cdw10 >> 31 == 0, status::FEATURE_NOT_SAVEABLE)?;
        let feature = cdw10.to_le_bytes()[0];
        match feature {
            feature_id::HOST_BEHAVIOR_SUPPORT => {
                let mut data = HostBehaviorSupport::new_zeroed();
                self.media.transfers.receive(request, data.as_mut_bytes())?;
                return self.features.set_host_behavior(data).map(|()| 0);
            }
            feature_id::ERROR_RECOVERY => self.require_active(nsid)?,
            feature_id::NUMBER_OF_QUEUES => {
                require(!self.has_io_queues(), status::COMMAND_SEQUENCE_ERROR)?;
            }
            _ => {}
        }
        let notified = self.features.notified_warnings();
        let dw0 = self.features.set(feature, request.sqe.cdw11.get())?;
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
    fn get_features(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let (cdw10, nsid) = (request.sqe.cdw10.get(), request.nsid());
        require(cdw10 >> 8 & 7 == 0, status::INVALID_FIELD)?;
        match cdw10.to_le_bytes()[0] {
            feature_id::HOST_BEHAVIOR_SUPPORT => {
                let data = self.features.host_behavior();
                return self.send(request, data.as_bytes());
            }
            // Identifier 0 names no namespace.
            feature_id::ERROR_RECOVERY if nsid != 0 => self.require_active(nsid)?,
            _ => {}
        }
        self.features.get(cdw10.to_le_bytes()[0], request.sqe.cdw11.get())
    }

    /// Refuses an identifier that is neither of an active namespace nor the broadcast value.
    fn require_active(&self, nsid: u32) -> Result<(), Status> {
        let is_active = nsid == NSID_ALL || self.media.namespaces.active(nsid).is_some();
        require(is_active, status::INVALID_NAMESPACE)
    }

    /// Executes Get Log Page (Base 5.16).
    fn get_log_page(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let sqe = request.sqe;
        let cdw10 = sqe.cdw10.get();
        let log = cdw10.to_le_bytes()[0];
        let page = self.log_page(log, sqe.nsid.get())?;
        let dwords = u64::from(low_half(sqe.cdw11.get())) << 16 | u64::from(high_half(cdw10));
        let offset = u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get());
        require(offset.is_multiple_of(4), status::INVALID_FIELD)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| page.get(offset..));
        let rest = rest.ok_or(status::INVALID_FIELD)?;
        let wanted = (dwords + 1) * 4;
        require(wanted <= self.media.transfers.bytes_max, status::INVALID_FIELD)?;
        // Bytes beyond the end of the page are not transferred.
        let len = rest.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.send(request, &rest[..len])?;
        // RAE keeps the events of the page masked.
        if cdw10 >> 15 & 1 == 0 {
            self.events.log_read(log);
            if log == log_id::CHANGED_NAMESPACES {
                self.media.namespaces.clear_changed();
            }
        }
        Ok(0)
    }

    /// Returns a log page, as long as it is.
    fn log_page(&self, log: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let health = &self.media.health;
        Ok(match log {
            log_id::SUPPORTED_LOG_PAGES => {
                let mut page = SupportedLogPages::new_zeroed();
                for (id, entry) in (0..=u8::MAX).zip(&mut page.page) {
                    let is_given = id == log || self.log_page(id, NSID_ALL).is_ok();
                    *entry = U32::new(is_given.into());
                }
                page.as_bytes().to_vec()
            }
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
            log_id::COMMAND_EFFECTS => self.command_effects().as_bytes().to_vec(),
            log_id::FEATURE_EFFECTS => self.features.effects().as_bytes().to_vec(),
            // There is no management interface.
            log_id::MANAGEMENT_EFFECTS => ManagementEffects::new_zeroed().as_bytes().to_vec(),
            _ => return Err(status::INVALID_LOG_PAGE),
        })
    }

    /// Writes data to the host memory of the command's data pointer, and returns DW0, 0.
    fn send(&mut self, request: Request<'_>, data: &[u8]) -> Result<u32, Status> {
        self.media.transfers.send(request, data).map(|()| 0)
    }
}
