//! Registers, admin commands and doorbells, with the controller stepped by the test.

use crate::stepped;

use std::time::Duration;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::opcode::admin;
use nvio_spec::register::{AQA, CAP, CC, CSTS, Cc, Csts, VS};
use nvio_spec::{
    CommandEffects, Cqe, ErrorLogEntry, FirmwareSlotLog, HealthLog, HostBehaviorSupport,
    IdentifyController, IdentifyNamespace, NSID_ALL, NamespaceList, QueueCount, Sqe, Status, cns,
    critical_warning, feature_id, log_id, status,
};
use stepped::{BASE, DATA, Stepped, with_data};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn config() -> Config {
    let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
    Config::new()
        .namespace(namespace())
        .namespace(namespace().nsid(3).block_size(4096).noiob(256))
        .max_queues(8)
        .max_queue_entries(256)
}

fn host() -> Stepped {
    Stepped::new(&config())
}

#[test]
fn registers_say_what_the_controller_is() {
    let host = host();
    assert_eq!(host.controller.read_register(VS), 0x0001_0400);
    assert_eq!(host.controller.read_register(CAP) & 0x1_ffff, 255 | 1 << 16);
    for offset in [0x44, 0xffc, 0x15, u64::MAX] {
        assert_eq!(host.controller.read_register(offset), 0);
    }
}

#[test]
fn a_bad_configuration_is_fatal_until_it_is_disabled() {
    let mut host = Stepped::disabled(&config());
    host.set(CC, Cc::enabled(12).0);
    assert_eq!(host.csts(), Csts(Csts::FATAL));
    assert_eq!(host.step(), 0);
    host.set(CC, 0);
    assert_eq!(host.csts(), Csts(0));
    host.enable();
    // Outside of memory, it shows when the first command is fetched.
    host.set(CC, 0);
    host.set(AQA, 31 << 16 | 31);
    host.set(0x2c, 1);
    host.set(CC, Cc::enabled(12).0);
    assert_eq!(host.csts(), Csts(Csts::READY));
    host.controller.doorbells().ring_sq(0, 1);
    host.step();
    assert_eq!(host.csts(), Csts(Csts::READY | Csts::FATAL));
    assert_eq!(host.step(), 0);
    host.set(CC, 0);
    host.set(0x2c, 0);
    host.enable();
    assert_eq!(host.admin_status(Sqe::get_features(feature_id::ARBITRATION)), Status::SUCCESS);
}

#[test]
fn a_reset_takes_queues_doorbells_and_features_away() {
    let mut host = host();
    let mut pair = host.create(1, 16);
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
    let arbitration = Sqe::set_features(feature_id::ARBITRATION, 3);
    assert_eq!(host.admin_status(arbitration), Status::SUCCESS);
    host.set(CC, 0);
    assert_eq!(host.csts(), Csts(0));
    assert_eq!(host.controller.doorbells().sq_tail(1), 0);
    host.enable();
    assert_eq!(host.admin(Sqe::get_features(feature_id::ARBITRATION)).dw0.get(), 0);
    assert_eq!(host.admin_status(Sqe::delete_io_sq(1)), status::INVALID_QUEUE_ID);
    host.controller.doorbells().ring_sq(1, 5);
    assert_eq!(host.step(), 0);
    // A queue made anew does not start with what its doorbell said before.
    let mut pair = host.create(1, 16);
    assert_eq!(host.step(), 0);
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
}

#[test]
fn shutdown_completes_and_nothing_runs_after_it() {
    let mut host = host();
    host.set(CC, Cc::enabled(12).shutdown().0);
    assert!(host.csts().shutdown_complete() && host.csts().ready());
    let mut pair = std::mem::replace(&mut host.admin, stepped::Pair::new(0, 2));
    host.push(&mut pair, Sqe::identify(cns::CONTROLLER, 0));
    host.ring(&pair);
    assert_eq!(host.step(), 0);
    host.set(CC, 0);
    assert_eq!(host.csts(), Csts(0));
    host.enable();
    // Abrupt.
    host.set(CC, Cc::enabled(12).0 | 2 << 14);
    assert!(host.csts().shutdown_complete());
    // While disabled; enabling ends it too.
    host.set(CC, 0);
    host.set(CC, 1 << 14);
    assert_eq!(host.csts(), Csts(Csts::SHUTDOWN_COMPLETE));
    host.enable();
    assert_eq!(host.admin_status(Sqe::get_features(feature_id::ARBITRATION)), Status::SUCCESS);
}

