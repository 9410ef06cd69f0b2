//! Format NVM, Namespace Management and Attachment, with the controller stepped by the test.

use crate::stepped;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::namespace::{
    ControllerList, FormatSettings, NAMESPACE_ATTRIBUTE_NOTICES, erase, oacs,
};
use nvio_spec::opcode::{admin, nvm};
use nvio_spec::protection::{ProtectionInfo, ProtectionType, guard, prinfo};
use nvio_spec::{
    ChangedNamespaces, CommandEffects, Cqe, IdentifyController, IdentifyNamespace, NSID_ALL,
    NamespaceList, Sqe, Status, cns, feature_id, log_id, status,
};
use stepped::{BASE, DATA, Pair, Stepped, with_data};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const MIB: u64 = 1 << 20;
/// Where metadata may be.
const META: u64 = DATA + MIB;

fn memory() -> NamespaceConfig {
    NamespaceConfig::new(Backing::memory(MIB))
}

/// Namespaces 1 and 3 of 1 MiB, and 4 MiB that are not allocated.
fn managed() -> Stepped {
    let config = Config::new().namespace(memory()).namespace(memory().nsid(3));
    Stepped::new(&config.format_nvm(true).namespace_management(4 * MIB))
}

fn identify(host: &mut Stepped, cns: u8, nsid: u32) -> Result<Vec<u8>, Status> {
    let done = host.admin_status(with_data(Sqe::identify(cns, nsid), DATA, 0));
    if done.is_success() { Ok(host.read(DATA, 4096)) } else { Err(done) }
}

fn namespace(host: &mut Stepped, nsid: u32) -> IdentifyNamespace {
    let bytes = identify(host, cns::NAMESPACE, nsid).unwrap();
    IdentifyNamespace::read_from_bytes(&bytes).unwrap()
}

fn controller(host: &mut Stepped) -> IdentifyController {
    let bytes = identify(host, cns::CONTROLLER, 0).unwrap();
    IdentifyController::read_from_bytes(&bytes).unwrap()
}

fn list(host: &mut Stepped, cns: u8, nsid: u32) -> Vec<u32> {
    let bytes = identify(host, cns, nsid).unwrap();
    NamespaceList::read_from_bytes(&bytes).unwrap().ids().collect()
}

fn active(host: &mut Stepped) -> Vec<u32> {
    list(host, cns::ACTIVE_NAMESPACES, 0)
}

fn allocated(host: &mut Stepped) -> Vec<u32> {
    list(host, cns::ALLOCATED_NAMESPACES, 0)
}

fn io(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) -> Status {
    let sqe = Sqe { mptr: META.into(), ..with_data(sqe, DATA, DATA + 4096) };
    host.run(pair, sqe).status().bare()
}

fn format(host: &mut Stepped, nsid: u32, index: u8, protection: u8) -> Status {
    let settings = FormatSettings { index, protection, ..FormatSettings::default() };
    host.admin_status(Sqe::format_nvm(nsid, settings))
}

/// Creates a namespace; gives its identifier.
fn create(host: &mut Stepped, blocks: u64, flbas: u8, dps: u8) -> Result<u32, Status> {
    let cqe = create_with(host, Sqe::create_namespace(), |data| {
        (data.nsze, data.ncap) = (blocks.into(), blocks.into());
        (data.flbas, data.dps) = (flbas, dps);
    });
    if cqe.status().is_success() { Ok(cqe.dw0.get()) } else { Err(cqe.status().bare()) }
}

fn create_with(host: &mut Stepped, sqe: Sqe, change: impl FnOnce(&mut IdentifyNamespace)) -> Cqe {
    let mut data = IdentifyNamespace::new_zeroed();
    (data.nsze, data.ncap) = (8.into(), 8.into());
    change(&mut data);
    host.write(DATA, data.as_bytes());
    host.admin(with_data(sqe, DATA, 0))
}

fn attachment(host: &mut Stepped, sqe: Sqe, controllers: &ControllerList) -> Status {
    host.write(DATA, controllers.as_bytes());
    host.admin_status(with_data(sqe, DATA, 0))
}

fn attach(host: &mut Stepped, nsid: u32) -> Status {
    attachment(host, Sqe::attach_namespace(nsid), &ControllerList::new(&[0]))
}

