//! Buffered and writethrough I/O beside direct I/O, on the embedded controller; e2fsprogs look at the
//! result.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;

use nvio::driver::spec::opcode::nvm;
use nvio::driver::spec::status;
use nvio::emulator::{Backing, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio::iomap::{IoArgs, IoFlags};
use nvio::{IoMode, OpenOptions, WritableFile, WritableVolume};
use nvio_testkit::image;
use nvio_testkit::random::{Rng, pattern};
use tempfile::TempDir;

const BYTES: usize = 700_001;
const CACHED: [IoMode; 2] = [IoMode::Buffered, IoMode::Writethrough];

struct Disk {
    _work: TempDir,
    image: PathBuf,
}

impl Disk {
    fn new(options: &[&str]) -> Self {
        let work = image::work_folder("buffered");
        let folder = work.path().join("folder");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), pattern(1, BYTES)).unwrap();
        let holey = File::create(folder.join("holey")).unwrap();
        holey.write_all_at(&[5; 8192], 0).unwrap();
        holey.write_all_at(&[6; 8192], 1 << 20).unwrap();
        let image = work.path().join("disk.img");
        image::mkfs_of_folder(&image, 16 << 20, &folder, options);
        Self { _work: work, image }
    }

    /// The contents of a file, by debugfs, after a check by e2fsck.
    fn look(&self, path: &str) -> Vec<u8> {
        image::tool("e2fsck", &["-f", "-n", image::text(&self.image)]);
        image::debugfs_bytes(&self.image, &["-R", &format!("cat {path}")])
    }
}

fn write(file: &mut WritableFile, mode: IoMode, pos: u64, data: &[u8]) {
    file.write_at_with(mode, IoArgs::at(pos), data).unwrap();
}

fn read(file: &mut WritableFile, mode: IoMode, pos: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    assert_eq!(file.read_at_with(mode, pos, &mut out).unwrap(), len);
    out
}

#[test]
fn all_ways_see_the_same_data() {
    for options in [&["-b", "1024"][..], &["-b", "4096"]] {
        let disk = Disk::new(options);
        let volume = WritableVolume::open(&disk.image).unwrap();
        let mut files = [0, 1].map(|_| volume.open_writable("/data").unwrap());
        let mut reader = volume.open_file("/data").unwrap();
        let (mut rng, mut model) = (Rng::new(options.len() as u64), pattern(1, BYTES));
        let modes = [IoMode::Direct, IoMode::Buffered, IoMode::Writethrough];
        for step in 0..400 {
            let pos = rng.range(0, BYTES as u64) as usize;
            let most = ((BYTES - pos) as u64).min(1 << rng.range(1, 18));
            let len = rng.range(1, most + 1) as usize;
            let file = &mut files[rng.range(0, 2) as usize];
            let mode = modes[rng.range(0, 3) as usize];
            let at = format!("step {step}: {mode:?} {pos} + {len}");
            match rng.range(0, 5) {
                0 | 1 => {
                    let data = rng.bytes(len as u64);
                    let durable = [IoFlags::empty(), IoFlags::DSYNC][rng.range(0, 2) as usize];
                    let io = IoArgs::at(pos as u64).flags(durable);
                    file.write_at_with(mode, io, &data).unwrap();
                    model[pos..pos + len].copy_from_slice(&data);
                }
                2 => file.sync_data().unwrap(),
                3 => assert!(
                    read(file, mode, pos as u64, len) == model[pos..pos + len],
                    "{at}: read"
                ),
                // A handle that is not for writing, and was opened before.
                _ => {
                    let mut out = vec![0; len];
                    assert_eq!(reader.read_at(pos as u64, &mut out).unwrap(), len);
                    assert!(out == model[pos..pos + len], "{at}: a reader");
                }
            }
        }
        // Dirty data of files that are dropped is written.
        drop((files, reader, volume));
        assert!(disk.look("/data") == model, "{options:?}");
    }
}

