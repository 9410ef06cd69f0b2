//! A namespace: logical blocks on a backing.

use nvio_spec::namespace::FormatSettings;
use nvio_spec::{Status, status};

use crate::config::Config;
use crate::config::format::{BlockFormat, FORMATS};
use crate::config::metadata::Metadata;
use crate::config::namespace::{Backing, NamespaceConfig};
use crate::error::Error;
use crate::media::backing::RawStore;
use crate::media::failed;
use crate::media::store::Store;

/// A namespace, attached or not.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    pub(crate) store: Store,
    /// Logical block size as a power of two.
    pub(crate) block_shift: u32,
    /// Metadata of each block, if blocks have any.
    pub(crate) metadata: Option<Metadata>,
    /// False for a null backing, which transfers no data.
    pub(crate) moves_data: bool,
    /// Size in logical blocks.
    pub(crate) blocks: u64,
    /// Size of the backing in bytes, also if the last block of the present format is cut.
    pub(crate) bytes: u64,
    pub(crate) write_protected: bool,
    /// The namespace is attached to the controller, and therefore active.
    pub(crate) attached: bool,
    /// Blocks of a write that is atomic in every namespace when the power fails (AWUPF).
    atomic_anywhere: u32,
    /// Settings of the namespace in its present format.
    pub(crate) config: NamespaceConfig,
    /// Format with which the namespace was configured.
    configured: BlockFormat,
    /// Protection information may be the first bytes of the metadata, because it was configured so.
    pub(crate) allows_first: bool,
    /// Number of the namespace among those created since power on, from 1; 0 for a configured one.
    pub(crate) created: u32,
    /// The controller offers formats for it.
    formats_offered: bool,
}

impl Namespace {
    /// Opens the backing of a namespace whose settings have been checked.
    pub(crate) fn open(
        nsid: u32,
        config: &NamespaceConfig,
        shared: &Config,
    ) -> Result<Self, Error> {
        let (data, bytes) = RawStore::open(&config.backing)?;
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
        Ok(Self {
            nsid,
            store: Store::open(config, data, blocks, shared.write_cache)?,
            block_shift,
            metadata: config.blocks_metadata(),
            moves_data: !matches!(config.backing, Backing::Null(_)),
            blocks,
            bytes,
            write_protected: matches!(config.backing, Backing::Image { read_only: true, .. }),
            attached: true,
            atomic_anywhere: shared.atomics.power_fail,
            config: config.clone(),
            configured: config.block_format(),
            allows_first: config.protection.is_some_and(|protection| protection.first),
            created: 0,
            formats_offered: shared.offers_formats(),
        })
    }

    /// Returns the supported LBA formats, which include the configured one.
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

    /// Returns the index of the present format.
    pub(crate) fn format_index(&self) -> u8 {
        let current = self.config.block_format();
        let index = self.formats().iter().position(|format| *format == current);
        index.and_then(|index| u8::try_from(index).ok()).unwrap_or(0)
    }

    /// Returns true if the format can change. An image keeps its format.
    pub(crate) fn is_reformattable(&self) -> bool {
        !matches!(self.config.backing, Backing::Image { .. })
    }

    /// Returns the settings of the namespace in another format.
    ///
    /// # Errors
    /// Namespace is Write Protected; Invalid Format for one that it cannot have.
    pub(crate) fn formatted(&self, settings: FormatSettings) -> Result<NamespaceConfig, Status> {
        self.check_writable()?;
        // Protection information comes first only where it was configured so (NVM 4.1.5.1, DPC).
        let config = self.config.formatted(settings, &self.formats(), self.allows_first)?;
        if self.is_reformattable() || config.has_same_format(&self.config) {
            Ok(config)
        } else {
            Err(status::INVALID_FORMAT)
        }
    }

    /// Erases all data and applies `config`, which [`Self::formatted`] returned.
    pub(crate) fn format(
        &mut self,
        config: &NamespaceConfig,
        shared: &Config,
    ) -> Result<(), Status> {
        if !self.is_reformattable() {
            let erased = self.store.zero(0, self.blocks << self.block_shift);
            let erased = erased.and_then(|()| self.store.flush());
            return erased.map_err(failed(status::WRITE_FAULT));
        }
        let new = Self::open(self.nsid, config, shared).map_err(|error| {
            log::error!("namespace {}: {error}", self.nsid);
            status::INTERNAL_ERROR
        })?;
        let Self { created, configured, allows_first, .. } = *self;
        *self = Self { created, configured, allows_first, ..new };
        Ok(())
    }

    /// Makes every write durable. An error is logged, because no command waits for it.
    pub(crate) fn flush_and_log(&mut self) {
        if let Err(error) = self.store.flush() {
            log::error!("namespace {}: flush: {error}", self.nsid);
        }
    }

    /// Checks a range of blocks and returns its offset and length in bytes.
    #[inline]
    pub(crate) fn range(&self, slba: u64, blocks: u32) -> Result<(u64, u64), Status> {
        let end = slba.checked_add(u64::from(blocks)).filter(|&end| end <= self.blocks);
        end.ok_or(status::LBA_OUT_OF_RANGE)?;
        // Blocks times their size is at most the size of the backing, so this fits.
        Ok((slba << self.block_shift, u64::from(blocks) << self.block_shift))
    }

    /// Writes a range of bytes with `write`. If the write has to be atomic, a power cut stores or
    /// loses its cached blocks as a whole.
    #[inline]
    pub(crate) fn atomically(
        &mut self,
        (offset, len): (u64, u64),
        write: impl FnOnce(&mut Store) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let (slba, blocks) = (offset >> self.block_shift, len >> self.block_shift);
        let is_atomic = self.config.atomics.hold(slba, blocks, self.atomic_anywhere);
        if !self.store.has_cache() || !is_atomic {
            return write(&mut self.store);
        }
        self.store.reserve(offset, len).map_err(failed(status::WRITE_FAULT))?;
        write(&mut self.store)?;
        self.store.bind(offset, len);
        Ok(())
    }

    /// Refuses a command that would change a write protected namespace (Base 8.12).
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), Status> {
        if self.write_protected { Err(status::NAMESPACE_WRITE_PROTECTED) } else { Ok(()) }
    }
}
