//! The future of one request.

use std::task::{Context, Poll, Waker};

use super::AsyncFileQueue;
use super::permits::{Checked, Left, Turn};
use crate::contract::io_args::{Done, Failed, Memory, Rejected};
use crate::contract::open_file::OpenFile;
use crate::device::bio::Queue;
use crate::error::{Error, FileError};
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;

/// Submits a request when there is room for it, and gives what it ended with.
///
/// Dropped before that, it leaves a request that was submitted to itself: its memory stays with the
/// queue until it has ended.
pub(super) struct Request<'q, Q: Queue<Tag<I>>, I: OpenFile, S> {
    queue: &'q AsyncFileQueue<Q, I>,
    submit: S,
    /// Whether it may not wait for room.
    nowait: bool,
    step: Step,
}

enum Step {
    Begin(Memory),
    Waiting(Memory, Turn),
    /// With a permit and an entry, but the queue had no room.
    Stalled(Memory, u32),
    InFlight(u32),
    Over,
}

/// The memory with the number of bytes.
type Output<E> = Result<(Memory, usize), Failed<E>>;

impl<'q, Q: Queue<Tag<I>>, I: OpenFile, S> Request<'q, Q, I, S>
where
    S: FnMut(&mut FileQueue<Q, I>, u64, Memory) -> Result<(), Rejected<I::Error>>,
{
    pub(super) fn new(
        queue: &'q AsyncFileQueue<Q, I>,
        memory: Memory,
        nowait: bool,
        submit: S,
    ) -> Self {
        Self { queue, submit, nowait, step: Step::Begin(memory) }
    }

    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Output<I::Error>> {
        let waker = context.waker();
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Begin(memory) => self.begin(memory, waker),
            Step::Waiting(memory, turn) => {
                // The borrow ends before what comes back is dropped, which can run any code.
                let checked = self.queue.state().permits.check(turn, waker);
                match checked {
                    Checked::Granted => self.enter(memory, waker),
                    Checked::Waiting(turn, _old) => {
                        self.step = Step::Waiting(memory, turn);
                        Poll::Pending
                    }
                }
            }
            Step::Stalled(memory, at) => self.submit(memory, at, waker),
            Step::InFlight(at) => {
                let taken = self.queue.state().table.take(at, waker);
                match taken {
                    Ok(done) => {
                        self.queue.give_permit();
                        Poll::Ready(output(done))
                    }
                    Err(_old) => {
                        self.step = Step::InFlight(at);
                        Poll::Pending
                    }
                }
            }
            Step::Over => Poll::Pending,
        }
    }

    fn begin(&mut self, memory: Memory, waker: &Waker) -> Poll<Output<I::Error>> {
        if self.queue.state().permits.try_take() {
            return self.enter(memory, waker);
        }
        let joined = match self.nowait {
            true => Err(Waker::noop().clone()),
            false => self.queue.state().permits.join(waker.clone()),
        };
        match joined {
            Ok(turn) => {
                self.step = Step::Waiting(memory, turn);
                Poll::Pending
            }
            Err(_waker) => busy(memory),
        }
    }

    /// With a permit.
    fn enter(&mut self, memory: Memory, waker: &Waker) -> Poll<Output<I::Error>> {
        let inserted = self.queue.state().table.insert();
        match inserted {
            Some(at) => self.submit(memory, at, waker),
            // There are as many entries as permits.
            None => {
                self.queue.give_permit();
                busy(memory)
            }
        }
    }

    /// With a permit and an entry.
    fn submit(&mut self, memory: Memory, at: u32, waker: &Waker) -> Poll<Output<I::Error>> {
        let old = self.queue.state().table.launch(at, waker.clone());
        drop(old);
        let submitted = match self.queue.0.queue.try_borrow_mut() {
            Ok(mut queue) => (self.submit)(&mut queue, u64::from(at), memory),
            // From inside of the filesystem.
            Err(_) => Err(Rejected { error: Error::Busy.into(), payload: memory }),
        };
        let Err(Rejected { error, payload: memory }) = submitted else {
            self.step = Step::InFlight(at);
            return Poll::Pending;
        };
        let mut state = self.queue.state();
        state.table.stall(at);
        // Something must be in flight for there to be room later.
        if error.is_busy() && !self.nowait && state.table.in_flight() > 0 {
            drop(state);
            self.step = Step::Stalled(memory, at);
            return Poll::Pending;
        }
        drop(state);
        self.queue.abandon(at);
        Poll::Ready(Err(Failed { error, payload: Some(memory) }))
    }
}

fn busy<E: FileError>(memory: Memory) -> Poll<Output<E>> {
    Poll::Ready(Err(Failed { error: Error::Busy.into(), payload: Some(memory) }))
}

fn output<E: FileError>(done: Done<E>) -> Output<E> {
    match done {
        Done { result: Ok(n), memory: Some(memory), .. } => Ok((memory, n)),
        Done { result: Ok(length), memory: None, .. } => {
            Err(Failed { error: Error::LostBuffer { length }.into(), payload: None })
        }
        Done { result: Err(error), memory, .. } => Err(Failed { error, payload: memory }),
    }
}

impl<Q: Queue<Tag<I>>, I: OpenFile, S> Drop for Request<'_, Q, I, S> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Waiting(_memory, turn) => {
                let Left { next, own } = self.queue.state().permits.leave(turn);
                drop(own);
                next.into_iter().for_each(Waker::wake);
            }
            Step::Stalled(_, at) | Step::InFlight(at) => self.queue.abandon(at),
            Step::Begin(..) | Step::Over => {}
        }
    }
}
