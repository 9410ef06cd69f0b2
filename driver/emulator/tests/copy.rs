//! Copy (NVM 3.2.2), with the controller stepped by the test.

use crate::stepped;

use nvio_emulator::{Backing, Config, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::protection::{ProtectionInfo, ProtectionType, guard, prinfo};
use nvio_spec::{
    CopyRange, IdentifyController, IdentifyNamespace, Sqe, Status, cns, opcode::nvm, status,
};
use stepped::{BASE, DATA, Pair, Stepped, with_data};
use zerocopy::{FromBytes, IntoBytes};

const BLOCKS: u64 = 1024;
/// Where metadata may be.
const META: u64 = DATA + (1 << 20);
/// Where source ranges are.
const RANGES: u64 = DATA + (2 << 20);

fn host(namespace: NamespaceConfig) -> (Stepped, Pair) {
    let mut host = Stepped::new(&Config::new().namespace(namespace));
    let pair = host.create(1, 64);
    (host, pair)
}

fn memory() -> NamespaceConfig {
    NamespaceConfig::new(Backing::memory(BLOCKS * 512)).copy_limits(64, 100, 8)
}

fn run(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) -> (Status, u32) {
    let cqe = host.run(pair, Sqe { mptr: META.into(), ..with_data(sqe, DATA, DATA + 4096) });
    (cqe.status().bare(), cqe.dw0.get())
}

/// Runs a Copy of these ranges; gives status and DW0.
fn copy(host: &mut Stepped, pair: &mut Pair, sqe: Sqe, ranges: &[CopyRange]) -> (Status, u32) {
    host.write(RANGES, ranges.as_bytes());
    let cqe = host.run(pair, with_data(sqe, RANGES, 0));
    (cqe.status().bare(), cqe.dw0.get())
}

fn ranges(list: &[(u64, u32)]) -> Vec<CopyRange> {
    list.iter().map(|&(slba, blocks)| CopyRange::new(slba, blocks)).collect()
}

/// Fills each block with the low byte of its number.
fn fill(host: &mut Stepped, pair: &mut Pair) {
    for first in (0..BLOCKS).step_by(16) {
        let data: Vec<u8> = (0..16 * 512).map(|i| (first + i / 512) as u8).collect();
        host.write(DATA, &data);
        assert_eq!(run(host, pair, Sqe::write(1, first, 16)).0, Status::SUCCESS);
    }
}

fn values(host: &mut Stepped, pair: &mut Pair, slba: u64, blocks: u32) -> Vec<u8> {
    let block = |lba| {
        assert_eq!(run(host, pair, Sqe::read(1, lba, 1)).0, Status::SUCCESS);
        let block = host.read(DATA, 512);
        assert!(block.iter().all(|&byte| byte == block[0]));
        block[0]
    };
    (slba..slba + u64::from(blocks)).map(block).collect()
}

#[test]
fn ranges_are_copied_in_their_order_one_after_the_other() {
    for backing in ["memory", "image", "cache"] {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(BLOCKS * 512).unwrap();
        let mut config = Config::new();
        config = match backing {
            "memory" => config.namespace(memory()),
            "image" => config.namespace(NamespaceConfig::new(Backing::image(image.path(), false))),
            _ => config.namespace(memory()).write_cache(64 << 10),
        };
        let mut host = Stepped::new(&config);
        let mut pair = host.create(1, 64);
        fill(&mut host, &mut pair);
        let list = ranges(&[(100, 3), (7, 1), (200, 60), (7, 2)]);
        let done = copy(&mut host, &mut pair, Sqe::copy(1, 900, 4), &list);
        assert_eq!(done, (Status::SUCCESS, 0), "{backing}");
        let expected = [100, 101, 102, 7].into_iter().chain(200..=255).chain([0, 1, 2, 3, 7, 8]);
        let expected: Vec<u8> = expected.collect();
        assert_eq!(values(&mut host, &mut pair, 900, 66), expected);
        // The blocks around it, and the sources, are as they were.
        assert_eq!(values(&mut host, &mut pair, 899, 1), [899u16 as u8]);
        assert_eq!(values(&mut host, &mut pair, 966, 1), [966u16 as u8]);
        assert_eq!(values(&mut host, &mut pair, 100, 3), [100, 101, 102]);
    }
}

#[test]
fn limits_are_those_that_identify_gives() {
    let (mut host, mut pair) = host(memory());
    let identify = with_data(Sqe::identify(cns::NAMESPACE, 1), DATA, 0);
    assert!(host.admin(identify).status().is_success());
    let namespace = IdentifyNamespace::read_from_bytes(&host.read(DATA, 4096)).unwrap();
    let limits = (namespace.mssrl.get(), namespace.mcl.get(), namespace.msrc);
    assert_eq!(limits, (64, 100, 7));
    let identify = with_data(Sqe::identify(cns::CONTROLLER, 0), DATA, 0);
    assert!(host.admin(identify).status().is_success());
    let controller = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
    assert_eq!((controller.oncs.get() >> 8 & 1, controller.cdfs.get()), (1, 1));
    let exceeded = status::COMMAND_SIZE_LIMIT_EXCEEDED;
    let mut unknown = Sqe::copy(1, 500, 1);
    unknown.cdw12 = (1u32 << 8).into();
    for (sqe, list, expected) in [
        (Sqe::copy(1, 500, 1), vec![(0, 64)], Status::SUCCESS),
        (Sqe::copy(1, 500, 1), vec![(0, 65)], exceeded),
        (Sqe::copy(1, 500, 2), vec![(0, 1), (0, 65)], exceeded),
        (Sqe::copy(1, 500, 2), vec![(0, 50), (0, 50)], Status::SUCCESS),
        (Sqe::copy(1, 500, 2), vec![(0, 50), (0, 51)], exceeded),
        (Sqe::copy(1, 500, 8), vec![(0, 1); 8], Status::SUCCESS),
        (Sqe::copy(1, 500, 9), vec![(0, 1); 9], exceeded),
        (Sqe::copy(1, 500, 256), vec![(0, 1); 128], exceeded),
        (unknown, vec![(0, 1)], status::INVALID_FIELD),
        (Sqe::copy(1, BLOCKS - 1, 1), vec![(0, 1)], Status::SUCCESS),
        (Sqe::copy(1, BLOCKS - 1, 1), vec![(0, 2)], status::LBA_OUT_OF_RANGE),
        (Sqe::copy(1, u64::MAX, 1), vec![(0, 1)], status::LBA_OUT_OF_RANGE),
        (Sqe::copy(1, 0, 2), vec![(5, 1), (BLOCKS - 1, 2)], status::LBA_OUT_OF_RANGE),
        (Sqe::copy(1, 0, 2), vec![(5, 1), (u64::MAX, 1)], status::LBA_OUT_OF_RANGE),
        (Sqe::copy(2, 0, 1), vec![(5, 1)], status::INVALID_NAMESPACE),
    ] {
        let done = copy(&mut host, &mut pair, sqe, &ranges(&list));
        assert_eq!(done, (expected, 0), "{sqe:?} {list:?}");
    }
    // What was refused wrote nothing.
    fill(&mut host, &mut pair);
    let list = ranges(&[(5, 1), (BLOCKS - 1, 2)]);
    copy(&mut host, &mut pair, Sqe::copy(1, 0, 2), &list);
    assert_eq!(values(&mut host, &mut pair, 0, 2), [0, 1]);
    let unmapped = with_data(Sqe::copy(1, 0, 1), BASE - 4096, 0);
    let done = host.run(&mut pair, unmapped).status();
    assert_eq!(done, status::DATA_TRANSFER_ERROR);
    let unaligned = with_data(Sqe::copy(1, 0, 1), RANGES + 2, 0);
    assert_eq!(host.run(&mut pair, unaligned).status().bare(), status::PRP_OFFSET_INVALID);
}

#[test]
fn a_read_only_image_is_not_copied_to() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(BLOCKS * 512).unwrap();
    let (mut host, mut pair) = host(NamespaceConfig::new(Backing::image(image.path(), true)));
    let done = copy(&mut host, &mut pair, Sqe::copy(1, 9, 1), &ranges(&[(0, 1)]));
    assert_eq!(done, (status::NAMESPACE_WRITE_PROTECTED, 0));
}

