//! Random writes to a file, recorded.

use std::fs::File;
use std::path::Path;

use nvio_driver::{Address, Controller, Options};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{Filesystem, WritableFile};
use nvio_iomap::{
    CachedFile, Cursor, DiskQueue, FileQueue, IoArgs, IoFlags, PageCache, WritableDisk,
};
use nvio_testkit::image;
use nvio_testkit::random::{Rng, pattern};

use super::record::{Event, Record, Recorded};

/// Size of the file, bytes: not a multiple of its blocks.
pub const BYTES: usize = 200_123;
/// Logical block of the device, bytes.
pub const LBA: usize = 512;

/// A write of the workload.
#[derive(Debug)]
pub struct Call {
    /// Number of events before it.
    pub before: usize,
    /// Position in the file.
    pub pos: usize,
    /// The data.
    pub data: Vec<u8>,
}

/// A workload that was played, and the events of the device meanwhile.
pub struct Played {
    /// The writes in order.
    pub calls: Vec<Call>,
    /// The events.
    pub record: Record,
    /// The disk before the workload.
    pub image: Vec<u8>,
    /// The place of each logical block of the file on the device, bytes.
    pub places: Vec<u64>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Creates a disk whose file is in pieces.
fn disk(folder: &Path, seed: u64) -> Result<std::path::PathBuf, Error> {
    let (content, image) = (folder.join("content"), folder.join("disk.img"));
    std::fs::create_dir_all(&content)?;
    for index in 0..40 {
        std::fs::write(content.join(format!("{index:02}")), [1; 8192])?;
    }
    let block = ["1024", "4096"][(seed % 2) as usize];
    image::mkfs_of_folder(&image, 4 << 20, &content, &["-b", block]);
    let whole = folder.join("whole");
    std::fs::write(&whole, pattern(seed, BYTES))?;
    let removed = (0..20).map(|index| format!("rm {:02}", index * 2));
    let lines: Vec<_> = removed.chain([format!("write {} file", image::text(&whole))]).collect();
    image::debugfs(&image, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(image)
}

/// Plays a workload.
///
/// # Errors
/// If a call fails, or reads something else than was written.
pub fn play(folder: &Path, seed: u64) -> Result<Played, Error> {
    let mut rng = Rng::new(seed);
    let path = disk(folder, seed)?;
    let image = std::fs::read(&path)?;
    let namespace = NamespaceConfig::new(Backing::image(&path, false)).block_size(LBA as u32);
    let emulator = Emulator::builder().namespace(namespace).write_cache(1 << 20).start()?;
    let options = Options { writable: true, ..Options::default() };
    let address = Address::VfioUser(emulator.socket().to_owned());
    let controller = Controller::open_with(&address, options)?;
    let disk = WritableDisk::whole(&controller.writable()?.writable_namespace(1)?);
    let filesystem = Filesystem::open(File::open(&path)?)?;
    let inode = filesystem.lookup("/file")?;
    let writable = filesystem.writable()?;
    let record = Record::default();
    let queue = Recorded::new(DiskQueue::new(&controller, &disk, 32)?, &record);
    // Less memory than the file has, so that writes also happen for lack of it.
    let cache = PageCache::new(queue, 64 << 10);
    let cached = writable.cached_file(&inode, &cache)?;
    let mut handles = [cached.clone(), cached];
    let mut direct = writable.writable_file(&inode)?;
    let mut places = Vec::new();
    for extent in direct.extents() {
        let extent = extent?;
        let lbas = (0..extent.length).step_by(LBA).map(|at| extent.physical + at);
        places.extend(lbas);
    }
    let mut queue = FileQueue::new(Recorded::new(DiskQueue::new(&controller, &disk, 32)?, &record));
    let (mut model, mut calls) = (pattern(seed, BYTES), Vec::new());
    for _ in 0..rng.range(5, 40) {
        let pos = rng.range(0, BYTES as u64) as usize;
        let most = ((BYTES - pos) as u64).min(1 << rng.range(1, 18));
        let len = rng.range(1, most + 1) as usize;
        let handle = &mut handles[rng.range(0, 2) as usize];
        let kind = rng.range(0, 9);
        if kind == 7 {
            handle.sync_data()?;
            record.add(Event::Durable(0..BYTES as u64));
            continue;
        }
        if kind == 8 {
            let mut out = vec![0; len];
            handle.read_at(pos as u64, &mut out)?;
            if out != model[pos..pos + len] {
                return Err(format!("read at {pos}: not what was written").into());
            }
            continue;
        }
        let data = rng.bytes(len as u64);
        model[pos..pos + len].copy_from_slice(&data);
        calls.push(Call { before: record.events().len(), pos, data: data.clone() });
        let durable = rng.range(0, 3) == 0;
        let mut flags = IoFlags::empty();
        flags.set(IoFlags::DSYNC, durable);
        flags.set(IoFlags::WRITETHROUGH, (2..5).contains(&kind));
        let io = IoArgs::at(pos as u64).flags(flags);
        match kind {
            0..5 => write_cached(handle, io, &data)?,
            _ => _ = direct.write_from(&mut queue, io, &mut Cursor::new(&data[..]))?,
        }
        if durable {
            record.add(Event::Durable(pos as u64..(pos + len) as u64));
        }
    }
    // Also what is written back at the end.
    drop(handles);
    Ok(Played { calls, record, image, places })
}

fn write_cached(
    file: &mut CachedFile<WritableFile>,
    io: IoArgs,
    data: &[u8],
) -> Result<(), nvio_ext4::Error> {
    let mut done = 0;
    while done < data.len() {
        done += file.write_from(IoArgs { pos: io.pos + done as u64, ..io }, &data[done..])?;
    }
    Ok(())
}
