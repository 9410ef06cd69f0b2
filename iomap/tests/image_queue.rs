//! Files on an image: a file of the host, or bytes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use crate::extents;

use std::fs::{self, OpenOptions};

use extents::Scattered;
use nvio_iomap::{BioError, Cursor, Error, FileQueue, ImageQueue, IoArgs, IoFlags, Memory};

const SIZE: u64 = 300_000;

fn content() -> Vec<u8> {
    (0..2 << 20).map(|at: u32| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// The bytes of the file, as its extents order them.
fn model(disk: &[u8]) -> Vec<u8> {
    let mut queue = FileQueue::new(ImageQueue::new(disk, 4).unwrap());
    let mut out = vec![0; SIZE as usize];
    assert_eq!(queue.read_at(&mut Scattered::new(SIZE), 0, &mut out).unwrap(), out.len());
    out
}

#[test]
fn bytes_and_files_are_read_and_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, content()).unwrap();
    let image = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut files = FileQueue::new(ImageQueue::new(image, 8).unwrap());
    let mut bytes = FileQueue::new(ImageQueue::new(content(), 8).unwrap());
    let mut file = Scattered::new(SIZE);
    let expected = model(&content());
    let mut out = vec![0; 70_000];
    for pos in [0, 1, 511, 4096, 100_001] {
        assert_eq!(files.read_at(&mut file, pos, &mut out).unwrap(), out.len());
        assert!(out == expected[pos as usize..][..out.len()], "{pos}");
    }
    let data = vec![0xa5; 8192];
    let io = IoArgs::at(8192).flags(IoFlags::DSYNC);
    assert_eq!(files.write_from(&mut file, io, &mut Cursor::new(&data[..])).unwrap(), 8192);
    assert_eq!(bytes.write_with(&mut file, io, Memory::Bytes(data)).unwrap().1, 8192);
    let written = fs::read(&path).unwrap();
    assert!(written == *bytes.device().image(), "a file and bytes are written alike");
    assert!(model(&written)[8192..16384].iter().all(|&byte| byte == 0xa5));
    assert!(written != content());
}

#[test]
fn results_come_from_poll_and_a_full_queue_is_busy() {
    let mut queue = FileQueue::new(ImageQueue::new(content(), 4).unwrap());
    let mut file = Scattered::new(SIZE);
    for token in 0..4 {
        let buf = queue.alloc(4096).unwrap();
        queue.submit_read(&mut file, 0, buf, token).unwrap();
    }
    let buf = queue.alloc(4096).unwrap();
    let rejected = queue.submit_read(&mut file, 0, buf, 4).unwrap_err();
    assert!(rejected.error.is_busy() && rejected.payload.len() == 4096);
    assert!(format!("{rejected:?}").contains("4096 bytes"), "the length and no contents");
    let mut tokens = Vec::new();
    assert_eq!(queue.poll(8, |done| tokens.push((done.token, done.result.unwrap()))), 4);
    assert_eq!(tokens, [(0, 4096), (1, 4096), (2, 4096), (3, 4096)]);
    assert!(queue.event_fd().is_none() && !queue.prepare_to_sleep());
}

#[test]
fn failures_of_the_image_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, content()).unwrap();
    let mut file = Scattered::new(SIZE);
    let image = fs::File::open(&path).unwrap();
    let mut queue = FileQueue::new(ImageQueue::new(image, 8).unwrap());
    let error = queue.write_at(&mut file, 0, &[1; 512]).unwrap_err();
    let system = |errno| matches!(errno, BioError::System { errno: 1.. });
    assert!(matches!(error, Error::Bio { what: "write", error, .. } if system(error)), "{error}");
    // The image is shorter than the file's extents.
    let short = content()[..4096].to_vec();
    let mut queue = FileQueue::new(ImageQueue::new(short, 8).unwrap());
    let error = queue.read_at(&mut file, 100_000, &mut [0; 4096]).unwrap_err();
    assert!(matches!(error, Error::OutsideDisk { size: 4096, .. }), "{error}");
}
