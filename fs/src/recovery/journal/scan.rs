//! The first pass: finding the complete transactions.

use crc_fast::{CrcAlgorithm, Digest};

use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::recovery::journal::block;
use crate::recovery::journal::block::Kind;
use crate::recovery::journal::commit::Commit;
use crate::recovery::journal::log::{Log, Walk};
use crate::recovery::journal::superblock::{Checksums, JournalSuperblock};
use crate::recovery::journal::tag::Tags;
use crate::recovery::journal::tail;

/// The result of the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Sequence number of the first incomplete transaction.
    pub end: u32,
    /// Number of complete transactions.
    pub transactions: u32,
    /// The log contains revoke blocks.
    pub has_revokes: bool,
}

/// Finds the end of the log: a block that does not belong to the expected transaction, or a commit
/// block whose transaction is known to be incomplete.
pub(crate) fn scan(
    log: &mut Log,
    superblock: &JournalSuperblock,
    start: u32,
) -> Result<Scan, Error> {
    let mut pass = Pass {
        superblock,
        walk: Walk::new(log, superblock, start),
        sequence: superblock.sequence,
        transactions: 0,
        has_revokes: false,
        end: None,
        suspicious: None,
        committed: 0,
        transaction: Crc32::new(),
    };
    while pass.step()? {}
    let Pass { end, sequence, transactions, has_revokes, .. } = pass;
    let (end, transactions) = end.unwrap_or((sequence, transactions));
    Ok(Scan { end, transactions, has_revokes })
}

struct Pass<'a> {
    superblock: &'a JournalSuperblock,
    walk: Walk<'a>,
    /// Sequence number of the current transaction.
    sequence: u32,
    /// Number of complete transactions before it.
    transactions: u32,
    has_revokes: bool,
    /// The incomplete transaction, and the number of transactions before it.
    end: Option<(u32, u32)>,
    /// A wrong checksum in the current transaction. Blocks after the end of the log may be stale,
    /// so this is an error only if the commit block is not older than the one before.
    suspicious: Option<Error>,
    /// Commit time of the previous transaction.
    committed: u64,
    /// Checksum of the current transaction so far.
    transaction: Crc32,
}

impl Pass<'_> {
    /// Processes one block and its data blocks. Returns `false` at the end of the log.
    fn step(&mut self) -> Result<bool, Error> {
        let number = self.walk.at();
        let corrupt = |problem| Structure::JournalBlock(number).corrupt(problem);
        let bytes = self.walk.block()?;
        let Some(kind) = block::kind(bytes, self.sequence) else { return Ok(false) };
        match kind {
            Kind::Descriptor => {
                if let Err(problem) = tail::verify_tail(self.superblock, bytes) {
                    self.suspicious.get_or_insert_with(|| corrupt(problem));
                }
                let blocks = Tags::new(self.superblock, bytes).count_blocks();
                if self.superblock.checksums == Checksums::Commit && self.end.is_none() {
                    self.add_checksums(blocks)?;
                } else {
                    self.walk.pass(blocks.saturating_add(1))?;
                }
                Ok(true)
            }
            Kind::Revoke => {
                if let Err(problem) = tail::verify_tail(self.superblock, bytes) {
                    self.suspicious.get_or_insert_with(|| corrupt(problem));
                }
                self.has_revokes = true;
                self.walk.pass(1)?;
                Ok(true)
            }
            Kind::Commit => {
                let commit = Commit::new(bytes).map_err(corrupt)?;
                let transaction = self.transaction.value();
                let seconds = commit.seconds();
                let verified = commit.verify(self.superblock, transaction).map_err(corrupt);
                self.walk.pass(1)?;
                self.commit(seconds, verified)
            }
        }
    }

    /// Adds the next descriptor block and its data blocks to the checksum.
    fn add_checksums(&mut self, blocks: u32) -> Result<(), Error> {
        for _ in 0..=blocks {
            let bytes = self.walk.block()?;
            self.transaction.add(bytes);
            self.walk.pass(1)?;
        }
        Ok(())
    }

    fn commit(&mut self, seconds: u64, verified: Result<(), Error>) -> Result<bool, Error> {
        let is_older = seconds < self.committed;
        if let Some(damage) = self.suspicious.take() {
            return if is_older { Ok(false) } else { Err(damage) };
        }
        match verified {
            // An earlier transaction is incomplete although its commit block exists.
            Ok(()) if self.end.is_some() && self.superblock.checksums == Checksums::Commit => {
                return Err(self.failed_before());
            }
            Ok(()) => self.transaction = Crc32::new(),
            Err(_) if is_older => return Ok(false),
            // With asynchronous commits, a commit block may have been written before its
            // transaction was complete. This is valid only for the last transaction.
            Err(_) if self.superblock.async_commit && self.end.is_none() => {
                self.end = Some((self.sequence, self.transactions));
            }
            Err(damage) => return Err(damage),
        }
        self.committed = seconds;
        self.sequence = self.sequence.wrapping_add(1);
        self.transactions = self.transactions.saturating_add(1);
        Ok(true)
    }

    /// Returns the error for an incomplete transaction before the last one.
    fn failed_before(&self) -> Error {
        let sequence = self.end.map_or(self.sequence, |(end, _)| end);
        Structure::Journal.corrupt(Problem::FailedTransaction { sequence })
    }
}

/// CRC-32, most significant bit first, without a final inversion.
struct Crc32(Digest);

impl Crc32 {
    fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Mpeg2))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u32 {
        u32::try_from(self.0.finalize()).unwrap_or(0)
    }
}
