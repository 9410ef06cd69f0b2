//! Namespaces: the block devices of a controller.

use std::sync::Arc;

use nvio_spec::IdentifyNamespace;

use crate::{Error, Result};

/// An active namespace, as it was when it was identified. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    nsid: u32,
    block_shift: u32,
    /// Bytes of a block less one.
    block_mask: usize,
    blocks: u64,
    /// Most blocks of one command.
    max_blocks: usize,
    identify: Arc<IdentifyNamespace>,
}

impl Namespace {
    /// Checks what the controller said of a namespace. `max_transfer` is the controller's limit.
    pub(crate) fn new(nsid: u32, identify: IdentifyNamespace, max_transfer: usize) -> Result<Self> {
        let blocks = identify.nsze.get();
        if blocks == 0 {
            return Err(Error::NoNamespace { nsid });
        }
        let invalid =
            |field, value| Error::Invalid { structure: "Identify Namespace", field, value };
        if identify.format_index() > usize::from(identify.nlbaf.min(63)) {
            return Err(invalid("FLBAS", u64::from(identify.flbas)));
        }
        let format = identify.format();
        let block_shift = u32::from(format.lbads);
        // NVM 4.1.5.1: LBADS below 9 is not allowed. 64 KiB is the most that drives are made with.
        if !(9..=16).contains(&block_shift) {
            return Err(invalid("LBADS", u64::from(format.lbads)));
        }
        if blocks > u64::MAX >> block_shift {
            return Err(invalid("NSZE", blocks));
        }
        if format.ms.get() != 0 {
            return Err(Error::Unsupported {
                what: "a namespace with metadata",
                detail: format!("namespace {nsid} has {} bytes for each block", format.ms),
            });
        }
        let max_blocks = (max_transfer >> block_shift).min(1 << 16);
        if max_blocks == 0 {
            return Err(invalid(
                "LBADS, with blocks above the largest transfer,",
                block_shift.into(),
            ));
        }
        let block_mask = (1 << block_shift) - 1;
        Ok(Self { nsid, block_shift, block_mask, blocks, max_blocks, identify: Arc::new(identify) })
    }

    /// Namespace ID.
    #[inline]
    pub fn id(&self) -> u32 {
        self.nsid
    }

    /// Logical blocks.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes in a logical block, 512 to 65,536.
    #[inline]
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Bytes in a logical block, as a power of two, 9 to 16.
    #[inline]
    pub fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Most bytes of one command: what the controller (MDTS) and a PRP list allow, a multiple of
    /// the block size.
    #[inline]
    pub fn max_transfer(&self) -> usize {
        self.max_blocks << self.block_shift
    }

    /// All that the controller said (NVM 4.1.5.1).
    pub fn identify(&self) -> &IdentifyNamespace {
        &self.identify
    }

    /// How many blocks `bytes` at `lba` are, if one command can carry them.
    #[inline]
    pub(crate) fn check(&self, lba: u64, bytes: usize) -> Option<u32> {
        let blocks = bytes >> self.block_shift;
        let aligned = bytes & self.block_mask == 0;
        let fits = blocks.wrapping_sub(1) < self.max_blocks;
        let inside = lba <= self.blocks && blocks as u64 <= self.blocks - lba;
        #[expect(clippy::cast_possible_truncation, reason = "at most 65,536")]
        let blocks = blocks as u32;
        (aligned & fits & inside).then_some(blocks)
    }

    /// Why [`check`](Self::check) said no.
    #[cold]
    pub(crate) fn refuse(&self, lba: u64, bytes: usize) -> Error {
        let block = u64::from(self.block_size());
        if !(bytes as u64).is_multiple_of(block) {
            return Error::Misaligned { value: bytes as u64, align: block };
        }
        if bytes == 0 || bytes > self.max_transfer() {
            return Error::TransferSize { bytes, max: self.max_transfer() };
        }
        let blocks = bytes as u64 / block;
        Error::OutOfRange { lba, blocks, size: self.blocks, nsid: self.nsid }
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Namespace {} ({} blocks of {})", self.nsid, self.blocks, self.block_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_spec::LbaFormat;
    use zerocopy::FromZeros;
    use zerocopy::little_endian::{U16, U64};

    fn identify(blocks: u64, lbads: u8, ms: u16) -> IdentifyNamespace {
        let mut identify = IdentifyNamespace::new_zeroed();
        identify.nsze = U64::new(blocks);
        identify.lbaf[0] = LbaFormat { ms: U16::new(ms), lbads, rp: 0 };
        identify
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let refused = |identify| Namespace::new(1, identify, 1 << 20).unwrap_err().to_string();
        assert!(refused(identify(0, 9, 0)).contains("not active"));
        assert!(refused(identify(1, 8, 0)).contains("LBADS"));
        assert!(refused(identify(1, 200, 0)).contains("LBADS"));
        assert!(refused(identify(u64::MAX, 12, 0)).contains("NSZE"));
        assert!(refused(identify(1, 12, 8)).contains("metadata"));
        let mut index = identify(1, 9, 0);
        index.flbas = 3;
        assert!(refused(index).contains("FLBAS"));
    }

    #[test]
    fn only_what_one_command_can_carry_passes() {
        let namespace = Namespace::new(1, identify(100, 12, 0), 64 << 10).unwrap();
        assert_eq!((namespace.bytes(), namespace.max_transfer()), (409_600, 65_536));
        assert_eq!(namespace.check(99, 4096), Some(1));
        assert_eq!(namespace.check(84, 65_536), Some(16));
        let refused = |lba, bytes| {
            assert_eq!(namespace.check(lba, bytes), None);
            namespace.refuse(lba, bytes)
        };
        assert!(matches!(refused(0, 0), Error::TransferSize { .. }));
        assert!(matches!(refused(0, 69_632), Error::TransferSize { .. }));
        assert!(matches!(refused(0, 512), Error::Misaligned { .. }));
        assert!(matches!(refused(100, 4096), Error::OutOfRange { .. }));
        assert!(matches!(refused(85, 65_536), Error::OutOfRange { .. }));
        assert!(matches!(refused(u64::MAX, 4096), Error::OutOfRange { .. }));
    }
}
