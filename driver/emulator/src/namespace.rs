//! A namespace: blocks on a backing.

use nvio_spec::{Status, status};

use crate::atomic::Atomics;
use crate::backing::Store;
use crate::config::Config;
use crate::copy::CopyLimits;
use crate::error::Error;
use crate::io::failed;
use crate::metadata::Metadata;
use crate::namespace_config::{Backing, NamespaceConfig};
use crate::tagged::Tagged;

/// An active namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    pub(crate) store: Store,
    /// Logical block size as a power of two.
    pub(crate) block_shift: u32,
    /// What blocks have besides their data.
    pub(crate) metadata: Option<Metadata>,
    /// Size in logical blocks.
    pub(crate) blocks: u64,
    pub(crate) write_protected: bool,
    pub(crate) noiob: u16,
    pub(crate) copy_limits: CopyLimits,
    pub(crate) atomics: Atomics,
    /// Blocks that are atomic in every namespace when the power fails (AWUPF).
    atomic_anywhere: u32,
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
            blocks,
            write_protected: matches!(config.backing, Backing::Image { read_only: true, .. }),
            noiob: config.noiob,
            copy_limits: config.copy_limits,
            atomics: config.atomics,
            atomic_anywhere: shared.atomics.power_fail,
        })
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

/// The active namespaces, ordered by identifier.
#[derive(Debug)]
pub(crate) struct Namespaces {
    list: Vec<Namespace>,
}

impl Namespaces {
    pub(crate) fn open(configs: &[(u32, NamespaceConfig)], shared: &Config) -> Result<Self, Error> {
        let open = |(nsid, config): &(u32, NamespaceConfig)| Namespace::open(*nsid, config, shared);
        let opened = configs.iter().map(open);
        Ok(Self { list: opened.collect::<Result<_, _>>()? })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.list.iter_mut()
    }

    /// Largest identifier that may be valid (NN).
    pub(crate) fn number(&self) -> u32 {
        self.list.last().map_or(0, |namespace| namespace.nsid)
    }

    /// The active namespace of an identifier, if it is one.
    pub(crate) fn active(&self, nsid: u32) -> Option<&Namespace> {
        let at = self.list.binary_search_by_key(&nsid, |namespace| namespace.nsid).ok()?;
        Some(&self.list[at])
    }

    /// The namespace an I/O command names.
    ///
    /// # Errors
    /// Invalid Namespace or Format for an identifier that is 0, above NN or the broadcast value;
    /// Invalid Field in Command for an inactive one (Base 3.2.1.5).
    #[inline]
    pub(crate) fn for_command(&mut self, nsid: u32) -> Result<&mut Namespace, Status> {
        match self.list.binary_search_by_key(&nsid, |namespace| namespace.nsid) {
            Ok(at) => Ok(&mut self.list[at]),
            Err(_) if nsid == 0 || nsid > self.number() => Err(status::INVALID_NAMESPACE),
            Err(_) => Err(status::INVALID_FIELD),
        }
    }

    /// Whether writes may be lost until they are flushed, anywhere.
    pub(crate) fn have_write_cache(&self) -> bool {
        self.list.iter().any(|namespace| namespace.store.is_volatile())
    }

    /// Bytes of all namespaces together.
    pub(crate) fn bytes(&self) -> u128 {
        self.list.iter().map(|n| u128::from(n.blocks) << n.block_shift).sum()
    }
}
