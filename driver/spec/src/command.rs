//! The submission queue entry (Base 3.3.3.1).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::opcode::{admin, nvm};

/// A submission queue entry: one command, 64 bytes (Base 3.3.3.1, figure 87).
///
/// The data pointer is named `prp1`/`prp2`; with SGLs the same 16 bytes hold one descriptor
/// ([`Sqe::sgl`]).
///
/// # Examples
/// ```
/// use nvio_spec::namespace::FormatSettings;
/// use nvio_spec::protection::prinfo;
/// use nvio_spec::sgl::Descriptor;
/// use nvio_spec::{CopyRange, NSID_ALL, Sqe, cns, feature_id, log_id, opcode};
///
/// // Admin commands.
/// let identify = Sqe::identify(cns::CONTROLLER, 0);
/// assert_eq!((identify.opcode, identify.cdw10.get()), (opcode::admin::IDENTIFY, 1));
/// let admin = [
///     Sqe::create_io_cq(1, 64, 0x10000, Some(1)),
///     Sqe::create_io_sq(1, 64, 0x20000, 1),
///     Sqe::delete_io_sq(1),
///     Sqe::delete_io_cq(1),
///     Sqe::abort(1, 17),
///     Sqe::doorbell_buffer_config(0x30000, 0x31000),
///     Sqe::set_features(feature_id::VOLATILE_WRITE_CACHE, 1),
///     Sqe::get_features(feature_id::NUMBER_OF_QUEUES),
///     Sqe::get_log_page(log_id::HEALTH, NSID_ALL, 0, 128, true),
///     Sqe::format_nvm(1, FormatSettings::default()),
///     Sqe::create_namespace(),
///     Sqe::delete_namespace(2),
///     Sqe::attach_namespace(2),
///     Sqe::detach_namespace(2),
///     Sqe::new(opcode::admin::KEEP_ALIVE, 0),
/// ];
///
/// // Commands of the NVM command set.
/// let read = Sqe::read(1, 2048, 8);
/// assert_eq!((read.slba(), read.nlb()), (2048, 8));
/// let write = Sqe::write(1, 0, 8).with_prinfo(prinfo::PRACT).with_tags(100, 7, 0xffff);
/// assert_eq!((write.prinfo(), write.initial_ref_tag()), (prinfo::PRACT, 100));
/// assert_eq!((write.app_tag(), write.app_mask()), (7, 0xffff));
/// assert_eq!(CopyRange::new(0, 8).blocks(), 8);
/// let copy = Sqe::copy(1, 4096, 1).with_copy_read_prinfo(prinfo::PRCHK);
/// let others = [Sqe::flush(NSID_ALL), Sqe::deallocate(1, 1)];
///
/// // A data pointer that is an SGL.
/// let mut scattered = Sqe::read(1, 0, 8);
/// scattered.set_sgl(Descriptor::data_block(0x40000, 4096));
/// assert_eq!(scattered.sgl().length.get(), 4096);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sqe {
    /// CDW0 bits 7:0, the opcode.
    pub opcode: u8,
    /// CDW0 bits 15:8: FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// CDW0 bits 31:16, the command identifier.
    pub cid: U16,
    /// Namespace identifier.
    pub nsid: U32,
    /// Command specific.
    pub cdw2: U32,
    /// Command specific.
    pub cdw3: U32,
    /// Metadata pointer.
    pub mptr: U64,
    /// PRP entry 1.
    pub prp1: U64,
    /// PRP entry 2, or the address of a PRP list.
    pub prp2: U64,
    /// Command specific.
    pub cdw10: U32,
    /// Command specific.
    pub cdw11: U32,
    /// Command specific.
    pub cdw12: U32,
    /// Command specific.
    pub cdw13: U32,
    /// Command specific.
    pub cdw14: U32,
    /// Command specific.
    pub cdw15: U32,
}

const _: () = assert!(size_of::<Sqe>() == crate::SQE_SIZE);

/// Queue Priority of Create I/O Submission Queue (Base 5.5, QPRIO).
const MEDIUM_PRIORITY: u32 = 0b10;

impl Sqe {
    /// CDW12 bit 30 of Read and Write: force unit access (NVM 3.2.4, 3.2.6).
    pub const FUA: u32 = 1 << 30;

