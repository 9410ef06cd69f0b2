//! PCI configuration space of an NVMe controller.

use crate::admin::identify::VENDOR_ID;

/// Device identifier, "IO".
pub(crate) const DEVICE_ID: u16 = 0x494f;
/// Size of configuration space in bytes. There are no extended capabilities.
pub(crate) const CONFIG_SIZE: u64 = 4096;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS: usize = 0x08;
const BAR0: usize = 0x10;
const BAR2: usize = 0x18;
const BAR4: usize = 0x20;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
const POWER_CAP: u8 = 0x40;
const PCIE_CAP: u8 = 0x50;
const MSIX_CAP: u8 = 0x90;
/// Device Control of the PCIe capability (PCIe 7.5.3.4).
const DEVICE_CONTROL: usize = PCIE_CAP as usize + 8;

/// Writable bits of the Command register: memory space, bus master, SERR#, interrupt disable.
const COMMAND_WRITABLE: u16 = MEMORY_SPACE | BUS_MASTER | 1 << 8 | INTERRUPT_DISABLE;
const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const INTERRUPT_DISABLE: u16 = 1 << 10;

/// The effect of a write to configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A function level reset was requested.
    FunctionReset,
}

/// The first 256 bytes of configuration space, and the mask of their writable bits. The others are
/// 0.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; 256],
    writable: [u8; 256],
    initial: [u8; 256],
}

impl ConfigSpace {
    /// Creates configuration space for a BAR0 of `bar0_size` bytes, a BAR2 of `bar2_size` bytes if
    /// there is one, both powers of two from 4096 on, and `vectors` MSI-X vectors, 1 to 2048.
    pub(crate) fn new(bar0_size: u64, bar2_size: Option<u64>, vectors: u16) -> Self {
        let mut space = Self { bytes: [0; 256], writable: [0; 256], initial: [0; 256] };
        space.put(0x00, VENDOR_ID.to_le_bytes());
        space.put(0x02, DEVICE_ID.to_le_bytes());
        space.allow(COMMAND, COMMAND_WRITABLE.to_le_bytes());
        // A capability list.
        space.put(STATUS, [1 << 4, 0]);
        let class = nvio_spec::PCI_CLASS.to_le_bytes();
        space.put(CLASS, [1, class[0], class[1], class[2]]);
        // A 64-bit memory BAR and a 32-bit one; the bits below their sizes read as 0.
        space.put(BAR0, [0b100, 0, 0, 0]);
        space.allow(BAR0, (!(bar0_size - 1)).to_le_bytes());
        // A 64-bit memory BAR that may be prefetched.
        if let Some(size) = bar2_size {
            space.put(BAR2, [0b1100, 0, 0, 0]);
            space.allow(BAR2, (!(size - 1)).to_le_bytes());
        }
        let msix_size = (msix_bar_size(vectors) & 0xffff_ffff) as u32;
        space.allow(BAR4, (!(msix_size - 1)).to_le_bytes());
        space.put(SUBSYSTEM, VENDOR_ID.to_le_bytes());
        space.put(SUBSYSTEM + 2, DEVICE_ID.to_le_bytes());
        space.put(CAPABILITIES, [POWER_CAP]);
        space.allow(0x3c, [0xff]);
        space.put(INTERRUPT_PIN, [1]);
        // Power management, version 3, no reset from D3hot; the state can be set.
        space.put(usize::from(POWER_CAP), [0x01, PCIE_CAP, 3, 0, 1 << 3]);
        space.allow(usize::from(POWER_CAP) + 4, [0b11]);
        // PCI Express endpoint, version 2; function level reset, role-based errors.
        space.put(usize::from(PCIE_CAP), [0x10, MSIX_CAP, 2, 0]);
        space.put(usize::from(PCIE_CAP) + 4, (1u32 << 28 | 1 << 15).to_le_bytes());
        space.allow(DEVICE_CONTROL, [0xff, 0x7f]);
        // MSI-X: table and pending bits in BAR4.
        space.put(usize::from(MSIX_CAP), [0x11, 0]);
        space.put(usize::from(MSIX_CAP) + 2, (vectors - 1).to_le_bytes());
        space.allow(usize::from(MSIX_CAP) + 2, [0, 0xc0]);
        space.put(usize::from(MSIX_CAP) + 4, 4u32.to_le_bytes());
        space.put(usize::from(MSIX_CAP) + 8, (msix_size / 2 + 4).to_le_bytes());
        space.initial = space.bytes;
        space
    }