#[test]
fn a_range_that_cannot_be_overwritten_changes_nothing() {
    let disk = Disk::new(&["-b", "1024"]);
    let before = fs::read(&disk.image).unwrap();
    let volume = WritableVolume::open(&disk.image).unwrap();
    let mut holey = volume.open_writable("/holey").unwrap();
    let size = holey.size();
    for mode in CACHED {
        for (pos, words) in [(0, "hole"), (8000, "hole"), (size - 100, "cannot grow")] {
            let error = holey.write_at_with(mode, IoArgs::at(pos), &[9; 20_000]).unwrap_err();
            assert!(error.to_string().contains(words), "{mode:?} {pos}: {error}");
        }
        let nowait = IoArgs::at(0).flags(IoFlags::NOWAIT);
        holey.write_at_with(mode, nowait, &[9; 100]).unwrap_err();
    }
    assert_eq!(read(&mut holey, IoMode::Buffered, 0, 8192), [5; 8192]);
    holey.sync_all().unwrap();
    drop((holey, volume));
    assert!(fs::read(&disk.image).unwrap() == before);
}

#[test]
fn a_stream_is_buffered() {
    let disk = Disk::new(&[]);
    let volume = WritableVolume::open(&disk.image).unwrap();
    let mut file = volume.open_writable("/data").unwrap();
    file.seek(SeekFrom::End(-7)).unwrap();
    file.write_all(b"the end").unwrap();
    assert_eq!(file.write(b"!").unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    file.flush().unwrap();
    assert!(!disk.look("/data").ends_with(b"the end"), "it is in the cache");
    file.sync_data().unwrap();
    file.seek(SeekFrom::Current(-7)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "the end");
    drop((file, volume));
    assert!(disk.look("/data").ends_with(b"the end"));
}

#[test]
fn threads_mix_direct_and_buffered_io_on_one_range() {
    let disk = Disk::new(&["-b", "4096"]);
    let options = OpenOptions::new().page_cache_bytes(64 << 10);
    let volume = options.open_writable(&disk.image).unwrap();
    let mut file = volume.open_writable("/data").unwrap();
    write(&mut file, IoMode::Direct, 0, &[0; 128 << 10]);
    thread::scope(|scope| {
        for thread in 0..3u64 {
            let mut file = volume.open_writable("/data").unwrap();
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                for _ in 0..200 {
                    // Each thread writes its own blocks, and reads those of all.
                    let mode = [IoMode::Direct, IoMode::Buffered, IoMode::Writethrough]
                        [rng.range(0, 3) as usize];
                    let block = rng.range(0, 10) * 3 + thread;
                    let data = [rng.range(1, 255) as u8; 4096];
                    write(&mut file, mode, block * 4096, &data);
                    let mode = [IoMode::Direct, IoMode::Buffered][rng.range(0, 2) as usize];
                    assert!(read(&mut file, mode, block * 4096, 4096) == data);
                    let any = read(&mut file, mode, rng.range(0, 30) * 4096, 4096);
                    assert!(any.iter().all(|&byte| byte == any[0]), "a torn block");
                }
            });
        }
    });
    file.sync_data().unwrap();
}

#[test]
fn an_error_of_the_device_is_reported_once_to_each_open_file() {
    let disk = Disk::new(&["-b", "4096"]);
    let namespace = NamespaceConfig::new(Backing::image(&disk.image, false));
    // A write is not repeated after this status.
    let fault = Fault::Status(status::WRITE_FAULT.do_not_retry());
    let faults = Faults::new().rule(Rule::new(fault).opcode(nvm::WRITE).times(1));
    let emulator = Emulator::builder().namespace(namespace).faults(faults).start().unwrap();
    let device = format!("vfio-user:{}", emulator.socket().display());
    let volume = WritableVolume::open(&*device).unwrap();
    let mut files = [0, 1].map(|_| volume.open_writable("/data").unwrap());
    for file in &mut files {
        write(file, IoMode::Buffered, 4096, &[7; 4096]);
    }
    files[0].sync_data().unwrap_err();
    // The data is dirty again, and the device is well.
    files[0].sync_data().unwrap();
    files[1].sync_data().unwrap_err();
    files[1].sync_data().unwrap();
    assert_eq!(read(&mut files[0], IoMode::Direct, 4096, 4096), [7; 4096]);
}
