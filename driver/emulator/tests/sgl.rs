//! Scatter gather lists, good and bad.

use nvio_testkit::random::Rng;

use crate::stepped;

use std::sync::Arc;
use std::sync::mpsc::channel;

use nvio_emulator::{Access, Backing, Config, Dma, NamespaceConfig};
use nvio_spec::opcode::nvm;
use nvio_spec::sgl::{self, Descriptor, PSDT_MASK, PSDT_SGL_MPTR_SGL, support};
use nvio_spec::{IdentifyController, Sqe, Status, cns, status};
use stepped::{BASE, DATA, Pair, SIZE, Stepped, with_data};
use vm_memory::mmap::MmapRegion;
use zerocopy::{FromBytes, IntoBytes};

/// Lists, above the data.
const LIST: u64 = DATA + (2 << 20);

fn host() -> (Stepped, Pair) {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    let mut host = Stepped::new(&Config::new().namespace(namespace).sgl(true));
    let pair = host.create(1, 16);
    (host, pair)
}

fn with_sgl(mut sqe: Sqe, descriptor: Descriptor) -> Sqe {
    sqe.set_sgl(descriptor);
    sqe
}

fn put(host: &Stepped, at: u64, descriptors: &[Descriptor]) {
    host.write(at, descriptors.as_bytes());
}

/// Bytes that tell where they are.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

/// Writes `content` to LBA `lba` with PRPs.
fn store(host: &mut Stepped, pair: &mut Pair, lba: u64, content: &[u8]) {
    for (at, block) in (lba..).zip(content.chunks(512)) {
        host.write(DATA, block);
        let write = with_data(Sqe::write(1, at, 1), DATA, 0);
        assert_eq!(host.run(pair, write).status(), Status::SUCCESS);
    }
}

fn load(host: &mut Stepped, pair: &mut Pair, lba: u64, blocks: usize) -> Vec<u8> {
    let mut content = Vec::new();
    for at in lba..lba + blocks as u64 {
        let read = with_data(Sqe::read(1, at, 1), DATA, 0);
        assert_eq!(host.run(pair, read).status(), Status::SUCCESS);
        content.extend(host.read(DATA, 512));
    }
    content
}

fn status_of(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) -> Status {
    host.run(pair, sqe).status().bare()
}

#[test]
fn sgls_are_offered_only_when_asked_for_and_never_to_admin_commands() {
    for offered in [true, false] {
        let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
        let mut host = Stepped::new(&Config::new().namespace(namespace).sgl(offered));
        let identify = Sqe::identify(cns::CONTROLLER, 0);
        host.admin(with_data(identify, DATA, 0));
        let said = IdentifyController::read_from_bytes(&host.read(DATA, 4096)).unwrap();
        let expected = support::BYTE_ALIGNED
            | support::BIT_BUCKET
            | support::METADATA_BYTE_ALIGNED
            | support::METADATA_SGL;
        assert_eq!(said.sgls.get(), if offered { expected } else { 0 });

        let mut pair = host.create(1, 16);
        let block = Descriptor::data_block(DATA, 512);
        let mut read = with_sgl(Sqe::read(1, 0, 1), block);
        let allowed = if offered { Status::SUCCESS } else { status::INVALID_FIELD };
        assert_eq!(status_of(&mut host, &mut pair, read), allowed);
        read.flags = PSDT_SGL_MPTR_SGL;
        assert_eq!(status_of(&mut host, &mut pair, read), allowed);
        for flags in [PSDT_MASK, sgl::PSDT_SGL | 1, sgl::PSDT_SGL | 1 << 2, 1 << 5] {
            read.flags = flags;
            assert_eq!(status_of(&mut host, &mut pair, read), status::INVALID_FIELD, "{flags:#x}");
        }
        // PCIe has none for admin commands (Base 3.3.3.1).
        let identify = with_sgl(identify, Descriptor::data_block(DATA, 4096));
        assert_eq!(host.admin_status(identify), status::INVALID_FIELD);
    }
}

