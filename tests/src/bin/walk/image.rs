//! The filesystems, created by mke2fs and filled by the kernel through a loop mount.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nvio_testkit::image::{Mount, mkfs};
use nvio_tests::sys;

use crate::Result;

pub(crate) const BLOCK: u64 = 4096;
/// Numbers of directories in the tree, and of files in each.
pub(crate) const DIRECTORIES: u64 = 1000;
pub(crate) const FILES_EACH: u64 = 100;
/// Size and number of extents of the fragmented file.
pub(crate) const SIZE: u64 = 1 << 30;
pub(crate) const EXTENTS: u64 = 10_000;

/// A filesystem of many files: `/spread` with 100,000 files in 1,000 directories, and `/one` with
/// all files in one directory.
pub(crate) struct Many {
    pub(crate) image: PathBuf,
    /// Number of files in `/one`.
    pub(crate) in_one: u64,
}

impl Many {
    pub(crate) fn new(folder: &Path, in_one: u64) -> Result<Self> {
        let image = folder.join("many.img");
        let inodes = (in_one + DIRECTORIES * FILES_EACH) * 11 / 10;
        let count = inodes.to_string();
        // Without a journal, because the filesystem is filled only once.
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
        // Free the space for the next images.
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

/// A filesystem with `/file`, of 1 GiB in 10,000 extents, each next to an extent of another file.
pub(crate) struct Scattered {
    pub(crate) image: PathBuf,
}

impl Scattered {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
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

/// Fills `data` with the contents of the file at `pos`: each word is its own position.
pub(crate) fn mark(data: &mut [u8], pos: u64) {
    for (word, at) in data.chunks_exact_mut(8).zip((pos..).step_by(8)) {
        word.copy_from_slice(&at.to_le_bytes());
    }
}
