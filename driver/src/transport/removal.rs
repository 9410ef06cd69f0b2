//! Removal of a function behind VFIO.
//!
//! Orderly removal (the slot's button, `unbind`, sysfs `remove`): the kernel requests the function
//! through an eventfd, and then waits until every file of the function is closed, holding the
//! device's lock. The function works until then.
//!
//! Surprise removal: configuration space reads as all ones. The registers should as well, but those
//! of a function that lost power behind a bridge were seen to read as zeroes (QEMU), so they do not
//! decide.

use std::sync::atomic::{AtomicBool, Ordering};

use vfio_bindings::bindings::vfio::{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_REQ_IRQ_INDEX};
use vfio_ioctls::VfioDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::pci_command;

/// Offset of Revision ID and Class Code in configuration space (PCI Local Bus 3.0, 6.1).
const CLASS_CODE: u64 = 8;

/// Watches for the removal of a function.
pub(super) struct Removal {
    /// Signalled when the kernel requests the function. `None` if the kernel has no such interrupt.
    request: Option<EventFd>,
    gone: AtomicBool,
}

impl Removal {
    /// Starts to watch.
    pub(super) fn watch(device: &VfioDevice) -> Self {
        let request = EventFd::new(EFD_NONBLOCK).ok().filter(|request| {
            let enabled = device.enable_irq(VFIO_PCI_REQ_IRQ_INDEX, vec![request]);
            enabled.inspect_err(|error| log::debug!("no requests for removal: {error}")).is_ok()
        });
        Self { request, gone: AtomicBool::new(false) }
    }

    /// Returns true if the function was removed, or the kernel has requested it. Stays true from
    /// then on.
    pub(super) fn has_begun(&self, device: &VfioDevice) -> bool {
        if self.gone.load(Ordering::Relaxed) {
            return true;
        }
        let asked = self.request.as_ref().is_some_and(|request| request.read().is_ok());
        if asked {
            log::warn!("the kernel requests the function: it is being removed");
            // A reset is not possible, because the kernel holds the device's lock, but a function
            // that is not bus master does no DMA.
            pci_command::set(device, pci_command::NO_DMA);
        }
        let gone = asked || is_absent(device);
        if gone {
            self.gone.store(true, Ordering::Relaxed);
        }
        gone
    }
}

/// Returns true if the class code reads as all ones, which no function has. The vendor ID does not
/// decide, because the kernel emulates that register.
fn is_absent(device: &VfioDevice) -> bool {
    let mut class = [0; 4];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut class, CLASS_CODE);
    class == [0xff; 4]
}
