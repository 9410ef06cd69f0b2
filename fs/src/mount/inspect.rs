//! Inspection of the superblocks of a filesystem or an external journal, whatever their state.

use std::fmt;
use std::sync::Arc;

use crate::blocks::read;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::Structure;
use crate::format::features::IncompatFeatures;
use crate::format::mmp::MmpFields;
use crate::format::raw_superblock::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use crate::format::superblock;
use crate::format::superblock::Superblock;
use crate::format::superblock_fields::SuperblockFields;
use crate::mount::mmp;
use crate::mount::options::Options;
use crate::mount::superblock::{chosen_raw, with_copies};
use crate::recovery::journal::fields::JournalFields;

/// The superblocks of a filesystem or an external journal, as they are on the device.
///
/// The journal is not replayed, and multi-mount protection is not checked. An inspection shows
/// stored fields and gives no access to files.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio_ext4::{Inspection, Options};
///
/// let inspection = Inspection::open(std::fs::File::open(&image)?)?;
/// let same = Inspection::open_with(std::fs::File::open(&image)?, Options::default())?;
/// assert_eq!(same.superblock(), inspection.superblock());
/// let fields = inspection.superblock();
/// assert_eq!((fields.magic, fields.blocks_count), (0xef53, 8192));
/// if let Some(journal) = inspection.journal()? {
///     assert_eq!(journal.block_size, 1024);
///     println!("features of the journal: {}", journal.features().join(" "));
///     println!("checksums: {} {}", journal.has_checksum(), journal.has_commit_checksum());
/// }
/// assert!(inspection.mmp()?.is_none(), "no multi-mount protection");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inspection {
    fields: SuperblockFields,
    content: Content,
}

enum Content {
    Filesystem(Filesystem),
    Journal(Box<dyn BlockSource>),
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("superblock", &self.fields).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Reads the superblock on `source`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the source holds neither a filesystem nor an external journal, is damaged, or has an
    /// unknown incompatible feature; if the source fails.
    pub fn open(source: impl BlockSource + 'static) -> Result<Self, Error> {
        Self::open_with(source, Options::default())
    }

    /// Reads the superblock on `source` that `options` selects.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Inspection::open`].
    pub fn open_with(source: impl BlockSource + 'static, options: Options) -> Result<Self, Error> {
        let (raw, copy) = chosen_raw(&source, &options)?;
        superblock::verify(&raw).map_err(|error| with_copies(&source, error))?;
        let fields = SuperblockFields::of(&raw);
        let content = if fields.incompat.contains(IncompatFeatures::JOURNAL_DEV) {
            Content::Journal(Box::new(source))
        } else {
            let superblock = match copy {
                Some(block) => Superblock::parse_copy(&raw, block)?,
                None => Superblock::parse(&raw)?,
            };
            Content::Filesystem(Filesystem::as_it_is(Arc::new(source), superblock, options)?)
        };
        Ok(Self { fields, content })
    }

    /// Returns the fields of the superblock.
    ///
    /// See the [example](Self#examples).
    pub fn superblock(&self) -> &SuperblockFields {
        &self.fields
    }

    /// Returns the superblock of the journal: the external journal itself, or the journal inside
    /// the filesystem.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the journal is damaged or cannot be found, or the source fails.
    pub fn journal(&self) -> Result<Option<JournalFields>, Error> {
        match &self.content {
            Content::Filesystem(fs) => JournalFields::internal(fs),
            Content::Journal(source) => self.external_journal(&**source).map(Some),
        }
    }

    /// Returns the multi-mount protection block, if there is one.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the block is damaged, or the source fails.
    pub fn mmp(&self) -> Result<Option<MmpFields>, Error> {
        match &self.content {
            Content::Filesystem(fs) => mmp::read(fs),
            Content::Journal(_) => Ok(None),
        }
    }

    /// Reads the journal's superblock, which is in the block after the filesystem superblock.
    fn external_journal(&self, source: &dyn BlockSource) -> Result<JournalFields, Error> {
        let log = self.fields.log_block_size;
        let rule = "at most 6 (64 KiB)";
        Structure::Superblock.ensure(log <= 6, "log block size", log, rule)?;
        let block_size = SUPERBLOCK_OFFSET.wrapping_shl(log);
        let offset = if log == 0 { block_size.saturating_mul(2) } else { block_size };
        let (needed, device) = (offset.saturating_add(SUPERBLOCK_OFFSET), source.size());
        if device < needed {
            return Err(Error::Truncated { needed, device });
        }
        let mut bytes = [0; SUPERBLOCK_SIZE];
        read::read(source, offset, &mut bytes)?;
        JournalFields::parse(&bytes)
    }
}