#[test]
fn identify_gives_each_structure() {
    let mut host = host();
    let identify = |host: &mut Stepped, cns, nsid| {
        let cqe = host.admin(with_data(Sqe::identify(cns, nsid), DATA, 0));
        (cqe.status().bare(), host.read(DATA, 4096))
    };
    let (done, bytes) = identify(&mut host, cns::CONTROLLER, 0);
    assert_eq!(done, Status::SUCCESS);
    let controller = IdentifyController::read_from_bytes(&bytes).unwrap();
    assert_eq!(controller.serial(), "NVIO00000001");
    assert_eq!((controller.sqes, controller.cqes, controller.nn.get()), (0x66, 0x44, 3));
    assert!(controller.nqn().starts_with("nqn.2014.08.org.nvmexpress:uuid:"));
    assert_eq!(controller.tnvmcap.get(), 2 << 20);
    let (_, bytes) = identify(&mut host, cns::NAMESPACE, 3);
    let namespace = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
    assert_eq!((namespace.nsze.get(), namespace.format().lbads), (256, 12));
    assert_eq!((namespace.noiob.get(), namespace.nvmcap.get()), (256, 1 << 20));
    // Inactive: zeroes.
    assert_eq!(identify(&mut host, cns::NAMESPACE, 2), (Status::SUCCESS, vec![0; 4096]));
    for nsid in [0, 4, NSID_ALL] {
        assert_eq!(identify(&mut host, cns::NAMESPACE, nsid).0, status::INVALID_NAMESPACE);
    }
    let ids = |host: &mut Stepped, above| {
        let (done, bytes) = identify(host, cns::ACTIVE_NAMESPACES, above);
        assert_eq!(done, Status::SUCCESS);
        NamespaceList::read_from_bytes(&bytes).unwrap().ids().collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut host, 0), [1, 3]);
    assert_eq!(ids(&mut host, 1), [3]);
    assert_eq!(ids(&mut host, 3), [0u32; 0]);
    let (done, _) = identify(&mut host, cns::ACTIVE_NAMESPACES, NSID_ALL);
    assert_eq!(done, status::INVALID_NAMESPACE);
    let (done, bytes) = identify(&mut host, cns::NAMESPACE_DESCRIPTORS, 1);
    assert_eq!((done, &bytes[..4]), (Status::SUCCESS, &[3, 16, 0, 0][..]));
    let (_, other) = identify(&mut host, cns::NAMESPACE_DESCRIPTORS, 3);
    assert_ne!(bytes[4..20], other[4..20]);
    let (done, _) = identify(&mut host, cns::NAMESPACE_DESCRIPTORS, 2);
    assert_eq!(done, status::INVALID_NAMESPACE);
    assert_eq!(identify(&mut host, 0x7f, 0).0, status::INVALID_FIELD);
}

