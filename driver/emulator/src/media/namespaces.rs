//! The namespaces of the controller: attached, detached, created and deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use nvio_spec::namespace::{FormatSettings, NAMESPACE_ATTRIBUTE_NOTICES};
use nvio_spec::{NSID_ALL, Status, status};

use crate::config::format::FORMATS;
use crate::config::namespace::{Backing, NamespaceConfig};
use crate::config::{Config, NSID_MAX};
use crate::error::Error;
use crate::media::namespace::Namespace;

/// The namespaces of the controller, attached to it or not.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Namespaces, ordered by identifier.
    list: Vec<Namespace>,
    /// Settings of the controller, without its namespaces.
    shared: Arc<Config>,
    /// Unallocated bytes in which namespaces can be created; `None` without namespace management.
    unallocated: Option<u64>,
    /// Number of namespaces created since power on.
    created: u32,
    /// Namespaces that changed since the host read the Changed Namespace List.
    changed: BTreeSet<u32>,
    /// Number of changes since power on.
    changes: u64,
}

impl Namespaces {
    pub(crate) fn open(
        configs: &[(u32, NamespaceConfig)],
        shared: &Arc<Config>,
    ) -> Result<Self, Error> {
        let open = |(nsid, config): &(u32, NamespaceConfig)| Namespace::open(*nsid, config, shared);
        let list = configs.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            list,
            shared: Arc::clone(shared),
            unallocated: shared.unallocated,
            created: 0,
            changed: BTreeSet::new(),
            changes: 0,
        })
    }

    /// Returns true if namespaces can be created, deleted, attached and detached.
    pub(crate) fn can_be_managed(&self) -> bool {
        self.unallocated.is_some()
    }

    /// Returns the notices that changes of namespaces raise (OAES).
    pub(crate) fn notices(&self) -> u32 {
        if self.shared.offers_formats() { NAMESPACE_ATTRIBUTE_NOTICES } else { 0 }
    }

    /// Returns the active namespaces, ordered by identifier.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.list.iter().filter(|namespace| namespace.attached)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.list.iter_mut().filter(|namespace| namespace.attached)
    }

    /// Returns the largest identifier that may be valid (NN).
    pub(crate) fn number(&self) -> u32 {
        if self.can_be_managed() {
            return NSID_MAX;
        }
        self.list.last().map_or(0, |namespace| namespace.nsid)
    }

    /// Returns every namespace, attached or not, ordered by identifier.
    pub(crate) fn allocated(&self) -> impl Iterator<Item = &Namespace> {
        self.list.iter()
    }

    /// Returns the place of a namespace in the list.
    fn find(&self, nsid: u32) -> Option<usize> {
        self.list.binary_search_by_key(&nsid, |namespace| namespace.nsid).ok()
    }

    /// Returns the active namespace with this identifier.
    pub(crate) fn active(&self, nsid: u32) -> Option<&Namespace> {
        self.find(nsid).map(|at| &self.list[at]).filter(|namespace| namespace.attached)
    }

    /// Returns the namespace of an I/O command.
    ///
    /// # Errors
    /// Invalid Namespace or Format for an identifier that is 0, above NN or the broadcast value;
    /// Invalid Field in Command for an inactive one (Base 3.2.1.5).
    #[inline]
    pub(crate) fn for_command(&mut self, nsid: u32) -> Result<&mut Namespace, Status> {
        match self.find(nsid) {
            Some(at) if self.list[at].attached => Ok(&mut self.list[at]),
            _ => Err(self.missing(nsid)),
        }
    }

    /// Returns true if a namespace may lose writes until they are flushed.
    pub(crate) fn have_write_cache(&self) -> bool {
        self.can_be_managed() && self.shared.write_cache.is_some()
            || self.iter().any(|namespace| namespace.store.is_volatile())
    }

    /// Returns the bytes of all namespaces and the unallocated bytes (TNVMCAP).
    pub(crate) fn bytes(&self) -> u128 {
        let bytes = |namespace: &Namespace| u128::from(namespace.bytes);
        let allocated: u128 = self.list.iter().map(bytes).sum();
        allocated + u128::from(self.unallocated())
    }

    /// Returns the unallocated bytes (UNVMCAP).
    pub(crate) fn unallocated(&self) -> u64 {
        self.unallocated.unwrap_or(0)
    }

    /// Returns the namespaces that changed since [`Self::clear_changed`].
    pub(crate) fn changed(&self) -> impl Iterator<Item = u32> + '_ {
        self.changed.iter().copied()
    }

    pub(crate) fn clear_changed(&mut self) {
        self.changed.clear();
    }

    /// Returns the number of changes since power on.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn note_change(&mut self, nsid: u32) {
        self.changed.insert(nsid);
        self.changes += 1;
    }

    /// Formats one namespace, or all active ones (Format NVM, Base 5.14).
    ///
    /// # Errors
    /// As [`Self::for_command`] and [`Namespace::formatted`], before anything is erased; what
    /// [`Namespace::format`] says.
    pub(crate) fn format(&mut self, nsid: u32, settings: FormatSettings) -> Result<(), Status> {
        if nsid != NSID_ALL {
            self.for_command(nsid)?;
        }
        let wanted = |namespace: &Namespace| nsid == NSID_ALL || namespace.nsid == nsid;
        let all = self.iter().filter(|namespace| wanted(namespace));
        let configs = all.map(|namespace| Ok((namespace.nsid, namespace.formatted(settings)?)));
        for (nsid, config) in configs.collect::<Result<Vec<_>, _>>()? {
            let Some(at) = self.find(nsid) else { continue };
            self.list[at].format(&config, &self.shared)?;
            self.note_change(nsid);
        }
        Ok(())
    }

    /// Creates a namespace in memory (Base 5.23), attached to no controller, and returns its
    /// identifier.
    ///
    /// # Errors
    /// Namespace Insufficient Capacity, Namespace Identifier Unavailable, and as
    /// [`NamespaceConfig::formatted`].
    pub(crate) fn create(&mut self, blocks: u64, settings: FormatSettings) -> Result<u32, Status> {
        let config = NamespaceConfig::new(Backing::Memory(0));
        let mut config = config.formatted(settings, &FORMATS, false)?;
        let bytes = blocks.checked_mul(config.block_size.into());
        let bytes = bytes.filter(|&bytes| bytes <= self.unallocated());
        let bytes = bytes.ok_or(status::NAMESPACE_INSUFFICIENT_CAPACITY)?;
        config.backing = Backing::Memory(bytes);
        let is_free = |nsid: &u32| self.allocated().all(|namespace| namespace.nsid != *nsid);
        let nsid = (1..=NSID_MAX).find(is_free).ok_or(status::NAMESPACE_ID_UNAVAILABLE)?;
        let opened = Namespace::open(nsid, &config, &self.shared);
        let mut namespace = opened.map_err(|error| {
            log::error!("namespace {nsid}: {error}");
            status::INTERNAL_ERROR
        })?;
        self.created = self.created.saturating_add(1);
        namespace.created = self.created;
        namespace.attached = false;
        self.unallocated = Some(self.unallocated() - bytes);
        let at = self.list.partition_point(|other| other.nsid < nsid);
        self.list.insert(at, namespace);
        Ok(nsid)
    }

    /// Deletes a namespace, or all (Base 5.23), and frees its capacity. The file of an image stays
    /// as it is.
    ///
    /// # Errors
    /// As [`Self::for_command`], for a namespace that is not allocated.
    pub(crate) fn delete(&mut self, nsid: u32) -> Result<(), Status> {
        if nsid != NSID_ALL && self.find(nsid).is_none() {
            return Err(self.missing(nsid));
        }
        let wanted = |namespace: &mut Namespace| nsid == NSID_ALL || namespace.nsid == nsid;
        for mut namespace in self.list.extract_if(.., wanted).collect::<Vec<_>>() {
            self.unallocated = Some(self.unallocated().saturating_add(namespace.bytes));
            if namespace.attached {
                namespace.flush_and_log();
                self.note_change(namespace.nsid);
            }
        }
        Ok(())
    }

    /// Attaches a namespace to the controller (Base 5.22).
    ///
    /// # Errors
    /// Namespace Already Attached; as [`Self::for_command`] for a namespace that is not allocated.
    pub(crate) fn attach(&mut self, nsid: u32) -> Result<(), Status> {
        let at = self.find(nsid).ok_or_else(|| self.missing(nsid))?;
        if std::mem::replace(&mut self.list[at].attached, true) {
            return Err(status::NAMESPACE_ALREADY_ATTACHED);
        }
        self.note_change(nsid);
        Ok(())
    }

    /// Detaches a namespace from the controller (Base 5.22) and makes its writes durable.
    ///
    /// # Errors
    /// Namespace Not Attached; as [`Self::for_command`] for a namespace that is not allocated.
    pub(crate) fn detach(&mut self, nsid: u32) -> Result<(), Status> {
        let at = self.find(nsid).ok_or_else(|| self.missing(nsid))?;
        if !std::mem::replace(&mut self.list[at].attached, false) {
            return Err(status::NAMESPACE_NOT_ATTACHED);
        }
        self.list[at].flush_and_log();
        self.note_change(nsid);
        Ok(())
    }

    /// Returns the status for an identifier without a namespace (Base 3.2.1.5).
    fn missing(&self, nsid: u32) -> Status {
        let is_invalid = nsid == 0 || nsid > self.number();
        if is_invalid { status::INVALID_NAMESPACE } else { status::INVALID_FIELD }
    }
}
