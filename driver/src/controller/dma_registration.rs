//! Registration of the caller's memory for DMA.

use std::sync::{Arc, Weak};

use super::Controller;
use super::inner::Inner;
use crate::dma::{Arena, DmaMemory};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

impl Controller {
    /// Makes memory visible to the controller at a free I/O virtual address, and returns its arena.
    /// Buffers of that arena are used like those of [`alloc`](Self::alloc).
    ///
    /// The memory is unregistered when the arena's last clone and its last buffer are dropped,
    /// which takes a system call or a vfio-user message. A buffer stays with its command until that
    /// has completed, so that no command loses its memory. The memory is also unmapped when the
    /// controller is closed, or fails and cannot be stopped otherwise; the memory itself stays with
    /// its owner.
    ///
    /// ```
    /// use nvio_driver::{Address, Controller, DmaMemory};
    /// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).start()?;
    /// # let controller = Controller::open(&Address::vfio_user(emulator.socket()))?;
    /// let arena = controller.register(DmaMemory::new(4 << 20)?)?;
    /// let buf = arena.take(1 << 20, 4096)?;
    /// assert_eq!(buf.iova(), arena.iova() + (1 << 20));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::MemoryLock`] and [`Error::MappingLimit`] for the limits of the process and of the
    /// IOMMU; [`Error::Unsupported`] if the IOMMU's ranges have no room for it; the error of a
    /// controller that has failed.
    pub fn register(&self, memory: DmaMemory) -> Result<Arena> {
        self.0.managed.lock().check()?;
        let inner = &self.0;
        let arena = inner.registered.add(&*inner.transport, Arc::new(memory))?;
        let lease = Lease { controller: Arc::downgrade(inner), iova: arena.iova() };
        Ok(arena.leased(Box::new(lease)))
    }
}

/// A registration, which ends when this is dropped or the controller is closed.
struct Lease {
    controller: Weak<Inner>,
    iova: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A closed controller has unmapped all memory.
        if let Some(inner) = self.controller.upgrade() {
            inner.registered.remove(&*inner.transport, self.iova);
        }
    }
}

#[cfg(test)]
mod tests;
