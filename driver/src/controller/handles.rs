//! The namespace handles in use.
//!
//! Buffers are allocated for the block size that a handle reports. If a namespace with a handle
//! were formatted to larger blocks, the controller would write past the end of buffers. Commands
//! that change a namespace therefore require that it has no handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use nvio_spec::{IdentifyNamespace, NSID_ALL};

use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// The handles, by namespace. The clones of a handle share an entry with their number.
#[derive(Default)]
pub(super) struct Handles(BTreeMap<u32, Vec<Weak<IdentifyNamespace>>>);

impl Handles {
    /// Adds a handle.
    pub(super) fn add(&mut self, namespace: &Namespace) {
        let list = self.0.entry(namespace.id()).or_default();
        // Dropped handles are removed, so that the list does not grow without a bound.
        list.retain(|handle| handle.strong_count() > 0);
        list.push(Arc::downgrade(namespace.shared()));
    }

    /// Checks that a namespace, or with [`NSID_ALL`] every namespace, has no handle besides
    /// `given`.
    ///
    /// # Errors
    /// [`Error::NamespaceInUse`].
    pub(super) fn check_none(&self, nsid: u32, given: Option<&Namespace>) -> Result<()> {
        for (&nsid, list) in self.0.iter().filter(|&(&id, _)| nsid == NSID_ALL || id == nsid) {
            let all: usize = list.iter().map(Weak::strong_count).sum();
            let is_given = |handle: &Weak<_>| {
                given.is_some_and(|given| handle.as_ptr() == Arc::as_ptr(given.shared()))
            };
            let handles = all - usize::from(list.iter().any(is_given));
            if handles > 0 {
                return Err(Error::NamespaceInUse { nsid, handles });
            }
        }
        Ok(())
    }
}
