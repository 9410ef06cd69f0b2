//! The filesystems, created by mke2fs and filled by the kernel through a loop mount.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys;
use nvio_testkit::image::{Mount, mkfs};

use crate::walk::Result;

/// Block size of the filesystems, in bytes.
pub const BLOCK: u64 = 4096;
/// Directories of the tree `/spread`.
pub const DIRECTORIES: u64 = 1000;
/// Files in each of them.
pub const FILES_EACH: u64 = 100;
/// Size of the file of many extents, in bytes.
pub const SIZE: u64 = 1 << 30;
/// Number of its extents.
pub const EXTENTS: u64 = 10_000;

/// The filesystem of many files: `/spread`, 100,000 in 1,000 directories, and `/one`, all in one.
#[derive(Debug)]
pub struct Many {
    /// Path of the image.
    pub image: PathBuf,
    /// Files in `/one`.
    pub in_one: u64,
}

impl Many {
    /// Makes the image in `folder`, with `in_one` files in `/one`.
    pub fn new(folder: &Path, in_one: u64) -> Result<Self> {
        let image = folder.join("many.img");
        let inodes = (in_one + DIRECTORIES * FILES_EACH) * 11 / 10;
        let count = inodes.to_string();
        // The kernel fills the image faster without a journal.
        let options = ["-b", "4096", "-N", &count, "-O", "^has_journal"];
        let lazily = ["-E", "lazy_itable_init=1,nodiscard"];
        mkfs(&image, inodes * 512 + (256 << 20), &[&options[..], &lazily].concat());
        let mount = Mount::new(&image, &folder.join("mnt"), "noinit_itable,nodiscard,noatime");
        for directory in 0..DIRECTORIES {
            let path = mount.path().join(format!("spread/directory-{directory:04}"));
            fill(&path, FILES_EACH)?;
        }
        fill(&mount.path().join("one"), in_one)?;
        mount.unmount()?;
        Ok(Self { image, in_one })
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        // The images after this one need the space.
        let _ = fs::remove_file(&self.image);
    }
}

fn fill(directory: &Path, files: u64) -> Result<()> {
    fs::create_dir_all(directory)?;
    for file in 0..files {
        sys::mknod(&directory.join(format!("file-{file:07}.data")), libc::S_IFREG | 0o644, 0, 0)?;
    }
    Ok(())
}

/// The filesystem of `/file`, 1 GiB in 10,000 pieces, each beside one of another file.
#[derive(Debug)]
pub struct Scattered {
    /// Path of the image.
    pub image: PathBuf,
}

impl Scattered {
    /// Makes the image in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let image = folder.join("scattered.img");
        mkfs(&image, SIZE * 5 / 2, &["-b", "4096", "-m", "0", "-E", "nodiscard"]);
        let mount = Mount::new(&image, &folder.join("mnt"), "nodiscard,noatime");
        let file = File::create(mount.path().join("file"))?;
        let other = File::create(mount.path().join("other"))?;
        let start = |extent: u64| SIZE / BLOCK * extent / EXTENTS * BLOCK;
        for extent in 0..EXTENTS {
            let (at, end) = (start(extent), start(extent + 1));
            sys::fallocate(&file, 0, at, end - at)?;
            sys::fallocate(&other, 0, at, end - at)?;
        }
        let mut data = vec![0; 1 << 20];
        for pos in (0..SIZE).step_by(data.len()) {
            mark(&mut data, pos);
            file.write_all_at(&data, pos)?;
        }
        sys::syncfs(&file)?;
        let extents = sys::fiemap(&file)?.len() as u64;
        drop((file, other));
        mount.unmount()?;
        match extents {
            EXTENTS.. => Ok(Self { image }),
            _ => {
                Err(format!("a file of {extents} extents: the kernel has put pieces together")
                    .into())
            }
        }
    }
}

/// Fills `data` with the content of the file at `pos`: each word is its own position.
pub fn mark(data: &mut [u8], pos: u64) {
    for (word, at) in data.chunks_exact_mut(8).zip((pos..).step_by(8)) {
        word.copy_from_slice(&at.to_le_bytes());
    }
}
