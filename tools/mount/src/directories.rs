//! Open directories.

use std::sync::{Arc, Mutex, PoisonError};

use fuser::{Errno, FileType};
use nvio_ext4::{Inode, InodeNumber};

use crate::attributes::kind;
use crate::backend::Backend;
use crate::errno::errno;

/// An entry as a listing shows it.
pub(crate) struct Entry {
    pub inode: InodeNumber,
    pub kind: FileType,
    pub name: Vec<u8>,
}

/// An open directory: its entries as they were when the listing began. So each entry that stays is listed
/// once, although others come and go meanwhile.
pub(crate) struct Directory {
    number: u64,
    listing: Mutex<Option<Arc<Vec<Entry>>>>,
}

impl Directory {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, listing: Mutex::new(None) }
    }

    /// Returns the entries, which are read anew when a listing begins.
    pub(crate) fn entries(&self, backend: &Backend, from: u64) -> Result<Arc<Vec<Entry>>, Errno> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        match &*listing {
            Some(entries) if from > 0 => Ok(Arc::clone(entries)),
            _ => Ok(Arc::clone(listing.insert(Arc::new(read(backend, self.number)?)))),
        }
    }
}

fn read(backend: &Backend, number: u64) -> Result<Vec<Entry>, Errno> {
    let filesystem = backend.filesystem();
    let directory = backend.inode(number)?;
    let parent = parent(backend, &directory);
    let dot = |inode, name: &[u8]| Entry { inode, kind: FileType::Directory, name: name.to_vec() };
    let mut entries = vec![dot(directory.number(), b"."), dot(parent, b"..")];
    for entry in filesystem.read_dir(&directory).map_err(|error| errno(&error))? {
        let entry = entry.map_err(|error| errno(&error))?;
        // A name with a slash, which only a damaged directory has, would lead elsewhere.
        if entry.name.contains(&b'/') {
            continue;
        }
        let kind = match entry.kind {
            Some(found) => kind(found),
            None => filesystem.inode(entry.inode).map_or(FileType::RegularFile, |i| kind(i.kind())),
        };
        entries.push(Entry { inode: entry.inode, kind, name: entry.name });
    }
    backend.record_access(&directory);
    Ok(entries)
}

/// Returns the directory above, or the directory itself if it cannot be read.
fn parent(backend: &Backend, directory: &Inode) -> InodeNumber {
    backend.filesystem().parent_of(directory).unwrap_or(directory.number())
}
