//! Metadata and end-to-end data protection (NVM 5.2), with the controller stepped by the test.

use crate::stepped;

use nvio_emulator::{Backing, Config, Controller, Error, NamespaceConfig};
use nvio_spec::opcode::nvm;
use nvio_spec::protection::{ProtectionInfo, ProtectionType, dpc, guard, guard_after, mc, prinfo};
use nvio_spec::sgl::{self, Descriptor};
use nvio_spec::{DsmRange, IdentifyNamespace, Sqe, Status, cns, status};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};
use zerocopy::{FromBytes, IntoBytes};

const BLOCKS: u64 = 512;
/// Where metadata may be.
const META: u64 = DATA + (1 << 20);
/// Where a PRP list may be.
const LIST: u64 = DATA + (2 << 20);
/// Every check but that of the application tag.
const GUARD_AND_REF: u32 = prinfo::PRCHK_GUARD | prinfo::PRCHK_REF_TAG;

/// A namespace of 512-byte blocks, and what the test knows of it.
struct Protected {
    host: Stepped,
    pair: Pair,
    metadata: usize,
    extended: bool,
    kind: u8,
    first: bool,
}

fn config(metadata: u16, extended: bool, kind: u8, first: bool) -> NamespaceConfig {
    let config = NamespaceConfig::new(Backing::memory(BLOCKS * 512)).metadata(metadata, extended);
    match ProtectionType::new(kind) {
        Some(kind) => config.protection(kind, first),
        None => config,
    }
}

impl Protected {
    fn new(metadata: u16, extended: bool, kind: u8, first: bool) -> Self {
        let config = Config::new().namespace(config(metadata, extended, kind, first));
        Self::on(&config, metadata, extended, kind, first)
    }

    fn on(config: &Config, metadata: u16, extended: bool, kind: u8, first: bool) -> Self {
        let mut host = Stepped::new(config);
        // Any number of pages, one after the other.
        let pages = (1..64).flat_map(|page| (DATA + page * 4096).to_le_bytes());
        host.write(LIST, &pages.collect::<Vec<u8>>());
        let pair = host.create(1, 64);
        Self { host, pair, metadata: metadata.into(), extended, kind, first }
    }

    fn run(&mut self, sqe: Sqe) -> Status {
        let kept = sqe.prinfo() & prinfo::PRACT != 0 && self.kind != 0 && self.metadata == 8;
        let metadata = if self.extended && !kept { self.metadata } else { 0 };
        let long = usize::try_from(sqe.nlb()).unwrap() * (512 + metadata) > 8192;
        let sqe = with_data(sqe, DATA, if long { LIST } else { DATA + 4096 });
        self.host.run(&mut self.pair, Sqe { mptr: META.into(), ..sqe }).status().bare()
    }

    /// Puts blocks where the namespace has them transferred.
    fn put(&self, data: &[u8], metadata: &[u8]) {
        if self.extended {
            let blocks = data.chunks(512).zip(metadata.chunks(self.metadata));
            let all: Vec<u8> = blocks.flat_map(|(d, m)| [d, m].concat()).collect();
            self.host.write(DATA, &all);
        } else {
            self.host.write(DATA, data);
            self.host.write(META, metadata);
        }
    }

    /// Gets blocks from where the namespace has them transferred.
    fn get(&self, blocks: usize) -> (Vec<u8>, Vec<u8>) {
        if !self.extended {
            let data = self.host.read(DATA, blocks * 512);
            return (data, self.host.read(META, blocks * self.metadata));
        }
        let all = self.host.read(DATA, blocks * (512 + self.metadata));
        let parts = all.chunks(512 + self.metadata).map(|block| block.split_at(512));
        let (data, metadata): (Vec<_>, Vec<_>) = parts.unzip();
        (data.concat(), metadata.concat())
    }

    fn at(&self) -> usize {
        if self.first { 0 } else { self.metadata - 8 }
    }

    /// Metadata for data, with protection information for LBAs from `ref_tag` on.
    fn protect(&self, data: &[u8], app_tag: u16, ref_tag: u32) -> Vec<u8> {
        let mut all = Vec::new();
        for (block, data) in data.chunks(512).enumerate() {
            let ref_tag = ref_tag.wrapping_add(block as u32);
            let mut metadata = vec![ref_tag as u8 ^ 0x3c; self.metadata];
            let guard = guard_after(guard(data), &metadata[..self.at()]);
            let info = ProtectionInfo::new(guard, app_tag, ref_tag);
            metadata[self.at()..][..8].copy_from_slice(info.as_bytes());
            all.extend(metadata);
        }
        all
    }

