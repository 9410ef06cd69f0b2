//! The filesystem of the benchmark, with the places and contents of its files.

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nvio_driver::{QueuePair, WritableNamespace};
use nvio_ext4::{Extent, File, Filesystem};
use nvio_testkit::image::mkfs_of_folder;
use nvio_testkit::random::Rng;
use tempfile::TempDir;

use crate::Result;

pub(crate) const BLOCK: u64 = 4096;
/// Size of the filesystem, bytes.
pub(crate) const SIZE: u64 = 128 << 20;
/// Number of extents of the scattered file, and blocks per extent. A hole of one block follows
/// each.
const EXTENTS: u64 = 1000;
const EXTENT: u64 = 4;
/// Size of the file with few extents, bytes.
const LARGE: u64 = 32 << 20;
/// Number of places to draw; a power of two.
const DRAWN: usize = 1 << 12;
/// Length of one copy, bytes.
const CHUNK: usize = 1 << 20;

/// An ext4 image.
pub(crate) struct Image {
    path: PathBuf,
    filesystem: Filesystem,
    _folder: TempDir,
}

/// A place in a file, with its place on the device.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// First byte in the file.
    pub(crate) pos: u64,
    /// First block on the device.
    pub(crate) lba: u64,
}

impl Image {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (content, path) = (folder.path().join("content"), folder.path().join("disk.img"));
        std::fs::create_dir(&content)?;
        let scattered = HostFile::create(content.join("scattered"))?;
        for extent in 0..EXTENTS {
            let pos = extent * (EXTENT + 1) * BLOCK;
            let mut data = vec![0; usize::try_from(EXTENT * BLOCK)?];
            mark(&mut data, pos, 0);
            scattered.write_all_at(&data, pos)?;
        }
        let mut data = vec![0; usize::try_from(LARGE)?];
        mark(&mut data, 0, 0);
        std::fs::write(content.join("large"), &data)?;
        mkfs_of_folder(&path, SIZE, &content, &["-b", "4096", "-m", "0"]);
        let filesystem = Filesystem::open(HostFile::open(&path)?)?;
        let image = Self { path, filesystem, _folder: folder };
        match image.scattered()?.extents().count() {
            0..1000 => Err("the file has too few extents".into()),
            _ => Ok(image),
        }
    }

    /// Opens the file of a thousand extents.
    pub(crate) fn scattered(&self) -> Result<File> {
        Ok(self.filesystem.file(&self.filesystem.lookup(b"/scattered")?)?)
    }

    /// Opens the file of few extents.
    pub(crate) fn large(&self) -> Result<File> {
        Ok(self.filesystem.file(&self.filesystem.lookup(b"/large")?)?)
    }

    /// Writes the image to a zeroed namespace.
    pub(crate) fn write_to(
        &self,
        pair: &mut QueuePair<()>,
        namespace: &WritableNamespace,
    ) -> Result<()> {
        let image = HostFile::open(&self.path)?;
        let mut chunk = vec![0; CHUNK];
        for at in (0..SIZE).step_by(CHUNK) {
            image.read_exact_at(&mut chunk, at)?;
            if chunk.iter().any(|&byte| byte != 0) {
                pair.blocking((), |_| ()).write_bytes(namespace, at, &chunk)?;
            }
        }
        Ok(())
    }
}

/// Draws places of `bytes` bytes, each within one extent of `file`.
pub(crate) fn draw(file: &File, bytes: u64) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    for extent in file.extents() {
        let Extent { logical, physical, length, unwritten, .. } = extent?;
        if !unwritten {
            let starts = (0..length / bytes).map(|i| i * bytes);
            let lba = |at| (physical + at) / BLOCK;
            all.extend(starts.map(|at| Target { pos: logical + at, lba: lba(at) }));
        }
    }
    if all.is_empty() {
        return Err(format!("no extent has {bytes} bytes").into());
    }
    let mut rng = Rng::new(bytes);
    Ok((0..DRAWN).map(|_| *rng.pick(&all)).collect())
}

/// Fills `data` with the contents of a file at `pos`: words that encode their position and a stamp.
pub(crate) fn mark(data: &mut [u8], pos: u64, stamp: u64) {
    for (word, place) in data.chunks_exact_mut(8).zip((pos..).step_by(8)) {
        word.copy_from_slice(&(place ^ !stamp).to_le_bytes());
    }
}

/// Returns true if `data` is the contents of a file at `pos`.
pub(crate) fn is_marked(data: &[u8], pos: u64, stamp: u64) -> bool {
    let mut expected = vec![0; data.len()];
    mark(&mut expected, pos, stamp);
    expected == data && !data.is_empty()
}
