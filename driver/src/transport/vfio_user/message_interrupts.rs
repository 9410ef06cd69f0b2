//! Message-signaled interrupts of a vfio-user server: their eventfds, and their enable bit in
//! configuration space, which a VFIO kernel would set itself.

use std::os::fd::BorrowedFd;

use vfio_bindings::bindings::vfio::{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX};

use super::channel::Fault;
use super::client::Client;
use crate::transport::pci_capability;
use crate::transport::vfio_irq::{self, Vectors};

/// The capabilities with their identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capability {
    Msi = 0x05,
    MsiX = 0x11,
}

impl Capability {
    /// Returns Message Control with `vectors` vectors enabled, none if 0, from its present value
    /// (PCI Local Bus 3.0, 6.8.1.3 and 6.8.2.3).
    fn control(self, present: u16, vectors: usize) -> u16 {
        /// Multiple Message Enable of MSI, log2 of the number of vectors.
        const MULTIPLE: u16 = 0b111 << 4;
        const MSI_ENABLE: u16 = 1;
        const MSIX_ENABLE: u16 = 1 << 15;
        const FUNCTION_MASK: u16 = 1 << 14;
        match (self, vectors) {
            (Self::Msi, 0) => present & !(MSI_ENABLE | MULTIPLE),
            (Self::Msi, vectors) => {
                let capable = present >> 1 & 0b111;
                let wanted = vectors.checked_next_power_of_two().map(usize::trailing_zeros);
                let wanted = wanted.and_then(|log2| u16::try_from(log2).ok());
                let multiple = wanted.map_or(capable, |log2| log2.min(capable));
                present & !MULTIPLE | multiple << 4 | MSI_ENABLE
            }
            (Self::MsiX, 0) => present & !MSIX_ENABLE,
            (Self::MsiX, _) => present & !FUNCTION_MASK | MSIX_ENABLE,
        }
    }
}

/// The vectors of a server and the place of their enable bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageInterrupts {
    vectors: Vectors,
    /// The capability, and the offset of its Message Control in configuration space, bytes.
    control: Option<(Capability, u64)>,
}

impl MessageInterrupts {
    /// Chooses MSI-X or MSI, and finds the capability. Interrupts are disabled afterwards, because
    /// the bit of an earlier client may still be set: a server may fail a controller whose
    /// interrupts are enabled without an eventfd.
    pub(super) fn find(client: &mut Client) -> Result<Self, Fault> {
        let vectors = Vectors::choose(|index| client.irq_info(index));
        let capability = match vectors.index {
            VFIO_PCI_MSI_IRQ_INDEX => Capability::Msi,
            _ => Capability::MsiX,
        };
        let read = |at| client.read(VFIO_PCI_CONFIG_REGION_INDEX, at).map(u32::from_le_bytes);
        let found = match pci_capability::find(capability as u8, read) {
            Ok(None) => {
                log::debug!("configuration space has no {capability:?} capability to enable");
                None
            }
            Err(Fault::Io(error)) => {
                log::debug!("the capabilities of configuration space cannot be read: {error}");
                None
            }
            found => found?,
        };
        let interrupts = Self { vectors, control: found.map(|at| (capability, at + 2)) };
        interrupts.disable(client)?;
        Ok(interrupts)
    }

    /// Returns the number of vectors; 0 if the server delivers no interrupts.
    pub(super) fn count(&self) -> u16 {
        self.vectors.count
    }

    /// Connects the first vectors to `events` and enables them, after releasing all vectors. After
    /// an error no vector is enabled.
    pub(super) fn connect(
        &self,
        client: &mut Client,
        events: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        let connected = self.try_connect(client, events);
        if connected.is_err() {
            let released = self.release(client);
            released.unwrap_or_else(|fault| log::debug!("vectors are not released: {fault:?}"));
        }
        connected
    }

    /// Sets up eventfds in messages with as many file descriptors as the server accepts. The enable
    /// bit is set last, because an enabled vector needs an eventfd.
    fn try_connect(&self, client: &mut Client, events: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        self.release(client)?;
        let mut start = 0;
        for events in events.chunks(client.limits.fds.max(1)) {
            let count = u32::try_from(events.len()).unwrap_or(0);
            client.set_irqs(self.vectors.index, vfio_irq::SET_EVENTS, start, count, events)?;
            start += count;
        }
        self.enable(client, events.len())
    }

    /// Disables interrupts and disconnects all eventfds.
    fn release(&self, client: &mut Client) -> Result<(), Fault> {
        self.disable(client)?;
        client.set_irqs(self.vectors.index, vfio_irq::TRIGGER, 0, 0, &[])
    }

    /// Clears the enable bit.
    pub(super) fn disable(&self, client: &mut Client) -> Result<(), Fault> {
        self.enable(client, 0)
    }

    /// Enables `vectors` vectors, or none if 0. Nothing is written if the bits are right.
    fn enable(&self, client: &mut Client, vectors: usize) -> Result<(), Fault> {
        let Some((capability, offset)) = self.control else { return Ok(()) };
        let present = u16::from_le_bytes(client.read(VFIO_PCI_CONFIG_REGION_INDEX, offset)?);
        let wanted = capability.control(present, vectors);
        if wanted == present {
            return Ok(());
        }
        // A server may accept the register only by itself, as two bytes.
        client.write(VFIO_PCI_CONFIG_REGION_INDEX, offset, wanted.to_le_bytes())
    }
}

#[cfg(test)]
mod tests;
