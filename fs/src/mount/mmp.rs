//! Multi-mount protection, which detects a filesystem that is in use by another host.

use crate::error::Error;
use crate::error::reasons::MmpHolder;
use crate::filesystem::Filesystem;
use crate::format::corrupt::Structure;
use crate::format::features::IncompatFeatures;
use crate::format::mmp::{MmpFields, SEQUENCE_CLEAN};

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
    superblock.data_blocks(number, 1u32).map_err(corrupt)?;
    // Read from the device, because other hosts update the block.
    let block = fs.metadata().block_now(number)?;
    MmpFields::parse(superblock, number, &block).map(Some).map_err(corrupt)
}