#[test]
fn creating_a_completion_queue_checks_everything() {
    let mut host = host();
    let good = Sqe::create_io_cq(1, 16, DATA, None);
    let expect = |host: &mut Stepped, sqe: Sqe, expected: Status| {
        assert_eq!(host.admin_status(sqe), expected, "{sqe:?}");
    };
    let id = status::INVALID_QUEUE_ID;
    expect(&mut host, Sqe::create_io_cq(0, 16, DATA, None), id);
    expect(&mut host, Sqe::create_io_cq(9, 16, DATA, None), id);
    expect(&mut host, Sqe::create_io_cq(0xffff, 16, DATA, None), id);
    let size = status::INVALID_QUEUE_SIZE;
    expect(&mut host, Sqe::create_io_cq(1, 1, DATA, None), size);
    expect(&mut host, Sqe::create_io_cq(1, 257, DATA, None), size);
    let vector = status::INVALID_INTERRUPT_VECTOR;
    expect(&mut host, Sqe::create_io_cq(1, 16, DATA, Some(9)), vector);
    let mut scattered = good;
    scattered.cdw11 = 0.into();
    expect(&mut host, scattered, status::INVALID_FIELD);
    expect(&mut host, Sqe::create_io_cq(1, 16, DATA + 16, None), status::PRP_OFFSET_INVALID);
    expect(&mut host, good, Status::SUCCESS);
    expect(&mut host, good, id);
    expect(&mut host, Sqe::create_io_cq(8, 256, DATA, Some(8)), Status::SUCCESS);
}

#[test]
fn creating_a_submission_queue_checks_everything() {
    let mut host = host();
    let expect = |host: &mut Stepped, sqe: Sqe, expected: Status| {
        assert_eq!(host.admin_status(sqe), expected, "{sqe:?}");
    };
    let good = Sqe::create_io_sq(2, 16, DATA, 1);
    expect(&mut host, good, status::COMPLETION_QUEUE_INVALID);
    expect(&mut host, Sqe::create_io_cq(1, 16, DATA, None), Status::SUCCESS);
    let id = status::INVALID_QUEUE_ID;
    expect(&mut host, Sqe::create_io_sq(2, 16, DATA, 0), id);
    expect(&mut host, Sqe::create_io_sq(2, 16, DATA, 9), id);
    expect(&mut host, Sqe::create_io_sq(0, 16, DATA, 1), id);
    expect(&mut host, Sqe::create_io_sq(9, 16, DATA, 1), id);
    let size = status::INVALID_QUEUE_SIZE;
    expect(&mut host, Sqe::create_io_sq(2, 1, DATA, 1), size);
    expect(&mut host, Sqe::create_io_sq(2, 300, DATA, 1), size);
    expect(&mut host, Sqe::create_io_sq(2, 16, DATA + 64, 1), status::PRP_OFFSET_INVALID);
    let mut scattered = good;
    scattered.cdw11 = (1u32 << 16).into();
    expect(&mut host, scattered, status::INVALID_FIELD);
    expect(&mut host, good, Status::SUCCESS);
    expect(&mut host, good, id);
}

#[test]
fn queue_entry_sizes_may_be_set_late_but_not_left_out() {
    let mut host = host();
    host.set(CC, 0);
    host.set(CC, Cc::enabled(12).0 & 0xffff);
    assert_eq!(host.csts(), Csts(Csts::READY));
    host.admin = stepped::Pair::new(0, 32);
    host.write(host.admin.cq(), &[0; 512]);
    let create = Sqe::create_io_cq(1, 16, DATA, None);
    assert_eq!(host.admin_status(create), status::INVALID_QUEUE_SIZE);
    host.set(CC, Cc::enabled(12).0);
    assert_eq!(host.admin_status(create), Status::SUCCESS);
}

#[test]
fn queues_are_deleted_in_order() {
    let mut host = host();
    host.create(1, 16);
    assert_eq!(host.admin_status(Sqe::delete_io_cq(1)), status::INVALID_QUEUE_DELETION);
    for qid in [0, 2, 9, 0xffff] {
        assert_eq!(host.admin_status(Sqe::delete_io_cq(qid)), status::INVALID_QUEUE_ID);
        assert_eq!(host.admin_status(Sqe::delete_io_sq(qid)), status::INVALID_QUEUE_ID);
    }
    assert_eq!(host.admin_status(Sqe::delete_io_sq(1)), Status::SUCCESS);
    assert_eq!(host.admin_status(Sqe::delete_io_sq(1)), status::INVALID_QUEUE_ID);
    assert_eq!(host.admin_status(Sqe::delete_io_cq(1)), Status::SUCCESS);
    assert_eq!(host.admin_status(Sqe::delete_io_cq(1)), status::INVALID_QUEUE_ID);
    let mut pair = host.create(1, 16);
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
}