fn detach(host: &mut Stepped, nsid: u32) -> Status {
    attachment(host, Sqe::detach_namespace(nsid), &ControllerList::new(&[0]))
}

#[test]
fn commands_that_are_not_offered_are_unsupported() {
    let config = || Config::new().namespace(memory());
    for (config, format, manages) in [
        (config(), false, false),
        (config().format_nvm(true), true, false),
        (config().namespace_management(MIB), false, true),
        (config().format_nvm(true).namespace_management(MIB), true, true),
    ] {
        let mut host = Stepped::new(&config);
        let controller = controller(&mut host);
        assert_eq!(controller.oacs.get() & oacs::FORMAT_NVM != 0, format);
        assert_eq!(controller.oacs.get() & oacs::NAMESPACE_MANAGEMENT != 0, manages);
        let notices = controller.oaes.get() & NAMESPACE_ATTRIBUTE_NOTICES != 0;
        assert_eq!(notices, format || manages);
        assert_eq!(controller.nn.get(), if manages { nvio_emulator::NSID_MAX } else { 1 });
        let page = Sqe::get_log_page(log_id::COMMAND_EFFECTS, 0, 0, 1024, false);
        assert!(host.admin(with_data(page, DATA, 0)).status().is_success());
        let effects = CommandEffects::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        for (opcode, there) in [
            (admin::FORMAT_NVM, format),
            (admin::NAMESPACE_MANAGEMENT, manages),
            (admin::NAMESPACE_ATTACHMENT, manages),
        ] {
            assert_eq!(effects.admin[usize::from(opcode)].get() & 1 != 0, there);
            let mut sqe = with_data(Sqe::new(opcode, 0), BASE - 4096, 0);
            sqe.cdw10 = 0xf.into();
            let done = host.admin_status(sqe);
            assert_eq!(done == status::INVALID_OPCODE, !there, "{opcode:#x}: {done}");
        }
        let page = Sqe::get_log_page(log_id::CHANGED_NAMESPACES, 0, 0, 1024, false);
        let done = host.admin_status(with_data(page, DATA, 0));
        assert_eq!(done.is_success(), notices);
        for cns in [cns::ALLOCATED_NAMESPACES, cns::CONTROLLERS] {
            let done = identify(&mut host, cns, 0).err();
            assert_eq!(done, (!manages).then_some(status::INVALID_FIELD));
        }
        let common = identify(&mut host, cns::NAMESPACE, NSID_ALL).err();
        assert_eq!(common, (!manages).then_some(status::INVALID_NAMESPACE));
        let formats = namespace(&mut host, 1).nlbaf;
        assert_eq!(formats, if format || manages { 4 } else { 0 });
    }
}

#[test]
fn a_format_changes_blocks_and_takes_what_they_held() {
    let mut host = managed();
    let mut pair = host.create(1, 16);
    for (index, size, metadata) in
        [(1, 512u32, 8), (2, 4096, 0), (3, 4096, 8), (4, 4096, 64), (0, 512, 0)]
    {
        for protection in if metadata == 0 { 0..1 } else { 0..4 } {
            for extended in [false, true] {
                host.write(DATA, &[7; 8192]);
                assert_eq!(io(&mut host, &mut pair, Sqe::write(1, 0, 1)), Status::SUCCESS);
                let settings = FormatSettings {
                    index,
                    extended,
                    protection,
                    first: false,
                    erase: if extended { erase::USER_DATA } else { erase::NONE },
                };
                let done = host.admin_status(Sqe::format_nvm(1, settings));
                assert_eq!(done, Status::SUCCESS, "{settings:?}");
                let found = namespace(&mut host, 1);
                let (lbads, ms) = (found.format().lbads, found.format().ms.get());
                assert_eq!((1 << lbads, ms), (size, metadata));
                assert_eq!(found.nsze.get() * u64::from(size), MIB);
                assert_eq!(
                    (found.nuse.get(), found.ncap.get()),
                    (found.nsze.get(), found.nsze.get())
                );
                assert_eq!(found.extended_metadata(), extended && metadata > 0);
                assert_eq!(found.protection_type(), protection);
                let last = found.nsze.get() - 1;
                let read = |lba| Sqe::read(1, lba, 1);
                assert_eq!(io(&mut host, &mut pair, read(0)), Status::SUCCESS);
                assert!(host.read(DATA, size as usize) == vec![0; size as usize]);
                assert_eq!(io(&mut host, &mut pair, read(last)), Status::SUCCESS);
                let beyond = io(&mut host, &mut pair, read(last + 1));
                assert_eq!(beyond, status::LBA_OUT_OF_RANGE);
            }
        }
    }
    // Another namespace is as it was.
    assert_eq!(namespace(&mut host, 3).nsze.get(), 2048);
}

