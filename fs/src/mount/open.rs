//! Opening a filesystem, with recovery in memory.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use crate::blocks::cache::Cache;
use crate::blocks::damage::DamageList;
use crate::blocks::metadata;
use crate::blocks::metadata::Metadata;
use crate::blocks::overlay::Overlay;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::filesystem::Inner;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, IncompatFeatures};
use crate::format::superblock::Superblock;
use crate::mount::mmp;
use crate::mount::options::{Options, Recovery};
use crate::mount::superblock;
use crate::number::InodeNumber;
#[cfg(test)]
use crate::recovery::fast_commit::changes::FastCommit;
use crate::recovery::fast_commit::replay::replay;
use crate::recovery::journal;
use crate::recovery::journal::Recovered;
use crate::recovery::journal::external;
use crate::recovery::journal::summary::JournalReplay;
use crate::recovery::orphans;

impl Filesystem {
    /// Opens the filesystem on `source` with the default [`Options`].
    ///
    /// # Errors
    /// If `source` does not hold an ext4 filesystem; if the filesystem is damaged beyond reading, larger than the
    /// device, or has smaller blocks than the device; if the journal is needed and is damaged or on
    /// another device; if another host uses the filesystem; if it has an unsupported feature; if
    /// the source fails.
    pub fn open(source: impl BlockSource + 'static) -> Result<Self, Error> {
        Self::open_with(source, Options::default())
    }

    /// Opens the filesystem on `source`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::open`].
    pub fn open_with(source: impl BlockSource + 'static, options: Options) -> Result<Self, Error> {
        Self::open_on(Arc::new(source), None, options)
    }

    /// Opens the filesystem on `source` with its external journal on `journal`. The log is read
    /// only if it needs recovery, but the journal must always be the filesystem's.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::open`]; [`Error::WrongJournal`].
    pub fn open_with_journal(
        source: impl BlockSource + 'static,
        journal: impl BlockSource + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        Self::open_on(Arc::new(source), Some(Arc::new(journal)), options)
    }

    fn open_on(
        source: Arc<dyn BlockSource>,
        journal: Option<Arc<dyn BlockSource>>,
        options: Options,
    ) -> Result<Self, Error> {
        let superblock = superblock::chosen(&*source, &options)?;
        let fs = Self::as_it_is(Arc::clone(&source), superblock, options)?;
        fs.check_size()?;
        if !options.ignore_mmp {
            mmp::check(&fs)?;
        }
        if options.recovery == Recovery::Skip {
            fs.set_orphans(HashSet::new());
            return Ok(fs);
        }
        let superblock = fs.superblock();
        let has_journal = superblock.compat.contains(CompatFeatures::HAS_JOURNAL);
        let must_recover = has_journal && superblock.has(IncompatFeatures::RECOVER);
        // A copy of the superblock does not say whether the journal needs recovery, but an internal
        // journal does.
        let may_recover = has_journal && superblock.is_copy() && !superblock.has_external_journal();
        if !must_recover && !may_recover {
            if let Some(journal) = journal {
                external::identify(&fs, &*journal)?;
            }
            return fs.with_orphans();
        }
        if must_recover && options.recovery == Recovery::Refuse {
            return Err(Error::NeedsRecovery);
        }
        let journal = match journal {
            Some(journal) => external::find(&fs, journal)?,
            None if superblock.has_external_journal() => {
                return Err(Error::NeedsJournal { uuid: superblock.journal_uuid });
            }
            None => journal::find_internal(&fs, Arc::clone(&source))?,
        };
        let recovered = journal::recover(&fs, journal)?;
        let is_empty = recovered.summary == JournalReplay::default();
        if !must_recover && (is_empty || options.recovery == Recovery::Refuse) {
            return if is_empty { fs.with_orphans() } else { Err(Error::NeedsRecovery) };
        }
        fs.recovered_to(source, recovered)
    }

