//! The journal: what a filesystem that was not unmounted would be after recovery, without a write.
//!
//! A log is a ring of blocks. A transaction in it is made of descriptor blocks, each with the data
//! blocks that it has tags of behind it, of revoke blocks, and of a commit block at the end. There
//! are three passes: [`scan`] finds the last transaction that is complete, [`replay::revoked`] which
//! blocks must not be replaced by older transactions, and [`replay::replay`] the newest copy of each
//! block. The copies stay where they are: [`Overlay`] has their places.

mod block;
mod commit;
mod external;
mod fields;
mod log;
mod overlay;
mod replay;
mod revoke;
mod scan;
mod superblock;
mod tag;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::blocks::source::Source;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
pub use external::WrongJournal;
pub(crate) use external::{Uuid, find as find_external, identify as identify_external};
pub use fields::JournalFields;
use log::Log;
pub(crate) use overlay::Overlay;
use revoke::Revoked;
use superblock::JournalSuperblock;

/// What of a journal was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReplay {
    /// Complete transactions in the log.
    pub transactions: u32,
    /// Blocks of the filesystem that are read from the log.
    pub blocks: u64,
    /// Copies of blocks in the log that later transactions have revoked.
    pub revoked: u64,
    /// Fast commits after the last transaction.
    pub fast_commits: u32,
}

/// What recovery finds.
pub(crate) struct Recovered {
    pub summary: JournalReplay,
    /// The blocks that the log replaces.
    pub overlay: Overlay,
    /// Sequence number of the transaction that comes after the last complete one: the one that
    /// fast commits belong to.
    pub next_tid: u32,
    /// The area for fast commits, if there is one that may have some.
    pub fast_commit_area: Option<FastCommitArea>,
}

/// The blocks behind a log that fast commits are in.
pub(crate) struct FastCommitArea {
    log: Log,
    range: Range<u32>,
}

impl FastCommitArea {
    /// Blocks of the area.
    pub(crate) fn blocks(&self) -> u32 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Number of the log's block that `index` is, for messages.
    pub(crate) fn number(&self, index: u32) -> u32 {
        self.range.start.saturating_add(index)
    }

    /// Block `index` of the area, from 0.
    pub(crate) fn block(&mut self, index: u32) -> Result<&[u8], Error> {
        let number = self.number(index);
        if index >= self.blocks() {
            let (value, max) = (index.into(), self.blocks().into());
            let problem = Problem::TooLarge { field: "fast-commit block", value, max };
            return Err(Structure::Journal.corrupt(problem));
        }
        self.log.block(number)
    }
}

/// Whether transaction `a` is later than `b`: sequence numbers wrap.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// A journal that was found.
pub(crate) struct Journal {
    log: Log,
    superblock: JournalSuperblock,
}

/// The journal inside of the filesystem. `fs` is as it is on the device, which is `source`.
pub(crate) fn find_internal(fs: &Filesystem, source: Arc<dyn Source>) -> Result<Journal, Error> {
    let number = fs.superblock().journal_inode;
    let inode = fs.named_inode(number, Structure::Superblock)?;
    if inode.kind() != FileType::Regular {
        let rule = "the journal must be a regular file";
        let value = inode.mode().into();
        return Err(Structure::Inode(number).corrupt(Problem::Field {
            field: "mode",
            value,
            rule,
        }));
    }
    let mut log = Log::in_file(fs.file(&inode)?, source);
    let (block_size, blocks) = (fs.superblock().block_size(), log.blocks());
    let superblock = JournalSuperblock::parse(log.block(0)?, block_size, blocks)?;
    Ok(Journal { log, superblock })
}

/// Finds what the journal has. `fs` is the filesystem as it is on the device.
pub(crate) fn recover(fs: &Filesystem, journal: Journal) -> Result<Recovered, Error> {
    let Journal { mut log, superblock } = journal;
    let block_size = fs.superblock().block_size();
    let source = log.source();
    let Some(start) = superblock.start else {
        // All that was committed has arrived, and fast commits belong to a transaction.
        return Ok(Recovered {
            summary: JournalReplay::default(),
            overlay: Overlay::new(HashMap::new(), source, block_size),
            next_tid: superblock.sequence.wrapping_add(1),
            fast_commit_area: None,
        });
    };
    let scan = scan::scan(&mut log, &superblock, start)?;
    let revoked = match scan.has_revokes {
        true => replay::revoked(&mut log, &superblock, start, scan.end)?,
        false => Revoked::default(),
    };
    let replay = replay::replay(fs, &mut log, &superblock, (start, scan.end), &revoked)?;
    let overlay = Overlay::new(replay.copies, source, block_size);
    let blocks = u64::try_from(overlay.len()).unwrap_or(u64::MAX);
    let summary = JournalReplay {
        transactions: scan.transactions,
        blocks,
        revoked: replay.revoked,
        fast_commits: 0,
    };
    Ok(Recovered {
        summary,
        overlay,
        next_tid: scan.end,
        fast_commit_area: superblock.fast_commit.map(|range| FastCommitArea { log, range }),
    })
}
