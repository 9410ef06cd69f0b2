//! A namespace: blocks on a backing.

use nvio_spec::namespace::FormatSettings;
use nvio_spec::{Status, status};

use crate::atomic::Atomics;
use crate::backing::Store;
use crate::config::Config;
use crate::copy::CopyLimits;
use crate::error::Error;
use crate::format::{BlockFormat, FORMATS};
use crate::io::failed;
use crate::metadata::Metadata;
use crate::namespace_config::{Backing, NamespaceConfig};
use crate::tagged::Tagged;

/// A namespace, attached or not.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    pub(crate) store: Store,
    /// Logical block size as a power of two.
    pub(crate) block_shift: u32,
    /// What blocks have besides their data.
    pub(crate) metadata: Option<Metadata>,
    /// There is data behind it at all.
    pub(crate) moves_data: bool,
    /// Size in logical blocks.
    pub(crate) blocks: u64,
    pub(crate) write_protected: bool,
    pub(crate) noiob: u16,
    pub(crate) copy_limits: CopyLimits,
    pub(crate) atomics: Atomics,
    /// Blocks that are atomic in every namespace when the power fails (AWUPF).
    atomic_anywhere: u32,
    /// What it is made of, in the format that it has.
    config: NamespaceConfig,
    /// The format that it was configured with.
    configured: BlockFormat,
    /// Protection information can be the first bytes of the metadata, as it was configured.
    allows_first: bool,
    /// Which of the namespaces that were created since power on it is, from 1; 0 for those that
    /// were there.
    pub(crate) created: u32,
    /// There are formats to choose from.
    formats_offered: bool,
}

impl Namespace {
    /// Opens the backing of a namespace whose settings have been checked.
    pub(crate) fn open(
        nsid: u32,
        config: &NamespaceConfig,
        shared: &Config,
    ) -> Result<Self, Error> {
        let (store, bytes) = Store::open(&config.backing)?;
        let block_size = config.block_size;
        let block_shift = block_size.trailing_zeros();
        let blocks = bytes >> block_shift;
        if blocks == 0 {
            return Err(Error::TooSmall { nsid, bytes, block_size });
        }
        let over = bytes - (blocks << block_shift);
        if over != 0 {
            log::warn!("namespace {nsid}: the last {over} bytes are no whole block, and are cut");
        }
        let metadata = config.blocks_metadata();
        let store = match metadata {
            Some(metadata) => Store::Tagged(Box::new(Tagged::open(
                &config.backing,
                store,
                block_shift,
                blocks,
                metadata,
            )?)),
            None => store,
        };
        Ok(Self {
            nsid,
            store: match shared.write_cache {
                Some(bytes) => store.cached(block_shift, metadata, bytes),
                None => store,
            },
            block_shift,
            metadata,
            moves_data: !matches!(config.backing, Backing::Null(_)),
            blocks,
            write_protected: matches!(config.backing, Backing::Image { read_only: true, .. }),
            noiob: config.noiob,
            copy_limits: config.copy_limits,
            atomics: config.atomics,
            atomic_anywhere: shared.atomics.power_fail,
            config: config.clone(),
            configured: config.block_format(),
            allows_first: config.protection.is_some_and(|protection| protection.first),
            created: 0,
            formats_offered: shared.offers_formats(),
        })
    }

    /// The LBA formats it can have: the one it was configured with is among them.
    pub(crate) fn formats(&self) -> Vec<BlockFormat> {
        if !self.formats_offered || !self.is_reformattable() {
            return vec![self.configured];
        }
        let mut formats = FORMATS.to_vec();
        if !formats.contains(&self.configured) {
            formats.push(self.configured);
        }
        formats
    }

    /// The index of the format it has.
    pub(crate) fn format_index(&self) -> u8 {
        let current = self.config.block_format();
        let index = self.formats().iter().position(|format| *format == current);
        index.and_then(|index| u8::try_from(index).ok()).unwrap_or(0)
    }

    /// Whether protection information can be the first bytes of the metadata.
    pub(crate) fn allows_first(&self) -> bool {
        self.allows_first
    }

    /// Whether it can have another format than it has: an image is what it is.
    pub(crate) fn is_reformattable(&self) -> bool {
        !matches!(self.config.backing, Backing::Image { .. })
    }

    /// What it would be in another format.
    ///
    /// # Errors
    /// Namespace is Write Protected; Invalid Format for one that it cannot have.
    pub(crate) fn formatted(&self, settings: FormatSettings) -> Result<NamespaceConfig, Status> {
        self.check_writable()?;
        // Protection information comes first only where it did (NVM 4.1.5.1, DPC).
        let config = self.config.formatted(settings, &self.formats(), self.allows_first)?;
        if self.is_reformattable() || config.has_same_format(&self.config) {
            Ok(config)
        } else {
            Err(status::INVALID_FORMAT)
        }
    }

    /// Erases all it holds, and has it be as `config`, from [`Self::formatted`], says.
    pub(crate) fn format(
        &mut self,
        config: &NamespaceConfig,
        shared: &Config,
    ) -> Result<(), Status> {
        if !self.is_reformattable() {
            let erased = self.store.zero(0, self.blocks << self.block_shift);
            let erased = erased.and_then(|()| self.store.flush());
            return erased.map_err(|error| failed(&error, status::WRITE_FAULT));
        }
        let new = Self::open(self.nsid, config, shared).map_err(|error| {
            log::error!("namespace {}: {error}", self.nsid);
            status::INTERNAL_ERROR
        })?;
        let Self { created, configured, allows_first, .. } = *self;
        *self = Self { created, configured, allows_first, ..new };
        Ok(())
    }

    /// Size in bytes, without metadata.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Checks a range of blocks; gives its offset and length in bytes.
    #[inline]
    pub(crate) fn range(&self, slba: u64, blocks: u32) -> Result<(u64, u64), Status> {
        let end = slba.checked_add(u64::from(blocks)).filter(|&end| end <= self.blocks);
        end.ok_or(status::LBA_OUT_OF_RANGE)?;
        // Blocks times their size is at most the size of the backing, which fits.
        Ok((slba << self.block_shift, u64::from(blocks) << self.block_shift))
    }

    /// Writes a range of bytes by `write`: if it is one that has to be atomic, what the write
    /// cache has of it will be stored or lost as a whole.
    #[inline]
    pub(crate) fn atomically(
        &mut self,
        (offset, len): (u64, u64),
        write: impl FnOnce(&mut Store) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let (slba, blocks) = (offset >> self.block_shift, len >> self.block_shift);
        let cache = match &mut self.store {
            Store::Cached(cache) if self.atomics.hold(slba, blocks, self.atomic_anywhere) => cache,
            store => return write(store),
        };
        cache.reserve(offset, len).map_err(|error| failed(&error, status::WRITE_FAULT))?;
        write(&mut self.store)?;
        if let Store::Cached(cache) = &mut self.store {
            cache.bind(offset, len);
        }
        Ok(())
    }

    /// Refuses what would change a write protected namespace (Base 8.12).
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), Status> {
        if self.write_protected { Err(status::NAMESPACE_WRITE_PROTECTED) } else { Ok(()) }
    }
}
