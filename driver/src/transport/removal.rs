//! How a function behind VFIO goes away.
//!
//! In order (its slot's button, `unbind`, sysfs `remove`): the kernel asks for it through an
//! eventfd and then waits until every file of it is closed, holding the device's lock; the
//! function works until then, and without the eventfd nobody would ever hear of it. By surprise:
//! configuration space reads as all ones. The registers should too, but a function that lost
//! power behind a bridge was seen to read as zeroes (QEMU), so they alone do not tell.

use std::sync::atomic::{AtomicBool, Ordering};

use vfio_bindings::bindings::vfio::{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_REQ_IRQ_INDEX};
use vfio_ioctls::VfioDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::pci_command;

/// Offset of Revision ID and Class Code in configuration space (PCI Local Bus 3.0, 6.1).
const CLASS_CODE: u64 = 8;

/// Watches for the removal of a function.
pub(super) struct Removal {
    /// Written to when the kernel wants the function back. `None` if it cannot tell.
    request: Option<EventFd>,
    gone: AtomicBool,
}

impl Removal {
    /// Begins to watch.
    pub(super) fn watch(device: &VfioDevice) -> Self {
        let request = EventFd::new(EFD_NONBLOCK).ok().filter(|request| {
            let enabled = device.enable_irq(VFIO_PCI_REQ_IRQ_INDEX, vec![request]);
            enabled.inspect_err(|error| log::debug!("no requests for removal: {error}")).is_ok()
        });
        Self { request, gone: AtomicBool::new(false) }
    }

    /// Whether the function was removed, or must be given up because it will be. What was true
    /// once stays true.
    pub(super) fn has_begun(&self, device: &VfioDevice) -> bool {
        if self.gone.load(Ordering::Relaxed) {
            return true;
        }
        let asked = self.request.as_ref().is_some_and(|request| request.read().is_ok());
        if asked {
            log::warn!("the kernel asks for the function back: it is being removed");
            // It is given up as it is. No reset can be had, as the kernel holds the device's lock,
            // but without bus mastering it does no DMA.
            pci_command::set(device, pci_command::NO_DMA);
        }
        let gone = asked || is_absent(device);
        if gone {
            self.gone.store(true, Ordering::Relaxed);
        }
        gone
    }
}

/// Whether configuration space reads as all ones, as the class code of no function does. The
/// vendor ID would not tell: the kernel answers for the function there.
fn is_absent(device: &VfioDevice) -> bool {
    let mut class = [0; 4];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut class, CLASS_CODE);
    class == [0xff; 4]
}
