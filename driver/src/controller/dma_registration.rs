//! Registered memory: what a controller sees beside its own arena.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Controller, Inner};
use crate::dma::{Arena, Claim, DmaMemory};
use crate::transport::Transport;
use crate::{Error, Result};

/// Memory that was registered, by its I/O virtual address.
#[derive(Default)]
pub(super) struct Registered {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    ranges: BTreeMap<u64, Range>,
    /// Whether the device's view of all memory was ended, for good.
    revoked: bool,
}

/// A registered range.
struct Range {
    /// It keeps the memory for as long as the device sees it.
    arena: Arena,
    mapped: bool,
}

impl Controller {
    /// Makes memory visible to the controller, at an I/O address of its own, and gives the arena of
    /// it: buffers made of that are used as those of [`alloc`](Self::alloc) are.
    ///
    /// The memory is unregistered when the arena's last clone and its last buffer are dropped. A
    /// buffer is in its command until that has ended, so that no command loses its memory. This
    /// takes a system call or a message, and may take as long as those do. A controller that is
    /// closed, or that fails and cannot be stopped otherwise, sees none of it any more; the
    /// memory itself stays with its owner.
    ///
    /// ```
    /// use nvio_driver::{Address, Controller, DmaMemory};
    /// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
    /// let arena = controller.register(DmaMemory::new(4 << 20)?)?;
    /// let buf = arena.take(1 << 20, 4096)?;
    /// assert_eq!(buf.iova(), arena.iova() + (1 << 20));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::MemoryLock`] and [`Error::MappingLimit`] for the limits of the process and of the
    /// IOMMU; [`Error::Unsupported`] if there is no room for it in the IOMMU's ranges; what a
    /// failed controller failed with.
    pub fn register(&self, memory: DmaMemory) -> Result<Arena> {
        self.0.managed().check()?;
        let inner = &self.0;
        let arena = inner.registered.add(&*inner.transport, Arc::new(memory))?;
        let lease = Lease { controller: Arc::downgrade(inner), iova: arena.iova() };
        Ok(arena.leased(Box::new(lease)))
    }
}

/// A registration, which ends when this is dropped. The controller may be closed before.
struct Lease {
    controller: Weak<Inner>,
    iova: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A controller that is closed has ended the device's view of all memory.
        if let Some(inner) = self.controller.upgrade() {
            inner.registered.remove(&*inner.transport, self.iova);
        }
    }
}

impl Registered {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps memory at an address of its own.
    fn add(&self, transport: &dyn Transport, memory: Arc<DmaMemory>) -> Result<Arena> {
        // To the end, so that it is not missed when all is revoked.
        let mut table = self.table();
        if table.revoked {
            return Err(Error::ResetFailed);
        }
        let bytes = memory.size();
        let claim = Claim::new(bytes, |used| transport.choose_iova(bytes as u64, used))?;
        let arena = Arena::over(memory, Arc::new(claim));
        transport.map(&arena)?;
        table.ranges.insert(arena.iova(), Range { arena: arena.clone(), mapped: true });
        Ok(arena)
    }

    /// Ends the device's view of the memory at `iova`, which nobody uses any more.
    fn remove(&self, transport: &dyn Transport, iova: u64) {
        let mut table = self.table();
        let Entry::Occupied(mut place) = table.ranges.entry(iova) else { return };
        match place.get_mut().end(transport) {
            Ok(()) => drop(place.remove()),
            // The device may still write to it: it is kept, and its address not given to others,
            // until the controller is closed.
            Err(error) => log::warn!("memory stays registered: {error}"),
        }
    }

    /// Ends the device's view of all registered memory, for good.
    ///
    /// # Errors
    /// The first; the device may still access what is mapped then.
    pub(super) fn revoke(&self, transport: &dyn Transport) -> Result<()> {
        let mut table = self.table();
        table.revoked = true;
        let mut result = Ok(());
        // Each of them, whatever another says.
        for range in table.ranges.values_mut() {
            if let Err(error) = range.end(transport) {
                log::error!("the controller may still write to registered memory: {error}");
                result = result.and(Err(error));
            }
        }
        result
    }
}

impl Range {
    fn end(&mut self, transport: &dyn Transport) -> Result<()> {
        if self.mapped {
            transport.unmap(&self.arena)?;
            self.mapped = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
