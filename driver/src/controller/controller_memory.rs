//! The Controller Memory Buffer: memory of the controller, in a BAR, for submission queues (Base
//! 3.1.3.11, 3.1.3.12, 3.1.3.16, 3.1.3.17 and 8.5). The controller then fetches commands from its
//! own memory, not over the bus.

use std::sync::Arc;

use nvio_spec::register::{
    CMB_ADDRESS_INVALID, CMBLOC, CMBMSC, CMBSTS, CMBSZ, Cap, Cmbloc, Cmbmsc, Cmbsz,
};
use parking_lot::Mutex;

use crate::dma::{Arena, Claim, PAGE_SIZE, PageMap, Shared};
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::transport::Transport;

/// Most bytes mapped, enough for submission queues.
const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// The mapped part of the buffer, and its free pages.
pub(crate) struct ControllerMemory {
    window: Mmio,
    /// The controller's address of the first byte.
    address: u64,
    /// CMBMSC sets the address (since NVMe 1.4); otherwise it is the address of the BAR.
    announced: bool,
    /// Reserves the addresses.
    _claim: Option<Claim>,
    free: Mutex<PageMap>,
}

impl ControllerMemory {
    /// Finds the buffer of a disabled controller, maps it and enables it. `None` if the controller
    /// has no buffer for submission queues.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Unsupported`] for a buffer that cannot be used; the error of
    /// the transport.
    pub(crate) fn find(
        transport: &dyn Transport,
        cap: Cap,
        arena: &Arena,
    ) -> Result<Option<Arc<Self>>> {
        let announced = cap.controller_memory();
        if announced {
            set_control(transport, Cmbmsc(Cmbmsc::CAPABILITIES))?;
        }
        let size = Cmbsz(transport.read32_present(CMBSZ)?);
        let location = Cmbloc(transport.read32_present(CMBLOC)?);
        if size.0 == 0 || !size.submission_queues() {
            return Ok(None);
        }
        let invalid = |field, value| Error::Invalid { structure: "CMBSZ", field, value };
        let unit = || invalid("SZU", u64::from(size.0 >> 8 & 0xf));
        let (bytes, offset) = size.bytes().zip(location.offset(size)).ok_or_else(unit)?;
        if bytes == 0 {
            return Err(invalid("SZ", 0));
        }
        let window = transport.map_bar(location.bar(), offset, bytes.min(WINDOW_BYTES_MAX))?;
        let len = usize::try_from(bytes).map_err(|_| invalid("SZ", bytes))?;
        // Controllers before NVMe 1.4, and some later ones, accept only the address on the bus.
        let on_bus = transport.bar_address(location.bar()).and_then(|bar| {
            let address = bar.checked_add(offset).ok_or(invalid("OFST", offset))?;
            check_place(address, bytes, cap, arena).map(|()| address)
        });
        let (address, claim) = match on_bus {
            // The claim fails if another controller of this process has claimed the addresses;
            // arenas do not overlap them in that case either.
            Ok(address) => (address, Claim::new(len, |_| Ok(address)).ok()),
            // With CMBMSC, any free address can be used.
            Err(error) if announced => {
                log::debug!(
                    "the controller memory cannot be used at its address on the bus: {error}"
                );
                let claim = Claim::new(len, |used| transport.choose_iova(bytes, used))?;
                check_place(claim.iova(), bytes, cap, arena)?;
                (claim.iova(), Some(claim))
            }
            Err(error) => return Err(error),
        };
        let free = Mutex::new(PageMap::new(window.len() / PAGE_SIZE));
        let memory = Self { window, address, _claim: claim, announced, free };
        memory.enable(transport)?;
        Ok(Some(Arc::new(memory)))
    }

    /// Sets the address of the buffer in a disabled controller, which a reset of the function
    /// clears.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the controller rejects the address.
    pub(crate) fn enable(&self, transport: &dyn Transport) -> Result<()> {
        if !self.announced {
            return Ok(());
        }
        set_control(transport, Cmbmsc::enabled(self.address))?;
        match transport.read32_present(CMBSTS)? {
            status if status & CMB_ADDRESS_INVALID == 0 => Ok(()),
            _ => Err(Error::invalid("CMBMSC", "CBA", self.address)),
        }
    }

    /// Allocates `bytes` at a multiple of `align`, to be written only, because reads are slow.
    /// `None` if they are not free.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize, align: usize) -> Option<Shared> {
        let count = bytes.div_ceil(PAGE_SIZE);
        let first = self.free.lock().allocate(count, align.div_ceil(PAGE_SIZE))?;
        let pages = Pages { memory: Arc::clone(self), first, count };
        let at = first * PAGE_SIZE;
        // SAFETY: the pages are inside the window, which `pages` keeps, and exclusive.
        Some(unsafe { Shared::new(self.window.at(at), self.address + at as u64, bytes, pages) })
    }

    /// Returns the size of the mapped part, bytes.
    pub(crate) fn len(&self) -> usize {
        self.window.len()
    }
}

/// Checks that queues can be at `address`: it must be aligned to the controller's pages, and the
/// range must not overlap the arena.
fn check_place(address: u64, bytes: u64, cap: Cap, arena: &Arena) -> Result<()> {
    let arena_end = arena.iova().checked_add(arena.size() as u64);
    let (Some(end), Some(arena_end)) = (address.checked_add(bytes), arena_end) else {
        return Err(Error::invalid("CMBSZ", "SZ", bytes));
    };
    if address < arena_end && arena.iova() < end {
        let detail = format!("{address:#x} to {end:#x}, arena at {:#x}", arena.iova());
        return Err(Error::unsupported(
            "a controller memory at the addresses of the arena",
            detail,
        ));
    }
    let align = 1 << cap.min_page_shift();
    match address.is_multiple_of(align) {
        true => Ok(()),
        false => Err(Error::Misaligned { value: address, align }),
    }
}

/// Writes CMBMSC. The half with the enable bits is last, because they apply to the address.
fn set_control(transport: &dyn Transport, control: Cmbmsc) -> Result<()> {
    transport.write32(CMBMSC + 4, (control.0 >> 32) as u32)?;
    transport.write32(CMBMSC, (control.0 & 0xffff_ffff) as u32)
}

/// A run of pages of the buffer, freed when dropped.
struct Pages {
    memory: Arc<ControllerMemory>,
    first: usize,
    count: usize,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.memory.free.lock().free(self.first, self.count);
    }
}

#[cfg(test)]
mod tests;
