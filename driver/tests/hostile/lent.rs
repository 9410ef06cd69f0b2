//! The memory of a command, and its expected submission queue entry.

use nvio_driver::spec::Sqe;
use nvio_driver::{DmaBuf, ScatterList};

use super::device::Device;
use super::memory::{Range, join};

/// The memory that a command holds, which its completion returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lent {
    Nothing,
    Buf(Range),
    ScatterList(Vec<Range>, Option<Range>),
}

fn range(buf: &DmaBuf) -> Range {
    (buf.iova(), buf.len())
}

impl Lent {
    pub fn of(buf: &DmaBuf) -> Self {
        Self::Buf(range(buf))
    }

    pub fn of_parts(parts: &ScatterList) -> Self {
        Self::ScatterList(parts.data().iter().map(range).collect(), parts.metadata().map(range))
    }

    /// Returns the ranges of the first `bytes` of the data.
    fn data(&self, bytes: usize) -> Vec<Range> {
        let mut data = match self {
            Self::Nothing => vec![],
            Self::Buf(range) => vec![*range],
            Self::ScatterList(data, _) => data.clone(),
        };
        let mut left = bytes;
        for range in &mut data {
            range.1 = range.1.min(left);
            left -= range.1;
        }
        join(&mut data);
        data
    }

    fn metadata(&self) -> Option<Range> {
        match self {
            Self::ScatterList(_, metadata) => *metadata,
            _ => None,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = Range> {
        self.data(usize::MAX).into_iter().chain(self.metadata())
    }
}

/// The expected submission queue entry of a command.
#[derive(Debug)]
pub struct Wanted {
    pub opcode: u8,
    pub lba: u64,
    /// CDW12 bits 15:0.
    pub count: u32,
    /// Bytes of data that the controller transfers.
    pub bytes: usize,
    /// Bytes of metadata that the controller transfers.
    pub metadata: usize,
}

impl Wanted {
    /// Checks the entry of a command that holds `lent`.
    pub fn check(&self, sqe: &Sqe, lent: &Lent, device: &Device) {
        assert_eq!((sqe.opcode, sqe.nsid.get()), (self.opcode, 1), "{self:?}");
        assert_eq!((sqe.slba(), sqe.cdw12.get() & 0xffff), (self.lba, self.count), "{self:?}");
        let data = device.memory().data(sqe, self.bytes, device.page_shift());
        assert_eq!(data, lent.data(self.bytes), "{self:?}");
        if self.metadata > 0 {
            let (iova, bytes) = lent.metadata().unwrap();
            assert_eq!(sqe.mptr.get(), iova);
            assert!(bytes >= self.metadata, "{bytes} bytes of metadata for {}", self.metadata);
        }
    }
}
