//! Open files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fuser::{Errno, FileHandle};
use nvio_ext4::Inode;

use crate::backend::{Backend, OpenFile};

/// A table of what is open, by handle.
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub(crate) fn add(&self, value: T) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(handle, Arc::new(value));
        FileHandle(handle)
    }

    pub(crate) fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    pub(crate) fn remove(&self, handle: FileHandle) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0)
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        drop(std::mem::take(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner)));
    }
}

/// An open regular file: as many open files below as threads have used it at a time.
pub(crate) struct File {
    inode: Inode,
    writes: bool,
    idle: Mutex<Vec<OpenFile>>,
}

impl File {
    pub(crate) fn open(backend: &Backend, inode: Inode, writes: bool) -> Result<Self, Errno> {
        let first = backend.open(&inode, writes)?;
        Ok(Self { inode, writes, idle: Mutex::new(vec![first]) })
    }

    /// Calls `run` with an open file that no other thread uses.
    pub(crate) fn with<R>(
        &self,
        backend: &Backend,
        run: impl FnOnce(&mut OpenFile) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let idle = self.idle().pop();
        let mut file = match idle {
            Some(file) => file,
            None => backend.open(&self.inode, self.writes)?,
        };
        let result = run(&mut file);
        self.idle().push(file);
        result
    }

    fn idle(&self) -> MutexGuard<'_, Vec<OpenFile>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
