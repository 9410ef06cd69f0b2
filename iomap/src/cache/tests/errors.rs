//! Errors: of the device, of the filesystem, and of the caller's memory.

use super::*;
use crate::Source;
use crate::contract::mapper::Op;

/// A source of which only the first `len` bytes can be read.
struct Torn<'a>(&'a [u8], usize);

impl Source for Torn<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], _nofault: bool) -> usize {
        let data = &self.0[at.min(self.1)..self.1.min(at + out.len())];
        out[..data.len()].copy_from_slice(data);
        data.len()
    }
}

fn rig() -> (Device, Double, CachedFile<Double>) {
    let mut rng = Rng::new(1);
    let (device, double) = mapped(&mut rng, 64, 64 * BLOCK);
    let file = CachedFile::new(&device.cache(1 << 20), double.clone());
    (device, double, file)
}

#[test]
fn failed_write_is_dirty_again_and_reported_once_to_each_handle() {
    let (device, double, mut file) = rig();
    let mut other = file.clone();
    file.write_at(1000, &[7; 5000][..]).unwrap();
    device.disk(|disk| disk.fail_writes = true);
    assert!(matches!(file.sync_data(), Err(Error::Bio { what: "write", .. })));
    let late = file.clone();
    device.disk(|disk| disk.fail_writes = false);
    assert!(matches!(other.sync_data(), Err(Error::Bio { what: "write", .. })));
    for handle in [&mut file, &mut other, &mut late.clone()] {
        handle.sync_data().unwrap();
    }
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert!(found[1000..6000].iter().all(|&byte| byte == 7));
}

#[test]
fn failed_read_is_an_error_and_the_next_read_is_right() {
    let (device, double, mut file) = rig();
    let wanted = device.disk(|disk| {
        disk.fail_reads = true;
        double.on_device(&disk.bytes)
    });
    let mut out = vec![0; 4096];
    assert!(matches!(file.read_at(100, &mut out), Err(Error::Bio { what: "read", .. })));
    device.disk(|disk| disk.fail_reads = false);
    assert_eq!(file.read_at(100, &mut out).unwrap(), 4096);
    assert_eq!(out, wanted[100..4196]);
}

#[test]
fn failed_durable_write_through_is_the_error_of_its_call() {
    let (device, _, mut file) = rig();
    device.disk(|disk| disk.fail_writes = true);
    let written = through(&mut file, 0, &[1; 4096][..], true);
    assert!(matches!(written, Err(Error::Bio { what: "write", .. })));
    // Without waiting, the next sync has it.
    let (device, _, mut file) = rig();
    device.disk(|disk| disk.fail_writes = true);
    through(&mut file, 0, &[1; 4096][..], false).unwrap();
    device.disk(|disk| disk.fail_writes = false);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
}

#[test]
fn short_copy_counts_whole_blocks_only() {
    for (readable, counted) in [(5000, 4096), (500, 0), (0, 0), (4096, 4096)] {
        let (device, double, mut file) = rig();
        let before = device.disk(|disk| double.on_device(&disk.bytes));
        let data = [9; 8192];
        let written = file.write_at(8192, Torn(&data, readable));
        match counted {
            0 => assert!(matches!(written, Err(Error::Fault { .. })), "{readable}: {written:?}"),
            n => assert_eq!(written.unwrap(), n, "{readable}"),
        }
        let mut out = vec![0; 8192];
        assert_eq!(file.read_at(8192, &mut out).unwrap(), 8192);
        assert!(out[..counted].iter().all(|&byte| byte == 9), "{readable}");
        assert_eq!(out[counted..], before[8192 + counted..16384], "{readable}");
    }
}

