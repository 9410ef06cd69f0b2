//! The journal: recovery of a filesystem that was not unmounted, without writing to it.
//!
//! A log is a ring of blocks. A transaction consists of descriptor blocks, each with tags and
//! followed by the data blocks of those tags; of revoke blocks; and of a commit block at the end.
//! Recovery makes three passes: [`scan`] finds the last complete transaction, [`replay::revoked`]
//! collects the blocks that must not be replayed from older transactions, and [`replay::replay`]
//! finds the newest copy of each block. The copies stay in the log: [`Overlay`] stores their
//! places.

pub(crate) mod block;
pub(crate) mod commit;
pub(crate) mod external;
pub(crate) mod fields;
mod log;
mod replay;
pub(crate) mod revoke;
mod scan;
pub(crate) mod summary;
pub(crate) mod superblock;
pub(crate) mod tag;
mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::blocks::overlay::Overlay;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::number::as_u64;
use crate::recovery::journal::log::{Journal, Log};
use crate::recovery::journal::revoke::Revoked;
use crate::recovery::journal::summary::JournalReplay;
use crate::recovery::journal::superblock::JournalSuperblock;

/// The result of recovery.
pub(crate) struct Recovered {
    pub summary: JournalReplay,
    /// The blocks with newer contents in the log.
    pub overlay: Overlay,
    /// Sequence number of the transaction after the last complete one. Valid fast commits carry
    /// this number.
    pub next_tid: u32,
    /// The fast-commit area, if it may contain fast commits.
    pub fast_commit_area: Option<FastCommitArea>,
}

/// The blocks after the log that hold fast commits.
pub(crate) struct FastCommitArea {
    log: Log,
    range: Range<u32>,
}

impl FastCommitArea {
    /// Returns the number of blocks.
    pub(crate) fn blocks(&self) -> u32 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Returns the block number in the log of block `index` of the area.
    pub(crate) fn number(&self, index: u32) -> u32 {
        self.range.start.saturating_add(index)
    }

    /// Returns block `index` of the area, from 0.
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

/// Opens the internal journal. `fs` is the filesystem as it is on the device `source`.
pub(crate) fn find_internal(
    fs: &Filesystem,
    source: Arc<dyn BlockSource>,
) -> Result<Journal, Error> {
    let number = fs.superblock().journal_inode;
    let inode = fs.named_inode(number, Structure::Superblock)?;
    let (is_good, rule) = (inode.is_file(), "the journal must be a regular file");
    Structure::Inode(number).ensure(is_good, "mode", inode.mode(), rule)?;
    let mut log = Log::in_file(fs.file(&inode)?, source);
    let (block_size, blocks) = (fs.superblock().block_size(), log.blocks());
    let superblock = JournalSuperblock::parse(log.block(0)?, block_size, blocks)?;
    Ok(Journal { log, superblock })
}

/// Recovers the contents of the journal. `fs` is the filesystem as it is on the device.
pub(crate) fn recover(fs: &Filesystem, journal: Journal) -> Result<Recovered, Error> {
    let Journal { mut log, superblock } = journal;
    let block_size = fs.superblock().block_size();
    let source = log.source();
    let Some(start) = superblock.start else {
        // The log is empty: all committed blocks are in place, and fast commits exist only after a
        // transaction.
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
    let blocks = as_u64(overlay.len());
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
