//! Numbers of extents, compared with the kernel's on an equal image.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nvio_ext4::{BlockDevice, BlockSource, JournaledFilesystem, Options, SourceError, WriteRange};
use nvio_testkit::random::Rng;
use rustix::fs::{FallocateFlags, fallocate};

use super::file;
use crate::common::{self, Mount, mke2fs};

/// Number of files that age a filesystem.
const AGED: usize = 80;

/// An image whose writes are not made durable.
struct Image(File);

impl BlockSource for Image {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.0.read(offset, buf)
    }
}

impl BlockDevice for Image {
    fn write_many(&self, ranges: &[WriteRange<'_>], _durable: bool) -> Result<(), SourceError> {
        Ok(ranges.iter().try_for_each(|range| self.0.write_all_at(range.bytes, range.offset))?)
    }

    fn flush(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Makes two equal filesystems with `files` empty files.
fn twins(dir: &Path, size: &str, options: &str, files: usize) -> [PathBuf; 2] {
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.join(name));
    let source = tempfile::tempdir_in(dir).unwrap();
    for at in 0..files {
        fs::write(source.path().join(format!("file-{at}")), "").unwrap();
    }
    mke2fs(&ours, size, &options.split(' ').collect::<Vec<_>>(), Some(source.path()));
    common::run("cp", &["--sparse=always", ours.to_str().unwrap(), theirs.to_str().unwrap()]);
    [ours, theirs]
}

fn open(image: &Path) -> JournaledFilesystem {
    let device = Image(File::options().read(true).write(true).open(image).unwrap());
    JournaledFilesystem::open(device, Options::default()).unwrap()
}

/// Returns the number of extents of a file.
fn extents(image: &Path, at: usize) -> usize {
    let found = common::open(image);
    found.extents(&found.lookup(format!("/file-{at}")).unwrap()).unwrap().count()
}

#[test]
fn files_that_are_written_alternately() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (piece, pieces) in [(1 << 20, 48), (64 << 10, 256)] {
        let [ours, theirs] = twins(dir.path(), "300M", "-t ext4", 2);
        let data = common::pattern(1, piece);
        let fs = open(&ours);
        let mount = Mount::new(&theirs, &dir.path().join("mnt"), "loop,noatime").unwrap();
        let numbers = [0, 1].map(|at| file(&fs, at).number());
        let files = ["file-0", "file-1"]
            .map(|name| File::options().write(true).open(mount.path.join(name)).unwrap());
        for pos in (0..pieces).map(|at| at * piece as u64) {
            for (number, file) in numbers.into_iter().zip(&files) {
                fs.write_at(number, pos, &data).unwrap();
                file.write_all_at(&data, pos).unwrap();
                file.sync_data().unwrap();
            }
        }
        fs.close().unwrap();
        drop(files);
        drop(mount);
        common::assert_clean(&ours);
        let count = |image: &Path| extents(image, 0) + extents(image, 1);
        let (ours, theirs) = (count(&ours), count(&theirs));
        println!("pieces of {piece} bytes: {ours} extents, {theirs} by the kernel");
        assert!(ours <= 2 * theirs, "{ours} extents, {theirs} by the kernel");
    }
}

/// Changes files of two filesystems, by this crate and by the kernel, until 95 % of their blocks are in
/// use.
fn age(dir: &Path, [ours, theirs]: &[PathBuf; 2], seed: u64, changes: usize) {
    let fs = open(ours);
    let mount = Mount::new(theirs, &dir.join("mnt"), "loop,noatime").unwrap();
    let open_theirs = |at| {
        let path = mount.path.join(format!("file-{at}"));
        File::options().write(true).open(path).unwrap()
    };
    let numbers: Vec<_> = (0..AGED).map(|at| file(&fs, at).number()).collect();
    let files: Vec<_> = (0..AGED).map(open_theirs).collect();
    let total = fs.statfs().unwrap().blocks;
    let mut sizes = vec![0; AGED];
    let mut random = Rng::new(seed);
    for change in 0..changes {
        let at = random.below(AGED as u64) as usize;
        // The kernel keeps 2 % for itself, and its trees are larger.
        let theirs = rustix::fs::statvfs(&mount.path).unwrap().f_bfree;
        if fs.statfs().unwrap().free_blocks.min(theirs) > total / 20 + 256 {
            let most = *random.pick(&[4, 16, 64, 256]);
            let length = 1024 * (1 + random.below(most));
            fs.allocate(numbers[at], sizes[at], length, false).unwrap();
            fallocate(&files[at], FallocateFlags::empty(), sizes[at], length).unwrap();
            sizes[at] += length;
        } else {
            let size = sizes[at] - random.below(sizes[at].min(400 << 10) + 1);
            fs.truncate(numbers[at], size).unwrap();
            files[at].set_len(size).unwrap();
            sizes[at] = size;
        }
        if change % 50 == 0 {
            fs.sync().unwrap();
        }
    }
    fs.close().unwrap();
}

/// Writes a file of 4 MiB to a copy of `image`, by this crate and by the kernel. Returns its extents.
fn written(dir: &Path, image: &Path) -> (usize, usize) {
    const PIECE: usize = 1 << 20;
    let [ours, theirs] = ["ours.new", "theirs.new"].map(|name| dir.join(name));
    fs::copy(image, &ours).unwrap();
    fs::copy(image, &theirs).unwrap();
    let fs = open(&ours);
    let mount = Mount::new(&theirs, &dir.join("mnt"), "loop,noatime").unwrap();
    let path = mount.path.join(format!("file-{AGED}"));
    let (number, file) = (file(&fs, AGED).number(), File::options().write(true).open(path));
    let (data, file) = (common::pattern(1, PIECE), file.unwrap());
    for pos in (0..4).map(|at| (at * PIECE) as u64) {
        fs.write_at(number, pos, &data).unwrap();
        file.write_all_at(&data, pos).unwrap();
        file.sync_data().unwrap();
    }
    fs.close().unwrap();
    drop(file);
    drop(mount);
    common::assert_clean(&ours);
    (extents(&ours, AGED), extents(&theirs, AGED))
}

#[test]
fn a_file_on_an_aged_filesystem() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let changes = if std::env::var_os("NVIO_LONG").is_some() { 100_000 } else { 10_000 };
    let dir = tempfile::tempdir().unwrap();
    for (seed, options) in (1..).zip(["-t ext4 -b 1024", "-t ext4 -b 1024 -g 2048"]) {
        let options = format!("{options} -J size=4 -m 0");
        let images = twins(dir.path(), "160M", &options, AGED + 1);
        age(dir.path(), &images, seed, changes);
        let all = |image| (0..AGED).map(|at| extents(image, at)).sum::<usize>();
        let (ours, theirs) = (all(&images[0]), all(&images[1]));
        println!("{options}: {ours} extents when aged, {theirs} by the kernel");
        assert!(ours * 10 <= theirs * 12, "{ours} extents when aged, {theirs} by the kernel");
        for (image, by) in images.iter().zip(["this crate", "the kernel"]) {
            let (ours, theirs) = written(dir.path(), image);
            println!("aged by {by}: {ours} extents, {theirs} by the kernel");
            assert!(ours * 10 <= theirs * 12, "{ours} extents, {theirs} by the kernel");
        }
    }
}
