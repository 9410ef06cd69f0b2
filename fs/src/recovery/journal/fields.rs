//! The stored fields of a journal's superblock, for tools that print them.

use zerocopy::FromBytes;

use crate::blocks::overlay::MAGIC;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::CompatFeatures;
use crate::number::as_usize;
use crate::recovery::journal::superblock::{
    COMPAT_CHECKSUM, FAST_COMMIT_BLOCKS, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3, RawJournalSuperblock,
    verify_checksum,
};

/// Names of the incompatible features, from bit 0.
const INCOMPAT: &[&str] = &[
    "journal_incompat_revoke",
    "journal_64bit",
    "journal_async_commit",
    "journal_checksum_v2",
    "journal_checksum_v3",
];

/// The fields of a journal's superblock as they are stored.
///
/// Magic number and checksum are verified. The fields are not checked further.
///
/// See the [example](crate::Inspection#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalFields {
    /// Compatible features.
    pub compat: u32,
    /// Incompatible features.
    pub incompat: u32,
    /// Features that writers must support.
    pub ro_compat: u32,
    /// Block size in bytes.
    pub block_size: u32,
    /// Number of blocks of the journal.
    pub max_len: u32,
    /// First block of the log.
    pub first: u32,
    /// Sequence number of the first transaction.
    pub sequence: u32,
    /// Block of the first transaction; 0 if the log is empty.
    pub start: u32,
    /// `errno` of the error that aborted the journal; 0 if there was none.
    pub error: i32,
    /// Number of blocks at the end for fast commits, if the filesystem has the feature.
    pub fast_commit_blocks: u32,
    /// Number of filesystems that use the journal.
    pub users: u32,
    /// UUIDs of those filesystems. An internal journal has one of all zeroes.
    pub user_list: Vec<[u8; 16]>,
    /// Type of the checksums: 4 for CRC-32C.
    pub checksum_type: u8,
    /// Checksum of the superblock.
    pub checksum: u32,
}

impl JournalFields {
    /// Reads the superblock of an internal journal, if there is one, from the first block of the
    /// journal's file.
    pub(crate) fn internal(fs: &Filesystem) -> Result<Option<Self>, Error> {
        let (superblock, number) = (fs.superblock(), fs.superblock().journal_inode);
        let has_journal = superblock.compat.contains(CompatFeatures::HAS_JOURNAL);
        if !has_journal || number == 0 {
            return Ok(None);
        }
        let inode = fs.named_inode(number, Structure::Superblock)?;
        let first = fs.extents(&inode)?.next().transpose()?;
        let first = first.filter(|extent| extent.logical == 0 && !extent.unwritten);
        let Some(extent) = first else {
            return Err(Structure::JournalSuperblock.corrupt(Problem::Missing { logical: 0 }));
        };
        let block = fs.metadata().block_now(superblock.physical_at(extent.physical))?;
        Self::parse(&block).map(Some)
    }

    /// Parses the superblock at the start of `bytes`, and checks its magic number and checksum.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |problem| Structure::JournalSuperblock.corrupt(problem);
        let Ok((raw, _)) = RawJournalSuperblock::ref_from_prefix(bytes) else {
            return Err(corrupt(Problem::Missing { logical: 0 }));
        };
        Problem::verify_magic(raw.header.magic.get(), MAGIC).map_err(corrupt)?;
        let fields = Self::of(raw);
        if fields.has_checksum() {
            verify_checksum(bytes, raw)?;
        }
        Ok(fields)
    }

    fn of(raw: &RawJournalSuperblock) -> Self {
        let users = raw.users.get();
        let listed = as_usize(users).clamp(1, raw.user_list.len());
        Self {
            compat: raw.compat.get(),
            incompat: raw.incompat.get(),
            ro_compat: raw.ro_compat.get(),
            block_size: raw.block_size.get(),
            max_len: raw.max_len.get(),
            first: raw.first.get(),
            sequence: raw.sequence.get(),
            start: raw.start.get(),
            error: raw.error.get().cast_signed(),
            fast_commit_blocks: match raw.fast_commit_blocks.get() {
                0 => FAST_COMMIT_BLOCKS,
                blocks => blocks,
            },
            users,
            user_list: raw.user_list.iter().take(listed).copied().collect(),
            checksum_type: raw.checksum_type,
            checksum: raw.checksum.get(),
        }
    }

    /// Returns the names of the features as dumpe2fs prints them. A feature without a name is
    /// `FEATURE_`, its set (C, I or R), and the number of its bit.
    ///
    /// See the [example](crate::Inspection#examples).
    pub fn features(&self) -> Vec<String> {
        let sets = [
            ('C', self.compat, &["journal_checksum"][..]),
            ('I', self.incompat, INCOMPAT),
            ('R', self.ro_compat, &[]),
        ];
        let mut found = Vec::new();
        for (kind, bits, names) in sets {
            let mut names = names.iter();
            for shift in 0..32u32 {
                let name = names.next();
                if bits.checked_shr(shift).unwrap_or(0) & 1 != 0 {
                    let unnamed = || format!("FEATURE_{kind}{shift}");
                    found.push(name.map_or_else(unnamed, |&name| name.to_owned()));
                }
            }
        }
        found
    }

    /// Returns true if commit blocks store a CRC-32 of their transaction.
    ///
    /// See the [example](crate::Inspection#examples).
    pub fn has_commit_checksum(&self) -> bool {
        self.compat & COMPAT_CHECKSUM != 0
    }

    /// Returns true if all blocks, the superblock included, have checksums.
    ///
    /// See the [example](crate::Inspection#examples).
    pub fn has_checksum(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::checksum::crc32c;

    const CHECKSUM_OFFSET: usize = 0xfc;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[0x28..0x2c].copy_from_slice(&0x8000_0012u32.to_be_bytes());
        let crc = crc32c(!0, &bytes[..1024]);
        bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn every_byte_is_covered() {
        let sound = sample();
        let fields = JournalFields::parse(&sound).unwrap();
        assert_eq!(fields.features(), ["journal_64bit", "journal_checksum_v3", "FEATURE_I31"]);
        assert_eq!((fields.fast_commit_blocks, fields.user_list.len()), (256, 1));
        for at in 0..1024 {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x40;
            assert!(JournalFields::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn superblocks_that_are_not_a_journal() {
        for bytes in [&[][..], &[0; 1024], &sample()[..1023]] {
            let error = JournalFields::parse(bytes).unwrap_err().to_string();
            assert!(error.starts_with("corrupt superblock of the journal: "), "{error}");
        }
    }
}