    fn info(&self, metadata: &[u8]) -> ProtectionInfo {
        ProtectionInfo::read_from_bytes(&metadata[self.at()..][..8]).unwrap()
    }

    fn identify(&mut self) -> IdentifyNamespace {
        let sqe = with_data(Sqe::identify(cns::NAMESPACE, 1), DATA, 0);
        assert!(self.host.admin(sqe).status().is_success());
        IdentifyNamespace::read_from_bytes(&self.host.read(DATA, 4096)).unwrap()
    }
}

fn pattern(blocks: usize, seed: u32) -> Vec<u8> {
    (0..blocks as u32 * 512).map(|i| (i * 7 / 16 + i / 512 * seed) as u8).collect()
}

/// Every way to have metadata: bytes, extended, type, first.
fn every_way() -> impl Iterator<Item = (u16, bool, u8, bool)> {
    let sizes = [8, 16, 64].into_iter();
    sizes.flat_map(|bytes| {
        [false, true].into_iter().flat_map(move |extended| {
            (0..4).flat_map(move |kind| {
                [false, true].into_iter().map(move |first| (bytes, extended, kind, first))
            })
        })
    })
}

#[test]
fn identify_says_how_blocks_are_formatted() {
    for (bytes, extended, kind, first) in every_way() {
        let identify = Protected::new(bytes, extended, kind, first).identify();
        assert_eq!(identify.nsze.get(), BLOCKS);
        assert_eq!((identify.format().ms.get(), identify.format().lbads), (bytes, 9));
        assert_eq!(identify.extended_metadata(), extended);
        let transfer = if extended { mc::EXTENDED } else { mc::SEPARATE };
        assert_ne!(identify.mc & transfer, 0);
        assert_eq!(identify.protection_type(), kind);
        if kind != 0 {
            assert_eq!(identify.dps >> 3 & 1 != 0, first);
            assert_ne!(identify.dpc & 1 << (kind - 1), 0);
            assert_ne!(identify.dpc & if first { dpc::FIRST } else { dpc::LAST }, 0);
        }
    }
}

#[test]
fn data_and_metadata_come_back_as_they_were_written() {
    for (bytes, extended, kind, first) in every_way() {
        let mut it = Protected::new(bytes, extended, kind, first);
        let data = pattern(24, 5);
        let metadata = it.protect(&data, 0xbeef, 100);
        it.put(&data, &metadata);
        let checks = match kind {
            3 => prinfo::PRCHK_GUARD | prinfo::PRCHK_APP_TAG,
            _ => prinfo::PRCHK,
        };
        let protect = |sqe: Sqe| sqe.with_prinfo(checks).with_tags(100, 0xbeef, 0xffff);
        assert_eq!(it.run(protect(Sqe::write(1, 100, 24))), Status::SUCCESS);
        it.host.write(DATA, &[0; 32 << 10]);
        it.host.write(META, &[0; 4096]);
        assert_eq!(it.run(protect(Sqe::read(1, 100, 24))), Status::SUCCESS);
        let what = format!("{bytes} bytes, extended {extended}, type {kind}, first {first}");
        assert!(it.get(24) == (data.clone(), metadata.clone()), "{what}");
        // One block of it, from the middle.
        let one = Sqe::read(1, 110, 1).with_prinfo(checks).with_tags(110, 0xbeef, 0xffff);
        assert_eq!(it.run(one), Status::SUCCESS);
        let bytes = usize::from(bytes);
        let expected = (&data[10 * 512..][..512], &metadata[10 * bytes..][..bytes]);
        let found = it.get(1);
        assert!((&found.0[..], &found.1[..]) == expected, "{what}");
        assert_eq!(
            it.run(Sqe { opcode: nvm::VERIFY, ..protect(Sqe::read(1, 100, 24)) }),
            Status::SUCCESS
        );
    }
}

