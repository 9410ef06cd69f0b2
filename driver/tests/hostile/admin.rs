//! The admin commands of a hostile device.

use nvio_driver::spec::opcode::admin;
use nvio_driver::spec::{Cqe, IDENTIFY_SIZE, Sqe, Status, status};
use zerocopy::little_endian::{U16, U32};

use super::device::{Conduct, Device, Queue};
use super::memory::Range;

/// Most bytes of a log page requested by one command.
const MOST: usize = 1 << 20;

/// The completion of a command of the admin queue.
pub fn answer(cid: u16, status: Status, dw0: u32) -> Cqe {
    Cqe {
        cid: U16::new(cid),
        dw0: U32::new(dw0),
        status_phase: Cqe::pack_status(status, false),
        ..Cqe::default()
    }
}

impl Device {
    /// Executes the commands in the admin queue, and posts the completions that are due.
    pub(super) fn serve(&mut self) {
        if !self.running || !self.mapped {
            return;
        }
        let clock = self.clock;
        while let Some(at) = self.late.iter().position(|&(due, _)| due <= clock) {
            let (_, cqe) = self.late.swap_remove(at);
            self.post(0, &cqe);
        }
        for sqe in self.fetch(0) {
            let conduct = self.conduct.pop_front().unwrap_or(Conduct::Honest);
            self.treat(&sqe, conduct);
        }
    }

    fn treat(&mut self, sqe: &Sqe, conduct: Conduct) {
        let cid = sqe.cid.get();
        if sqe.opcode == admin::ASYNC_EVENT_REQUEST {
            self.events.push_back(cid);
            return;
        }
        if let Conduct::Refuse(status) = conduct
            && !status.is_success()
            && !self.foretold.contains(&cid)
        {
            self.dishonest |= [admin::DELETE_IO_SQ, admin::DELETE_IO_CQ].contains(&sqe.opcode);
            self.post(0, &answer(cid, status, 0));
            return;
        }
        let (status, dw0) = self.execute(sqe);
        if self.foretold.remove(&cid) {
            return;
        }
        let honest = answer(cid, status, dw0);
        match conduct {
            Conduct::Honest | Conduct::Refuse(_) => self.post(0, &honest),
            Conduct::Silent => {}
            Conduct::Late(after) => self.late.push((self.clock + after, honest)),
            Conduct::Other(other) => {
                let other = cid.wrapping_add(other.max(1));
                self.post(0, &answer(other, status, dw0));
            }
            Conduct::Twice => {
                self.post(0, &honest);
                self.post(0, &honest);
            }
            Conduct::Result(dw0) => self.post(0, &answer(cid, status, dw0)),
        }
    }

    fn execute(&mut self, sqe: &Sqe) -> (Status, u32) {
        let (low, high) = (sqe.cdw10.get() & 0xffff, sqe.cdw10.get() >> 16);
        let qid = low as u16;
        match sqe.opcode {
            admin::CREATE_IO_CQ
                if self.queues.contains_key(&qid) && !self.foretold.contains(&sqe.cid.get()) =>
            {
                return (status::INVALID_QUEUE_ID, 0);
            }
            admin::CREATE_IO_CQ => {
                self.created += 1;
                self.clear_doorbells(qid);
                let queue = Queue::new(sqe.prp1.get(), high + 1, self.created);
                self.check_rings(&queue);
                self.queues.insert(qid, queue);
            }
            admin::CREATE_IO_SQ => {
                let Some(queue) = self.queues.get_mut(&qid) else {
                    return (status::COMPLETION_QUEUE_INVALID, 0);
                };
                assert_eq!(queue.sq, None, "submission queue {qid} is created twice");
                (queue.sq, queue.sq_entries) = (Some(sqe.prp1.get()), high + 1);
                let queue = queue.clone();
                self.check_rings(&queue);
            }
            admin::DELETE_IO_SQ => match self.queues.get_mut(&qid) {
                Some(queue) if queue.sq.is_some() => {
                    queue.sq = None;
                    queue.live.clear();
                }
                _ => return (status::INVALID_QUEUE_ID, 0),
            },
            admin::DELETE_IO_CQ => match self.queues.get(&qid) {
                Some(queue) if queue.sq.is_none() => drop(self.queues.remove(&qid)),
                Some(_) => return (status::INVALID_QUEUE_DELETION, 0),
                None => return (status::INVALID_QUEUE_ID, 0),
            },
            admin::ABORT => {
                let cid = high as u16;
                self.fetch(qid);
                let found = self.queues.get(&qid).is_some_and(|queue| queue.live.contains(&cid));
                let Some(status) = self.aborts.filter(|_| found) else {
                    return (Status::SUCCESS, 1);
                };
                self.post(qid, &answer(cid, status, 0));
            }
            admin::DOORBELL_BUFFER_CONFIG => {
                let pages @ (values, events) = (sqe.prp1.get(), sqe.prp2.get());
                for page in [values, events] {
                    assert_eq!(page % (1 << self.page_shift()), 0);
                    self.memory().check((page, 4096), "shadow doorbells");
                }
                self.shadow = Some(pages);
            }
            _ => return self.answer_with_data(sqe),
        }
        (Status::SUCCESS, 0)
    }

    fn check_rings(&self, queue: &Queue) {
        for range @ (iova, _) in queue.rings() {
            assert_eq!(iova % (1 << self.page_shift()), 0, "a queue that begins inside a page");
            self.memory().check(range, "a queue");
        }
    }

    fn answer_with_data(&mut self, sqe: &Sqe) -> (Status, u32) {
        let dwords = (sqe.cdw11.get() & 0xffff) << 16 | sqe.cdw10.get() >> 16;
        let bytes = match sqe.opcode {
            admin::IDENTIFY => IDENTIFY_SIZE,
            admin::GET_LOG_PAGE => (dwords as usize + 1) * 4,
            _ => 0,
        };
        assert!(bytes <= MOST, "{bytes} bytes of a log page at once");
        let ranges: Vec<Range> = self.memory().data(sqe, bytes, self.page_shift());
        let mut data = vec![0; bytes];
        let (status, dw0) = (self.answers)(sqe, &mut data);
        self.memory().fill(&ranges, &data);
        (status, dw0)
    }
}