#[test]
fn one_descriptor_may_be_at_any_byte() {
    let (mut host, mut pair) = host();
    let content = pattern(8192, 1);
    host.write(DATA + 3, &content);
    let write = with_sgl(Sqe::write(1, 8, 16), Descriptor::data_block(DATA + 3, 8192));
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    assert!(load(&mut host, &mut pair, 8, 16) == content);
    let read = with_sgl(Sqe::read(1, 8, 16), Descriptor::data_block(DATA + 0x1_0001, 8192));
    assert_eq!(status_of(&mut host, &mut pair, read), Status::SUCCESS);
    assert!(host.read(DATA + 0x1_0001, 8192) == content);
    let compare = Sqe { opcode: nvm::COMPARE, ..read };
    assert_eq!(status_of(&mut host, &mut pair, compare), Status::SUCCESS);
    host.write(DATA + 0x1_0000 + 8192, &[0xee]);
    assert_eq!(status_of(&mut host, &mut pair, compare), status::COMPARE_FAILURE);
    // Lists of ranges are data too.
    let range = u128::from(8u64) << 64 | 16 << 32;
    host.write(DATA + 7, &range.to_le_bytes());
    let mut deallocate = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
    deallocate.cdw11 = (1 << 2).into();
    let deallocate = with_sgl(deallocate, Descriptor::data_block(DATA + 7, 16));
    assert_eq!(status_of(&mut host, &mut pair, deallocate), Status::SUCCESS);
    assert!(load(&mut host, &mut pair, 8, 16) == [0; 8192]);
    // What transfers nothing has no data pointer to look at.
    let flush = with_sgl(Sqe::flush(1), Descriptor { identifier: 0xff, ..Descriptor::default() });
    assert_eq!(status_of(&mut host, &mut pair, flush), Status::SUCCESS);
}

/// A random list of `len` bytes: data blocks of any length, apart by at least one byte, and
/// buckets. Gives for each its place, or `None` for a bucket, and its length.
fn scatter(random: &mut Rng, len: usize, buckets: bool) -> Vec<(Option<u64>, usize)> {
    let (mut parts, mut at, mut left) = (Vec::new(), DATA + random.below(100), len);
    while left > 0 {
        let now = left.min(random.below(700) as usize);
        if buckets && random.below(4) == 0 {
            parts.push((None, now));
        } else {
            parts.push((Some(at), now));
            at += now as u64 + 1 + random.below(64);
        }
        left -= now;
    }
    parts
}

/// Writes a list as a chain of segments of random sizes; gives the first descriptor.
fn chain(host: &Stepped, random: &mut Rng, mut list: &[Descriptor]) -> Descriptor {
    // From the last segment to the first: each must know where the next is.
    let mut segments = Vec::new();
    while !list.is_empty() {
        let now = (1 + random.below(40) as usize).min(list.len());
        let (segment, rest) = list.split_at(now);
        segments.push(segment.to_vec());
        list = rest;
    }
    let (mut at, mut next) = (LIST + 8 * random.below(10), None);
    for mut segment in segments.into_iter().rev() {
        let is_last = next.is_none();
        segment.extend(next);
        put(host, at, &segment);
        let count = segment.len() as u32;
        let kind = if is_last { Descriptor::last_segment } else { Descriptor::segment };
        next = Some(kind(at, count));
        at += u64::from(count) * 16 + 8 * random.below(10);
    }
    next.unwrap()
}

#[test]
fn scattered_lists_in_chains_move_every_byte_to_its_place() {
    let (mut host, mut pair) = host();
    let mut random = Rng::new(0x5eed);
    let (mut longest, mut discarded) = (0, 0);
    for round in 0..200u8 {
        let blocks = 1 + random.below(64) as usize;
        let content = pattern(blocks * 512, round);
        let parts = scatter(&mut random, content.len(), false);
        let list: Vec<Descriptor> = parts
            .iter()
            .map(|&(at, len)| Descriptor::data_block(at.unwrap_or_default(), len as u32))
            .collect();
        let mut done = 0;
        for &(at, len) in &parts {
            host.write(at.unwrap(), &content[done..done + len]);
            done += len;
        }
        longest = longest.max(list.len());
        let first = chain(&host, &mut random, &list);
        let write = with_sgl(Sqe::write(1, 0, blocks as u32), first);
        assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS, "round {round}");
        assert!(load(&mut host, &mut pair, 0, blocks) == content, "round {round}");

        // Back, with buckets; what is between the parts stays as it was.
        let parts = scatter(&mut random, content.len(), true);
        let list: Vec<Descriptor> = parts
            .iter()
            .map(|&(at, len)| match at {
                Some(at) => Descriptor::data_block(at, len as u32),
                None => Descriptor::bit_bucket(len as u32),
            })
            .collect();
        let first = chain(&host, &mut random, &list);
        let mut expected = vec![0xcc; 128 << 10];
        host.write(DATA, &expected);
        let mut done = 0;
        for &(at, len) in &parts {
            match at {
                Some(at) => {
                    let at = (at - DATA) as usize;
                    expected[at..at + len].copy_from_slice(&content[done..done + len]);
                }
                None => discarded += len,
            }
            done += len;
        }
        let read = with_sgl(Sqe::read(1, 0, blocks as u32), first);
        assert_eq!(status_of(&mut host, &mut pair, read), Status::SUCCESS, "round {round}");
        assert!(host.read(DATA, expected.len()) == expected, "round {round}");
    }
    assert!(longest > 100 && discarded > 100_000, "{longest} {discarded}");
}

