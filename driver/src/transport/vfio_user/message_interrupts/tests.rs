//! The enable bit, on the embedded controller.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use nvio_emulator::{Backing, Emulator, NamespaceConfig};

use super::*;
use crate::transport::Transport;
use crate::transport::vfio_user::VfioUser;

/// Message Control of the emulator's MSI-X capability with 65 vectors.
const DISABLED: u16 = 64;
const ENABLED: u16 = DISABLED | 1 << 15;

fn emulator() -> Emulator {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    Emulator::builder().namespace(namespace).start().unwrap()
}

fn open(emulator: &Emulator) -> VfioUser {
    VfioUser::connect(emulator.socket(), Duration::from_secs(10)).unwrap()
}

fn control(device: &VfioUser) -> u16 {
    let (_, offset) = device.interrupts.control.unwrap();
    u16::from_le_bytes(device.client.lock().read(VFIO_PCI_CONFIG_REGION_INDEX, offset).unwrap())
}

fn set_control(device: &VfioUser, value: u16) {
    let (_, offset) = device.interrupts.control.unwrap();
    let value = value.to_le_bytes();
    device.client.lock().write(VFIO_PCI_CONFIG_REGION_INDEX, offset, value).unwrap();
}

#[test]
fn msi_x_is_enabled_while_vectors_have_eventfds() {
    let emulator = emulator();
    let device = open(&emulator);
    let events = [File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap()];
    let events = events.each_ref().map(File::as_fd);
    assert_eq!(control(&device), DISABLED);
    assert_eq!(device.connect_interrupts(&events).unwrap(), 2);
    assert_eq!(control(&device), ENABLED);
    // A reset of the function ends interrupts until they are connected again.
    device.reset().unwrap();
    assert_eq!(control(&device), DISABLED);
    // The function mask would hold back every vector.
    set_control(&device, 1 << 14);
    assert_eq!(device.connect_interrupts(&events).unwrap(), 2);
    assert_eq!(control(&device), ENABLED);
    assert_eq!(device.connect_interrupts(&[]).unwrap(), 0);
    assert_eq!(control(&device), DISABLED);
}

#[test]
fn a_failed_connection_and_an_earlier_client_leave_msi_x_disabled() {
    let emulator = emulator();
    let device = open(&emulator);
    let null = File::open("/dev/null").unwrap();
    device.connect_interrupts(&[null.as_fd()]).unwrap();
    // One vector more than the server has.
    let many = vec![null.as_fd(); usize::from(device.interrupts()) + 1];
    assert!(device.interrupts.connect(&mut device.client.lock(), &many).is_err());
    assert_eq!(control(&device), DISABLED);
    set_control(&device, 1 << 15);
    let found = MessageInterrupts::find(&mut device.client.lock()).unwrap();
    assert_eq!(found.control, Some((Capability::MsiX, 0x92)));
    assert_eq!(control(&device), DISABLED);
}

#[test]
fn a_server_without_the_capability_connects_its_vectors() {
    let emulator = emulator();
    let device = open(&emulator);
    let without = MessageInterrupts { control: None, ..device.interrupts };
    let null = File::open("/dev/null").unwrap();
    without.connect(&mut device.client.lock(), &[null.as_fd()]).unwrap();
    assert_eq!(control(&device), DISABLED);
}

#[test]
fn message_control_keeps_its_other_bits() {
    let msix = |present, vectors| Capability::MsiX.control(present, vectors);
    assert_eq!((msix(0x0007, 8), msix(0xc7ff, 1), msix(0x8007, 0)), (0x8007, 0x87ff, 0x0007));
    // MSI with 64-bit addresses and up to 8 vectors: the number of vectors is a power of two.
    let msi = |vectors| Capability::Msi.control(0x0086, vectors);
    assert_eq!([1, 2, 3, 8].map(msi), [0x0087, 0x0097, 0x00a7, 0x00b7]);
    assert_eq!([9, 1 << 20, usize::MAX].map(msi), [0x00b7; 3]);
    assert_eq!(Capability::Msi.control(0x00b7, 0), 0x0086);
}
