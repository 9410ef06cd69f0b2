//! Checks of the structures that the driver has accepted.

use nvio_driver::spec::{
    ChangedNamespaces, CommandEffects, ErrorLogEntry, FirmwareSlotLog, HealthLog,
    IdentifyNamespace, SupportedLogPages,
};
use nvio_driver::{Controller, Namespace, Options};

/// Text of a device must not contain characters that a terminal interprets.
fn printable(text: &str, most: usize) {
    assert!(text.len() <= most, "{text:?}");
    assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text:?}");
    assert_eq!(text, text.trim());
}

pub fn controller(controller: &Controller, options: &Options) {
    let (identify, cap) = (controller.identify(), controller.capabilities());
    let page = 1usize << cap.min_page_shift();
    let most = controller.max_transfer();
    assert!((1..=options.max_transfer.max(page)).contains(&most), "{most}");
    if let Some(limit) = identify.max_transfer(cap.min_page_shift()) {
        assert!(most as u64 <= limit, "{most} is above MDTS, {limit}");
    }
    let granted = controller.granted_queues();
    assert!((1..=options.queues.max(1)).contains(&granted), "{granted} queues");
    assert_eq!((identify.sqes & 15, identify.cqes & 15), (6, 4));
    assert!(cap.nvm_command_set() && cap.max_queue_entries() >= 2);
    printable(&identify.serial(), 20);
    printable(&identify.model(), 40);
    printable(&identify.firmware(), 8);
    printable(&identify.nqn(), 256);
    assert_eq!(controller.has_sgl(), identify.sgls.get() & 3 == 1);
    drop((controller.version().to_string(), identify.has_write_cache()));
}

pub fn namespace(namespace: &Namespace, controller: &Controller) {
    let shift = namespace.block_shift();
    assert!((9..=16).contains(&shift) && namespace.block_size() == 1 << shift);
    assert!(namespace.blocks() > 0);
    assert_eq!(namespace.bytes() >> shift, namespace.blocks());
    let metadata = namespace.metadata_size() as usize;
    let beside = if namespace.extended_metadata() { metadata } else { 0 };
    let blocks = namespace.max_transfer() >> shift;
    assert!((1..=0xffff).contains(&blocks) && namespace.max_transfer() == blocks << shift);
    assert!(blocks * ((1 << shift) + beside) <= controller.max_transfer());
    assert!(namespace.protection_type() <= 3);
    assert!(namespace.protection_type() == 0 || metadata >= 8);
    for lba in [0, 1, namespace.blocks() / 2, namespace.blocks() - 1] {
        let boundary = u64::from(namespace.identify().noiob.get());
        match namespace.blocks_to_boundary(lba) {
            Some(left) => assert!((1..=boundary).contains(&left) && (lba + left) % boundary == 0),
            None => assert_eq!(boundary, 0),
        }
        for left in [0, 1, u64::MAX] {
            let next = namespace.blocks_of_command(lba, left);
            assert!(next <= left && next <= blocks as u64 && (next > 0 || left == 0));
        }
    }
    for size in [512, 4096] {
        if let Some(index) = namespace.find_format(size, 0) {
            assert!(index <= namespace.identify().nlbaf && index < 64);
        }
    }
    identify_namespace(namespace.identify());
}

pub fn identify_namespace(identify: &IdentifyNamespace) {
    assert!(identify.nsze.get() != 0);
    assert!(identify.format_index() < 64 && identify.protection_type() < 8);
    assert_eq!(identify.format().lbads, identify.lbaf[identify.format_index()].lbads);
}

pub fn health(log: &HealthLog) {
    assert_eq!(log.temperature().to_le_bytes(), log.composite_temperature);
    assert!(HealthLog::data_unit_bytes(log.data_units_read) >= log.data_units_read.get());
}

pub fn error_entry(entry: &ErrorLogEntry) {
    assert!(entry.status().0 < 1 << 15);
    assert!(entry.parameter().is_none_or(|(_, bit)| bit < 8));
    assert!(!entry.status().to_string().is_empty());
}

pub fn firmware(log: &FirmwareSlotLog) {
    assert!(log.active_slot() < 8 && log.next_slot().is_none_or(|slot| (1..8).contains(&slot)));
    let slots: Vec<_> = log.slots().collect();
    assert!(slots.is_sorted_by(|a, b| a.0 < b.0) && slots.len() <= 7);
    slots.iter().for_each(|(slot, text)| {
        assert!((1..8).contains(slot));
        printable(text, 8);
    });
}

pub fn changed(log: &ChangedNamespaces) {
    let count = log.ids().count();
    assert!(count <= 1024 && (count == 0 || !log.is_overflowed()));
    assert!(log.ids().all(|id| id != 0 && id != u32::MAX));
}

pub fn effects(log: &CommandEffects) {
    assert!(log.admin.iter().chain(&log.io).all(|e| CommandEffects::submission(e.get()) < 8));
}

pub fn supported(log: &SupportedLogPages) {
    assert!(log.ids().is_sorted_by(|a, b| a < b));
}