#[test]
fn buckets_are_no_access_and_count_for_nothing_when_the_host_sends() {
    let (mut host, mut pair) = host();
    let (sender, accesses) = channel();
    host.memory.observe(move |dma: Dma| sender.send(dma).unwrap());
    let content = pattern(1024, 9);
    store(&mut host, &mut pair, 0, &content);
    let list = [
        Descriptor::bit_bucket(200),
        Descriptor::data_block(DATA, 24),
        Descriptor::data_block(0, 0),
        Descriptor::bit_bucket(800),
    ];
    put(&host, LIST, &list);
    host.write(DATA, &[0; 100]);
    accesses.try_iter().count();
    let read = with_sgl(Sqe::read(1, 0, 2), Descriptor::last_segment(LIST, 4));
    assert_eq!(status_of(&mut host, &mut pair, read), Status::SUCCESS);
    assert_eq!(host.read(DATA, 25), [&content[200..224], &[0]].concat());
    let seen: Vec<Dma> = accesses.try_iter().collect();
    let expected = [
        Dma { iova: LIST, len: 64, access: Access::READ },
        Dma { iova: DATA, len: 24, access: Access::WRITE },
    ];
    assert_eq!(seen[1..seen.len() - 1], expected);
    // A bucket of everything, as large as a transfer can be.
    let bucket = with_sgl(Sqe::read(1, 0, 256), Descriptor::bit_bucket(128 << 10));
    assert_eq!(status_of(&mut host, &mut pair, bucket), Status::SUCCESS);

    // In a write its length is ignored.
    put(&host, LIST, &[Descriptor::bit_bucket(1 << 31), Descriptor::data_block(DATA, 512)]);
    host.write(DATA, &[0x5a; 512]);
    let write = with_sgl(Sqe::write(1, 0, 1), Descriptor::last_segment(LIST, 2));
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    assert_eq!(load(&mut host, &mut pair, 0, 1), [0x5a; 512]);
}