#[test]
fn a_formatted_namespace_protects_its_blocks() {
    let mut host = managed();
    let mut pair = host.create(1, 16);
    assert_eq!(format(&mut host, 3, 3, 1), Status::SUCCESS);
    host.write(DATA, &[5; 4096]);
    let write = Sqe::write(3, 9, 1).with_prinfo(prinfo::PRACT).with_tags(9, 2, 0);
    assert_eq!(io(&mut host, &mut pair, write), Status::SUCCESS);
    let read = Sqe::read(3, 9, 1).with_prinfo(prinfo::PRCHK).with_tags(9, 2, 0xffff);
    assert_eq!(io(&mut host, &mut pair, read), Status::SUCCESS);
    let info = ProtectionInfo::new(guard(&[5; 4096]), 2, 9);
    assert_eq!(host.read(META, 8), info.as_bytes());
    let wrong = read.with_tags(9, 3, 0xffff);
    assert_eq!(io(&mut host, &mut pair, wrong), status::APPLICATION_TAG_CHECK_ERROR);
}

#[test]
fn formats_that_cannot_be_are_refused_and_change_nothing() {
    let mut host = managed();
    let mut pair = host.create(1, 16);
    host.write(DATA, &[7; 512]);
    assert_eq!(io(&mut host, &mut pair, Sqe::write(1, 0, 1)), Status::SUCCESS);
    let settings = FormatSettings { index: 1, ..FormatSettings::default() };
    let with = |change: fn(&mut FormatSettings)| {
        let mut settings = settings;
        change(&mut settings);
        Sqe::format_nvm(1, settings)
    };
    let invalid = status::INVALID_FORMAT;
    for (sqe, expected) in [
        (with(|s| s.index = 5), invalid),
        (with(|s| s.index = 0x11), invalid),
        (with(|s| s.index = 63), invalid),
        (with(|s| (s.index, s.protection) = (0, 1)), invalid),
        (with(|s| (s.index, s.protection) = (2, 3)), invalid),
        (with(|s| s.protection = 4), invalid),
        (with(|s| s.protection = 7), invalid),
        (with(|s| (s.protection, s.first) = (1, true)), invalid),
        (with(|s| s.erase = erase::CRYPTOGRAPHIC), status::INVALID_FIELD),
        (with(|s| s.erase = 7), status::INVALID_FIELD),
        (Sqe::format_nvm(0, settings), status::INVALID_NAMESPACE),
        (Sqe::format_nvm(2, settings), status::INVALID_FIELD),
        (Sqe::format_nvm(1025, settings), status::INVALID_NAMESPACE),
    ] {
        assert_eq!(host.admin_status(sqe), expected, "{sqe:?}");
    }
    assert_eq!(namespace(&mut host, 1).nsze.get(), 2048);
    assert_eq!(io(&mut host, &mut pair, Sqe::read(1, 0, 1)), Status::SUCCESS);
    assert_eq!(host.read(DATA, 512), [7; 512]);
    // All at once.
    assert_eq!(format(&mut host, NSID_ALL, 2, 0), Status::SUCCESS);
    for nsid in [1, 3] {
        assert_eq!(namespace(&mut host, nsid).nsze.get(), 256);
    }
}

#[test]
fn formats_that_were_configured_stay_possible() {
    let own = memory()
        .block_size(8192)
        .metadata(16, true)
        .protection(ProtectionType::TWO, true)
        .noiob(16)
        .nsid(2);
    let config = Config::new().namespace(own).format_nvm(true);
    let mut host = Stepped::new(&config);
    let found = namespace(&mut host, 2);
    assert_eq!((found.nlbaf, found.format_index(), found.format().lbads), (5, 5, 13));
    assert_eq!((found.dps, found.dpc, found.mc), (0b1010, 0b1_1111, 3));
    assert_eq!(format(&mut host, 2, 2, 0), Status::SUCCESS);
    let found = namespace(&mut host, 2);
    // 16 blocks of 8 KiB.
    assert_eq!((found.nsze.get(), found.noiob.get(), found.nlbaf), (256, 32, 5));
    let settings =
        FormatSettings { index: 5, extended: false, protection: 3, first: true, erase: 0 };
    assert_eq!(host.admin_status(Sqe::format_nvm(2, settings)), Status::SUCCESS);
    let found = namespace(&mut host, 2);
    assert_eq!((found.nsze.get(), found.noiob.get(), found.dps), (128, 16, 0b1011));
}

