//! Formatting, creating and deleting namespaces of the embedded controller.

use std::time::Instant;

use nvio_emulator::{Backing, Config, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::opcode::{admin, nvm};
use nvio_spec::status;

use super::*;
use crate::Options;
use crate::served::{Served, writable};

const MIB: u64 = 1 << 20;
const BOUND: Duration = Duration::from_secs(20);

struct Managed {
    emulator: Emulator,
    controller: WritableController,
}

fn start(config: Config) -> Managed {
    let admin_timeout = Duration::from_millis(500);
    let options = Options { admin_timeout, ..writable() };
    let served = Served::start(config, options);
    Managed { controller: served.controller.writable().unwrap(), emulator: served.emulator }
}

fn memory() -> NamespaceConfig {
    NamespaceConfig::new(Backing::memory(4 * MIB))
}

/// A controller with namespace 1, and a capacity of 16 MiB for others.
fn managed(faults: Faults) -> Managed {
    let config = Config::new().namespace(memory()).format_nvm(true);
    start(config.namespace_management(16 * MIB).faults(faults))
}

fn settings(index: u8) -> FormatSettings {
    FormatSettings { index, ..FormatSettings::default() }
}

#[test]
fn a_format_empties_a_namespace_and_gives_it_as_it_is_then() {
    // The first read stays in flight.
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ).times(1);
    let Managed { controller, emulator } = managed(Faults::new().rule(lost));
    let namespace = controller.writable_namespace(1).unwrap();
    assert_eq!((namespace.block_size(), namespace.blocks()), (512, 8192));
    assert_eq!(namespace.find_format(4096, 7), None);
    let mut queue = controller.queue_pair(8).unwrap();
    queue.blocking(0, drop).write_bytes(&namespace, 0, &[7; 8192]).unwrap();
    queue.read(&namespace, 0, controller.alloc(512).unwrap(), 1).unwrap();
    queue.ring();
    while emulator.fault_counts().lost == 0 {
        std::thread::yield_now();
    }
    let index = namespace.find_format(4096, 0).unwrap();
    let namespace = controller.format(namespace, settings(index), BOUND).unwrap();
    assert_eq!((namespace.block_size(), namespace.blocks()), (4096, 1024));
    // A command queued before the pair notices the reset is not executed either.
    queue.read(&namespace, 0, controller.alloc(4096).unwrap(), 2).unwrap();
    let mut ended = Vec::new();
    while queue.in_flight() > 0 {
        queue.wait(|done| ended.push((done.context, done.status))).unwrap();
    }
    ended.sort_by_key(|&(context, _)| context);
    assert_eq!(ended, [(1, status::ABORTED_BY_HOST), (2, status::ABORTED_BY_HOST)]);
    let mut out = [1; 8192];
    queue.blocking(0, drop).read_bytes(&namespace, 0, &mut out).unwrap();
    assert_eq!(out, [0; 8192]);
    let erased = FormatSettings { erase: erase::USER_DATA, ..settings(0) };
    assert_eq!(controller.format(namespace, erased, BOUND).unwrap().block_size(), 512);
}

#[test]
fn a_namespace_with_handles_is_left_alone() {
    let Managed { controller, emulator: _emulator } = managed(Faults::new());
    let namespace = controller.writable_namespace(1).unwrap();
    let others = (controller.namespace(1).unwrap(), namespace.clone());
    let epoch = controller.0.0.epoch();
    let refused = controller.format(namespace, settings(2), BOUND).unwrap_err();
    assert!(matches!(refused, Error::NamespaceInUse { nsid: 1, handles: 2 }), "{refused}");
    for nsid in [1, NSID_ALL] {
        let refused = controller.delete_namespace(nsid, BOUND).unwrap_err();
        assert!(matches!(refused, Error::NamespaceInUse { nsid: 1, handles: 2 }), "{refused}");
    }
    let refused = controller.detach_namespace(1, &[0]).unwrap_err();
    assert!(matches!(refused, Error::NamespaceInUse { .. }));
    let refused = controller.format_all(settings(2), BOUND).unwrap_err();
    assert!(matches!(refused, Error::NamespaceInUse { .. }));
    assert_eq!(controller.0.0.epoch(), epoch, "it was not even reset");
    let (first, second) = others;
    drop(first);
    let namespace = controller.format(second, settings(2), BOUND).unwrap();
    drop(namespace);
    controller.format_all(settings(0), BOUND).unwrap();
    assert_eq!(controller.namespace(1).unwrap().block_size(), 512);
}

#[test]
fn handles_that_were_dropped_are_forgotten() {
    let Managed { controller, emulator: _emulator } = managed(Faults::new());
    for _ in 0..100 {
        controller.namespace(1).unwrap();
    }
    let namespace = controller.writable_namespace(1).unwrap();
    controller.format(namespace, settings(2), BOUND).unwrap();
}

