//! The first error of a session, which the superblock on the device records.
//!
//! The record is written in place, because the transaction in memory may be part of the problem. Images of the
//! superblock in transactions do not have it, so that it is added when they are written home. The kernel and
//! e2fsck keep it during a replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::FromBytes;

use crate::blocks::block_cache::Block;
use crate::blocks::device::WriteRange;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::error_fields;
use crate::format::error_fields::ErrorFields;
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock;
use crate::format::superblock_seal::seal;
use crate::journal::sink::Sink;
use crate::number::{PhysicalBlock, as_usize};

/// Whether an error may be, and was, recorded. Calls that write need the log, so that no checkpoint writes
/// the superblock meanwhile.
#[derive(Default)]
pub(super) struct Errors {
    /// The filesystem is open for changes, and no longer being recovered.
    is_started: AtomicBool,
    is_recorded: AtomicBool,
}

impl Errors {
    pub(super) fn start(&self) {
        self.is_started.store(true, Ordering::Release);
    }

    /// Returns true if an error is to be recorded.
    pub(super) fn are_wanted(&self) -> bool {
        self.is_started.load(Ordering::Acquire) && !self.is_recorded.load(Ordering::Acquire)
    }

    /// Records an error on the device, durably, if it is the first one.
    pub(super) fn record(
        &self,
        fs: &Filesystem,
        sink: &Sink,
        fields: &ErrorFields,
    ) -> Result<(), Error> {
        if !self.are_wanted() || self.is_recorded.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // A sector at a time, so that a torn write leaves a superblock with a right checksum.
        edit(fs, sink, |raw| fields.store(raw))?;
        edit(fs, sink, |raw| fields.store_code(raw))
    }

    /// Adds the error that was recorded to an image of the superblock that is written to its place.
    pub(super) fn keep(
        &self,
        fs: &Filesystem,
        number: PhysicalBlock,
        block: &mut Block,
    ) -> Result<(), Error> {
        let is_superblock = number == fs.superblock().superblock_block();
        if !is_superblock || !self.is_recorded.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut now = fs.metadata().block_now(number)?;
        let before = raw_mut(fs, &mut now)?;
        let after = raw_mut(fs, Arc::make_mut(block))?;
        error_fields::keep(before, after);
        seal(before, after);
        Ok(())
    }
}

/// Changes the superblock on the device.
fn edit(
    fs: &Filesystem,
    sink: &Sink,
    change: impl FnOnce(&mut RawSuperblock),
) -> Result<(), Error> {
    let number = fs.superblock().superblock_block();
    let mut block = fs.metadata().block_now(number)?;
    let raw = raw_mut(fs, &mut block)?;
    superblock::verify(raw)?;
    let before = raw.clone();
    change(raw);
    seal(&before, raw);
    let offset = fs.superblock().address(number);
    sink.write(&[WriteRange { offset, bytes: &block }], true)?;
    // Newer contents, in a transaction, are found first.
    fs.metadata().replace(number, block.into());
    Ok(())
}

/// Returns the superblock in its block.
fn raw_mut<'b>(fs: &Filesystem, block: &'b mut [u8]) -> Result<&'b mut RawSuperblock, Error> {
    let number = fs.superblock().superblock_block();
    let offset = as_usize(SUPERBLOCK_OFFSET.saturating_sub(fs.superblock().address(number)));
    let raw = block.get_mut(offset..).and_then(|bytes| RawSuperblock::mut_from_prefix(bytes).ok());
    let missing = || Structure::Superblock.corrupt(Problem::Missing { logical: number.into() });
    raw.map(|(raw, _)| raw).ok_or_else(missing)
}
