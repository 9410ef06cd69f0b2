//! What a command is given, and what it must look like to the controller.

use nvio_driver::spec::Sqe;
use nvio_driver::{DmaBuf, ScatterList};

use super::device::Device;
use super::memory::{Range, join};

/// What a command was given, to be given back.
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

    /// The data, as a controller sees the first `bytes` of it.
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

/// What a command must look like to the controller.
#[derive(Debug)]
pub struct Wanted {
    pub opcode: u8,
    pub lba: u64,
    /// CDW12 bits 15:0.
    pub count: u32,
    /// Bytes of data that the controller transfers.
    pub bytes: usize,
    /// Bytes of metadata that it transfers beside them.
    pub metadata: usize,
}

impl Wanted {
    /// Looks at what was made of a command that was given `lent`.
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