#[test]
fn bad_lists_have_the_status_of_the_specification_and_move_nothing() {
    let (mut host, mut pair) = host();
    let block = |len| Descriptor::data_block(DATA, len);
    let other = |identifier| Descriptor { identifier, ..block(512) };
    let outside = BASE + SIZE as u64;
    let (long, short) = (status::DATA_SGL_LENGTH_INVALID, status::DATA_SGL_LENGTH_INVALID);
    let (segment, count) =
        (status::INVALID_SGL_SEGMENT_DESCRIPTOR, status::INVALID_SGL_DESCRIPTOR_COUNT);
    let (kind, transfer) = (status::SGL_DESCRIPTOR_TYPE_INVALID, status::DATA_TRANSFER_ERROR);
    let last = Descriptor::last_segment;
    let next = Descriptor::segment;
    let odd =
        |descriptor: Descriptor, length: u32| Descriptor { length: length.into(), ..descriptor };
    // The descriptor of the command, what is at LIST, and how a read of a block ends.
    let cases: &[(Descriptor, &[Descriptor], Status)] = &[
        (block(511), &[], short),
        (block(513), &[], long),
        (block(0), &[], short),
        (Descriptor::bit_bucket(511), &[], short),
        (Descriptor::bit_bucket(u32::MAX), &[], long),
        (Descriptor::data_block(outside - 511, 512), &[], transfer),
        (Descriptor::data_block(u64::MAX - 10, 512), &[], transfer),
        (last(LIST, 2), &[block(500), block(13)], long),
        (last(LIST, 2), &[block(u32::MAX), block(513)], long),
        (last(LIST, 2), &[block(500), block(11)], short),
        (last(LIST, 2), &[block(512), Descriptor::data_block(outside, 0)], Status::SUCCESS),
        (last(LIST, 2), &[block(512), other(0x0f)], kind),
        // Kinds and sub types that there are not: keyed, transport, vendor, an offset.
        (other(0x40), &[], kind),
        (other(0x50), &[], kind),
        (other(0xf0), &[], kind),
        (other(0x01), &[], kind),
        (other(0x11), &[], kind),
        (other(0x21), &[], kind),
        (other(0x3a), &[], kind),
        (last(LIST, 1), &[other(0x60)], kind),
        // Segments with lengths and at addresses that they cannot have.
        (odd(last(LIST, 1), 0), &[block(512)], segment),
        (odd(last(LIST, 1), 24), &[block(512)], segment),
        (odd(next(LIST, 1), 15), &[block(512)], segment),
        (last(LIST + 4, 1), &[block(512)], segment),
        (last(outside, 1), &[], transfer),
        (last(LIST, 1 << 24), &[], count),
        (last(u64::MAX - 7, 1), &[], transfer),
        // Segments where they cannot be.
        (last(LIST, 2), &[last(LIST, 1), block(512)], segment),
        (last(LIST, 2), &[block(512), next(LIST, 1)], segment),
        (next(LIST, 2), &[next(LIST, 1), last(LIST + 0x1000, 1)], count),
        (next(LIST, 2), &[last(LIST, 1), block(512)], count),
        (next(LIST, 1), &[block(512)], segment),
        (next(LIST, 2), &[block(512), Descriptor::bit_bucket(0)], segment),
        // A good chain, as a measure: the last segment is what follows.
        (next(LIST, 2), &[block(500), last(LIST + 32, 1), block(12)], Status::SUCCESS),
        // Lists in circles.
        (next(LIST, 1), &[next(LIST, 1)], count),
        (next(LIST, 2), &[block(0), next(LIST, 2)], count),
        (next(LIST, 2), &[block(1), next(LIST, 2)], long),
        (last(LIST, 1), &[last(LIST, 1)], segment),
    ];
    for (number, &(first, list, expected)) in cases.iter().enumerate() {
        host.write(DATA, &[0xdd; 1024]);
        host.write(LIST, &[0xff; 256]);
        put(&host, LIST, list);
        let read = with_sgl(Sqe::read(1, 0, 1), first);
        let ended = status_of(&mut host, &mut pair, read);
        assert_eq!(ended, expected, "case {number}: {first:?} {list:?}");
        if expected != Status::SUCCESS {
            assert_eq!(host.read(DATA, 1024), [0xdd; 1024], "case {number}");
        }
    }
}

#[test]
fn a_data_block_may_go_on_in_the_next_mapping_and_permissions_hold() {
    let (mut host, mut pair) = host();
    let end = BASE + SIZE as u64;
    let region = Arc::new(MmapRegion::new(8192).unwrap());
    host.memory.map_region(end, region, Access::READ).unwrap();
    store(&mut host, &mut pair, 0, &pattern(1024, 3));
    let across = Descriptor::data_block(end - 100, 1024);
    let write = with_sgl(Sqe::write(1, 4, 2), across);
    host.write(end - 100, &[0x77; 100]);
    assert_eq!(status_of(&mut host, &mut pair, write), Status::SUCCESS);
    let stored = load(&mut host, &mut pair, 4, 2);
    assert!(stored[..100] == [0x77; 100] && stored[100..] == [0; 924]);
    // Its second part may not be written.
    let read = with_sgl(Sqe::read(1, 0, 2), across);
    assert_eq!(status_of(&mut host, &mut pair, read), status::DATA_TRANSFER_ERROR);
    assert_eq!(host.read(end - 100, 100), [0x77; 100]);
    let beyond = with_sgl(Sqe::write(1, 4, 32), Descriptor::data_block(end - 100, 16_384));
    assert_eq!(status_of(&mut host, &mut pair, beyond), status::DATA_TRANSFER_ERROR);
}
