//! The handles of namespaces that are in use.
//!
//! A handle says how large a block is, and a buffer is made for that. A namespace that is formatted
//! to larger blocks under a handle would have the controller write behind buffers. So what changes
//! a namespace needs to be sure that there is no handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use nvio_spec::{IdentifyNamespace, NSID_ALL};

use crate::namespace::Namespace;
use crate::{Error, Result};

/// The handles, by namespace. Clones of one count as one entry, with a number.
#[derive(Default)]
pub(super) struct Handles(BTreeMap<u32, Vec<Weak<IdentifyNamespace>>>);

impl Handles {
    /// Notes a handle.
    pub(super) fn add(&mut self, namespace: &Namespace) {
        let list = self.0.entry(namespace.id()).or_default();
        // What was dropped is not kept, or the list would grow for ever.
        list.retain(|handle| handle.strong_count() > 0);
        list.push(Arc::downgrade(namespace.shared()));
    }

    /// Whether there is no handle of a namespace, or of any with [`NSID_ALL`], but `given`.
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