#[test]
fn an_image_keeps_its_format_and_a_read_only_one_its_content() {
    for read_only in [false, true] {
        let image = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(image.path(), vec![9; MIB as usize]).unwrap();
        let namespace = NamespaceConfig::new(Backing::image(image.path(), read_only));
        let mut host = Stepped::new(&Config::new().namespace(namespace).format_nvm(true));
        assert_eq!(self::namespace(&mut host, 1).nlbaf, 0);
        let protected = status::NAMESPACE_WRITE_PROTECTED;
        let or = |expected| if read_only { protected } else { expected };
        assert_eq!(format(&mut host, 1, 1, 0), or(status::INVALID_FORMAT));
        assert_eq!(format(&mut host, 1, 0, 1), or(status::INVALID_FORMAT));
        assert!(std::fs::read(image.path()).unwrap() == vec![9; MIB as usize]);
        assert_eq!(format(&mut host, 1, 0, 0), or(Status::SUCCESS));
        let left = if read_only { 9 } else { 0 };
        assert!(std::fs::read(image.path()).unwrap() == vec![left; MIB as usize]);
    }
}

#[test]
fn namespaces_are_created_attached_used_detached_and_deleted() {
    let mut host = managed();
    let mut pair = host.create(1, 16);
    let capacity = |host: &mut Stepped| {
        let controller = controller(host);
        (controller.tnvmcap.get() as u64 / MIB, controller.unvmcap.get() as u64 / MIB)
    };
    assert_eq!(capacity(&mut host), (6, 4));
    // 1 MiB in blocks of 4 KiB with 8 bytes of metadata, type 1.
    assert_eq!(create(&mut host, 256, 3, 1), Ok(2));
    assert_eq!(capacity(&mut host), (6, 3));
    assert_eq!((active(&mut host), allocated(&mut host)), (vec![1, 3], vec![1, 2, 3]));
    assert_eq!(list(&mut host, cns::ALLOCATED_NAMESPACES, 2), [3]);
    // Namespace 2 exists and is not attached to this controller.
    assert_eq!(namespace(&mut host, 2).nsze.get(), 0);
    let bytes = identify(&mut host, cns::ALLOCATED_NAMESPACE, 2).unwrap();
    let found = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
    assert_eq!((found.nsze.get(), found.nvmcap.get() as u64, found.dps), (256, MIB, 1));
    assert_eq!(io(&mut host, &mut pair, Sqe::read(2, 0, 1)), status::INVALID_FIELD);
    let controllers = |host: &mut Stepped, cns, nsid| {
        let bytes = identify(host, cns, nsid).unwrap();
        ControllerList::read_from_bytes(&bytes).unwrap().ids().unwrap().collect::<Vec<_>>()
    };
    assert_eq!(controllers(&mut host, cns::CONTROLLERS, 0), [0]);
    assert_eq!(controllers(&mut host, cns::ATTACHED_CONTROLLERS, 1), [0]);
    assert_eq!(controllers(&mut host, cns::ATTACHED_CONTROLLERS, 2), [0u16; 0]);
    assert_eq!(attach(&mut host, 2), Status::SUCCESS);
    assert_eq!(active(&mut host), [1, 2, 3]);
    assert_eq!(controllers(&mut host, cns::ATTACHED_CONTROLLERS, 2), [0]);
    assert_eq!(namespace(&mut host, 2).nsze.get(), 256);
    host.write(DATA, &[8; 4096]);
    let write = Sqe::write(2, 5, 1).with_prinfo(prinfo::PRACT).with_tags(5, 0, 0);
    assert_eq!(io(&mut host, &mut pair, write), Status::SUCCESS);
    // Detached and attached again, it has what it had.
    assert_eq!(detach(&mut host, 2), Status::SUCCESS);
    assert_eq!(io(&mut host, &mut pair, Sqe::read(2, 5, 1)), status::INVALID_FIELD);
    assert_eq!(attach(&mut host, 2), Status::SUCCESS);
    let read = Sqe { opcode: nvm::READ, ..write };
    host.write(DATA, &[0; 4096]);
    assert_eq!(io(&mut host, &mut pair, read), Status::SUCCESS);
    assert_eq!(host.read(DATA, 4096), [8; 4096]);
    let uuid = identify(&mut host, cns::NAMESPACE_DESCRIPTORS, 2).unwrap();
    assert_eq!(host.admin_status(Sqe::delete_namespace(2)), Status::SUCCESS);
    assert_eq!(capacity(&mut host), (6, 4));
    assert_eq!((active(&mut host), allocated(&mut host)), (vec![1, 3], vec![1, 3]));
    // The next one is another, and empty.
    assert_eq!(create(&mut host, 512, 2, 0), Ok(2));
    assert_eq!(attach(&mut host, 2), Status::SUCCESS);
    assert_ne!(identify(&mut host, cns::NAMESPACE_DESCRIPTORS, 2).unwrap(), uuid);
    assert_eq!(io(&mut host, &mut pair, Sqe::read(2, 5, 1)), Status::SUCCESS);
    assert_eq!(host.read(DATA, 4096), [0; 4096]);
    // All of them, configured ones too.
    assert_eq!(host.admin_status(Sqe::delete_namespace(NSID_ALL)), Status::SUCCESS);
    assert_eq!((capacity(&mut host), allocated(&mut host)), ((6, 6), vec![]));
    assert_eq!(io(&mut host, &mut pair, Sqe::flush(NSID_ALL)), Status::SUCCESS);
    assert_eq!(create(&mut host, 6 * 2048, 0, 0), Ok(1));
}

