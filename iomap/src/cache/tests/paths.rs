//! The commands of each path, counted.

use super::*;
use crate::contract::mapper::{MappingFlags, MappingKind, Op};

fn contiguous(blocks: u64) -> (Device, Double, CachedFile<Double>) {
    let list = (0..blocks).map(|index| Block::Mapped(index * BLOCK)).collect();
    let device = Device::new(Rng::new(5).bytes(blocks * BLOCK));
    let double = Double::new(list, blocks * BLOCK, blocks);
    let file = CachedFile::new(&device.cache(8 << 20), double.clone());
    (device, double, file)
}

#[test]
fn whole_blocks_are_written_without_a_read() {
    let (device, _, mut file) = contiguous(64);
    file.write_at(1024, &[3; 3072][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| {
        assert_eq!((&disk.reads[..], &disk.writes[..]), (&[][..], &[(1024, 3072)][..]));
        assert_eq!(disk.flushes, 1);
    });
    // The rest of the folio is read only when it is needed, and the dirty blocks are kept.
    file.write_at(1024, &[4; 4096][..]).unwrap();
    let mut out = [0; 6000];
    file.read_at(0, &mut out).unwrap();
    assert_eq!((out[1024], out[5119]), (4, 4));
    device.disk(|disk| {
        assert!(out[..1024] == disk.bytes[..1024] && out[5120..] == disk.bytes[5120..6000])
    });
}

#[test]
fn written_through_blocks_are_clean_and_others_stay_dirty() {
    let (device, double, mut file) = contiguous(64);
    file.write_at(0, &[1; 8192][..]).unwrap();
    through(&mut file, 2100, &[2; 10][..], true).unwrap();
    device.disk(|disk| {
        assert_eq!(disk.writes, [(2048, 1024)], "one block, rounded");
        assert_eq!((disk.bytes[2047 + 1], disk.bytes[2100], disk.bytes[2110]), (1, 2, 1));
    });
    double.record(|record| {
        assert!(record.ops.contains(&(Op::WRITE | Op::WRITETHROUGH)));
        assert!(record.ops.contains(&(Op::WRITE | Op::WRITEBACK)));
    });
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!(disk.writes[1..], [(0, 2048), (3072, 5120)]));
}