    /// Returns the recovered filesystem; `self` is the filesystem as it is on the device.
    pub(crate) fn recovered_to(
        &self,
        source: Arc<dyn BlockSource>,
        recovered: Recovered,
    ) -> Result<Self, Error> {
        let Recovered { mut summary, overlay, next_tid, fast_commit_area } = recovered;
        let JournalReplay { transactions, blocks, revoked, .. } = summary;
        log::info!(
            "journal replayed in memory: {transactions} transaction(s), {blocks} block(s), \
             {revoked} revoked; the next is transaction {next_tid}"
        );
        // The log may contain a newer superblock.
        let before = self.superblock();
        let superblock = metadata::replayed_superblock(&*source, &overlay, before)?;
        Problem::verify_value("block size", superblock.block_size(), before.block_size())
            .map_err(|problem| Structure::Superblock.corrupt(problem))?;
        check_size(&superblock, self.device_size())?;
        let (device, options) = (self.device_size(), self.options());
        let damage = Arc::clone(self.metadata().damage());
        let mut fs = Self::over(source, superblock, Some(overlay), (device, options), damage);
        let changes = match fast_commit_area {
            Some(mut area) => replay(&fs, &mut area, next_tid)?,
            None => None,
        };
        if let Some(changes) = changes {
            summary.fast_commits = changes.commits();
            let _ = fs.inner.fast_commit.set(changes);
        }
        fs.set_recovered(Some(summary));
        fs.with_orphans()
    }

    /// Rejects a filesystem that is larger than its device.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        check_size(self.superblock(), self.device_size())
    }

    /// Sets the orphans that the next mount truncates, before the filesystem is used.
    pub(crate) fn set_orphans(&self, orphans: HashSet<InodeNumber>) {
        let _ = self.inner.orphans.set(orphans);
    }

    /// Sets what was recovered, before there is another handle.
    pub(crate) fn set_recovered(&mut self, recovered: Option<JournalReplay>) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.recovered = recovered;
        }
    }

    /// Adds the changes of fast commits. Inodes must not be cached yet.
    #[cfg(test)]
    pub(crate) fn with_fast_commits(self, changes: FastCommit) -> Self {
        let _ = self.inner.fast_commit.set(changes);
        self
    }

    /// Collects the orphans, and returns the filesystem as it is after they are processed.
    fn with_orphans(self) -> Result<Self, Error> {
        self.set_orphans(orphans::read(&self)?);
        Ok(self)
    }

    /// Creates a filesystem with the blocks on `source`, without checks of its size, the journal
    /// and multi-mount protection.
    pub(crate) fn as_it_is(
        source: Arc<dyn BlockSource>,
        superblock: Superblock,
        options: Options,
    ) -> Result<Self, Error> {
        let (block, device_block) = (superblock.block_size(), source.block_size());
        if block < device_block {
            return Err(Error::BlockTooSmall { block, device: device_block });
        }
        let device = source.size();
        Ok(Self::over(source, superblock, None, (device, options), Arc::default()))
    }

    /// Creates a filesystem from a checked superblock.
    fn over(
        source: Arc<dyn BlockSource>,
        superblock: Superblock,
        overlay: Option<Overlay>,
        (device, options): (u64, Options),
        damage: Arc<DamageList>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                metadata: Metadata::new(source, overlay, superblock, &options, damage),
                inodes: Cache::new(options.cached_inodes),
                device,
                options,
                recovered: None,
                open_inodes: Arc::default(),
                fast_commit: OnceLock::new(),
                orphans: OnceLock::new(),
            }),
        }
    }
}

/// Rejects a filesystem that is larger than its device.
fn check_size(superblock: &Superblock, device: u64) -> Result<(), Error> {
    let needed = superblock.blocks_count.checked_mul(u64::from(superblock.block_size()));
    match needed {
        Some(needed) if needed <= device => Ok(()),
        _ => Err(Error::Truncated { needed: needed.unwrap_or(u64::MAX), device }),
    }
}