/// A protected namespace with blocks 0 to 15, application tag 5.
fn protected(kind: ProtectionType, metadata: u16) -> (Stepped, Pair) {
    let (mut host, mut pair) = host(memory().metadata(metadata, false).protection(kind, false));
    let data: Vec<u8> = (0..16 * 512u32).map(|i| (i / 512) as u8 + 1).collect();
    host.write(DATA, &data);
    host.write(META, &(0..16 * metadata).map(|i| i as u8).collect::<Vec<u8>>());
    let write = Sqe::write(1, 0, 16).with_prinfo(prinfo::PRACT).with_tags(0, 5, 0);
    assert_eq!(run(&mut host, &mut pair, write).0, Status::SUCCESS);
    (host, pair)
}

#[test]
fn protection_information_is_passed_or_made_anew() {
    for kind in [ProtectionType::ONE, ProtectionType::TWO, ProtectionType::THREE] {
        for bytes in [8u16, 16] {
            let (mut host, mut pair) = protected(kind, bytes);
            let list = ranges(&[(2, 2), (9, 1)]);
            let checks = prinfo::PRCHK_GUARD;
            let sqe = Sqe::copy(1, 100, 2)
                .with_prinfo(prinfo::PRACT | checks)
                .with_copy_read_prinfo(prinfo::PRACT | checks)
                .with_tags(100, 77, 0xffff);
            assert_eq!(copy(&mut host, &mut pair, sqe, &list), (Status::SUCCESS, 0));
            // As it is: what it was where it came from.
            assert_eq!(
                copy(&mut host, &mut pair, Sqe::copy(1, 200, 2), &list),
                (Status::SUCCESS, 0)
            );
            let mut infos = |slba| {
                assert_eq!(run(&mut host, &mut pair, Sqe::read(1, slba, 3)).0, Status::SUCCESS);
                let metadata = host.read(META, 3 * usize::from(bytes));
                let data = host.read(DATA, 3 * 512);
                let blocks = data.chunks(512).zip(metadata.chunks(bytes.into()));
                blocks
                    .map(|(data, metadata)| {
                        let (rest, info) = metadata.split_last_chunk::<8>().unwrap();
                        let info = ProtectionInfo::read_from_bytes(info).unwrap();
                        assert_eq!(info.guard.get(), guard(&[data, rest].concat()));
                        (data[0], info.app_tag.get(), info.ref_tag.get())
                    })
                    .collect::<Vec<_>>()
            };
            let third = kind == ProtectionType::THREE;
            let tag = |lba: u32| if third { 0 } else { lba };
            let made = |index: u32| if third { 100 } else { 100 + index };
            assert_eq!(infos(100), [(3, 77, made(0)), (4, 77, made(1)), (10, 77, made(2))]);
            assert_eq!(infos(200), [(3, 5, tag(2)), (4, 5, tag(3)), (10, 5, tag(9))]);
        }
    }
}

