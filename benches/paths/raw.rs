//! Reads of a namespace, which the other paths are compared with.

use nvio_driver::{Completion, DmaBuf, Handler, Namespace, QueuePair, WritableNamespace};

use crate::Result;
use crate::drive::COPY_DEPTH;
use crate::image::Target;
use crate::load::{Back, LIMIT, Path};

pub(crate) struct Raw<'r> {
    pub(crate) pair: &'r mut QueuePair<()>,
    pub(crate) namespace: &'r Namespace,
}

impl Path for Raw<'_> {
    #[inline]
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()> {
        match self.pair.read(self.namespace, target.lba, buf, ()) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(rejected.error.into()),
        }
    }

    #[inline]
    fn ring(&mut self) {
        self.pair.ring();
    }

    #[inline]
    fn poll(&mut self, back: &mut Back) -> usize {
        self.pair.poll_with(LIMIT, &mut Takes(back))
    }
}

struct Takes<'b>(&'b mut Back);

impl Handler<Completion<()>> for Takes<'_> {
    #[inline(always)]
    fn completed(&mut self, completion: Completion<()>) {
        match completion.status.is_success() {
            true => self.0.put(completion.buf),
            false => self.0.fail(&completion.status),
        }
    }
}

/// Reads or writes of a namespace with the simplest possible copy by the caller.
pub(crate) struct Copied<'r> {
    pub(crate) pair: &'r mut QueuePair<()>,
    pub(crate) namespace: &'r WritableNamespace,
    pub(crate) plain: &'r mut Plain,
    pub(crate) write: bool,
}

/// Ordinary memory, as much as all requests need.
pub(crate) struct Plain {
    bytes: Vec<u8>,
    next: usize,
}

impl Plain {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: vec![1; bytes], next: 0 }
    }

    /// Returns the next `length` bytes of a ring of `depth` such pieces.
    fn next(&mut self, length: usize, depth: usize) -> Option<&mut [u8]> {
        let start = if self.next + length > length * depth { 0 } else { self.next };
        self.next = start + length;
        self.bytes.get_mut(start..start + length)
    }
}

impl Path for Copied<'_> {
    fn submit(&mut self, target: Target, mut buf: DmaBuf) -> Result<()> {
        let queued = if self.write {
            let plain = self.plain.next(buf.len(), COPY_DEPTH).ok_or("too long to be copied")?;
            buf.copy_from_slice(plain);
            self.pair.write(self.namespace, target.lba, buf, ())
        } else {
            self.pair.read(self.namespace, target.lba, buf, ())
        };
        queued.map_err(|rejected| rejected.error.into())
    }

    fn ring(&mut self) {
        self.pair.ring();
    }

    fn poll(&mut self, back: &mut Back) -> usize {
        let Self { pair, plain, write, .. } = self;
        pair.poll(LIMIT, |completion| {
            let buf = &completion.buf;
            if !*write && let Some(plain) = plain.next(buf.len(), COPY_DEPTH) {
                plain.copy_from_slice(buf);
            }
            Takes(back).completed(completion);
        })
    }
}
