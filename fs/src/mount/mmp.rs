//! Multi-mount protection, which detects a filesystem that is in use by another host.

use std::fmt;
use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Error;
use crate::error::PathName;
use crate::filesystem::Filesystem;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::IncompatFeatures;
use crate::format::time::Timestamp;

/// "MMP" after a zero byte.
const MAGIC: u32 = 0x004d_4d50;
/// Sequence number of a filesystem that is not in use.
const SEQUENCE_CLEAN: u32 = 0xff4d_4d50;
/// Sequence number while e2fsck checks the filesystem.
const SEQUENCE_FSCK: u32 = 0xe24d_4d50;

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

/// The host that uses the filesystem, according to the multi-mount protection block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmpHolder {
    /// Name of the host that last wrote the block.
    pub node: PathName,
    /// Name of the device on that host.
    pub device: PathName,
    /// Sequence number, which a live host increments.
    pub sequence: u32,
}

impl fmt::Display for MmpHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, device, sequence } = self;
        if *sequence == SEQUENCE_FSCK {
            write!(f, "e2fsck is running on host '{node}', device '{device}'")
        } else {
            write!(f, "in use by host '{node}', device '{device}' (sequence {sequence:#x})")
        }
    }
}

/// The fields of the multi-mount protection block.
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

/// Rejects a filesystem that another host has mounted, or had mounted when it crashed. It does not
/// wait to find out if that host is alive, because the filesystem is not safe to read in either
/// case.
pub(crate) fn check(fs: &Filesystem) -> Result<(), Error> {
    let Some(MmpFields { sequence, node, device, .. }) = read(fs)? else { return Ok(()) };
    if sequence == SEQUENCE_CLEAN {
        return Ok(());
    }
    Err(Error::InUse(Box::new(MmpHolder { node, device, sequence })))
}

/// Reads and checks the block, if the filesystem has one.
pub(crate) fn read(fs: &Filesystem) -> Result<Option<MmpFields>, Error> {
    let superblock = fs.superblock();
    if !superblock.has(IncompatFeatures::MMP) {
        return Ok(None);
    }
    let number = superblock.mmp_block;
    let corrupt = |problem| Structure::MmpBlock(number).corrupt(problem);
    if !superblock.is_data_range(number, 1) {
        return Err(corrupt(Problem::BlockRange { start: number, count: 1 }));
    }
    // Read from the device, because other hosts update the block.
    let block = fs.block_now(number)?;
    let Ok((raw, _)) = RawMmp::ref_from_prefix(&block) else {
        return Err(corrupt(Problem::Missing { logical: number }));
    };
    if raw.magic != MAGIC {
        return Err(corrupt(Problem::Magic { found: raw.magic.get(), expected: MAGIC }));
    }
    if superblock.has_metadata_csum() {
        let covered = block.get(..CHECKSUM_OFFSET).unwrap_or_default();
        let (stored, computed) = (raw.checksum.get(), crc32c(superblock.checksum_seed, covered));
        if stored != computed {
            return Err(corrupt(Problem::Checksum { stored, computed }));
        }
    }
    let name = |bytes: &[u8]| bytes.split(|&byte| byte == 0).next().unwrap_or_default().into();
    Ok(Some(MmpFields {
        magic: raw.magic.get(),
        check_interval: raw.interval.get(),
        sequence: raw.sequence.get(),
        time: Timestamp { seconds: raw.time.get().cast_signed(), nanoseconds: 0 },
        node: name(&raw.node),
        device: name(&raw.device),
    }))
}