#[test]
fn a_mebibyte_is_one_command_and_read_in_few() {
    let (device, _, mut file) = contiguous(4096);
    file.write_at(0, &vec![1; 1 << 20][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!(disk.writes, [(0, 1 << 20)]));
    for pos in (1 << 20..4 << 20).step_by(4096) {
        file.read_at(pos, &mut [0; 4096]).unwrap();
    }
    device.disk(|disk| assert!(disk.reads.len() <= 16, "{:?}", disk.reads));
}

#[test]
fn bytes_past_the_end_of_the_file_are_zeroes_on_the_device() {
    let (device, double, _) = contiguous(8);
    double.record(|record| record.size = 5000);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    file.write_at(4990, &[1; 10][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!((disk.bytes[4999], &disk.bytes[5000..5120]), (1, &[0; 120][..])));
}

#[test]
fn mapping_that_changed_is_made_again() {
    let (device, double, mut file) = contiguous(8);
    file.write_at(0, &[1; 1024][..]).unwrap();
    // The filesystem moves the block: nothing is written to its old place.
    double.record(|record| record.blocks[0] = Block::Mapped(7 * BLOCK));
    file.mappings_changed();
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!(disk.writes, [(7 * BLOCK, 1024)]));
}

#[test]
fn zeroing_leaves_holes_and_the_size_alone() {
    let double = Double::new(vec![Block::Mapped(0), Block::Hole, Block::Mapped(BLOCK)], 3000, 10);
    let device = Device::new(vec![9; 64 << 10]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    file.zero_range(500..10_000).unwrap();
    file.sync_data().unwrap();
    assert_eq!((file.size(), double.record(|record| record.blocks[1])), (3000, Block::Hole));
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert!(
        found[..500].iter().all(|&byte| byte == 9) && found[500..].iter().all(|&byte| byte == 0)
    );
}

#[test]
fn adjacent_folios_are_one_command() {
    let (device, _, mut file) = contiguous(256);
    for page in 0..16 {
        file.write_at(page * 4096, &[page as u8; 4096][..]).unwrap();
    }
    // Not on the device: the next folio but one.
    file.write_at(18 * 4096, &[1; 4096][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| {
        assert_eq!(disk.writes, [(0, 65_536), (18 * 4096, 4096)]);
        assert!((0..16).all(|page| disk.bytes[page * 4096 + 4095] == page as u8));
    });
    let blocks = |start: u64| (start..start + 8).map(|index| Block::Mapped(index * BLOCK));
    let double = Double::new(blocks(8).chain(blocks(0)).collect(), 16 * BLOCK, 100);
    let device = Device::new(vec![0; 1 << 20]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double);
    file.write_at(0, &[1; 16_384][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!(disk.writes, [(8192, 8192), (0, 8192)], "not contiguous"));
}

#[test]
fn flags_that_a_buffered_write_does_not_have_are_refused() {
    let (device, double, mut file) = contiguous(8);
    for flag in [IoFlags::NOWAIT, IoFlags::DONTCACHE, IoFlags::ATOMIC] {
        let io = IoArgs::at(0).flags(IoFlags::WRITETHROUGH | flag);
        assert!(
            matches!(file.write_from(io, &[1; 10][..]), Err(Error::Flags(seen)) if seen == flag)
        );
    }
    let mut queue = crate::FileQueue::new(ImageQueue::new(device.clone(), 4).unwrap());
    let io = IoArgs::at(0).flags(IoFlags::WRITETHROUGH);
    let refused = queue.write_with(&mut double.clone(), io, vec![1; 1024].into()).unwrap_err();
    assert!(matches!(refused.error, Error::Flags(IoFlags::WRITETHROUGH)), "a direct write");
    device.disk(|disk| assert!(disk.writes.is_empty()));
}

#[test]
fn mapping_that_changed_under_a_copy_is_made_again() {
    let (_, double, mut file) = contiguous(8);
    file.read_at(0, &mut [0; 4096]).unwrap();
    let before = double.record(|record| {
        record.changing = Some(file.downgrade());
        record.ops.len()
    });
    assert_eq!(through(&mut file, 0, &[4; 1024], false).unwrap(), 1024);
    double.record(|record| {
        let op = Op::WRITE | Op::WRITETHROUGH;
        assert_eq!(record.ops[before..before + 2], [op, op], "mapped twice before the copy");
    });
    double.assert_balanced();
}

#[test]
fn write_through_allocates_at_once_and_maps_a_second_time_for_the_device() {
    let double = Double::new(vec![Block::Hole; 8], 8 * BLOCK, 100);
    let device = Device::new(vec![1; 400 << 10]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    through(&mut file, 0, &[5; 2048], true).unwrap();
    double.record(|record| {
        let [first, second] = [&record.answers[0], record.answers.last().unwrap()];
        assert_eq!((first.kind, second.kind), (MappingKind::Unwritten, MappingKind::Unwritten));
        assert!(first.flags.contains(MappingFlags::NEW) && second.flags.is_empty());
        assert_eq!(record.hooks, 0, "the cache does not invalidate itself");
    });
    // A filesystem that only reserves breaks the contract.
    let double = Double::new(vec![Block::Hole; 8], 8 * BLOCK, 100);
    double.record(|record| record.stubborn = true);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    let refused = through(&mut file, 0, &[5; 2048], true);
    assert!(matches!(refused, Err(Error::Delalloc { pos: 0 })), "{refused:?}");
    double.assert_balanced();
}

#[test]
fn block_that_is_written_in_part_is_read_first() {
    let (device, double, mut file) = contiguous(8);
    let before = device.disk(|disk| double.on_device(&disk.bytes));
    through(&mut file, 1500, &[8; 100], true).unwrap();
    device.disk(|disk| {
        assert_eq!(disk.writes, [(1024, 1024)]);
        assert!(!disk.reads.is_empty());
        assert!(disk.bytes[1024..1500] == before[1024..1500] && disk.bytes[1599] == 8);
        assert!(disk.bytes[1600..2048] == before[1600..2048]);
    });
}

#[test]
fn hole_is_read_in_one_step() {
    let double = Double::new(vec![Block::Hole; 4096], 4096 * BLOCK, 1);
    let device = Device::new(vec![1; 64 << 10]);
    let mut file = CachedFile::new(&device.cache(8 << 20), double.clone());
    let mut out = vec![1; 1 << 20];
    assert_eq!(file.read_at(0, &mut out).unwrap(), 1 << 20);
    assert!(out.iter().all(|&byte| byte == 0));
    device.disk(|disk| assert!(disk.reads.is_empty()));
    double.record(|record| assert!(record.ops.len() <= 3, "{:?}", record.ops));
}

#[test]
fn two_files_share_the_memory_of_a_cache() {
    let device = Device::new(vec![0; 1 << 20]);
    let cache = device.cache(64 << 10);
    let file = |first: u64| {
        let blocks = (first..first + 256).map(|index| Block::Mapped(index * BLOCK)).collect();
        CachedFile::new(&cache, Double::new(blocks, 256 * BLOCK, 2000))
    };
    let (mut a, mut b) = (file(0), file(256));
    for page in 0..64 {
        // The dirty data of one file makes room for the other.
        a.write_at(page * 4096, &[1; 4096][..]).unwrap();
        b.write_at(page * 4096, &[2; 4096][..]).unwrap();
        assert!(cache.usage().0 <= 64 << 10);
    }
    a.sync_data().unwrap();
    b.sync_data().unwrap();
    device.disk(|disk| assert_eq!((disk.bytes[262_143], disk.bytes[262_144]), (1, 2)));
}

#[test]
fn bytes_between_the_end_and_a_write_past_it_are_zeroes() {
    let (device, double, _) = contiguous(8);
    // The rest of the last block is not zero on the device.
    double.record(|record| record.size = 500);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    file.write_at(800, &[1; 10][..]).unwrap();
    let mut out = [9; 810];
    assert_eq!(file.read_at(0, &mut out).unwrap(), 810);
    assert!(out[500..800].iter().all(|&byte| byte == 0) && out[800..] == [1; 10]);
    file.sync_data().unwrap();
    assert_eq!(device.disk(|disk| double.on_device(&disk.bytes)), out);
}

#[test]
fn new_block_shows_nothing_of_the_memory_that_it_is_in() {
    let blocks = (0..8).map(|index| Block::Mapped(index * BLOCK)).chain([Block::Hole; 8]);
    let double = Double::new(blocks.collect(), 16 * BLOCK, 100);
    let device = Device::new(vec![0xff; 400 << 10]);
    // Room for few folios: their memory is used again.
    let mut file = CachedFile::new(&device.cache(8 << 10), double);
    for page in [0, 4096] {
        file.read_at(page, &mut [0; 4096]).unwrap();
    }
    file.write_at(8192 + 300, &[1; 10][..]).unwrap();
    let mut out = [9; 1024];
    assert_eq!(file.read_at(8192, &mut out).unwrap(), 1024);
    assert!(out[..300].iter().chain(&out[310..]).all(|&byte| byte == 0) && out[305] == 1);
}

#[test]
fn truncated_data_is_neither_read_nor_written_again() {
    let (device, double, mut file) = contiguous(16);
    double.record(|record| record.size = 16 * BLOCK);
    file.write_at(0, &[5; 16 * 1024][..]).unwrap();
    file.truncate(4500, || double.truncate(4500)).unwrap();
    assert_eq!(file.size(), 4500);
    assert_eq!(file.clone().read_at(4000, &mut [0; 4096]).unwrap(), 500);
    file.sync_data().unwrap();
    device.disk(|disk| {
        assert_eq!(disk.writes.iter().map(|write| write.1).sum::<usize>(), 5 * 1024);
        assert_eq!((disk.bytes[4499], &disk.bytes[4500..5120]), (5, &[0; 620][..]));
    });
    // Bytes that the file gets again are zeroes.
    file.truncate(9000, || double.truncate(9000)).unwrap();
    let mut out = vec![1; 9000];
    assert_eq!(file.read_at(0, &mut out).unwrap(), 9000);
    assert!(out[..4500].iter().all(|&b| b == 5) && out[4500..].iter().all(|&b| b == 0));
}

#[test]
fn copies_for_a_device_wait_for_memory() {
    // The queue copies what it writes: all dirty data at once needs more memory than there is.
    let blocks = (32 << 20) / BLOCK;
    let list = (0..blocks).map(|index| Block::Mapped(index * BLOCK)).collect();
    let device = Device::new(vec![0; 32 << 20]);
    let double = Double::new(list, blocks * BLOCK, blocks);
    let queue = ImageQueue::new(device.clone(), 64).unwrap();
    let mut file = CachedFile::new(&PageCache::new(queue, 60 << 20), double);
    file.write_at(0, &vec![7; 28 << 20][..]).unwrap();
    file.sync_data().unwrap();
    device.disk(|disk| assert!(disk.bytes[..28 << 20].iter().all(|&byte| byte == 7)));
}

#[test]
fn filesystem_is_asked_again_when_mappings_change() {
    let (device, double, mut file) = contiguous(64);
    let asked = || {
        let is_write = |op: &&Op| **op == Op::WRITE;
        double.record(|record| record.ops.iter().filter(is_write).count())
    };
    file.write_at(0, &[1; 4096][..]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(asked(), 1);
    file.write_at(1024, &[2; 1024][..]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(asked(), 1, "the block may be overwritten");
    device.disk(|disk| assert_eq!(disk.bytes[1023..1026], [1, 2, 2]));
    double.record(|record| record.blocks[1] = Block::Mapped(7 * BLOCK));
    file.mappings_changed();
    file.write_at(1024, &[3; 1024][..]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(asked(), 2);
    device.disk(|disk| assert_eq!((disk.bytes[1024], disk.bytes[7 * 1024]), (2, 3)));
}

/// A file that is closed makes room: each of these takes the whole cache.
#[test]
fn closed_files_do_not_count() {
    let mut rng = Rng::new(31);
    let (device, double) = mapped(&mut rng, 64, 64 * BLOCK);
    let cache = device.cache(64 << 10);
    for round in 0..4 {
        let mut file = CachedFile::new(&cache, double.clone());
        let mut bytes = vec![0; 64 << 10];
        assert_eq!(file.read_at(0, &mut bytes[..]).unwrap(), 64 << 10, "round {round}");
        file.write_at(0, &bytes[..100]).unwrap();
        assert_eq!(cache.usage(), (64 << 10, BLOCK as usize), "round {round}");
        drop(file);
        assert_eq!(cache.usage(), (0, 0), "round {round}");
    }
}
