//! An image in memory with changed bytes.

use std::sync::Arc;

use nvio_ext4::{BlockSource, SourceError};

use super::seal::Patch;

/// Maximum length of a read by a filesystem, bytes.
const READ_MAX: usize = 256 << 10;

/// An image with changes. It panics on reads that a filesystem must not make.
#[derive(Clone)]
pub struct Changed {
    image: Arc<[u8]>,
    patches: Arc<[Patch]>,
}

impl Changed {
    pub fn new(image: &Arc<[u8]>, patches: Vec<Patch>) -> Self {
        Self { image: Arc::clone(image), patches: patches.into() }
    }

    /// Copies the changed bytes at `offset`.
    pub fn copy(&self, offset: usize, buf: &mut [u8]) {
        let end = offset + buf.len();
        buf.copy_from_slice(&self.image[offset..end]);
        for (at, bytes) in self.patches.iter() {
            let (from, to) = ((*at).max(offset), (at + bytes.len()).min(end));
            if from < to {
                buf[from - offset..to - offset].copy_from_slice(&bytes[from - at..to - at]);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.image.len()
    }
}

impl BlockSource for Changed {
    fn size(&self) -> u64 {
        self.image.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        assert!(buf.len() <= READ_MAX, "a read of {} bytes", buf.len());
        let end = offset.checked_add(buf.len() as u64);
        assert!(end.is_some_and(|end| end <= self.size()), "a read at {offset}, past the end");
        self.copy(offset as usize, buf);
        Ok(())
    }
}
