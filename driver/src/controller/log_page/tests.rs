//! Log pages of the embedded controller.

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_spec::{opcode, status};
use zerocopy::little_endian::U64;

use super::*;
use crate::Options;
use crate::served::Served;

/// A controller with transfers of at most 8 KiB.
fn served() -> Served {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    Served::start(Emulator::builder().namespace(namespace).mdts(Some(1)), Options::default())
}

/// Reads a page that the controller does not have, so that a command fails.
fn fail(controller: &Controller) {
    let refused = controller.read_log_page(LogPage::new(0xbf), 0, &mut [0; 4]).unwrap_err();
    let Error::Command { command: "Get Log Page", status: found } = refused else {
        panic!("{refused}");
    };
    assert_eq!(found.bare(), status::INVALID_LOG_PAGE);
}

#[test]
fn health_counts_what_was_done() {
    let served = served();
    let controller = &served.controller;
    let before = controller.health(None).unwrap();
    assert_eq!((before.critical_warning, before.available_spare), (0, 100));
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair(8).unwrap();
    for lba in 0..5 {
        queue.read(&namespace, lba, controller.alloc(512).unwrap(), ()).unwrap();
        queue.wait(|done| assert!(done.status.is_success())).unwrap();
    }
    fail(controller);
    let after = controller.health(None).unwrap();
    assert_eq!(after.host_reads.get(), before.host_reads.get() + 5);
    assert_eq!(after.error_log_entries.get(), before.error_log_entries.get() + 1);
    // The controller reports that it has no page for each namespace.
    let refused = controller.health(Some(1));
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
}

#[test]
fn errors_are_listed_newest_first_with_what_failed() {
    let served = served();
    let controller = &served.controller;
    assert!(controller.error_log().unwrap().is_empty());
    for _ in 0..3 {
        fail(controller);
    }
    assert!(matches!(controller.namespace(7), Err(Error::NoNamespace { nsid: 7 })));
    let log = controller.error_log().unwrap();
    let counts: Vec<u64> = log.iter().map(|entry| entry.error_count.get()).collect();
    assert_eq!(counts, [4, 3, 2, 1]);
    assert_eq!((log[0].nsid.get(), log[0].status().bare()), (7, status::INVALID_NAMESPACE));
    assert_eq!(log[3].status().bare(), status::INVALID_LOG_PAGE);
    assert_eq!((log[3].sqid.get(), log[3].parameter()), (0, None));
}

#[test]
fn firmware_effects_and_pages_that_may_be_missing() {
    let served = served();
    let controller = &served.controller;
    let firmware = controller.firmware_slots().unwrap();
    assert_eq!(firmware.active_slot(), 1);
    assert_eq!(firmware.slots().next(), Some((1, controller.identify().firmware())));
    let effects = controller.command_effects().unwrap();
    let entry = |opcode: u8| effects.io[usize::from(opcode)].get();
    assert_ne!(entry(opcode::nvm::READ) & CommandEffects::SUPPORTED, 0);
    assert_ne!(entry(opcode::nvm::WRITE) & CommandEffects::CHANGES_CONTENT, 0);
    assert_eq!(entry(0xff), 0);
    // Bit 8 of OAES: the controller keeps the list of changed namespaces.
    match (controller.changed_namespaces(), controller.identify().oaes.get() >> 8 & 1) {
        (Ok(list), 1) => assert_eq!((list.ids().count(), list.is_overflowed()), (0, false)),
        (Err(Error::Command { status: found, .. }), 0) => {
            assert_eq!(found.bare(), status::INVALID_LOG_PAGE);
        }
        other => panic!("{other:?}"),
    }
    match controller.supported_log_pages() {
        Ok(pages) => assert!(pages.ids().any(|id| id == log_id::HEALTH)),
        Err(error) => {
            assert_eq!(controller.identify().lpa & lpa::SUPPORTED_LOG_PAGES, 0);
            assert!(error.to_string().contains("LPA is 0x"), "{error}");
        }
    }
}

#[test]
fn pieces_of_any_size_come_together() {
    let served = served();
    let controller = &served.controller;
    let page = LogPage::new(log_id::COMMAND_EFFECTS);
    let mut whole = vec![0; 4096];
    controller.read_log_page(page, 0, &mut whole).unwrap();
    assert!(whole.iter().any(|&byte| byte != 0));
    for (most, offset, length) in
        [(4, 0, 64), (64, 0, 4096), (100, 4, 4092), (1000, 2044, 999), (4096, 4092, 3), (7, 0, 21)]
    {
        let mut part = vec![0xee; length];
        controller.read_log_in(page, offset, &mut part, most).unwrap();
        let from = usize::try_from(offset).unwrap();
        assert!(part == whole[from..from + length], "{length} at {offset} by {most}");
    }
    controller.read_log_page(page, 0, &mut []).unwrap();
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let served = served();
    let controller = &served.controller;
    let page = LogPage::new(log_id::FIRMWARE_SLOT);
    let read = |offset, length: usize| {
        let mut out = vec![0xee; length];
        controller.read_log_page(page, offset, &mut out).map(|()| out)
    };
    assert!(matches!(read(2, 4), Err(Error::Misaligned { value: 2, align: 4 })));
    assert!(matches!(read(1 << 40, 4), Err(Error::Command { .. })));
    assert!(matches!(read(u64::MAX - 3, 4), Err(Error::Command { .. })));
    // A range after the end of the page, in one command.
    assert!(read(504, 64).unwrap().iter().all(|&byte| byte == 0));
    // A range that needs several commands, while the page is shorter.
    assert!(matches!(read(0, 8196), Err(Error::Command { .. })));
}

#[test]
fn an_error_that_comes_twice_is_told_once() {
    let entry = |count| {
        let mut entry = ErrorLogEntry::new_zeroed();
        entry.error_count = U64::new(count);
        entry
    };
    let counts = |log: &[u64]| -> Vec<u64> {
        let log = in_use(log.iter().copied().map(entry).collect());
        log.iter().map(|entry| entry.error_count.get()).collect()
    };
    assert_eq!(counts(&[9, 8, 7, 7, 6]), [9, 8, 7, 6]);
    assert_eq!(counts(&[9, 0, u64::MAX, 0, 0]), [9, u64::MAX]);
    assert!(counts(&[0; 4]).is_empty());
}
