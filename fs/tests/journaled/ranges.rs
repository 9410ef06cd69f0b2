//! Ranges that are taken out of files, and put in.

use std::fs;

use nvio_ext4::{BadRange, Error};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cuts};
use super::{check, file, image, open};
use crate::common;

const BLOCK: usize = 1024;

#[test]
fn a_move_is_there_as_a_whole_after_each_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let state = open(&device);
    let number = file(&state, 0).number();
    let mut random = Rng::new(5);
    // Each block is an extent, and they need several nodes.
    let mut model = Vec::new();
    for _ in 0..300 {
        let data = random.bytes(BLOCK as u64);
        model.resize(model.len().next_multiple_of(2 * BLOCK), 0);
        state.write_at(number, model.len() as u64, &data).unwrap();
        model.extend(data);
    }
    state.sync().unwrap();
    let (base, before) = (device.bytes(), device.calls());
    let mut models = vec![model.clone()];
    for step in 0..12 {
        let blocks = model.len() / BLOCK;
        let at = random.below(blocks as u64 - 40) as usize * BLOCK;
        let length = (1 + random.below(30) as usize) * BLOCK;
        if step % 2 == 0 {
            state.insert_range(number, at as u64, length as u64).unwrap();
            model.splice(at..at, vec![0; length]);
        } else {
            state.collapse_range(number, at as u64, length as u64).unwrap();
            model.drain(at..at + length);
        }
        models.push(model.clone());
        if step % 3 == 0 {
            state.sync().unwrap();
        }
    }
    state.close().unwrap();
    let mut seen = vec![false; models.len()];
    cuts(&base, &device.events()[before..], &mut random, 1, |at, disk| {
        let again = Recorder::new(disk);
        open(&again).close().unwrap();
        fs::write(&path, again.bytes()).unwrap();
        common::assert_clean(&path);
        let found = common::open(&path);
        let inode = found.inode(number).unwrap();
        let now = common::read_file(&found, &fs::File::open(&path).unwrap(), &inode);
        let index = models.iter().position(|model| *model == now);
        seen[index.unwrap_or_else(|| panic!("cut at {at}: half a move"))] = true;
    });
    assert!(seen.iter().filter(|&&seen| seen).count() > 3, "{seen:?}");
}

#[test]
fn a_tree_that_does_not_fit_into_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    // Half full nodes of 84 extents: 285, and a transaction has room for 256 blocks.
    for at in 0..12_000 {
        fs.allocate(number, at * 2048, 1024, false).unwrap();
    }
    let before = fs.inode(number).unwrap();
    for error in [
        fs.collapse_range(number, 0, 2048).unwrap_err(),
        fs.insert_range(number, 1024, 2048).unwrap_err(),
    ] {
        assert!(matches!(error, Error::ChangeTooLarge { .. }), "{error}");
    }
    assert_eq!(fs.extents(&fs.inode(number).unwrap()).unwrap().count(), 12_000);
    // The nodes of its last part fit.
    let pos = 11_000 * 2048;
    fs.collapse_range(number, pos, 2048).unwrap();
    fs.insert_range(number, pos, 4096).unwrap();
    let after = fs.inode(number).unwrap();
    assert_eq!(after.size(), before.size() + 2048);
    assert_eq!(fs.extents(&after).unwrap().count(), 11_999);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn ranges_that_cannot_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    fs.truncate(number, 10_000).unwrap();
    let why = |result: Result<_, Error>| match result {
        Err(Error::BadRange { why, inode }) if inode == number => why,
        other => panic!("{other:?}"),
    };
    for (pos, length) in [(1, 1024), (1024, 1023), (0, 0), (u64::MAX, 1024)] {
        let blocks = BadRange::NotWholeBlocks { block_size: 1024 };
        assert_eq!(why(fs.collapse_range(number, pos, length)), blocks);
        assert_eq!(why(fs.insert_range(number, pos, length)), blocks);
    }
    let size = 10_000;
    assert_eq!(why(fs.collapse_range(number, 8192, 2048)), BadRange::EndsAfter { size });
    assert_eq!(why(fs.insert_range(number, 10_240, 1024)), BadRange::BeginsAfter { size });
    let most = u64::from(u32::MAX) * 1024;
    for error in [
        fs.insert_range(number, 0, most).unwrap_err(),
        fs.insert_range(number, 1024, u64::MAX - 1023).unwrap_err(),
        fs.zero_range(number, u64::MAX - 5, 10, true).unwrap_err(),
    ] {
        assert!(matches!(error, Error::FileTooLarge { .. }), "{error}");
    }
    // The last block after the end of the file would be past the last one of all files.
    fs.allocate(number, most - 1024, 1024, true).unwrap();
    let error = fs.insert_range(number, 0, 1024).unwrap_err();
    assert!(matches!(error, Error::FileTooLarge { .. }), "{error}");
    assert_eq!(fs.collapse_range(number, 8192, 1024).unwrap().size(), 8976);
    assert_eq!(fs.insert_range(number, 8192, 1024).unwrap().size(), 10_000);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}
