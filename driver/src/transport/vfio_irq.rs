//! Interrupt vectors of a PCI function behind VFIO or vfio-user.

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

/// Connects vectors to eventfds.
pub(super) const SET_EVENTS: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
/// Signals vectors as the device would. A count of 0 disables them.
pub(super) const TRIGGER: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;

/// The vectors of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vectors {
    /// The VFIO interrupt index.
    pub(super) index: u32,
    /// Number of vectors.
    pub(super) count: u16,
}

impl Vectors {
    /// Chooses MSI-X, or MSI if there is no MSI-X. `info` returns flags and count of an index. INTx
    /// is not used, because it may be shared and must be unmasked after each interrupt.
    pub(super) fn choose(mut info: impl FnMut(u32) -> Option<(u32, u32)>) -> Self {
        for index in [VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX] {
            match info(index) {
                Some((flags, count)) if count > 0 && flags & VFIO_IRQ_INFO_EVENTFD != 0 => {
                    return Self { index, count: u16::try_from(count).unwrap_or(u16::MAX) };
                }
                _ => {}
            }
        }
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_x_is_preferred_and_intx_is_not_used() {
        let offer = |msi: u32, msix: u32, flags: u32| {
            Vectors::choose(|index| match index {
                VFIO_PCI_MSI_IRQ_INDEX => Some((flags, msi)),
                VFIO_PCI_MSIX_IRQ_INDEX => Some((flags, msix)),
                _ => Some((flags, 1)),
            })
        };
        assert_eq!(offer(32, 65, 1), Vectors { index: VFIO_PCI_MSIX_IRQ_INDEX, count: 65 });
        assert_eq!(offer(32, 0, 1), Vectors { index: VFIO_PCI_MSI_IRQ_INDEX, count: 32 });
        assert_eq!(offer(0, 0, 1), Vectors::default());
        assert_eq!(offer(32, 65, 0), Vectors::default());
        assert_eq!(Vectors::choose(|_| None), Vectors::default());
    }
}