    /// Sets vendor and device ID, those of the subsystem too.
    pub(crate) fn identified_by(mut self, (vendor, device): (u16, u16)) -> Self {
        for (at, id) in [(0, vendor), (2, device), (SUBSYSTEM, vendor), (SUBSYSTEM + 2, device)] {
            self.put(at, id.to_le_bytes());
        }
        self.initial = self.bytes;
        self
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    fn allow<const N: usize>(&mut self, at: usize, bits: [u8; N]) {
        self.writable[at..at + N].copy_from_slice(&bits);
    }

    /// Reads from `offset`. Bytes beyond the first 256 are 0.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let from = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }

    /// Writes the writable bits.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut effect = Effect::None;
        let first = usize::try_from(offset).unwrap_or(self.bytes.len());
        for (at, &value) in (first..self.bytes.len()).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
            // Bit 15 of Device Control starts a reset and always reads as 0.
            if at == DEVICE_CONTROL + 1 && value & 0x80 != 0 {
                effect = Effect::FunctionReset;
            }
        }
        effect
    }

    /// Returns true if the device may access memory (Bus Master Enable).
    #[inline]
    pub(crate) fn bus_master(&self) -> bool {
        self.command() & BUS_MASTER != 0
    }

    #[inline]
    fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }

    /// Returns true if the function may signal interrupts: INTx is not disabled, or MSI-X is
    /// enabled (PCIe 7.5.1.1.3, 7.7.2.2).
    pub(crate) fn interrupts_enabled(&self) -> bool {
        let msix_enabled = self.bytes[usize::from(MSIX_CAP) + 3] & 0x80 != 0;
        self.command() & INTERRUPT_DISABLE == 0 || msix_enabled
    }

    /// Returns the address of BAR2; `None` before memory space is enabled, and for address 0.
    pub(crate) fn bar2(&self) -> Option<u64> {
        let bytes = self.bytes[BAR2..].first_chunk().copied().unwrap_or_default();
        let address = u64::from_le_bytes(bytes) & !0xf;
        (self.command() & MEMORY_SPACE != 0 && address != 0).then_some(address)
    }

    /// Restores the values of power on.
    pub(crate) fn reset(&mut self) {
        self.bytes = self.initial;
    }
}

/// Returns the size of BAR4 in bytes: the MSI-X table in its lower half, the pending bits in its
/// upper half.
pub(crate) fn msix_bar_size(vectors: u16) -> u64 {
    2 * (u64::from(vectors) * 16).next_power_of_two().max(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dword(space: &ConfigSpace, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn bars_are_sized_by_writing_ones() {
        let mut space = ConfigSpace::new(16 << 10, Some(64 << 20), 65);
        space.write(0x10, &[0xff; 8]);
        assert_eq!((dword(&space, 0x10), dword(&space, 0x14)), (0xffff_c004, 0xffff_ffff));
        space.write(0x20, &[0xff; 8]);
        assert_eq!((dword(&space, 0x20), dword(&space, 0x24)), (0xffff_e000, 0));
        assert_eq!((dword(&space, 0x18), dword(&space, 0x1c)), (0xc, 0));
        space.write(0x18, &[0xff; 8]);
        assert_eq!((dword(&space, 0x18), dword(&space, 0x1c)), (0xfc00_000c, 0xffff_ffff));
        assert_eq!(space.bar2(), None);
        space.write(0x18, &0x12_3400_0000u64.to_le_bytes());
        space.write(0x04, &[2, 0]);
        assert_eq!(space.bar2(), Some(0x12_3400_0000));
        space.reset();
        assert_eq!((dword(&space, 0x10), space.bar2()), (4, None));
        let mut without = ConfigSpace::new(16 << 10, None, 65);
        without.write(0x18, &[0xff; 8]);
        assert_eq!(dword(&without, 0x18), 0);
    }

    #[test]
    fn class_and_capabilities_are_those_of_an_nvme_controller() {
        let mut space = ConfigSpace::new(16 << 10, None, 65);
        assert_eq!(dword(&space, 0x08) >> 8, nvio_spec::PCI_CLASS);
        space.write(0, &[0; 4]);
        assert_eq!(dword(&space, 0) & 0xffff, u32::from(VENDOR_ID));
        let mut ids = Vec::new();
        let mut at = u64::from(dword(&space, 0x34) & 0xff);
        while at != 0 {
            ids.push(dword(&space, at) & 0xff);
            at = u64::from(dword(&space, at) >> 8 & 0xff);
        }
        assert_eq!(ids, [0x01, 0x10, 0x11]);
        assert_eq!(dword(&space, 0x90) >> 16, 64);
        assert_eq!((dword(&space, 0x94), dword(&space, 0x98)), (4, 0x1004));
        assert_eq!(dword(&space, 256), 0);
        assert_eq!(dword(&space, u64::MAX - 1), 0);
    }

    #[test]
    fn bus_master_and_function_reset() {
        let mut space = ConfigSpace::new(16 << 10, None, 1);
        assert!(space.interrupts_enabled());
        assert!(!space.bus_master());
        assert_eq!(space.write(0x04, &[0xff, 0xff]), Effect::None);
        assert!(space.bus_master());
        assert_eq!(dword(&space, 0x04) & 0xffff, u32::from(COMMAND_WRITABLE));
        // INTx is disabled now; MSI-X can still be enabled.
        assert!(!space.interrupts_enabled());
        space.write(0x92, &[0, 0x80]);
        assert!(space.interrupts_enabled());
        assert_eq!(space.write(0x58, &[0, 0x80]), Effect::FunctionReset);
        assert_eq!(dword(&space, 0x58), 0);
    }
}