#[test]
fn namespace_that_cannot_be_created_has_a_status_with_the_reason() {
    let mut host = managed();
    for (blocks, flbas, dps, expected) in [
        (0, 0, 0, status::INVALID_FIELD),
        (4 * 2048 + 1, 0, 0, status::NAMESPACE_INSUFFICIENT_CAPACITY),
        (1 << 60, 2, 0, status::NAMESPACE_INSUFFICIENT_CAPACITY),
        (u64::MAX, 0, 0, status::NAMESPACE_INSUFFICIENT_CAPACITY),
        (8, 5, 0, status::INVALID_FORMAT),
        (8, 0xf | 3 << 5, 0, status::INVALID_FORMAT),
        (8, 0, 1, status::INVALID_FORMAT),
        (8, 1, 4, status::INVALID_FORMAT),
        (8, 1, 0b1001, status::INVALID_FORMAT),
    ] {
        assert_eq!(create(&mut host, blocks, flbas, dps), Err(expected), "{blocks} {flbas} {dps}");
    }
    type Change = fn(&mut IdentifyNamespace);
    let changes: [(Change, Status); 6] = [
        (|data| data.ncap = 7.into(), status::THIN_PROVISIONING_NOT_SUPPORTED),
        (|data| data.ncap = 9.into(), status::INVALID_FIELD),
        (|data| data.nmic = 1, status::INVALID_FIELD),
        (|data| data.nvmsetid = 1.into(), status::INVALID_FIELD),
        (|data| data.endgid = 1.into(), status::INVALID_FIELD),
        (|data| data.anagrpid = 1.into(), status::ANA_GROUP_ID_INVALID),
    ];
    for (change, expected) in changes {
        let cqe = create_with(&mut host, Sqe::create_namespace(), change);
        assert_eq!((cqe.status().bare(), cqe.dw0.get()), (expected, 0));
    }
    let mut of_one = Sqe::create_namespace();
    of_one.nsid = 1.into();
    assert_eq!(create_with(&mut host, of_one, |_| {}).status().bare(), status::INVALID_FIELD);
    let mut other_set = Sqe::create_namespace();
    other_set.cdw11 = (2u32 << 24).into();
    let cqe = create_with(&mut host, other_set, |_| {});
    assert_eq!(cqe.status().bare(), status::IO_COMMAND_SET_NOT_SUPPORTED);
    let unmapped = with_data(Sqe::create_namespace(), BASE - 4096, 0);
    assert_eq!(host.admin_status(unmapped), status::DATA_TRANSFER_ERROR);
    assert_eq!(allocated(&mut host), [1, 3]);
}