#[test]
fn write_that_fails_a_check_is_reported_and_not_stored() {
    for (bytes, extended, kind, first) in every_way().filter(|way| way.2 != 0) {
        let mut it = Protected::new(bytes, extended, kind, first);
        let old = pattern(8, 1);
        let old_metadata = it.protect(&old, 1, 40);
        it.put(&old, &old_metadata);
        assert_eq!(it.run(Sqe::write(1, 40, 8)), Status::SUCCESS);
        let data = pattern(8, 9);
        let good = it.protect(&data, 1, 40);
        let bytes = usize::from(bytes);
        // The last block is wrong in one of its fields.
        for (field, check, expected) in [
            (0, prinfo::PRCHK_GUARD, status::GUARD_CHECK_ERROR),
            (2, prinfo::PRCHK_APP_TAG, status::APPLICATION_TAG_CHECK_ERROR),
            (7, prinfo::PRCHK_REF_TAG, status::REFERENCE_TAG_CHECK_ERROR),
        ] {
            if kind == 3 && check == prinfo::PRCHK_REF_TAG {
                continue;
            }
            let mut metadata = good.clone();
            metadata[7 * bytes + it.at() + field] ^= 0x10;
            it.put(&data, &metadata);
            let with = |sqe: Sqe, checks| sqe.with_prinfo(checks).with_tags(40, 1, 0xffff);
            assert_eq!(it.run(with(Sqe::write(1, 40, 8), check)), expected);
            let all = if kind == 3 { prinfo::PRCHK_GUARD } else { GUARD_AND_REF };
            assert_eq!(it.run(with(Sqe::read(1, 40, 8), all)), Status::SUCCESS);
            assert!(it.get(8) == (old.clone(), old_metadata.clone()));
            // Unchecked, it is stored, and found by whoever checks.
            it.put(&data, &metadata);
            assert_eq!(it.run(Sqe::write(1, 40, 8)), Status::SUCCESS);
            for opcode in [nvm::READ, nvm::VERIFY] {
                let sqe = with(Sqe::read(1, 40, 8), check);
                assert_eq!(it.run(Sqe { opcode, ..sqe }), expected);
                let others = with(Sqe::read(1, 40, 8), prinfo::PRCHK & all & !check);
                assert_eq!(it.run(Sqe { opcode, ..others }), Status::SUCCESS);
                let before = with(Sqe::read(1, 40, 7), check);
                assert_eq!(it.run(Sqe { opcode, ..before }), Status::SUCCESS);
            }
            it.put(&old, &old_metadata);
            assert_eq!(it.run(Sqe::write(1, 40, 8)), Status::SUCCESS);
        }
    }
}

#[test]
fn media_errors_are_retryable_and_wrong_settings_are_not() {
    let mut it = Protected::new(8, false, 1, false);
    let data = pattern(1, 3);
    it.put(&data, &[1; 8]);
    let write = with_data(Sqe::write(1, 0, 1), DATA, 0).with_prinfo(prinfo::PRCHK_GUARD);
    let cqe = it.host.run(&mut it.pair, Sqe { mptr: META.into(), ..write });
    assert_eq!(cqe.status(), status::GUARD_CHECK_ERROR);
    let invalid = write.with_prinfo(prinfo::PRCHK_REF_TAG).with_tags(1, 0, 0);
    let cqe = it.host.run(&mut it.pair, Sqe { mptr: META.into(), ..invalid });
    assert_eq!(cqe.status(), status::INVALID_PROTECTION_INFORMATION.do_not_retry());
}

#[test]
fn the_controller_inserts_and_strips() {
    for (bytes, extended, kind, first) in every_way().filter(|way| way.2 != 0) {
        let mut it = Protected::new(bytes, extended, kind, first);
        let data = pattern(16, 3);
        let given: Vec<u8> = (0..16 * it.metadata).map(|i| i as u8 ^ 0x80).collect();
        let only_protection = bytes == 8;
        let pract = prinfo::PRACT | prinfo::PRCHK_GUARD;
        let with = |sqe: Sqe, prinfo| sqe.with_prinfo(prinfo).with_tags(64, 0x77, 0xffff);
        it.host.write(META, &[0x99; 4096]);
        if only_protection {
            it.host.write(DATA, &data);
        } else {
            it.put(&data, &given);
        }
        assert_eq!(it.run(with(Sqe::write(1, 64, 16), pract)), Status::SUCCESS);
        // As it is stored.
        assert_eq!(it.run(with(Sqe::read(1, 64, 16), prinfo::PRCHK_GUARD)), Status::SUCCESS);
        let (found, metadata) = it.get(16);
        assert!(found == data);
        for (block, metadata) in metadata.chunks(it.metadata).enumerate() {
            let info = it.info(metadata);
            let ref_tag = if kind == 3 { 64 } else { 64 + block as u32 };
            assert_eq!((info.app_tag.get(), info.ref_tag.get()), (0x77, ref_tag));
            let covered = guard_after(guard(&data[block * 512..][..512]), &metadata[..it.at()]);
            assert_eq!(info.guard.get(), covered);
            let mut rest = given[block * it.metadata..][..it.metadata].to_vec();
            rest[it.at()..][..8].copy_from_slice(info.as_bytes());
            assert_eq!(metadata, rest);
        }
        // A read with PRACT strips the information, or, if the metadata has other bytes, transfers
        // all of it.
        let stored = metadata;
        it.host.write(DATA, &[0xcc; 32 << 10]);
        it.host.write(META, &[0x99; 4096]);
        assert_eq!(it.run(with(Sqe::read(1, 64, 16), pract)), Status::SUCCESS);
        if only_protection {
            assert!(it.host.read(DATA, 8192) == data);
            assert_eq!(it.host.read(DATA + 8192, 512), [0xcc; 512]);
            assert_eq!(it.host.read(META, 4096), [0x99; 4096]);
        } else {
            assert!(it.get(16) == (data.clone(), stored));
        }
    }
}

