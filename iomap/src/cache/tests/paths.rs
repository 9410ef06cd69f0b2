//! The commands of each path, counted.

use super::*;
use crate::contract::mapper::Op;

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
