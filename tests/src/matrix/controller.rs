//! Random reads of files by the library on the embedded controller, compared with the kernel's
//! reads.

use std::collections::BTreeSet;
use std::fs::File as HostFile;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{FileQueue, Filesystem, Options, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader};

use super::node::{Node, Tree};
use crate::view;
use nvio_testkit::random::Rng;

/// Number of reads per image.
const READS: u64 = 300;
/// Maximum length of a read, bytes.
const LONGEST: u64 = 150_000;

/// Compares random reads of `image`, whose tree is `expected`, with reads of the mounted tree at
/// `root`.
pub fn compare(
    image: &Path,
    journal: Option<&Path>,
    expected: &Tree,
    root: &Path,
    lba_size: u32,
    seed: u64,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let namespace = NamespaceConfig::new(Backing::image(image, true)).block_size(lba_size);
    let emulator = Emulator::builder().namespace(namespace).start()?;
    let controller = nvio_testkit::controller::open(&emulator);
    let disk = Disk::whole(&controller.namespace(1)?);
    let source = QueueSource::new(DiskReader::new(&controller, &disk, 16)?);
    let options = Options::default();
    let fs = match journal {
        Some(journal) => Filesystem::open_with_journal(source, HostFile::open(journal)?, options)?,
        None => Filesystem::open_with(source, options)?,
    };
    let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 16)?);

    let mut rng = Rng::new(seed);
    // Each file once, even if it has several names.
    let mut inodes = BTreeSet::new();
    let is_new = |(_, node): &(&Vec<u8>, &Node)| {
        node.entry.is_file() && node.digest.is_some() && inodes.insert(node.entry.inode)
    };
    let files: Vec<_> = expected.iter().filter(is_new).collect();
    let mut lines = Vec::new();
    let most = READS.checked_div(files.len() as u64).unwrap_or(0).clamp(2, 40);
    let (mut theirs, mut ours) = (vec![0; LONGEST as usize], vec![0; LONGEST as usize]);
    let stride = files.len().div_ceil(READS as usize).max(1);
    for (path, node) in files.into_iter().step_by(stride) {
        let name = path.escape_ascii();
        let inode = fs.lookup([b"/", &path[..]].concat())?;
        let mut file = match fs.file(&inode) {
            Ok(file) => file,
            Err(error) => {
                lines.push(format!("/{name}: on the controller: {error}"));
                continue;
            }
        };
        let kernel = HostFile::open(view::join(root, path))?;
        for _ in 0..most {
            let (pos, length) = place(&mut rng, node);
            let expected = read_up_to(&kernel, pos, &mut theirs[..length])?;
            ours.fill(0xee);
            match file.read_at(&mut queue, pos, &mut ours[..length]) {
                Ok(got) if ours[..got] == *expected => {}
                other => {
                    let short = other.map_err(|error| error.to_string());
                    let want = expected.len();
                    lines.push(format!("/{name}: {length} bytes at {pos}: {want}, not {short:?}"));
                }
            }
        }
    }
    Ok(lines)
}

/// Draws a range to read. Most ranges are near the end of an extent, where errors in maps are
/// likely.
fn place(rng: &mut Rng, node: &Node) -> (u64, usize) {
    let length = match rng.range(0, 4) {
        0 => rng.range(0, 200),
        1 => rng.range(0, 3) * 4096,
        _ => rng.range(0, LONGEST),
    };
    let extents = node.extents.as_deref().unwrap_or_default();
    let pos = if extents.is_empty() || rng.range(0, 4) == 0 {
        rng.range(0, node.entry.size + 5000)
    } else {
        let extent = rng.pick(extents);
        let edge = extent.logical + rng.range(0, 2) * extent.length;
        edge.saturating_sub(rng.range(0, length + 2))
    };
    (pos, length as usize)
}

/// Fills `buffer` from `pos` on, up to the end of the file, and returns the filled part.
fn read_up_to<'a>(file: &HostFile, pos: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], pos + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(&buffer[..got])
}