#[test]
fn tags_are_compared_as_the_type_and_the_mask_say() {
    let write = |it: &mut Protected, ref_tag| {
        let data = pattern(4, 2);
        let metadata = it.protect(&data, 0x1234, ref_tag);
        it.put(&data, &metadata);
        assert_eq!(it.run(Sqe::write(1, 10, 4)), Status::SUCCESS);
    };
    let read = |prinfo, ref_tag, app_tag, mask| {
        Sqe::read(1, 10, 4).with_prinfo(prinfo).with_tags(ref_tag, app_tag, mask)
    };
    let mut one = Protected::new(8, false, 1, false);
    write(&mut one, 10);
    let invalid = status::INVALID_PROTECTION_INFORMATION;
    for (sqe, expected) in [
        (read(prinfo::PRCHK_APP_TAG, 0, 0x1234, 0xffff), Status::SUCCESS),
        (read(prinfo::PRCHK_APP_TAG, 0, 0x12ff, 0xff00), Status::SUCCESS),
        (read(prinfo::PRCHK_APP_TAG, 0, 0x12ff, 0xff01), status::APPLICATION_TAG_CHECK_ERROR),
        (read(prinfo::PRCHK_APP_TAG, 0, 0, 0), Status::SUCCESS),
        (read(prinfo::PRCHK_REF_TAG, 10, 0, 0), Status::SUCCESS),
        (read(prinfo::PRCHK_REF_TAG, 11, 0, 0), invalid),
        (read(prinfo::PRACT | prinfo::PRCHK_REF_TAG, 11, 0, 0), invalid),
        (read(prinfo::PRACT, 11, 0, 0), Status::SUCCESS),
    ] {
        assert_eq!(one.run(sqe), expected, "{sqe:?}");
    }
    // What is inserted has the tag of the LBA too.
    let insert = Sqe::write(1, 10, 4).with_prinfo(prinfo::PRACT).with_tags(11, 0, 0);
    assert_eq!(one.run(insert), invalid);
    let mut two = Protected::new(8, false, 2, false);
    write(&mut two, 0x1000);
    assert_eq!(two.run(read(prinfo::PRCHK_REF_TAG, 0x1000, 0, 0)), Status::SUCCESS);
    let other = read(prinfo::PRCHK_REF_TAG, 10, 0, 0);
    assert_eq!(two.run(other), status::REFERENCE_TAG_CHECK_ERROR);
    // It wraps around.
    let insert = Sqe::write(1, 10, 4).with_prinfo(prinfo::PRACT).with_tags(u32::MAX - 1, 5, 0);
    assert_eq!(two.run(insert), Status::SUCCESS);
    assert_eq!(two.run(read(prinfo::PRCHK_REF_TAG, u32::MAX - 1, 0, 0)), Status::SUCCESS);
    let mut three = Protected::new(8, false, 3, false);
    write(&mut three, 0x1000);
    assert_eq!(three.run(read(prinfo::PRCHK_REF_TAG, 0x1000, 0, 0)), invalid);
    assert_eq!(three.run(read(prinfo::PRCHK_GUARD, 9, 0, 0)), Status::SUCCESS);
    // Without protection, all of it is ignored.
    let mut none = Protected::new(8, false, 0, false);
    write(&mut none, 1);
    assert_eq!(none.run(read(prinfo::PRACT | prinfo::PRCHK, 99, 1, 0xffff)), Status::SUCCESS);
    assert_eq!(none.get(1).1, none.protect(&pattern(1, 2), 0x1234, 1));
}