#[test]
fn identifiers_end_at_the_largest() {
    let config = Config::new().namespace_management(1025 * 4096);
    let mut host = Stepped::new(&config);
    for expected in 1..=nvio_emulator::NSID_MAX {
        assert_eq!(create(&mut host, 1, 2, 0), Ok(expected));
    }
    assert_eq!(create(&mut host, 1, 2, 0), Err(status::NAMESPACE_ID_UNAVAILABLE));
    assert_eq!(allocated(&mut host).len(), 1024);
    assert_eq!(host.admin_status(Sqe::delete_namespace(700)), Status::SUCCESS);
    assert_eq!(create(&mut host, 2, 2, 0), Ok(700));
}

#[test]
fn attachments_and_deletions_are_checked() {
    let mut host = managed();
    assert_eq!(create(&mut host, 8, 0, 0), Ok(2));
    let invalid = status::CONTROLLER_LIST_INVALID;
    let mut endless = ControllerList::new(&[0]);
    endless.count = 0xffff.into();
    for list in [&[][..], &[1], &[0, 1], &[1, 0], &[0, 0]].map(ControllerList::new) {
        assert_eq!(attachment(&mut host, Sqe::attach_namespace(2), &list), invalid);
        assert_eq!(attachment(&mut host, Sqe::detach_namespace(1), &list), invalid);
    }
    assert_eq!(attachment(&mut host, Sqe::attach_namespace(2), &endless), invalid);
    assert_eq!(attach(&mut host, 1), status::NAMESPACE_ALREADY_ATTACHED);
    assert_eq!(detach(&mut host, 2), status::NAMESPACE_NOT_ATTACHED);
    for (nsid, expected) in [
        (0, status::INVALID_NAMESPACE),
        (4, status::INVALID_FIELD),
        (1024, status::INVALID_FIELD),
        (1025, status::INVALID_NAMESPACE),
    ] {
        assert_eq!(attach(&mut host, nsid), expected, "{nsid}");
        assert_eq!(detach(&mut host, nsid), expected, "{nsid}");
        assert_eq!(host.admin_status(Sqe::delete_namespace(nsid)), expected, "{nsid}");
    }
    assert_eq!(attach(&mut host, NSID_ALL), status::INVALID_NAMESPACE);
    for opcode in [admin::NAMESPACE_MANAGEMENT, admin::NAMESPACE_ATTACHMENT] {
        let mut sqe = with_data(Sqe::new(opcode, 2), DATA, 0);
        sqe.cdw10 = 2.into();
        assert_eq!(host.admin_status(sqe), status::INVALID_FIELD);
    }
    for cns in [cns::ALLOCATED_NAMESPACE, cns::ATTACHED_CONTROLLERS] {
        for nsid in [0, 1025, NSID_ALL] {
            let done = identify(&mut host, cns, nsid).err();
            assert_eq!(done, Some(status::INVALID_NAMESPACE), "{cns:#x} {nsid}");
        }
    }
    // From a controller above this one on, there is none.
    let mut beyond = Sqe::identify(cns::CONTROLLERS, 0);
    beyond.cdw10 = (beyond.cdw10.get() | 1 << 16).into();
    assert_eq!(host.admin_status(with_data(beyond, DATA, 0)), Status::SUCCESS);
    assert_eq!(host.read(DATA, 4), [0; 4]);
}

