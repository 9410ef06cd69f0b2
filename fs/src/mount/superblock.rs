//! The superblock to use: the primary one, or a copy of it.

use zerocopy::{FromZeros, IntoBytes};

use crate::blocks::metadata::{read_raw_superblock, read_superblock};
use crate::blocks::read::read;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_SIZE};
use crate::format::superblock::Superblock;
use crate::format::superblock_copy::SuperblockCopy;
use crate::mount::options::Options;
use crate::number::{PhysicalBlock, as_u64};

/// Base-2 logarithms of the block sizes.
const LOG_BLOCK_SIZES: std::ops::RangeInclusive<u32> = 10..=16;
/// Groups that have copies, in the order of their probability: with `sparse_super2` group 1 and the
/// last one, else 1 and the powers of 3, 5 and 7.
const GROUPS: [u64; 9] = [1, 3, 5, 7, 9, 25, 27, 49, 81];
/// Clusters of `bigalloc`, in blocks, that are tried; the groups are as many times larger.
const CLUSTERS: [u64; 4] = [1, 16, 4, 8];
/// Maximum number of copies that are reported.
const COPIES_MAX: usize = 4;

/// Reads and checks the superblock that `options` selects.
pub(crate) fn chosen(source: &dyn BlockSource, options: &Options) -> Result<Superblock, Error> {
    match options.superblock {
        Some(_) => {
            let (raw, copy) = chosen_raw(source, options)?;
            match copy {
                Some(block) => Superblock::parse_copy(&raw, block),
                None => Superblock::parse(&raw),
            }
        }
        None => read_superblock(source).map_err(|error| with_copies(source, error)),
    }
}

/// Reads the superblock that `options` selects, unchecked, and its block if it is a copy.
pub(crate) fn chosen_raw(
    source: &dyn BlockSource,
    options: &Options,
) -> Result<(RawSuperblock, Option<PhysicalBlock>), Error> {
    let Some(block) = options.superblock else { return Ok((read_raw_superblock(source)?, None)) };
    let sizes = LOG_BLOCK_SIZES.map(|log| 1u32.wrapping_shl(log));
    let mut wrong = None;
    for size in sizes.filter(|&size| options.block_size.is_none_or(|chosen| chosen == size)) {
        // Block 0, or block 1 of 1 KiB, contains the primary superblock.
        if block == 0 || (block == 1 && size == 1024) {
            return Ok((read_raw_superblock(source)?, None));
        }
        match copy_at(source, block, size)? {
            Some((raw, Ok(_))) => return Ok((raw, Some(block.into()))),
            Some((_, Err(error))) => wrong = wrong.or(Some(error)),
            None => {}
        }
    }
    let none = || {
        let corrupt = Structure::Superblock.corrupt(Problem::NoSuperblock { block });
        with_copies(source, corrupt)
    };
    Err(wrong.unwrap_or_else(none))
}

/// Reads the copy of the superblock in block `block` of `size` bytes. Returns `None` if there is
/// none, or it has another block size.
#[expect(clippy::type_complexity, reason = "a result within a result")]
fn copy_at(
    source: &dyn BlockSource,
    block: u64,
    size: u32,
) -> Result<Option<(RawSuperblock, Result<Superblock, Error>)>, Error> {
    let offset = block.checked_mul(size.into());
    let fits = |offset: &u64| {
        offset.checked_add(as_u64(SUPERBLOCK_SIZE)).is_some_and(|end| end <= source.size())
    };
    let Some(offset) = offset.filter(fits) else { return Ok(None) };
    let mut raw = RawSuperblock::new_zeroed();
    read(source, offset, raw.as_mut_bytes())?;
    let is_copy = raw.magic == crate::format::superblock::MAGIC
        && 1024u32.checked_shl(raw.log_block_size.get()) == Some(size);
    let superblock = Superblock::parse_copy(&raw, block.into());
    Ok(is_copy.then_some((raw, superblock)))
}

/// Adds the places of copies to the error of a superblock that cannot be used.
pub(crate) fn with_copies(source: &dyn BlockSource, error: Error) -> Error {
    if !matches!(error, Error::NotExt4 { .. } | Error::Corrupt(_)) {
        return error;
    }
    let copies = copies(source);
    if copies.is_empty() {
        return error;
    }
    Error::BadSuperblock { error: Box::new(error), copies: copies.into() }
}

/// Searches for sound copies of the superblock in the usual places. Failures of the source count as
/// no copy.
pub(crate) fn copies(source: &dyn BlockSource) -> Vec<SuperblockCopy> {
    let mut found: Vec<SuperblockCopy> = Vec::new();
    // The primary superblock may still have the sizes, and its checksum or magic number be wrong.
    let stored = read_raw_superblock(source).ok().and_then(|raw| {
        let per_group = u64::from(raw.blocks_per_group.get());
        Some((1024u32.checked_shl(raw.log_block_size.get())?, per_group))
    });
    let sizes = || LOG_BLOCK_SIZES.map(|log| 1u32.wrapping_shl(log));
    let usual = CLUSTERS.into_iter().flat_map(|cluster| {
        sizes().map(move |size| (size, cluster.saturating_mul(8).saturating_mul(size.into())))
    });
    for (size, per_group) in stored.into_iter().chain(usual) {
        let Some(blocks) = source.size().checked_div(size.into()).filter(|_| per_group > 0) else {
            continue;
        };
        // Group 0 begins at block 1 if blocks have 1 KiB, and clusters are not larger.
        let firsts: &[u64] = if size == 1024 { &[1, 0] } else { &[0] };
        for &first in firsts {
            let last = blocks.saturating_sub(first).saturating_sub(1).checked_div(per_group);
            let groups = GROUPS.into_iter().chain(last.filter(|last| !GROUPS.contains(last)));
            for group in groups.filter(|&group| group > 0) {
                let Some(block) = group.checked_mul(per_group).and_then(|at| at.checked_add(first))
                else {
                    break;
                };
                let copy = SuperblockCopy { block, block_size: size };
                let is_sound = matches!(copy_at(source, block, size), Ok(Some((_, Ok(_)))));
                if is_sound && !found.contains(&copy) {
                    found.push(copy);
                }
                if found.len() >= COPIES_MAX {
                    return found;
                }
            }
        }
    }
    found
}
