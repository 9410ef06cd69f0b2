//! Old and unusual controllers, one test for each kind that the emulator plays.

use std::time::Duration;

use nvio_driver::{Address, CommandOptions, Controller, Error, Options, Quirk, Quirks};
use nvio_emulator::{Backing, Config, DeviceFault, Emulator, NamespaceConfig};
use nvio_testkit::controller::open_with;

/// Namespaces 1 and 3 of 1 MiB; the first bytes of namespace 1 are those of `TEXT`.
fn config(quirk: nvio_emulator::Quirk) -> Config {
    let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
    Emulator::builder().namespace(namespace()).namespace(namespace().nsid(3)).quirk(quirk)
}

const TEXT: &[u8] = b"hello";

fn writable() -> Options {
    Options { writable: true, ..Options::default() }
}

/// Checks that namespaces are found, that data is written and read, before and after a reset, and
/// that the log of health is read.
fn works(controller: &Controller) {
    assert_eq!(controller.namespace_ids().unwrap(), [1, 3]);
    for _ in 0..2 {
        let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
        let mut queue = controller.queue_pair::<()>(8).unwrap();
        let mut buf = controller.alloc(512).unwrap();
        buf[..TEXT.len()].copy_from_slice(TEXT);
        queue.write(&namespace, 0, buf, ()).unwrap();
        queue.wait(|done| assert!(done.status.is_success())).unwrap();
        queue.read(&namespace, 0, controller.alloc(512).unwrap(), ()).unwrap();
        queue.wait(|done| assert_eq!(&done.buf[..TEXT.len()], TEXT)).unwrap();
        drop(queue);
        controller.reset().unwrap();
    }
    assert_eq!(controller.health(None).unwrap().available_spare, 100);
    assert_eq!(controller.resets().unrequested(), 0);
}

#[test]
fn controllers_of_nvme_1_0_have_no_list_of_namespaces() {
    let emulator = config(nvio_emulator::Quirk::Version10).start().unwrap();
    let controller = open_with(&emulator, writable());
    assert_eq!(controller.version().to_string(), "1.0.0");
    works(&controller);
    assert!(matches!(controller.namespace(2), Err(Error::NoNamespace { nsid: 2 })));
}

#[test]
fn identify_controller_in_place_of_a_list_is_noticed() {
    let emulator = config(nvio_emulator::Quirk::IdentifyController).start().unwrap();
    works(&open_with(&emulator, writable()));
}

#[test]
fn a_refused_number_of_queues_leaves_one_pair() {
    let emulator = config(nvio_emulator::Quirk::NoQueueCount).start().unwrap();
    let controller = open_with(&emulator, writable());
    assert_eq!(controller.granted_queues(), 1);
    works(&controller);
    let _queue = controller.queue_pair::<()>(8).unwrap();
    let refused = controller.queue_pair::<()>(8).err();
    assert!(matches!(refused, Some(Error::NoQueue { granted: 1 })), "{refused:?}");
}

#[test]
fn refused_shadow_doorbells_leave_the_registers() {
    let emulator = config(nvio_emulator::Quirk::NoDoorbellBuffer).start().unwrap();
    let controller = open_with(&emulator, writable());
    assert!(controller.identify().oacs.get() & 1 << 8 != 0, "they are announced");
    works(&controller);
}

#[test]
fn a_single_pair_of_queues_is_enough() {
    let config = config(nvio_emulator::Quirk::QueuesRest).max_queues(1);
    works(&open_with(&config.start().unwrap(), writable()));
}

#[test]
fn identifiers_of_queues_are_used_in_turn() {
    let config = config(nvio_emulator::Quirk::QueuesRest).max_queues(8);
    let emulator = config.start().unwrap();
    let controller = open_with(&emulator, writable());
    let ids = |count| {
        let id = |_| controller.queue_pair::<()>(1).unwrap().id();
        (0..count).map(id).collect::<Vec<_>>()
    };
    // The controller refuses no identifier, because others were used since.
    assert_eq!(ids(8), [1, 2, 3, 4, 5, 6, 7, 8]);
    works(&controller);
}

#[test]
fn a_controller_may_be_slower_than_it_says() {
    let emulator = config(nvio_emulator::Quirk::ShortTimeout).start().unwrap();
    let controller = open_with(&emulator, writable());
    assert_eq!(controller.capabilities().timeout(), Duration::ZERO);
    works(&controller);
}

#[test]
fn registers_that_read_all_ones_after_a_reset_are_not_a_removal() {
    let emulator = config(nvio_emulator::Quirk::OnesAfterReset).start().unwrap();
    let controller = open_with(&emulator, writable());
    works(&controller);
    emulator.inject(DeviceFault::Removed);
    assert!(matches!(controller.health(None), Err(Error::Gone)));
}

#[test]
fn weighted_arbitration_finds_no_urgent_queue() {
    let emulator = config(nvio_emulator::Quirk::Weighted).start().unwrap();
    works(&open_with(&emulator, writable()));
}

#[test]
fn quirks_are_known_by_pci_id_and_can_be_added() {
    let disk = || NamespaceConfig::new(Backing::memory(1 << 20));
    let builder = || Emulator::builder().namespace(disk()).sgl(true).shadow_doorbells(true);
    let start = |vendor, device| builder().pci_id(vendor, device).start().unwrap();
    let emulator = start(0x8086, 0x5845);
    let quirks = Quirks::NONE.with(Quirk::NoSgl).with(Quirk::OneCommand);
    let quirks = quirks.with(Quirk::NoShadowDoorbells).with(Quirk::DelayAfterQueue);
    let controller = open_with(&emulator, Options { quirks, ..writable() });
    let expected = quirks.with(Quirk::IdentifyCns).with(Quirk::NoWriteZeroes);
    assert_eq!(controller.quirks(), expected);
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    assert!(!controller.has_sgl());
    let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
    let mut queue = controller.queue_pair::<()>(8).unwrap();
    assert_eq!(queue.capacity(), 1);
    let rejected = queue.write_zeroes(&namespace, (0, 8), false, CommandOptions::default(), ());
    let error = rejected.unwrap_err().error;
    assert_eq!(error.to_string(), "Write Zeroes is not supported: no-write-zeroes");
    drop((queue, namespace, controller));
    let apple = start(0x106b, 0x2005);
    let refused = Controller::open(&Address::vfio_user(apple.socket())).unwrap_err();
    assert!(refused.to_string().contains("entries of 128 bytes"), "{refused}");
    let delayed = start(0x144d, 0xa821);
    let controller = open_with(&delayed, Options::default());
    assert_eq!(controller.quirks().to_string(), "delay-before-ready");
}
