//! What the controller says it supports is what it supports.

use crate::stepped;

use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_spec::{
    CommandEffects, FeatureEffects, IdentifyController, NSID_ALL, Sqe, Status, SupportedLogPages,
    cns, log_id, lpa, scope, status,
};
use stepped::{DATA, Stepped, with_data};
use zerocopy::FromBytes;

fn host(writable_cache: bool) -> Stepped {
    let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
    let config = if writable_cache { config.write_cache(64 << 10) } else { config };
    Stepped::new(&config)
}

/// Gets up to 4 KiB of a log page.
fn get(host: &mut Stepped, id: u8) -> Result<Vec<u8>, Status> {
    host.write(DATA, &[0xee; 4096]);
    let command = Sqe::get_log_page(id, NSID_ALL, 0, 1024, false);
    match host.admin_status(with_data(command, DATA, 0)) {
        Status::SUCCESS => Ok(host.read(DATA, 4096)),
        refused => Err(refused),
    }
}

#[test]
fn the_log_pages_listed_are_those_that_can_be_read() {
    let mut host = host(false);
    host.admin(with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0));
    let identify = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
    let expected = lpa::COMMAND_EFFECTS | lpa::EXTENDED_DATA | lpa::SUPPORTED_LOG_PAGES;
    assert_eq!(identify.lpa, expected);

    let page = get(&mut host, log_id::SUPPORTED_LOG_PAGES).unwrap();
    // 1024 bytes, and nothing after them.
    assert!(page[1024..].iter().all(|&byte| byte == 0xee));
    let listed: Vec<u8> =
        SupportedLogPages::read_from_bytes(&page[..1024]).unwrap().ids().collect();
    for id in 0..=u8::MAX {
        let expected = if listed.contains(&id) { None } else { Some(status::INVALID_LOG_PAGE) };
        assert_eq!(get(&mut host, id).err(), expected, "page {id:#x}");
    }
    // The mandatory ones, and what LPA says.
    for id in [0x00, 0x01, 0x02, 0x03, 0x05, 0x12, 0x13] {
        assert!(listed.contains(&id), "page {id:#x}");
    }
}

#[test]
fn the_features_listed_are_those_that_can_be_had() {
    for cache in [false, true] {
        let mut host = host(cache);
        let page = get(&mut host, log_id::FEATURE_EFFECTS).unwrap();
        let page = FeatureEffects::read_from_bytes(&page[..1024]).unwrap();
        let listed: Vec<u8> = page.ids().collect();
        assert_eq!(listed.contains(&0x06), cache);
        for id in 0..=u8::MAX {
            let get = Sqe { nsid: 1.into(), ..with_data(Sqe::get_features(id), DATA, 0) };
            let had = host.admin_status(get).is_success();
            assert_eq!(had, listed.contains(&id), "feature {id:#x}");
            let scope = page.feature[usize::from(id)].get() & scope::MASK;
            assert_eq!(scope.count_ones(), u32::from(had), "feature {id:#x}");
        }
    }
}

#[test]
fn every_command_that_is_supported_has_one_scope() {
    let mut host = host(false);
    let page = get(&mut host, log_id::COMMAND_EFFECTS).unwrap();
    let page = CommandEffects::read_from_bytes(&page).unwrap();
    let mut supported = 0;
    for entry in page.admin.iter().chain(&page.io).map(|entry| entry.get()) {
        let is_supported = entry & CommandEffects::SUPPORTED;
        assert_eq!((entry & scope::MASK).count_ones(), is_supported, "{entry:#x}");
        supported += is_supported;
    }
    assert!(supported >= 17, "{supported}");
    assert_eq!(page.io[2].get() & scope::MASK, scope::NAMESPACE);
    assert_eq!(page.admin[6].get() & scope::MASK, scope::CONTROLLER);
    // There is no management interface.
    assert!(get(&mut host, log_id::MANAGEMENT_EFFECTS).unwrap().iter().all(|&byte| byte == 0));
}
