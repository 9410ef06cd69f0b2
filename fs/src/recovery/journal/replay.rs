//! The second and the third pass: collecting revokes, and finding the newest copies.

use std::collections::HashMap;

use crate::blocks::overlay::Copy;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::number::PhysicalBlock;
use crate::recovery::journal::block;
use crate::recovery::journal::block::Kind;
use crate::recovery::journal::log::{Log, Walk};
use crate::recovery::journal::revoke::Revoked;
use crate::recovery::journal::superblock::JournalSuperblock;
use crate::recovery::journal::tag::{Tag, Tags};
use crate::recovery::journal::tail;

/// The result of the third pass.
#[derive(Default)]
pub(crate) struct Replay {
    /// Newest copy of each block.
    pub copies: HashMap<PhysicalBlock, Copy>,
    /// Number of copies in the log that are revoked.
    pub revoked: u64,
}

/// Collects the revoke records of the transactions before `end`.
pub(crate) fn revoked(
    log: &mut Log,
    superblock: &JournalSuperblock,
    start: u32,
    end: u32,
) -> Result<Revoked, Error> {
    let mut revoked = Revoked::default();
    each(log, superblock, (start, end), |kind, _, bytes| {
        if kind == Kind::Descriptor {
            Tags::new(superblock, bytes).for_each(|tag| revoked.expect(tag.block));
        }
        Ok(())
    })?;
    each(log, superblock, (start, end), |kind, sequence, bytes| match kind {
        Kind::Revoke => revoked.add(superblock, sequence, bytes),
        _ => Ok(()),
    })?;
    Ok(revoked)
}

/// Calls `visit` for each block of the transactions before `end`, except for data blocks.
fn each(
    log: &mut Log,
    superblock: &JournalSuperblock,
    (start, end): (u32, u32),
    mut visit: impl FnMut(Kind, u32, &[u8]) -> Result<(), Problem>,
) -> Result<(), Error> {
    let mut walk = Walk::new(log, superblock, start);
    let mut sequence = superblock.sequence;
    while sequence != end {
        let number = walk.at();
        let corrupt = |problem| Structure::JournalBlock(number).corrupt(problem);
        let bytes = walk.block()?;
        let Some(kind) = block::kind(bytes, sequence) else {
            return Err(corrupt(Problem::Missing { logical: number.into() }));
        };
        visit(kind, sequence, bytes).map_err(corrupt)?;
        let mut blocks = 1u32;
        match kind {
            Kind::Descriptor => {
                let data = Tags::new(superblock, bytes).count_blocks();
                blocks = blocks.saturating_add(data);
            }
            Kind::Commit => sequence = sequence.wrapping_add(1),
            Kind::Revoke => {}
        }
        walk.pass(blocks)?;
    }
    Ok(())
}

/// Finds the newest copy of each block in the transactions before `end`.
pub(crate) fn replay(
    fs: &Filesystem,
    log: &mut Log,
    superblock: &JournalSuperblock,
    (start, end): (u32, u32),
    revoked: &Revoked,
) -> Result<Replay, Error> {
    let mut pass = Pass { fs, superblock, revoked, found: Replay::default() };
    let mut walk = Walk::new(log, superblock, start);
    let mut sequence = superblock.sequence;
    let mut tags = Vec::new();
    while sequence != end {
        let number = walk.at();
        let corrupt = |problem| Structure::JournalBlock(number).corrupt(problem);
        let bytes = walk.block()?;
        match block::kind(bytes, sequence) {
            Some(Kind::Descriptor) => {
                tail::verify_tail(superblock, bytes).map_err(corrupt)?;
                tags.clear();
                tags.extend(Tags::new(superblock, bytes));
                walk.pass(1)?;
                for tag in &tags {
                    pass.data(&mut walk, number, sequence, tag)?;
                }
            }
            Some(Kind::Revoke) => walk.pass(1)?,
            Some(Kind::Commit) => {
                sequence = sequence.wrapping_add(1);
                walk.pass(1)?;
            }
            None => return Err(corrupt(Problem::Missing { logical: number.into() })),
        }
    }
    Ok(pass.found)
}

struct Pass<'a> {
    fs: &'a Filesystem,
    superblock: &'a JournalSuperblock,
    revoked: &'a Revoked,
    found: Replay,
}

impl Pass<'_> {
    /// Processes the next data block. `descriptor` is the block that contains its tag.
    fn data(
        &mut self,
        walk: &mut Walk<'_>,
        descriptor: u32,
        sequence: u32,
        tag: &Tag,
    ) -> Result<(), Error> {
        let number = walk.at();
        if self.revoked.is_revoked(tag.block, sequence) {
            self.found.revoked = self.found.revoked.saturating_add(1);
            return walk.pass(1);
        }
        // Compare with the size of the device, because the superblock on the device may be older
        // than a resize.
        if tag.block >= self.fs.superblock().physical_at(self.fs.device_size()) {
            let problem = Problem::BlockRange { start: tag.block, count: 1 };
            return Err(Structure::JournalBlock(descriptor).corrupt(problem));
        }
        if self.superblock.has_tails() {
            let bytes = walk.block()?;
            let verified = tag.verify(self.superblock, sequence, bytes);
            verified.map_err(|problem| Structure::JournalBlock(number).corrupt(problem))?;
        }
        let (place, _) = walk.log.place_of(number)?;
        self.found.copies.insert(tag.block, Copy::new(place, tag.escaped));
        walk.pass(1)
    }
}