#[test]
fn invalid_settings_are_refused_before_any_command() {
    let Managed { controller, emulator: _emulator } = managed(Faults::new());
    let epoch = controller.0.0.epoch();
    let format = |settings| {
        let namespace = controller.writable_namespace(1).unwrap();
        controller.format(namespace, settings, BOUND).unwrap_err()
    };
    let default = FormatSettings::default();
    assert!(matches!(format(settings(9)), Error::Invalid { value: 9, .. }));
    assert!(matches!(format(settings(64)), Error::Invalid { value: 64, .. }));
    let reserved = FormatSettings { protection: 4, ..default };
    assert!(matches!(format(reserved), Error::Invalid { value: 4, .. }));
    let reserved = FormatSettings { erase: 3, ..default };
    assert!(matches!(format(reserved), Error::Invalid { value: 3, .. }));
    let cryptographic = FormatSettings { erase: erase::CRYPTOGRAPHIC, ..default };
    assert!(matches!(format(cryptographic), Error::Unsupported { .. }));
    let reserved = FormatSettings { protection: 4, ..default };
    let new = NewNamespace { blocks: 8, format: reserved, shared: false };
    assert!(matches!(controller.create_namespace(new, BOUND), Err(Error::Invalid { .. })));
    let many = vec![0; 3000];
    assert!(matches!(controller.attach_namespace(1, &many), Err(Error::Invalid { .. })));
    assert_eq!(controller.0.0.epoch(), epoch);
    // The controller rejects settings that the driver cannot check.
    let protected = FormatSettings { protection: 1, ..default };
    let Error::Command { command: "Format NVM", .. } = format(protected) else { panic!() };
}

#[test]
fn a_controller_without_these_commands_is_not_asked() {
    let Managed { controller, emulator: _emulator } = start(Config::new().namespace(memory()));
    let namespace = controller.writable_namespace(1).unwrap();
    let refused = |result: Result<()>| {
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    };
    refused(controller.format(namespace, settings(0), BOUND).map(drop));
    refused(controller.format_all(settings(0), BOUND));
    let new = NewNamespace { blocks: 8, format: settings(0), shared: false };
    refused(controller.create_namespace(new, BOUND).map(drop));
    refused(controller.delete_namespace(1, BOUND));
    refused(controller.attach_namespace(1, &[0]));
    refused(controller.detach_namespace(1, &[0]));
    refused(controller.allocated_namespace_ids().map(drop));
}

#[test]
fn a_format_has_its_own_time() {
    let late = Rule::admin(Fault::Late(Duration::from_millis(1500))).opcode(admin::FORMAT_NVM);
    let lost = Rule::admin(Fault::Lost).opcode(admin::FORMAT_NVM);
    // The first completion is late, and the second is lost.
    let faults = Faults::new().rule(lost.nth(2)).rule(late.times(1));
    let Managed { controller, emulator: _emulator } = managed(faults);
    let namespace = controller.writable_namespace(1).unwrap();
    let begin = Instant::now();
    let namespace = controller.format(namespace, settings(2), BOUND).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(1500), "three times an admin command's");
    let bound = Duration::from_millis(300);
    let refused = controller.format(namespace, settings(0), bound).unwrap_err();
    assert!(matches!(refused, Error::Timeout { what: "Format NVM", after } if after == bound));
    // The controller was reset, and works.
    let namespace = controller.writable_namespace(1).unwrap();
    let mut queue = controller.queue_pair(4).unwrap();
    queue.blocking((), drop).read_bytes(&namespace, 0, &mut [0; 100]).unwrap();
}

#[test]
fn a_namespace_comes_is_used_and_goes() {
    let Managed { controller, emulator: _emulator } = managed(Faults::new());
    let own = [controller.identify().cntlid.get()];
    let format = settings(2);
    let new = NewNamespace { blocks: 1024, format, shared: false };
    let nsid = controller.create_namespace(new, BOUND).unwrap();
    assert_eq!(controller.allocated_namespace_ids().unwrap(), [1, nsid]);
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    assert!(matches!(controller.namespace(nsid), Err(Error::NoNamespace { .. })));
    controller.attach_namespace(nsid, &own).unwrap();
    let again = controller.attach_namespace(nsid, &own).unwrap_err();
    let Error::Command { status, .. } = again else { panic!("{again}") };
    assert_eq!(status.bare(), status::NAMESPACE_ALREADY_ATTACHED);
    assert_eq!(controller.namespace_ids().unwrap(), [1, nsid]);
    let namespace = controller.writable_namespace(nsid).unwrap();
    assert_eq!((namespace.block_size(), namespace.blocks()), (4096, 1024));
    let mut queue = controller.queue_pair(4).unwrap();
    queue.blocking((), drop).write_bytes(&namespace, 4096, &[5; 4096]).unwrap();
    drop(namespace);
    controller.detach_namespace(nsid, &own).unwrap();
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    // The data written before is still there.
    controller.attach_namespace(nsid, &own).unwrap();
    let namespace = controller.namespace(nsid).unwrap();
    let mut out = [0; 5000];
    queue.blocking((), drop).read_bytes(&namespace, 4000, &mut out).unwrap();
    assert_eq!((out[95], out[96], out[4191], out[4192]), (0, 5, 5, 0));
    drop(namespace);
    controller.delete_namespace(nsid, BOUND).unwrap();
    assert_eq!(controller.allocated_namespace_ids().unwrap(), [1]);
    let large = NewNamespace { blocks: 1 << 40, ..new };
    let refused = controller.create_namespace(large, BOUND).unwrap_err();
    let Error::Command { status, .. } = refused else { panic!("{refused}") };
    assert_eq!(status.bare(), status::NAMESPACE_INSUFFICIENT_CAPACITY);
}

#[test]
fn an_erase_of_all_is_known_as_such() {
    for (fna, none, erased) in [
        (0, false, false),
        (1, true, true),
        (2, false, true),
        (3, true, true),
        (0xfc, false, false),
    ] {
        assert_eq!(formats_all(fna, erase::NONE), none, "{fna:#x}");
        assert_eq!(formats_all(fna, erase::USER_DATA), erased, "{fna:#x}");
        assert_eq!(formats_all(fna, erase::CRYPTOGRAPHIC), erased, "{fna:#x}");
    }
}