#[test]
fn failed_copy_names_its_range() {
    let (mut host, mut pair) = protected(ProtectionType::ONE, 8);
    // Block 9 has the protection information of another.
    let read = Sqe::read(1, 8, 1);
    assert_eq!(run(&mut host, &mut pair, read).0, Status::SUCCESS);
    assert_eq!(run(&mut host, &mut pair, Sqe::write(1, 9, 1)).0, Status::SUCCESS);
    let both = |checks, tags: u32| {
        Sqe::copy(1, 100, 4)
            .with_prinfo(prinfo::PRACT | checks)
            .with_copy_read_prinfo(prinfo::PRACT | checks)
            .with_tags(tags, 5, 0xffff)
    };
    let tagged = |mut range: CopyRange| {
        (range.app_tag, range.app_mask) = (5.into(), 0xffff.into());
        range
    };
    let list: Vec<_> = ranges(&[(0, 2), (3, 2), (8, 2), (4, 1)]).into_iter().map(tagged).collect();
    let failed = (status::REFERENCE_TAG_CHECK_ERROR, 2);
    assert_eq!(copy(&mut host, &mut pair, both(prinfo::PRCHK, 100), &list), failed);
    assert_eq!(
        copy(&mut host, &mut pair, both(prinfo::PRCHK_APP_TAG, 100), &list).0,
        Status::SUCCESS
    );
    let mut other = list.clone();
    other[1].app_tag = 6.into();
    let failed = (status::APPLICATION_TAG_CHECK_ERROR, 1);
    assert_eq!(copy(&mut host, &mut pair, both(prinfo::PRCHK_APP_TAG, 100), &other), failed);
    // Written as it is, it does not belong where it goes.
    let pass = Sqe::copy(1, 100, 4).with_prinfo(prinfo::PRCHK_REF_TAG).with_tags(100, 0, 0);
    let failed = (status::REFERENCE_TAG_CHECK_ERROR, 0);
    assert_eq!(copy(&mut host, &mut pair, pass, &list), failed);
    // Wrong before anything is copied.
    let invalid = (status::INVALID_PROTECTION_INFORMATION, 0);
    let elsewhere = both(prinfo::PRCHK_REF_TAG, 101);
    assert_eq!(copy(&mut host, &mut pair, elsewhere, &list), invalid);
    other[3].ref_tag = 5.into();
    let checked = both(prinfo::PRCHK_REF_TAG, 100);
    assert_eq!(copy(&mut host, &mut pair, checked, &other), invalid);
    let one_sided = both(0, 100).with_copy_read_prinfo(0);
    assert_eq!(copy(&mut host, &mut pair, one_sided, &list), (status::INVALID_FIELD, 0));
    let one_sided = both(0, 100).with_prinfo(0);
    assert_eq!(copy(&mut host, &mut pair, one_sided, &list), (status::INVALID_FIELD, 0));
}