#[test]
fn the_number_of_queues_is_granted_up_to_what_there_is() {
    let mut host = host();
    let ask = |submission, completion| {
        let count = QueueCount { submission, completion };
        Sqe::set_features(feature_id::NUMBER_OF_QUEUES, count.to_dword())
    };
    let granted = |cqe: Cqe| QueueCount::from_dword(cqe.dw0.get()).unwrap();
    let all = QueueCount { submission: 8, completion: 8 };
    assert_eq!(granted(host.admin(ask(100, 65_535))), all);
    let few = QueueCount { submission: 2, completion: 3 };
    assert_eq!(granted(host.admin(ask(2, 3))), few);
    assert_eq!(granted(host.admin(Sqe::get_features(feature_id::NUMBER_OF_QUEUES))), few);
    let beyond = Sqe::create_io_cq(4, 16, DATA, None);
    assert_eq!(host.admin_status(beyond), status::INVALID_QUEUE_ID);
    for count in [0xffff, 0xffff << 16] {
        let sqe = Sqe::set_features(feature_id::NUMBER_OF_QUEUES, count);
        assert_eq!(host.admin_status(sqe), status::INVALID_FIELD);
    }
    host.create(1, 16);
    assert_eq!(host.admin_status(ask(8, 8)), status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn features_are_set_and_got() {
    let mut host = host();
    let get = |host: &mut Stepped, id, cdw11: u32| {
        let mut sqe = Sqe::get_features(id);
        sqe.cdw11 = cdw11.into();
        sqe.nsid = 1.into();
        let cqe = host.admin(sqe);
        (cqe.status().bare(), cqe.dw0.get())
    };
    let set = |host: &mut Stepped, id, value| {
        let mut sqe = Sqe::set_features(id, value);
        sqe.nsid = 1.into();
        host.admin_status(sqe)
    };
    for (id, selector, value, expected) in [
        (feature_id::ARBITRATION, 0, 0x0102_0304, 0x0102_0304),
        (feature_id::POWER_MANAGEMENT, 0, 0, 0),
        (feature_id::TEMPERATURE_THRESHOLD, 0, 350, 350),
        (feature_id::TEMPERATURE_THRESHOLD, 1 << 20, 1 << 20 | 250, 250),
        (feature_id::ERROR_RECOVERY, 0, 50, 50),
        (feature_id::INTERRUPT_COALESCING, 0, 0x1234, 0x1234),
        (feature_id::INTERRUPT_VECTOR_CONFIGURATION, 8, 1 << 16 | 8, 1 << 16 | 8),
        (feature_id::WRITE_ATOMICITY_NORMAL, 0, 1, 1),
        (feature_id::ASYNC_EVENT_CONFIGURATION, 0, 0xff, 0xff),
        // In units of 100 ms.
        (feature_id::KEEP_ALIVE_TIMER, 0, 4901, 5000),
        (feature_id::KEEP_ALIVE_TIMER, 0, 0, 0),
    ] {
        assert_eq!(set(&mut host, id, value), Status::SUCCESS, "feature {id:#x}");
        assert_eq!(get(&mut host, id, selector), (Status::SUCCESS, expected), "feature {id:#x}");
    }
    for (id, value) in [
        (feature_id::POWER_MANAGEMENT, 1),
        (feature_id::TEMPERATURE_THRESHOLD, 3 << 16),
        (feature_id::TEMPERATURE_THRESHOLD, 2 << 20),
        (feature_id::ERROR_RECOVERY, 1 << 16),
        // Memory needs no cache in front of it.
        (feature_id::VOLATILE_WRITE_CACHE, 1),
        (feature_id::INTERRUPT_VECTOR_CONFIGURATION, 9),
        (0x00, 0),
        (0x7f, 0),
        (0xff, 0),
    ] {
        assert_eq!(set(&mut host, id, value), status::INVALID_FIELD, "feature {id:#x}");
    }
    let mut saved = Sqe::set_features(feature_id::ARBITRATION, 0);
    saved.cdw10 = (saved.cdw10.get() | 1 << 31).into();
    assert_eq!(host.admin_status(saved), status::FEATURE_NOT_SAVEABLE);
    let mut default = Sqe::get_features(feature_id::ARBITRATION);
    default.cdw10 = (default.cdw10.get() | 1 << 8).into();
    assert_eq!(host.admin_status(default), status::INVALID_FIELD);
}

#[test]
fn error_recovery_is_reported_without_a_namespace() {
    let mut host = host();
    let with_nsid = |nsid: u32, sqe: Sqe| Sqe { nsid: nsid.into(), ..sqe };
    let (get, set) = (
        Sqe::get_features(feature_id::ERROR_RECOVERY),
        Sqe::set_features(feature_id::ERROR_RECOVERY, 7),
    );
    assert_eq!(host.admin_status(with_nsid(NSID_ALL, set)), Status::SUCCESS);
    for nsid in [0, 1, NSID_ALL] {
        let cqe = host.admin(with_nsid(nsid, get));
        assert_eq!((cqe.status(), cqe.dw0.get()), (Status::SUCCESS, 7), "namespace {nsid}");
    }
    assert_eq!(host.admin_status(with_nsid(2, get)), status::INVALID_NAMESPACE);
    assert_eq!(host.admin_status(with_nsid(0, set)), status::INVALID_NAMESPACE);
}

#[test]
fn host_behavior_support_is_kept_until_a_reset() {
    let mut host = host();
    let mut behavior = HostBehaviorSupport::new_zeroed();
    let set = with_data(Sqe::set_features(feature_id::HOST_BEHAVIOR_SUPPORT, 0), DATA, 0);
    let get = with_data(Sqe::get_features(feature_id::HOST_BEHAVIOR_SUPPORT), DATA, 0);
    behavior.acre = 1;
    host.write(DATA, behavior.as_bytes());
    assert_eq!(host.admin_status(set), Status::SUCCESS);
    behavior.acre = 2;
    host.write(DATA, behavior.as_bytes());
    assert_eq!(host.admin_status(set), status::INVALID_FIELD);
    let acre = |host: &mut Stepped| {
        assert_eq!(host.admin_status(get), Status::SUCCESS);
        HostBehaviorSupport::read_from_bytes(&host.read(DATA, 512)).unwrap().acre
    };
    assert_eq!(acre(&mut host), 1);
    host.set(CC, 0);
    host.enable();
    assert_eq!(acre(&mut host), 0);
}

#[test]
fn the_nvm_command_set_has_no_limits_of_its_own() {
    let mut host = host();
    let mut identify = with_data(Sqe::identify(cns::COMMAND_SET_CONTROLLER, 0), DATA, 0);
    host.write(DATA, &[0xee; 4096]);
    assert_eq!(host.admin_status(identify), Status::SUCCESS);
    assert_eq!(host.read(DATA, 4096), [0; 4096]);
    // The zoned namespace command set.
    identify.cdw11 = (2u32 << 24).into();
    assert_eq!(host.admin_status(identify), status::INVALID_FIELD);
}

#[test]
fn a_temperature_beyond_its_threshold_is_a_warning_and_an_event() {
    let threshold = |value| Sqe::set_features(feature_id::TEMPERATURE_THRESHOLD, value);
    let notices = |value| Sqe::set_features(feature_id::ASYNC_EVENT_CONFIGURATION, value);
    let warning = |host: &mut Stepped| {
        assert_eq!(host.admin_status(log_page(log_id::HEALTH, 512, 0)), Status::SUCCESS);
        let health = HealthLog::read_from_bytes(&host.read(DATA, 512)).unwrap();
        health.critical_warning
    };
    // The temperature is 310 K; over, and under.
    for (beyond, inside) in [(310, 311), (1 << 20 | 310, 1 << 20 | 309)] {
        let mut host = host();
        let mut pair = std::mem::replace(&mut host.admin, stepped::Pair::new(0, 2));
        host.push(&mut pair, Sqe::new(admin::ASYNC_EVENT_REQUEST, 0));
        let request = pair.cid;
        host.admin = pair;
        let set = |host: &mut Stepped, sqe| {
            let mut pair = std::mem::replace(&mut host.admin, stepped::Pair::new(0, 2));
            host.push(&mut pair, sqe);
            host.ring(&pair);
            host.step();
            let done = host.take(&mut pair).unwrap();
            let event = host.take(&mut pair);
            host.admin = pair;
            assert_eq!(done.status(), Status::SUCCESS);
            event.map(|cqe| (cqe.cid.get(), cqe.dw0.get()))
        };
        // The event is masked by default, and the warning is not.
        assert_eq!(set(&mut host, threshold(beyond)), None);
        assert_eq!(warning(&mut host), critical_warning::TEMPERATURE);
        assert_eq!(set(&mut host, threshold(inside)), None);
        assert_eq!(warning(&mut host), 0);
        assert_eq!(set(&mut host, notices(critical_warning::TEMPERATURE.into())), None);
        let event = (request, 0x02_01_01);
        assert_eq!(set(&mut host, threshold(beyond)), Some(event));
        assert_eq!(warning(&mut host), critical_warning::TEMPERATURE);
    }
}

#[test]
fn the_keep_alive_timer_fails_the_controller_unless_it_is_restarted() {
    let mut host = host();
    let timer = Sqe::set_features(feature_id::KEEP_ALIVE_TIMER, 1000);
    assert_eq!(host.admin_status(timer), Status::SUCCESS);
    // It counts from the first step after the command, also when the clock stood still before.
    host.controller.advance_to(Duration::from_secs(100));
    host.step();
    for elapsed in [900, 1800, 2700] {
        host.controller.advance_to(Duration::from_secs(100) + Duration::from_millis(elapsed));
        assert_eq!(host.admin_status(Sqe::new(admin::KEEP_ALIVE, 0)), Status::SUCCESS);
        host.step();
    }
    host.controller.advance_to(Duration::from_millis(103_700));
    host.step();
    assert_eq!(host.csts(), Csts(Csts::READY));
    host.controller.advance_to(Duration::from_millis(103_701));
    host.step();
    assert_eq!(host.csts(), Csts(Csts::READY | Csts::FATAL));
    // A reset disables it.
    host.set(CC, 0);
    host.enable();
    host.controller.advance_to(Duration::from_secs(200));
    host.step();
    assert_eq!(host.csts(), Csts(Csts::READY));
}

fn log_page(log: u8, bytes: u32, offset: u64) -> Sqe {
    let mut sqe = with_data(Sqe::new(admin::GET_LOG_PAGE, NSID_ALL), DATA, DATA + 4096);
    let dwords = bytes / 4 - 1;
    sqe.cdw10 = ((dwords & 0xffff) << 16 | u32::from(log)).into();
    sqe.cdw11 = (dwords >> 16).into();
    sqe.cdw12 = (offset as u32).into();
    sqe.cdw13 = ((offset >> 32) as u32).into();
    sqe
}

#[test]
fn log_pages_hold_what_happened() {
    let mut host = host();
    let mut pair = host.create(1, 16);
    assert!(host.run(&mut pair, with_data(Sqe::write(1, 0, 8), DATA, 0)).status().is_success());
    assert!(host.run(&mut pair, with_data(Sqe::read(1, 0, 8), DATA, 0)).status().is_success());
    let failed = host.run(&mut pair, with_data(Sqe::read(1, 1 << 33, 1), DATA, 0));
    assert_eq!(host.admin_status(log_page(log_id::HEALTH, 512, 0)), Status::SUCCESS);
    let health = HealthLog::read_from_bytes(&host.read(DATA, 512)).unwrap();
    assert_eq!((health.host_reads.get(), health.host_writes.get()), (1, 1));
    assert_eq!((health.data_units_read.get(), health.error_log_entries.get()), (1, 1));
    assert_eq!(health.temperature(), 310);
    let errors = log_page(log_id::ERROR_INFORMATION, 64, 0);
    assert_eq!(host.admin_status(errors), Status::SUCCESS);
    let entry = ErrorLogEntry::read_from_bytes(&host.read(DATA, 64)).unwrap();
    assert_eq!((entry.error_count.get(), entry.sqid.get(), entry.lba.get()), (1, 1, 1 << 33));
    assert_eq!((entry.cid, entry.status.get() >> 1), (failed.cid, failed.status().0));
    let slots = log_page(log_id::FIRMWARE_SLOT, 512, 0);
    assert_eq!(host.admin_status(slots), Status::SUCCESS);
    let slots = FirmwareSlotLog::read_from_bytes(&host.read(DATA, 512)).unwrap();
    assert_eq!((slots.active, slots.revision[1]), (1, [0; 8]));
    let effects = log_page(log_id::COMMAND_EFFECTS, 4096, 0);
    assert_eq!(host.admin_status(effects), Status::SUCCESS);
    let effects = CommandEffects::read_from_bytes(&host.read(DATA, 4096)).unwrap();
    let without_scope = |opcode: usize| effects.io[opcode].get() & 0xf_ffff;
    assert_eq!((without_scope(1), without_scope(2), without_scope(3)), (3, 1, 0));
    // Part of a page, and more than there is of it.
    host.write(DATA, &[0xaa; 1024]);
    let tail = log_page(log_id::HEALTH, 1024, 504);
    assert_eq!(host.admin_status(tail), Status::SUCCESS);
    assert_eq!(host.read(DATA, 9), [0, 0, 0, 0, 0, 0, 0, 0, 0xaa]);
    for (sqe, expected) in [
        (log_page(log_id::HEALTH, 512, 516), status::INVALID_FIELD),
        (log_page(log_id::HEALTH, 512, 2), status::INVALID_FIELD),
        (log_page(log_id::HEALTH, 512, u64::MAX - 3), status::INVALID_FIELD),
        (log_page(log_id::HEALTH, u32::MAX - 3, 0), status::INVALID_FIELD),
        (log_page(0x70, 512, 0), status::INVALID_LOG_PAGE),
    ] {
        assert_eq!(host.admin_status(sqe), expected);
    }
    let mut of_namespace = log_page(log_id::HEALTH, 512, 0);
    of_namespace.nsid = 1.into();
    assert_eq!(host.admin_status(of_namespace), status::INVALID_FIELD);
}

#[test]
fn events_wait_for_requests_and_requests_for_events() {
    let mut host = host();
    let mut pair = std::mem::replace(&mut host.admin, stepped::Pair::new(0, 2));
    let request = Sqe::new(admin::ASYNC_EVENT_REQUEST, 0);
    for _ in 0..4 {
        host.push(&mut pair, request);
    }
    host.ring(&pair);
    host.step();
    assert!(host.take(&mut pair).is_none());
    host.push(&mut pair, request);
    host.ring(&pair);
    host.step();
    let fifth = host.take(&mut pair).unwrap();
    assert_eq!((fifth.cid.get(), fifth.status().bare()), (5, status::AER_LIMIT_EXCEEDED));
    // A value beyond the queue, and a doorbell of no queue: the second waits until the log has
    // been read.
    host.controller.doorbells().ring_sq(0, 32);
    host.step();
    let event = host.take(&mut pair).unwrap();
    assert_eq!((event.cid.get(), event.dw0.get()), (1, 0x0001_0100));
    host.set(0x1000 + 8 * 5, 1);
    host.step();
    assert!(host.take(&mut pair).is_none());
    host.push(&mut pair, log_page(log_id::ERROR_INFORMATION, 64, 0));
    host.ring(&pair);
    host.step();
    assert_eq!(host.take(&mut pair).unwrap().cid.get(), 6);
    host.step();
    let event = host.take(&mut pair).unwrap();
    assert_eq!((event.cid.get(), event.dw0.get()), (2, 0x0001_0000));
}

#[test]
fn invalid_doorbell_values_are_ignored() {
    let mut host = host();
    let mut pair = host.create(1, 16);
    for value in [16, 17, u32::MAX] {
        host.controller.doorbells().ring_sq(1, value);
        host.step();
        host.step();
        assert!(host.take(&mut pair).is_none());
    }
    // A head that was never posted does not make room, and the right one does.
    host.push(&mut pair, Sqe::flush(1));
    host.controller.doorbells().ring_cq(1, 9);
    host.ring(&pair);
    host.step();
    assert!(host.take(&mut pair).unwrap().status().is_success());
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
    assert_eq!(host.csts(), Csts(Csts::READY));
}

#[test]
fn other_admin_commands_are_answered_as_the_specification_says() {
    let mut host = host();
    // Nothing to abort: bit 0 of DW0 is set.
    let abort = host.admin(Sqe::new(admin::ABORT, 0));
    assert_eq!((abort.status(), abort.dw0.get()), (Status::SUCCESS, 1));
    for opcode in [0x81, admin::FORMAT_NVM, admin::NAMESPACE_ATTACHMENT, 0x7f, 0xff] {
        let cqe = host.admin(Sqe::new(opcode, 0));
        assert_eq!(cqe.status().bare(), status::INVALID_OPCODE, "{opcode:#x}");
        assert!(cqe.status().dnr());
    }
    // Fused, SGL, reserved.
    for flags in [1, 2, 1 << 6, 2 << 6, 1 << 3] {
        let mut sqe = with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0);
        sqe.flags = flags;
        assert_eq!(host.admin_status(sqe), status::INVALID_FIELD, "{flags:#x}");
    }
    let identify = |prp1, prp2| with_data(Sqe::identify(cns::CONTROLLER, 0), prp1, prp2);
    assert_eq!(host.admin_status(identify(DATA + 2, 0)), status::PRP_OFFSET_INVALID);
    assert_eq!(host.admin_status(identify(DATA + 8, DATA + 4104)), status::PRP_OFFSET_INVALID);
    assert_eq!(host.admin_status(identify(BASE - 4096, 0)), status::DATA_TRANSFER_ERROR);
    assert_eq!(host.admin_status(identify(DATA + 8, BASE - 4096)), status::DATA_TRANSFER_ERROR);
    assert_eq!(host.csts(), Csts(Csts::READY));
    assert_eq!(host.controller.read_register(CSTS), 1);
}

#[test]
fn interrupts_are_due_for_the_queues_that_want_them() {
    let mut host = host();
    host.controller.take_interrupts().count();
    let pair = stepped::Pair::new(1, 16);
    let cq = Sqe::create_io_cq(1, 16, pair.cq(), Some(5));
    assert_eq!(host.admin_status(cq), Status::SUCCESS);
    assert_eq!(host.admin_status(Sqe::create_io_sq(1, 16, pair.at, 1)), Status::SUCCESS);
    assert_eq!(host.controller.take_interrupts().collect::<Vec<_>>(), [0]);
    let mut pair = pair;
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
    assert_eq!(host.controller.take_interrupts().collect::<Vec<_>>(), [5]);
    assert_eq!(host.controller.take_interrupts().count(), 0);
    // Each vector once, in ascending order, whatever the order of completions.
    for _ in 0..2 {
        assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
        assert_eq!(host.admin_status(Sqe::get_features(feature_id::ARBITRATION)), Status::SUCCESS);
    }
    assert_eq!(host.controller.take_interrupts().collect::<Vec<_>>(), [0, 5]);
    assert!(host.run(&mut pair, Sqe::flush(1)).status().is_success());
    host.controller.function_reset();
    assert_eq!(host.controller.take_interrupts().count(), 0);
}
