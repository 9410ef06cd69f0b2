//! Doubles for the tests: a mapper that follows a script, and a queue over a byte array.

use std::collections::VecDeque;

use nvio_driver::spec::Status;
use nvio_driver::{Arena, DmaBuf};

use crate::{Bio, BioDone, Error, Mapper, Mapping, Op, Queue, Refused};

/// Which part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fail {
    #[error("begin")]
    Begin,
    #[error("end")]
    End,
    #[error("iomap")]
    Iomap,
}

impl From<Error> for Fail {
    fn from(_: Error) -> Self {
        Self::Iomap
    }
}

/// Gives prepared mappings in turn, then fails; counts that each `begin` meets one `end`.
pub(crate) struct Script {
    mappings: VecDeque<Mapping>,
    begins: usize,
    ends: Vec<u64>,
    failing_end: Option<usize>,
    /// Inline data, as a whole.
    pub(crate) inline: Vec<u8>,
}

impl Script {
    pub(crate) fn new(mappings: impl Into<VecDeque<Mapping>>) -> Self {
        let mappings = mappings.into();
        Self { mappings, begins: 0, ends: Vec::new(), failing_end: None, inline: Vec::new() }
    }

    pub(crate) fn fail_end(&mut self, index: usize) {
        self.failing_end = Some(index);
    }

    pub(crate) fn begins(&self) -> usize {
        self.begins
    }

    pub(crate) fn ends(&self) -> &[u64] {
        &self.ends
    }

    pub(crate) fn assert_balanced(&self) {
        assert_eq!(self.begins, self.ends.len(), "one end for each begin");
    }
}

impl Mapper for Script {
    type Error = Fail;

    fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Fail> {
        self.assert_balanced();
        let mapping = self.mappings.pop_front().ok_or(Fail::Begin)?;
        self.begins += 1;
        Ok(mapping)
    }

    fn end(&mut self, _: &Mapping, _: u64, _: u64, processed: u64, _: Op) -> Result<(), Fail> {
        let failing = self.failing_end == Some(self.ends.len());
        self.ends.push(processed);
        if failing { Err(Fail::End) } else { Ok(()) }
    }

    fn read_inline(&mut self, _: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Fail> {
        let at = usize::try_from(pos).unwrap();
        out.copy_from_slice(&self.inline[at..at + out.len()]);
        Ok(())
    }
}

/// A device of bytes whose block is 512. Completions come in reverse order.
pub(crate) struct MockQueue {
    pub(crate) device: Vec<u8>,
    pub(crate) max_transfer: usize,
    /// A boundary that bios do not cross, in bytes; 0 for none.
    pub(crate) boundary: u64,
    pub(crate) depth: usize,
    /// Bios submitted so far, by address and length.
    pub(crate) log: Vec<(u64, usize)>,
    /// Numbers of bios that fail on the device.
    pub(crate) failing: Vec<usize>,
    /// Whether waiting fails: the device is dead.
    pub(crate) dead: bool,
    arena: Arena,
    in_flight: Vec<(usize, Bio)>,
}

impl MockQueue {
    pub(crate) const BLOCK: usize = 512;

    pub(crate) fn new(blocks: usize) -> Self {
        let device = (0..blocks * Self::BLOCK).map(|i| (i / 7 % 251) as u8 + 1).collect();
        Self {
            device,
            max_transfer: 4 * Self::BLOCK,
            boundary: 0,
            depth: 3,
            log: Vec::new(),
            failing: Vec::new(),
            dead: false,
            arena: Arena::detached(4 << 20).unwrap(),
            in_flight: Vec::new(),
        }
    }

    pub(crate) fn alloc(&self, bytes: usize) -> DmaBuf {
        let mut buf = self.arena.alloc(bytes).unwrap();
        buf.fill(0xee);
        buf
    }
}

impl Queue for MockQueue {
    fn block_shift(&self) -> u32 {
        Self::BLOCK.ilog2()
    }

    fn size(&self) -> u64 {
        self.device.len() as u64
    }

    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    fn max_transfer_at(&self, addr: u64) -> usize {
        let room = addr.checked_rem(self.boundary).map_or(u64::MAX, |at| self.boundary - at);
        usize::try_from(room).unwrap_or(usize::MAX).min(self.max_transfer)
    }

    fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        if self.in_flight.len() == self.depth {
            return Err(Refused { error: Error::Busy, bio });
        }
        assert!(bio.addr.is_multiple_of(512) && bio.buf.len().is_multiple_of(512), "blocks only");
        assert!((1..=self.max_transfer).contains(&bio.buf.len()));
        if bio.addr.checked_add(bio.buf.len() as u64).is_none_or(|end| end > self.size()) {
            let (addr, length, size) = (bio.addr, bio.buf.len() as u64, self.size());
            return Err(Refused { error: Error::OutsideDisk { addr, length, size }, bio });
        }
        let number = self.log.len();
        self.log.push((bio.addr, bio.buf.len()));
        self.in_flight.push((number, bio));
        Ok(())
    }

    fn ring(&mut self) {}

    fn wait(&mut self, mut done: impl FnMut(BioDone)) -> Result<usize, Error> {
        if self.dead {
            return Err(Error::Driver(nvio_driver::Error::Gone));
        }
        let Some((number, Bio { addr, mut buf })) = self.in_flight.pop() else { return Ok(0) };
        let at = usize::try_from(addr).unwrap();
        let length = buf.len();
        let mut result = Ok(());
        if self.failing.contains(&number) {
            buf.fill(0xbb);
            result = Err(Error::Read { addr, length, status: Status::media(0x81) });
        } else {
            buf.copy_from_slice(&self.device[at..at + length]);
        }
        done(BioDone { addr, buf, result });
        Ok(1)
    }

    fn take_bounce(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.arena.alloc(bytes)?)
    }

    fn put_bounce(&mut self, _buf: DmaBuf) {}
}