#[test]
fn a_failed_copy_tells_its_range_when_commands_are_slow_too() {
    let late = Fault::Late(std::time::Duration::from_micros(1));
    let namespace = memory().metadata(8, false).protection(ProtectionType::TWO, false);
    let faults = Faults::new().rule(Rule::new(late).opcode(nvm::COPY));
    let mut host = Stepped::new(&Config::new().namespace(namespace).faults(faults));
    let mut pair = host.create(1, 64);
    let write = Sqe::write(1, 8, 1).with_prinfo(prinfo::PRACT).with_tags(1, 0, 0);
    assert_eq!(run(&mut host, &mut pair, write).0, Status::SUCCESS);
    let list = ranges(&[(0, 2), (8, 1)]);
    host.write(RANGES, list.as_bytes());
    let sqe = Sqe::copy(1, 100, 2).with_copy_read_prinfo(prinfo::PRCHK_REF_TAG);
    host.push(&mut pair, with_data(sqe, RANGES, 0));
    host.ring(&pair);
    let cqe = loop {
        host.controller.step(&host.memory);
        if let Some(cqe) = host.take(&mut pair) {
            break cqe;
        }
    };
    let expected = (status::REFERENCE_TAG_CHECK_ERROR, 1);
    assert_eq!((cqe.status().bare(), cqe.dw0.get()), expected);
}