#[test]
fn the_host_is_told_which_namespaces_changed() {
    let mut host = managed();
    let changed = |host: &mut Stepped| {
        let page = Sqe::get_log_page(log_id::CHANGED_NAMESPACES, NSID_ALL, 0, 1024, false);
        assert!(host.admin(with_data(page, DATA, 0)).status().is_success());
        let page = ChangedNamespaces::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        page.ids().collect::<Vec<_>>()
    };
    let mut configuration = Sqe::set_features(feature_id::ASYNC_EVENT_CONFIGURATION, 0);
    configuration.cdw11 = NAMESPACE_ATTRIBUTE_NOTICES.into();
    assert_eq!(host.admin_status(configuration), Status::SUCCESS);
    let get = Sqe::get_features(feature_id::ASYNC_EVENT_CONFIGURATION);
    assert_eq!(host.admin(get).dw0.get(), NAMESPACE_ATTRIBUTE_NOTICES);
    let mut requests = 0;
    let mut request = |host: &mut Stepped| {
        let mut pair = std::mem::replace(&mut host.admin, Pair::new(0, 2));
        host.push(&mut pair, Sqe::new(admin::ASYNC_EVENT_REQUEST, 0));
        host.ring(&pair);
        host.step();
        assert!(host.take(&mut pair).is_none());
        requests = pair.cid;
        host.admin = pair;
        requests
    };
    let event = |host: &mut Stepped| {
        let mut pair = std::mem::replace(&mut host.admin, Pair::new(0, 2));
        host.step();
        let cqe = host.take(&mut pair);
        host.admin = pair;
        cqe.map(|cqe| (cqe.cid.get(), cqe.dw0.get()))
    };
    let first = request(&mut host);
    // A namespace that is created is not this controller's yet.
    assert_eq!(create(&mut host, 8, 0, 0), Ok(2));
    assert_eq!(event(&mut host), None);
    assert_eq!(attach(&mut host, 2), Status::SUCCESS);
    assert_eq!(event(&mut host), Some((first, 0x0004_0002)));
    // Until the log is read, nothing more is said.
    let second = request(&mut host);
    assert_eq!(format(&mut host, 3, 2, 0), Status::SUCCESS);
    assert_eq!(detach(&mut host, 2), Status::SUCCESS);
    assert_eq!(event(&mut host), None);
    assert_eq!(changed(&mut host), [2, 3]);
    assert_eq!(event(&mut host), Some((second, 0x0004_0002)));
    assert_eq!(changed(&mut host), [0u32; 0]);
    let third = request(&mut host);
    assert_eq!(host.admin_status(Sqe::delete_namespace(1)), Status::SUCCESS);
    assert_eq!(event(&mut host), Some((third, 0x0004_0002)));
    // Kept by RAE, then taken.
    let page = Sqe::get_log_page(log_id::CHANGED_NAMESPACES, NSID_ALL, 0, 1024, true);
    assert!(host.admin(with_data(page, DATA, 0)).status().is_success());
    assert_eq!(changed(&mut host), [1]);
    // Not asked for, no event; the log has it all the same.
    configuration.cdw11 = 0.into();
    assert_eq!(host.admin_status(configuration), Status::SUCCESS);
    request(&mut host);
    assert_eq!(format(&mut host, 3, 0, 0), Status::SUCCESS);
    assert_eq!(event(&mut host), None);
    assert_eq!(changed(&mut host), [3]);
}

#[test]
fn a_namespace_that_is_made_has_the_write_cache_too() {
    let config = Config::new().namespace_management(MIB).write_cache(64 << 10).atomic_writes(8, 8);
    let mut host = Stepped::new(&config);
    assert!(controller(&mut host).has_write_cache());
    assert_eq!(create(&mut host, 64, 1, 2), Ok(1));
    assert_eq!(attach(&mut host, 1), Status::SUCCESS);
    let mut pair = host.create(1, 16);
    let write = |lba, app_tag| {
        Sqe::write(1, lba, 8).with_prinfo(prinfo::PRACT).with_tags(lba as u32, app_tag, 0)
    };
    assert_eq!(io(&mut host, &mut pair, write(0, 1)), Status::SUCCESS);
    // Detached, it has stored what it had; after that the power takes what it will.
    assert_eq!(detach(&mut host, 1), Status::SUCCESS);
    assert_eq!(attach(&mut host, 1), Status::SUCCESS);
    assert_eq!(io(&mut host, &mut pair, write(8, 2)), Status::SUCCESS);
    host.controller.power_cut(1);
    host.enable();
    let mut pair = host.create(1, 16);
    let read = |lba, app_tag: u16| {
        let sqe = Sqe::read(1, lba, 8).with_prinfo(prinfo::PRCHK);
        sqe.with_tags(lba as u32, app_tag, 0xffff)
    };
    assert_eq!(io(&mut host, &mut pair, read(0, 1)), Status::SUCCESS);
    assert_eq!(host.read(META + 2, 2), [0, 1]);
    // Stored or never written: in either case its checks pass.
    assert_eq!(io(&mut host, &mut pair, read(8, 2)), Status::SUCCESS);
}
