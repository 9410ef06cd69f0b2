//! The table of registered memory: the memory besides the arena that a controller can access.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dma::{Arena, Claim, DmaMemory};
use crate::error::{Error, Result};
use crate::transport::Transport;

/// The registered memory of a controller, by its I/O virtual address.
#[derive(Default)]
pub(super) struct Registered {
    pub(super) table: Mutex<Table>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) ranges: BTreeMap<u64, Range>,
    /// The device's access to all registered memory has ended for good.
    revoked: bool,
}

/// A registered range.
pub(super) struct Range {
    /// Keeps the memory while the device can access it.
    pub(super) arena: Arena,
    pub(super) mapped: bool,
}

/// Maps memory for the device at a free I/O virtual address.
pub(super) fn map(transport: &dyn Transport, memory: Arc<DmaMemory>) -> Result<Arena> {
    let bytes = memory.size();
    let claim = Claim::new(bytes, |used| transport.choose_iova(bytes as u64, used))?;
    let arena = Arena::over(memory, Arc::new(claim));
    transport.map(&arena).map(|()| arena)
}

impl Registered {
    /// Maps memory at a free I/O virtual address.
    pub(super) fn add(&self, transport: &dyn Transport, memory: Arc<DmaMemory>) -> Result<Arena> {
        // Locked until the range is in the table, so that `revoke` does not miss it.
        let mut table = self.table.lock();
        if table.revoked {
            return Err(Error::ResetFailed);
        }
        let arena = map(transport, memory)?;
        table.ranges.insert(arena.iova(), Range { arena: arena.clone(), mapped: true });
        Ok(arena)
    }

    /// Unmaps the memory at `iova`, which has no buffers any more.
    pub(super) fn remove(&self, transport: &dyn Transport, iova: u64) {
        let mut table = self.table.lock();
        let Entry::Occupied(mut place) = table.ranges.entry(iova) else { return };
        match place.get_mut().end(transport) {
            Ok(()) => drop(place.remove()),
            // The device may still write to the memory, so the memory and its address are kept
            // until the controller is closed.
            Err(error) => log::warn!("memory stays registered: {error}"),
        }
    }

    /// Unmaps all registered memory for good.
    ///
    /// # Errors
    /// The first error. The device may still access memory then.
    pub(super) fn revoke(&self, transport: &dyn Transport) -> Result<()> {
        let mut table = self.table.lock();
        table.revoked = true;
        let mut result = Ok(());
        // Every range is tried, even after an error.
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