#[test]
fn short_copy_into_a_block_that_is_there_counts_each_byte() {
    let (device, double, mut file) = rig();
    // One block of the folio is there.
    file.write_at(8192, &[7; 1024][..]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.write_at(8192, Torn(&[9; 3000], 500)).unwrap(), 500);
    let mut out = vec![0; 1024];
    for _ in 0..2 {
        assert_eq!(file.read_at(8192, &mut out).unwrap(), 1024);
        assert!(out[..500] == [9; 500] && out[500..] == [7; 524]);
        file.sync_data().unwrap();
        assert!(file.invalidate(0..u64::MAX));
    }
    assert_eq!(device.disk(|disk| double.on_device(&disk.bytes))[8192..9216], out);
}

#[test]
fn write_that_the_filesystem_cannot_end_stays_dirty() {
    let double = Double::new(vec![Block::Hole; 8], 8 * BLOCK, 100);
    let device = Device::new(vec![1; 400 << 10]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    file.write_at(0, &[5; 2048][..]).unwrap();
    double.record(|record| record.fail_end_io = true);
    file.sync_data().unwrap_err();
    double.record(|record| record.fail_end_io = false);
    file.sync_data().unwrap();
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!((found[0], found[2047], found[2048]), (5, 5, 0));
}

#[test]
fn write_to_a_hole_of_a_file_that_does_not_allocate_is_refused() {
    let double = Double::new(vec![Block::Hole; 8], 8 * BLOCK, 100);
    double.record(|record| record.fixed = true);
    let device = Device::new(vec![1; 400 << 10]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    assert!(matches!(file.write_at(0, &[5; 2048][..]), Err(Error::NoBlocks { pos: 0 })));
    assert_eq!(file.read_at(0, &mut [0; 10]).unwrap(), 10);
    file.sync_data().unwrap();
    assert!(device.disk(|disk| disk.writes.is_empty()));
    double.assert_balanced();
}

#[test]
fn cache_that_is_too_small_for_a_folio_is_an_error() {
    let (device, double, _) = rig();
    let mut file = CachedFile::new(&device.cache(1000), double);
    assert!(matches!(file.read_at(0, &mut [0; 10]), Err(Error::NoMemory)));
}

#[test]
fn blocks_whose_writing_cannot_be_prepared_stay_dirty() {
    let (device, double, mut file) = rig();
    let op = Op::WRITE | Op::WRITEBACK;
    double.record(|record| record.fail_begin = Some(op));
    through(&mut file, 0, &[4; 2048], false).unwrap_err();
    file.sync_data().unwrap_err();
    device.disk(|disk| assert!(disk.writes.is_empty()));
    double.record(|record| record.fail_begin = None);
    file.sync_data().unwrap();
    device.disk(|disk| assert_eq!(disk.writes.iter().map(|write| write.1).sum::<usize>(), 2048));
    double.assert_balanced();
}

#[test]
fn progress_before_an_error_counts() {
    let mut blocks: Vec<_> = (0..8).map(|index| Block::Mapped(index * BLOCK)).collect();
    blocks[4] = Block::Hole;
    let double = Double::new(blocks, 8 * BLOCK, 100);
    double.record(|record| record.fixed = true);
    let device = Device::new(vec![1; 400 << 10]);
    let mut file = CachedFile::new(&device.cache(1 << 20), double.clone());
    assert_eq!(file.write_at(0, &[5; 8192][..]).unwrap(), 4096, "the bytes before the hole");
    assert!(matches!(file.write_at(4096, &[5; 100][..]), Err(Error::NoBlocks { pos: 4096 })));
    assert_eq!(file.size(), 8192);
    double.assert_balanced();
}

#[test]
fn device_that_fails_all_writes_does_not_hang_a_full_cache() {
    let (device, double, _) = rig();
    device.disk(|disk| disk.fail_writes = true);
    let mut file = CachedFile::new(&device.cache(64 << 10), double);
    let failed = (0..64).find_map(|page| file.write_at(page * 1024, &[1; 1024][..]).err());
    assert!(matches!(failed, Some(Error::Bio { .. })), "{failed:?}");
    device.disk(|disk| disk.fail_writes = false);
}
