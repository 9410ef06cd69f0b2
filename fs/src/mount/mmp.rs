//! Multi-mount protection: is another host using the filesystem?

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

/// "MMP" with a zero byte in front.
const MAGIC: u32 = 0x004d_4d50;
/// Sequence number of a filesystem that nobody uses.
const SEQUENCE_CLEAN: u32 = 0xff4d_4d50;
/// Sequence number of a filesystem that e2fsck is working on.
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

/// Who has the filesystem, by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmpHolder {
    /// Name of the host that last wrote the block.
    pub node: PathName,
    /// Name of the device on that host.
    pub device: PathName,
    /// Sequence number, which the host counts up while it is alive.
    pub sequence: u32,
}

impl fmt::Display for MmpHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, device, sequence } = self;
        if *sequence == SEQUENCE_FSCK {
            write!(f, "e2fsck is at work, started on host '{node}', device '{device}'")
        } else {
            write!(f, "in use by host '{node}', device '{device}' (sequence {sequence:#x})")
        }
    }
}

/// The multi-mount protection block, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MmpFields {
    /// 0x4d4d50.
    pub magic: u32,
    /// Seconds between two looks of a host that wants to mount.
    pub check_interval: u16,
    /// Sequence number; 0xff4d4d50 if nobody uses the filesystem, 0xe24d4d50 if e2fsck does.
    pub sequence: u32,
    /// When it was last written.
    pub time: Timestamp,
    /// Name of the host that last wrote it.
    pub node: PathName,
    /// Name of the device on that host.
    pub device: PathName,
}

/// Refuses a filesystem that another host has mounted, or had when it crashed. The block is not
/// watched for whether that host is still alive: what it last wrote is not safe to read anyway.
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
    // Others write it: what is cached says nothing.
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
