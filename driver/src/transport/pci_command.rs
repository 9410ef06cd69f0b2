//! The Command register of configuration space (PCI Local Bus 3.0, 6.2.2).

use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX as CONFIG;
use vfio_ioctls::VfioDevice;

use crate::error::{Error, Result};

/// Offset of vendor and device ID, bytes (PCI Local Bus 3.0, 6.2.1).
pub(super) const ID: u64 = 0;
/// Offset of subsystem vendor and subsystem ID, bytes (PCI Local Bus 3.0, 6.2.4).
pub(super) const SUBSYSTEM_ID: u64 = 0x2c;
/// Offset of the register, bytes.
pub(super) const OFFSET: u64 = 4;
/// The function responds to accesses to its BARs.
const MEMORY: u16 = 1 << 1;
/// The function may do DMA.
const BUS_MASTER: u16 = 1 << 2;
/// Interrupt Disable: the function must not assert INTx. The driver polls or uses MSI-X, and a
/// vfio-user server that finds INTx enabled and no eventfd for it fails the controller.
const INTX_DISABLE: u16 = 1 << 10;
/// The bits of a function in use.
pub(super) const IN_USE: u16 = MEMORY | BUS_MASTER | INTX_DISABLE;
/// The bits of a function that must not access host memory.
pub(super) const NO_DMA: u16 = MEMORY | INTX_DISABLE;

/// Sets `bits`, clears the other bits of [`IN_USE`], and returns the register read back.
pub(super) fn set(device: &VfioDevice, bits: u16) -> u16 {
    let read = || {
        let mut command = [0; 2];
        device.region_read(CONFIG, &mut command, OFFSET);
        u16::from_le_bytes(command)
    };
    let command = read() & !IN_USE | bits;
    device.region_write(CONFIG, &command.to_le_bytes(), OFFSET);
    read()
}

/// Checks the register, read back after [`IN_USE`] was written. Interrupt Disable is not checked,
/// because a function without INTx may hardwire it to zero.
pub(super) fn check(command: u16) -> Result<()> {
    const NEEDED: u16 = MEMORY | BUS_MASTER;
    match command {
        0xffff => Err(Error::Gone),
        command if command & NEEDED == NEEDED => Ok(()),
        command => {
            let field = "Command, after bus mastering was enabled,";
            Err(Error::invalid("PCI configuration space", field, command))
        }
    }
}