#[test]
fn tags_of_all_ones_and_blocks_never_written_are_not_checked() {
    for (kind, first) in [(1, false), (2, true), (3, false)] {
        let mut it = Protected::new(16, true, kind, first);
        let checks = if kind == 3 { prinfo::PRCHK_GUARD } else { GUARD_AND_REF };
        let read = |lba: u64, blocks| {
            let all = checks | prinfo::PRCHK_APP_TAG;
            Sqe::read(1, lba, blocks).with_prinfo(all).with_tags(lba as u32, 0, 0xffff)
        };
        assert_eq!(it.run(read(0, 8)), Status::SUCCESS);
        let (data, metadata) = it.get(8);
        assert!(data == [0; 8 * 512]);
        let mut unwritten = [0; 16];
        unwritten[it.at()..][..8].fill(0xff);
        assert_eq!(metadata, unwritten.repeat(8));
        // A guard that is wrong, with the tags that say so.
        let mut metadata = it.protect(&pattern(1, 1), 0xffff, u32::MAX);
        metadata[it.at()] ^= 1;
        it.put(&pattern(1, 1), &metadata);
        let write = Sqe { opcode: nvm::WRITE, ..read(4, 1) };
        assert_eq!(it.run(write), Status::SUCCESS);
        assert_eq!(it.run(read(0, 8)), Status::SUCCESS);
        metadata[it.at() + 7] ^= 1;
        it.put(&pattern(1, 1), &metadata);
        // Type 3 wants the reference tag to say it too.
        let expected = if kind == 3 { status::GUARD_CHECK_ERROR } else { Status::SUCCESS };
        assert_eq!(it.run(write), expected);
    }
}

#[test]
fn zeroes_have_the_protection_that_was_asked_for() {
    const DEAC: u32 = 1 << 25;
    for (kind, extended) in [(1, false), (2, true), (3, true)] {
        let mut it = Protected::new(16, extended, kind, false);
        let data = pattern(16, 7);
        it.put(&data, &it.protect(&data, 3, 0));
        let fill = Sqe::write(1, 0, 16);
        let zeroes = |prinfo| {
            let sqe = Sqe::write(1, 4, 3).with_prinfo(prinfo).with_tags(4, 0x55, 0xffff);
            Sqe { opcode: nvm::WRITE_ZEROES, ..sqe }
        };
        let deallocating = |prinfo| {
            let sqe = zeroes(prinfo);
            Sqe { cdw12: (sqe.cdw12.get() | DEAC).into(), ..sqe }
        };
        let made = |block: u32| {
            let guard = guard(&[0; 520]);
            ProtectionInfo::new(guard, 0x55, if kind == 3 { 4 } else { 4 + block })
        };
        for (sqe, expected) in [
            (zeroes(0), [ProtectionInfo::default(); 3]),
            (zeroes(prinfo::PRACT), [made(0), made(1), made(2)]),
            (deallocating(prinfo::PRACT), [ProtectionInfo::UNWRITTEN; 3]),
        ] {
            it.put(&data, &it.protect(&data, 3, 0));
            assert_eq!(it.run(fill), Status::SUCCESS);
            assert_eq!(it.run(sqe), Status::SUCCESS);
            assert_eq!(it.run(Sqe::read(1, 0, 16)), Status::SUCCESS);
            let (found, metadata) = it.get(16);
            assert!(found[4 * 512..7 * 512] == [0; 3 * 512]);
            assert!(found[..2048] == data[..2048] && found[3584..] == data[3584..]);
            for (block, expected) in (4..7).zip(expected) {
                let metadata = &metadata[block * 16..][..16];
                assert_eq!((&metadata[..8], it.info(metadata)), (&[0; 8][..], expected));
            }
        }
        let invalid = status::INVALID_PROTECTION_INFORMATION;
        assert_eq!(it.run(zeroes(prinfo::PRCHK_GUARD)), invalid);
        let elsewhere = zeroes(prinfo::PRACT).with_tags(5, 0, 0);
        let expected = if kind == 1 { invalid } else { Status::SUCCESS };
        assert_eq!(it.run(elsewhere), expected);
        // Deallocated blocks are as if they were never written.
        it.put(&data, &it.protect(&data, 3, 0));
        assert_eq!(it.run(fill), Status::SUCCESS);
        it.host.write(DATA, DsmRange::new(0, 2, 9).as_bytes());
        assert_eq!(it.run(Sqe::deallocate(1, 1)), Status::SUCCESS);
        assert_eq!(it.run(Sqe::read(1, 9, 2).with_prinfo(prinfo::PRCHK_GUARD)), Status::SUCCESS);
        let unwritten = [[0; 8], [0xff; 8]].concat();
        assert_eq!(it.get(2), (vec![0; 1024], unwritten.repeat(2)));
    }
}

