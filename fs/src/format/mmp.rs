//! The multi-mount protection block.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::path_name::PathName;
use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::format::time::Timestamp;
use crate::number::PhysicalBlock;

/// "MMP" after a zero byte.
const MAGIC: u32 = 0x004d_4d50;
/// Sequence number of a filesystem that is not in use.
pub(crate) const SEQUENCE_CLEAN: u32 = 0xff4d_4d50;

/// Largest sequence number of a filesystem that is mounted.
pub(crate) const SEQUENCE_MAX: u32 = 0xe24d_4d4f;

/// `struct mmp_struct`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMmp {
    magic: U32,
    sequence: U32,
    time: U64,
    node: [u8; 64],
    device: [u8; 32],
    interval: U16,
    pad: U16,
    reserved: [U32; 226],
    checksum: U32,
}

const CHECKSUM_OFFSET: usize = offset_of!(RawMmp, checksum);
const _: () = assert!(size_of::<RawMmp>() == 1024 && CHECKSUM_OFFSET == 0x3fc);

/// The fields of the multi-mount protection block.
///
/// See the [example](crate::Inspection#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MmpFields {
    /// Magic number: 0x4d4d50.
    pub magic: u32,
    /// Seconds between two checks of the block by a host that wants to mount.
    pub check_interval: u16,
    /// Sequence number; 0xff4d4d50 if the filesystem is not in use, 0xe24d4d50 while e2fsck checks
    /// it.
    pub sequence: u32,
    /// Time of the last update.
    pub time: Timestamp,
    /// Name of the host that last wrote the block.
    pub node: PathName,
    /// Name of the device on that host.
    pub device: PathName,
}

impl MmpFields {
    /// Parses block `number` and verifies its checksum, if the filesystem has metadata checksums.
    pub(crate) fn parse(
        superblock: &Superblock,
        number: PhysicalBlock,
        block: &[u8],
    ) -> Result<Self, Problem> {
        let Ok((raw, _)) = RawMmp::ref_from_prefix(block) else {
            return Err(Problem::Missing { logical: number.into() });
        };
        Problem::verify_magic(raw.magic, MAGIC)?;
        if superblock.has_metadata_csum() {
            let covered = block.get(..CHECKSUM_OFFSET).unwrap_or_default();
            let computed = crc32c(superblock.checksum_seed, covered);
            Problem::verify_checksum(raw.checksum.get(), computed)?;
        }
        let name = |bytes: &[u8]| bytes.split(|&byte| byte == 0).next().unwrap_or_default().into();
        Ok(Self {
            magic: raw.magic.get(),
            check_interval: raw.interval.get(),
            sequence: raw.sequence.get(),
            time: Timestamp { seconds: raw.time.get().cast_signed(), nanoseconds: 0 },
            node: name(&raw.node),
            device: name(&raw.device),
        })
    }

    /// Changes a block: its sequence number, its time, the interval of checks, and the names of the host
    /// and of the device. The rest stays as it is.
    pub(crate) fn update(
        superblock: &Superblock,
        block: &mut [u8],
        (sequence, time, check_interval): (u32, Timestamp, u16),
        (node, device): (&[u8], &[u8]),
    ) {
        let Ok((raw, _)) = RawMmp::mut_from_prefix(block) else { return };
        raw.sequence.set(sequence);
        raw.time.set(time.seconds.cast_unsigned());
        raw.interval.set(check_interval);
        set_name(&mut raw.node, node);
        set_name(&mut raw.device, device);
        if superblock.has_metadata_csum() {
            let covered = raw.as_bytes().get(..CHECKSUM_OFFSET).unwrap_or_default();
            raw.checksum.set(crc32c(superblock.checksum_seed, covered));
        }
    }
}

/// Sets a name, which ends with a zero byte and is cut if it is too long.
fn set_name(to: &mut [u8], name: &[u8]) {
    to.fill(0);
    let last = to.len().saturating_sub(1);
    to.iter_mut().zip(name.iter().take(last)).for_each(|(to, from)| *to = *from);
}