    /// Creates a command with an opcode and a namespace; all other fields are zero.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn new(opcode: u8, nsid: u32) -> Self {
        Self { opcode, nsid: U32::new(nsid), ..Self::default() }
    }

    /// Builds a Read of `blocks` logical blocks from `slba` (NVM 3.2.4); `blocks` is 1 to 65,536.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn read(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::block_io(nvm::READ, nsid, slba, blocks)
    }

    /// Builds a Write of `blocks` logical blocks at `slba` (NVM 3.2.6); `blocks` is 1 to 65,536.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn write(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::block_io(nvm::WRITE, nsid, slba, blocks)
    }

    /// Builds a Flush of one namespace, or of all with [`crate::NSID_ALL`] (Base 7.1).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn flush(nsid: u32) -> Self {
        Self::new(nvm::FLUSH, nsid)
    }

    #[inline]
    fn block_io(opcode: u8, nsid: u32, slba: u64, blocks: u32) -> Self {
        // NLB is a 0's based value.
        Self {
            cdw10: U32::new((slba & 0xffff_ffff) as u32),
            cdw11: U32::new((slba >> 32) as u32),
            cdw12: U32::new(blocks.wrapping_sub(1) & 0xffff),
            ..Self::new(opcode, nsid)
        }
    }

    /// Returns the starting LBA: CDW11:CDW10 of Read, Write, Compare and other commands on blocks.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn slba(&self) -> u64 {
        u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get())
    }

    /// Returns the number of logical blocks, 1 to 65,536 (CDW12 bits 15:0 hold it 0's based).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn nlb(&self) -> u32 {
        (self.cdw12.get() & 0xffff) + 1
    }

    /// Builds an Identify command (Base 5.17): `cns` is one of [`crate::cns`].
    ///
    /// See the [example](Self#examples).
    pub fn identify(cns: u8, nsid: u32) -> Self {
        Self { cdw10: U32::new(u32::from(cns)), ..Self::new(admin::IDENTIFY, nsid) }
    }

    /// Builds a Create I/O Completion Queue command (Base 5.4): physically contiguous, `entries` 2
    /// to 65,536. With `vector`, interrupts are enabled and use it.
    ///
    /// See the [example](Self#examples).
    pub fn create_io_cq(qid: u16, entries: u32, iova: u64, vector: Option<u16>) -> Self {
        let interrupt = vector.map_or(0, |v| u32::from(v) << 16 | 0b10);
        Self {
            prp1: U64::new(iova),
            cdw10: U32::new(entries.wrapping_sub(1) << 16 | u32::from(qid)),
            cdw11: U32::new(interrupt | 0b01),
            ..Self::new(admin::CREATE_IO_CQ, 0)
        }
    }

    /// Builds a Create I/O Submission Queue command (Base 5.5): physically contiguous, of
    /// medium priority, completions to queue `cqid`. With round robin arbitration the priority does
    /// not matter; some drives change to weighted round robin by themselves if a queue is urgent.
    ///
    /// See the [example](Self#examples).
    pub fn create_io_sq(qid: u16, entries: u32, iova: u64, cqid: u16) -> Self {
        Self {
            prp1: U64::new(iova),
            cdw10: U32::new(entries.wrapping_sub(1) << 16 | u32::from(qid)),
            cdw11: U32::new(u32::from(cqid) << 16 | MEDIUM_PRIORITY << 1 | 0b01),
            ..Self::new(admin::CREATE_IO_SQ, 0)
        }
    }

    /// Builds a Delete I/O Completion Queue command (Base 5.6).
    ///
    /// See the [example](Self#examples).
    pub fn delete_io_cq(qid: u16) -> Self {
        Self { cdw10: U32::new(u32::from(qid)), ..Self::new(admin::DELETE_IO_CQ, 0) }
    }

    /// Builds a Delete I/O Submission Queue command (Base 5.7).
    ///
    /// See the [example](Self#examples).
    pub fn delete_io_sq(qid: u16) -> Self {
        Self { cdw10: U32::new(u32::from(qid)), ..Self::new(admin::DELETE_IO_SQ, 0) }
    }

    /// Builds an Abort command (Base 5.1) for the command `cid` of submission queue `sqid`.
    ///
    /// See the [example](Self#examples).
    pub fn abort(sqid: u16, cid: u16) -> Self {
        Self {
            cdw10: U32::new(u32::from(cid) << 16 | u32::from(sqid)),
            ..Self::new(admin::ABORT, 0)
        }
    }

    /// Builds a Doorbell Buffer Config command (Base 5.8): a page for doorbells, and one for event
    /// indices.
    ///
    /// See the [example](Self#examples).
    pub fn doorbell_buffer_config(shadow: u64, event: u64) -> Self {
        Self {
            prp1: U64::new(shadow),
            prp2: U64::new(event),
            ..Self::new(admin::DOORBELL_BUFFER_CONFIG, 0)
        }
    }

    /// Builds a Set Features command (Base 5.27), whose value is not saved across resets.
    ///
    /// See the [example](Self#examples).
    pub fn set_features(feature: u8, cdw11: u32) -> Self {
        Self {
            cdw10: U32::new(u32::from(feature)),
            cdw11: U32::new(cdw11),
            ..Self::new(admin::SET_FEATURES, 0)
        }
    }

    /// Builds a Get Features command for the current value (Base 5.15).
    ///
    /// See the [example](Self#examples).
    pub fn get_features(feature: u8) -> Self {
        Self { cdw10: U32::new(u32::from(feature)), ..Self::new(admin::GET_FEATURES, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_encodes_a_64_bit_lba_and_a_zeroes_based_length() {
        let sqe = Sqe::read(7, 0x1_2345_6789, 65_536);
        assert_eq!(sqe.nsid.get(), 7);
        assert_eq!(sqe.cdw10.get(), 0x2345_6789);
        assert_eq!(sqe.cdw11.get(), 1);
        assert_eq!(sqe.cdw12.get(), 0xffff);
        assert_eq!((sqe.slba(), sqe.nlb()), (0x1_2345_6789, 65_536));
    }

    #[test]
    fn field_offsets_are_those_of_the_specification() {
        let mut sqe = Sqe::create_io_sq(3, 1024, 0x1122_3344_5566_7788, 5);
        sqe.cid = U16::new(0xabcd);
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[0], admin::CREATE_IO_SQ);
        assert_eq!(bytes[2..4], [0xcd, 0xab]);
        assert_eq!(bytes[24..32], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(bytes[40..44], (1023u32 << 16 | 3).to_le_bytes());
        assert_eq!(bytes[44..48], (5u32 << 16 | 0b101).to_le_bytes());
    }
}