#[test]
fn compare_looks_at_metadata_but_not_at_protection_information() {
    for (bytes, extended, kind, first) in every_way() {
        let mut it = Protected::new(bytes, extended, kind, first);
        let data = pattern(4, 3);
        let metadata = it.protect(&data, 8, 30);
        it.put(&data, &metadata);
        assert_eq!(it.run(Sqe::write(1, 30, 4)), Status::SUCCESS);
        let compare = Sqe { opcode: nvm::COMPARE, ..Sqe::read(1, 30, 4) };
        assert_eq!(it.run(compare), Status::SUCCESS);
        let mut other = data.clone();
        other[2047] ^= 1;
        it.put(&other, &metadata);
        assert_eq!(it.run(compare), status::COMPARE_FAILURE);
        for byte in 0..it.metadata {
            let mut other = metadata.clone();
            other[3 * it.metadata + byte] ^= 1;
            it.put(&data, &other);
            let is_protection = kind != 0 && (it.at()..it.at() + 8).contains(&byte);
            let expected = if is_protection { Status::SUCCESS } else { status::COMPARE_FAILURE };
            assert_eq!(it.run(compare), expected, "byte {byte}");
        }
        if kind != 0 {
            // What the host sends is checked as well.
            it.put(&other, &metadata);
            let checked = compare.with_prinfo(prinfo::PRCHK_GUARD);
            assert_eq!(it.run(checked), status::GUARD_CHECK_ERROR);
            let pract = compare.with_prinfo(prinfo::PRACT);
            assert_eq!(it.run(pract), status::INVALID_PROTECTION_INFORMATION);
            let verify = Sqe { opcode: nvm::VERIFY, ..pract };
            assert_eq!(it.run(verify), status::INVALID_FIELD);
        }
    }
}

#[test]
fn transfers_and_pointers_are_checked() {
    // 16 KiB: 32 blocks, or 31 with their metadata between them.
    let run = |extended, sqe: Sqe| {
        let config = Config::new().namespace(config(8, extended, 1, false)).mdts(Some(2));
        Protected::on(&config, 8, extended, 1, false).run(sqe)
    };
    let pract = Sqe::read(1, 0, 32).with_prinfo(prinfo::PRACT);
    for opcode in [nvm::READ, nvm::WRITE, nvm::COMPARE] {
        let blocks = |count| Sqe { opcode, ..Sqe::read(1, 0, count) };
        assert_eq!(run(true, blocks(31)), Status::SUCCESS);
        assert_eq!(run(true, blocks(32)), status::INVALID_FIELD);
        assert_eq!(run(false, blocks(32)), Status::SUCCESS);
        assert_eq!(run(false, blocks(33)), status::INVALID_FIELD);
    }
    assert_eq!(run(true, pract), Status::SUCCESS);
    let mut it = Protected::new(8, false, 1, false);
    let end = BASE + SIZE as u64;
    for (mptr, expected) in [
        (META + 4, Status::SUCCESS),
        (META + 2, status::INVALID_FIELD),
        (META + 1, status::INVALID_FIELD),
        (end - 64, Status::SUCCESS),
        (end - 60, status::DATA_TRANSFER_ERROR),
        (BASE - 4, status::DATA_TRANSFER_ERROR),
        (u64::MAX - 3, status::DATA_TRANSFER_ERROR),
    ] {
        for opcode in [nvm::READ, nvm::WRITE, nvm::COMPARE] {
            let sqe = with_data(Sqe::read(1, 0, 8), DATA, DATA + 4096);
            let sqe = Sqe { opcode, mptr: mptr.into(), ..sqe };
            let found = it.host.run(&mut it.pair, sqe).status().bare();
            assert_eq!(found, expected, "{opcode:#x} {mptr:#x}");
        }
        // Not looked at where no metadata is transferred.
        let sqe = with_data(Sqe::read(1, 0, 8), DATA, DATA + 4096).with_prinfo(prinfo::PRACT);
        let sqe = Sqe { mptr: mptr.into(), ..sqe };
        assert!(it.host.run(&mut it.pair, sqe).status().is_success());
    }
    for slba in [BLOCKS, BLOCKS - 1, u64::MAX] {
        for opcode in [nvm::READ, nvm::WRITE, nvm::COMPARE, nvm::VERIFY, nvm::WRITE_ZEROES] {
            let sqe = Sqe { opcode, ..Sqe::read(1, slba, 2) };
            assert_eq!(it.run(sqe), status::LBA_OUT_OF_RANGE);
        }
    }
}

