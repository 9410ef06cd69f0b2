//! A queue that counts the commands that go through it.

use nvio_driver::DmaBuf;
use nvio_iomap::{Bio, BioDone, DiskQueue, Error, Queue, Refused};

/// A disk's queue and the number of read commands it has taken.
pub struct Counted {
    /// The queue.
    pub queue: DiskQueue,
    /// Commands since the queue was made.
    pub commands: u64,
}

impl Queue for Counted {
    fn block_shift(&self) -> u32 {
        self.queue.block_shift()
    }

    fn size(&self) -> u64 {
        self.queue.size()
    }

    fn max_transfer(&self) -> usize {
        self.queue.max_transfer()
    }

    fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        let taken = self.queue.submit(bio);
        self.commands += u64::from(taken.is_ok());
        taken
    }

    fn ring(&mut self) {
        self.queue.ring();
    }

    fn wait(&mut self, done: impl FnMut(BioDone)) -> Result<usize, Error> {
        self.queue.wait(done)
    }

    fn take_bounce(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.queue.take_bounce(bytes)
    }

    fn put_bounce(&mut self, buf: DmaBuf) {
        self.queue.put_bounce(buf);
    }
}
