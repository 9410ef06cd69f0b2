//! What a filesystem or an external journal says of itself, whatever state it is in.

use std::fmt;
use std::sync::Arc;

use crate::blocks::metadata;
use crate::blocks::source::Source;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::features::IncompatFeatures;
use crate::format::raw_superblock::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use crate::format::superblock;
use crate::format::superblock::Superblock;
use crate::format::superblock_fields::SuperblockFields;
use crate::mount::mmp;
use crate::mount::mmp::MmpFields;
use crate::mount::options::Options;
use crate::recovery::journal::JournalFields;

/// The superblocks of a filesystem, or of an external journal, as they are on the device.
///
/// Nothing is replayed, and nobody is asked whether the filesystem is in use: this is for showing
/// what is there, and is no way to files.
pub struct Inspection {
    fields: SuperblockFields,
    content: Content,
}

enum Content {
    Filesystem(Filesystem),
    Journal(Box<dyn Source>),
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("superblock", &self.fields).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Reads the superblock of what is on `source`.
    ///
    /// # Errors
    /// If it is neither a filesystem nor an external journal, is damaged, or has an incompatible
    /// feature that is not known; if the source fails.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        let raw = metadata::read_raw_superblock(&source)?;
        superblock::verify(&raw)?;
        let fields = SuperblockFields::of(&raw);
        let content = if fields.incompat.contains(IncompatFeatures::JOURNAL_DEV) {
            Content::Journal(Box::new(source))
        } else {
            let superblock = Superblock::parse(&raw)?;
            let options = Options::default();
            Content::Filesystem(Filesystem::as_it_is(Arc::new(source), superblock, options)?)
        };
        Ok(Self { fields, content })
    }

    /// The superblock.
    pub fn superblock(&self) -> &SuperblockFields {
        &self.fields
    }

    /// The superblock of the journal that is here: that of an external one, or of one inside of the
    /// filesystem.
    ///
    /// # Errors
    /// If it is damaged or cannot be found, or the source fails.
    pub fn journal(&self) -> Result<Option<JournalFields>, Error> {
        match &self.content {
            Content::Filesystem(fs) => JournalFields::internal(fs),
            Content::Journal(source) => self.external_journal(&**source).map(Some),
        }
    }

    /// The multi-mount protection block, if there is one.
    ///
    /// # Errors
    /// If it is damaged, or the source fails.
    pub fn mmp(&self) -> Result<Option<MmpFields>, Error> {
        match &self.content {
            Content::Filesystem(fs) => mmp::read(fs),
            Content::Journal(_) => Ok(None),
        }
    }

    /// It is in the block that follows the one with the superblock.
    fn external_journal(&self, source: &dyn Source) -> Result<JournalFields, Error> {
        let log = self.fields.log_block_size;
        superblock::ensure(log <= 6, "log block size", log, "at most 6 (64 KiB)")?;
        let block_size = SUPERBLOCK_OFFSET.wrapping_shl(log);
        let offset = if log == 0 { block_size.saturating_mul(2) } else { block_size };
        let (needed, device) = (offset.saturating_add(SUPERBLOCK_OFFSET), source.size());
        if device < needed {
            return Err(Error::Truncated { needed, device });
        }
        let mut bytes = [0; SUPERBLOCK_SIZE];
        metadata::read(source, offset, &mut bytes)?;
        JournalFields::parse(&bytes)
    }
}