#[test]
fn scattered_data_and_metadata_find_each_other() {
    for extended in [false, true] {
        let config = Config::new().namespace(config(8, extended, 1, false)).sgl(true);
        let mut it = Protected::on(&config, 8, extended, 1, false);
        let (data, at) = (pattern(4, 3), DATA + (3 << 19));
        let metadata = it.protect(&data, 1, 7);
        it.put(&data, &metadata);
        // Lists of segments of odd lengths.
        let list = |host: &Stepped, at: u64, from: u64, parts: &[u32]| {
            let mut next = from;
            let blocks = parts.iter().map(|&len| {
                next += u64::from(len);
                Descriptor::data_block(next - u64::from(len), len)
            });
            let blocks: Vec<_> = blocks.collect();
            host.write(at, blocks.as_bytes());
            Descriptor::last_segment(at, parts.len() as u32)
        };
        let parts: &[u32] = if extended { &[1, 515, 1004, 560] } else { &[1, 515, 1004, 528] };
        let mut write = Sqe::write(1, 7, 4).with_prinfo(prinfo::PRCHK).with_tags(7, 1, 0xffff);
        write.set_sgl(list(&it.host, at, DATA, parts));
        it.host.write(at + 4096, list(&it.host, at + 2048, META, &[3, 29]).as_bytes());
        (write.flags, write.mptr) = (sgl::PSDT_SGL_MPTR_SGL, (at + 4096).into());
        assert_eq!(it.host.run(&mut it.pair, write).status(), Status::SUCCESS);
        assert_eq!(
            it.run(Sqe::read(1, 7, 4).with_prinfo(prinfo::PRCHK_GUARD).with_tags(7, 0, 0)),
            Status::SUCCESS
        );
        assert!(it.get(4) == (data, metadata));
        it.host.write(at + 4096, Descriptor::data_block(META, 31).as_bytes());
        let found = it.host.run(&mut it.pair, write).status().bare();
        let short = status::METADATA_SGL_LENGTH_INVALID;
        assert_eq!(found, if extended { Status::SUCCESS } else { short });
    }
}

#[test]
fn a_command_larger_than_a_piece_is_whole() {
    // 4 MiB in pieces of one, and its data in one page over and over.
    let namespace = NamespaceConfig::new(Backing::memory(8 << 20))
        .block_size(4096)
        .metadata(8, false)
        .protection(ProtectionType::TWO, false);
    let mut host = Stepped::new(&Config::new().namespace(namespace).mdts(None));
    let mut pair = host.create(1, 16);
    let page = pattern(8, 5);
    host.write(DATA, &page);
    let list: Vec<u8> = (0..1024).flat_map(|_| DATA.to_le_bytes()).collect();
    // 1023 entries in two pages: the last of the first page is the address of the second.
    host.write(LIST, &list);
    host.write(LIST + 4088, &(LIST + 4096).to_le_bytes());
    let with = |sqe: Sqe, prinfo: u32| {
        let sqe = with_data(sqe, DATA, LIST).with_prinfo(prinfo).with_tags(7, 1, 0xffff);
        Sqe { mptr: META.into(), ..sqe }
    };
    let write = with(Sqe::write(1, 3, 1024), prinfo::PRACT);
    assert!(host.run(&mut pair, write).status().is_success());
    let read = with(Sqe::read(1, 3, 1024), prinfo::PRCHK);
    assert!(host.run(&mut pair, read).status().is_success());
    let metadata = host.read(META, 1024 * 8);
    for (block, info) in metadata.chunks(8).enumerate() {
        let expected = ProtectionInfo::new(guard(&page), 1, 7 + block as u32);
        assert_eq!(ProtectionInfo::read_from_bytes(info).unwrap(), expected);
    }
}

#[test]
fn a_power_cut_never_parts_data_from_its_metadata() {
    for seed in 0..6 {
        let config = Config::new().namespace(config(16, false, 2, false)).write_cache(64 << 10);
        let mut it = Protected::on(&config, 16, false, 2, false);
        let write = |it: &mut Protected, lba: u64, blocks: u32, seed: u32| {
            let data = pattern(blocks as usize, seed);
            it.put(&data, &it.protect(&data, seed as u16, lba as u32));
            assert_eq!(it.run(Sqe::write(1, lba, blocks)), Status::SUCCESS);
        };
        write(&mut it, 0, 64, 1);
        assert_eq!(it.run(Sqe::flush(1)), Status::SUCCESS);
        write(&mut it, 0, 32, 2);
        let zeroes = Sqe::write(1, 40, 8).with_prinfo(prinfo::PRACT).with_tags(40, 3, 0);
        assert_eq!(it.run(Sqe { opcode: nvm::WRITE_ZEROES, ..zeroes }), Status::SUCCESS);
        let read = Sqe::read(1, 0, 64).with_prinfo(GUARD_AND_REF);
        assert_eq!(it.run(read), Status::SUCCESS);
        it.host.controller.power_cut(seed);
        it.host.enable();
        it.pair = it.host.create(1, 64);
        assert_eq!(it.run(read), Status::SUCCESS, "seed {seed}");
        let tags: Vec<u16> =
            it.get(64).1.chunks(16).map(|block| it.info(block).app_tag.get()).collect();
        assert!(tags[..32].contains(&1) && tags[..32].contains(&2), "seed {seed}: {tags:?}");
        assert!(tags[40..48].iter().all(|tag| [1, 3].contains(tag)), "seed {seed}: {tags:?}");
        assert!(tags[48..].iter().all(|&tag| tag == 1));
    }
}

#[test]
fn the_metadata_of_an_image_stays_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(BLOCKS * 512).unwrap();
    let namespace = |read_only, bytes| {
        let namespace = NamespaceConfig::new(Backing::image(&path, read_only));
        namespace.metadata(bytes, false).protection(ProtectionType::ONE, true)
    };
    let open = |read_only| {
        let config = Config::new().namespace(namespace(read_only, 16));
        Protected::on(&config, 16, false, 1, true)
    };
    let data = pattern(8, 3);
    let mut it = open(false);
    let metadata = it.protect(&data, 2, 20);
    it.put(&data, &metadata);
    assert_eq!(it.run(Sqe::write(1, 20, 8)), Status::SUCCESS);
    assert_eq!(it.run(Sqe::flush(1)), Status::SUCCESS);
    drop(it);
    // The image is as it would be without metadata.
    assert!(std::fs::read(&path).unwrap()[20 * 512..28 * 512] == data);
    for read_only in [false, true] {
        let mut it = open(read_only);
        let read = Sqe::read(1, 20, 8).with_prinfo(GUARD_AND_REF).with_tags(20, 0, 0);
        assert_eq!(it.run(read), Status::SUCCESS);
        assert!(it.get(8) == (data.clone(), metadata.clone()));
        let read = Sqe::read(1, 28, 8).with_prinfo(GUARD_AND_REF).with_tags(28, 0, 0);
        assert_eq!(it.run(read), Status::SUCCESS);
    }
    let other = Controller::new(&Config::new().namespace(namespace(false, 8)));
    assert!(matches!(other, Err(Error::MetadataFormat { .. })));
}

#[test]
fn null_keeps_metadata_and_checks_what_it_is_sent() {
    let namespace = NamespaceConfig::new(Backing::null(1 << 30)).metadata(8, true);
    let config = Config::new().namespace(namespace.protection(ProtectionType::ONE, false));
    let mut it = Protected::on(&config, 8, true, 1, false);
    let data = pattern(2, 3);
    let metadata = it.protect(&data, 2, 20);
    it.put(&data, &metadata);
    let write = Sqe::write(1, 20, 2).with_prinfo(prinfo::PRCHK_GUARD);
    assert_eq!(it.run(write), Status::SUCCESS);
    it.put(&pattern(2, 4), &metadata);
    assert_eq!(it.run(write), status::GUARD_CHECK_ERROR);
    it.host.write(DATA, &[0xaa; 2048]);
    assert_eq!(it.run(Sqe { opcode: nvm::READ, ..write }), Status::SUCCESS);
    assert_eq!(it.get(2), (vec![0xaa; 1024], metadata));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let setting =
        |namespace: NamespaceConfig| match Controller::new(&Config::new().namespace(namespace)) {
            Err(Error::Setting { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
    let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
    assert_eq!(setting(namespace().metadata(6, false)), "metadata");
    assert_eq!(setting(namespace().metadata(132, false)), "metadata");
    let protected =
        |bytes| namespace().metadata(bytes, false).protection(ProtectionType::ONE, false);
    assert_eq!(setting(protected(4)), "metadata with protection");
    assert_eq!(setting(protected(0)), "metadata with protection");
}
