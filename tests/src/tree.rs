//! A tree of files with difficult cases for a reader of ext4, created by the kernel on a mounted
//! filesystem. Seed and options determine the tree.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::sys;
use nvio_testkit::random::Rng;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The optional parts of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seed of sizes, contents, owners, modes and times.
    pub seed: u64,
    /// Number of entries in the big directory. Many entries make it an htree.
    pub big_directory: u32,
    /// Number of small files with random attributes.
    pub random_files: u32,
    /// Create preallocated files. The filesystem must map files by extents.
    pub extents: bool,
    /// Unit of allocation, bytes, if it is more than a block (bigalloc).
    pub cluster: u64,
    /// Minimum number of extents of a fragmented file; 0 for no such file. Only for ext4 with
    /// extents.
    pub fragments: u64,
}

/// Creates the tree below the directory `root`.
pub fn populate(root: &Path, options: Options) -> io::Result<()> {
    let (block, _) = sys::free_blocks(root)?;
    let mut builder = Builder {
        root: root.to_owned(),
        rng: Rng::new(options.seed),
        block,
        unit: block.max(options.cluster),
        extents: options.extents,
    };
    builder.sizes()?;
    builder.sparse()?;
    if options.extents {
        builder.preallocated()?;
    }
    builder.links()?;
    builder.names()?;
    builder.special()?;
    builder.deep(40)?;
    builder.big_directory(options.big_directory)?;
    builder.random(options.random_files)?;
    if options.fragments > 0 {
        builder.fragmented(options.fragments)?;
    }
    builder.attributes()?;
    sys::syncfs(&File::open(root)?)
}

struct Builder {
    root: PathBuf,
    rng: Rng,
    /// Block size of the filesystem, bytes.
    block: u64,
    /// Unit of allocation, bytes.
    unit: u64,
    extents: bool,
}

impl Builder {
    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn file(&mut self, path: &Path, len: u64) -> io::Result<()> {
        fs::write(path, self.rng.bytes(len))
    }

    /// Creates files with sizes around the limits of a block, of an inode's body and of a large
    /// read.
    fn sizes(&mut self) -> io::Result<()> {
        let directory = self.directory("sizes")?;
        let b = self.block;
        for len in [0, 1, 59, 60, 61, 511, 512, 513, b - 1, b, b + 1, 3 * b + 7, 128 * KIB, MIB + 1]
        {
            self.file(&directory.join(format!("{len}-bytes")), len)?;
        }
        self.file(&directory.join("medium"), 5 * MIB + 123)
    }

    /// Creates files with holes at the start, in the middle and at the end, and with data in the
    /// first block of the last tebibyte.
    fn sparse(&mut self) -> io::Result<()> {
        let directory = self.directory("sparse")?;
        let b = self.block;
        File::create(directory.join("only-a-hole"))?.set_len(3 * MIB + 5)?;

        let file = File::create(directory.join("every-kind"))?;
        file.write_all_at(&self.rng.bytes(3 * b), 16 * b)?;
        file.write_all_at(&self.rng.bytes(b / 2), 40 * b + b / 4)?;
        file.set_len(64 * b + 1)?;

        let file = File::create(directory.join("one-block-in-three"))?;
        for index in 0..100 {
            file.write_all_at(&self.rng.bytes(b), index * 3 * b)?;
        }

        let file = File::create(directory.join("far"))?;
        file.write_all_at(&self.rng.bytes(2 * b), 0)?;
        // Without extents, this position needs the last tree of pointers with any block size.
        file.write_all_at(
            &self.rng.bytes(2 * b + 9),
            if self.extents { 1 << 40 } else { 1 << 33 },
        )?;
        if !self.extents {
            // A direct block, one block for each level of pointers, and holes between them.
            let per_block = b / 4;
            for index in [5, 12, 20, 12 + per_block, 12 + per_block + per_block * per_block] {
                file.write_all_at(&self.rng.bytes(77), index * b + 100)?;
            }
            return Ok(());
        }

        let file = File::create(directory.join("punched"))?;
        file.write_all_at(&self.rng.bytes(64 * b), 0)?;
        file.sync_all()?;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        sys::fallocate(&file, punch, 8 * b, 8 * b)?;
        sys::fallocate(&file, punch, 33 * b - 10, b + 20)
    }

    /// Creates unwritten extents: whole, partly written, past the end of the file, and zeroed.
    fn preallocated(&mut self) -> io::Result<()> {
        let directory = self.directory("preallocated")?;
        let b = self.block;
        sys::fallocate(&File::create(directory.join("whole"))?, 0, 0, 2 * MIB)?;

        let file = File::create(directory.join("written-inside"))?;
        sys::fallocate(&file, 0, 0, 256 * b)?;
        file.write_all_at(&self.rng.bytes(b), 0)?;
        file.write_all_at(&self.rng.bytes(5 * b + 3), 100 * b)?;

        let file = File::create(directory.join("tail-past-the-end"))?;
        file.write_all_at(&self.rng.bytes(10 * b + 11), 0)?;
        sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 200 * b)?;

        let file = File::create(directory.join("empty-with-blocks"))?;
        sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 20 * b)?;

        let file = File::create(directory.join("zeroed-range"))?;
        file.write_all_at(&self.rng.bytes(50 * b), 0)?;
        file.sync_all()?;
        sys::fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, 10 * b, 20 * b)?;

        let u = self.unit;
        let file = File::create(directory.join("inserted-and-collapsed"))?;
        file.write_all_at(&self.rng.bytes(50 * u), 0)?;
        file.sync_all()?;
        sys::fallocate(&file, libc::FALLOC_FL_INSERT_RANGE, 10 * u, 7 * u)?;
        sys::fallocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 30 * u, 5 * u)
    }

    /// Creates hard links, and symbolic links with targets that just fit into the inode and that do
    /// not.
    fn links(&mut self) -> io::Result<()> {
        let directory = self.directory("links")?;
        self.file(&directory.join("linked"), 3 * KIB)?;
        for index in 0..5 {
            fs::hard_link(directory.join("linked"), directory.join(format!("hard-{index}")))?;
        }
        let longest = self.block.min(4096) - 1;
        for len in [1, 2, 58, 59, 60, 61, 255, 1000, longest - 1, longest] {
            let target: Vec<u8> =
                (0..len).map(|_| *self.rng.pick(b"abcdefghijklmnopqrstuvwxyz/")).collect();
            symlink(OsStr::from_bytes(&target), directory.join(format!("symlink-{len}")))?;
        }
        symlink("../sizes/medium", directory.join("to-a-file"))?;
        symlink("loop-b", directory.join("loop-a"))?;
        symlink("loop-a", directory.join("loop-b"))?;
        symlink("../sparse", directory.join("to-a-directory"))
    }

    /// Creates names that are long, not UTF-8, or difficult to print.
    fn names(&mut self) -> io::Result<()> {
        let directory = self.directory("names")?;
        let odd: [&[u8]; 12] = [
            b" leading space",
            b"trailing space ",
            b"-r",
            b"new\nline",
            b"tab\tand \"quotes\" and \\",
            b"*?[glob]$(x)`y`",
            b"\xff\xfe not UTF-8",
            b"\x01\x02\x1b[31m",
            b"...",
            b".hidden",
            "\u{e9}\u{4f60}\u{1f600}".as_bytes(),
            b"%n%s",
        ];
        for name in odd {
            self.file(&directory.join(OsStr::from_bytes(name)), 20)?;
        }
        for byte in [b'a', b'Z', 0xf0] {
            self.file(&directory.join(OsStr::from_bytes(&[byte; 255])), 30)?;
        }
        fs::create_dir(directory.join(OsStr::from_bytes(&[b'd'; 255])))
    }

    /// Creates inodes without data blocks.
    fn special(&mut self) -> io::Result<()> {
        let directory = self.directory("special")?;
        sys::mknod(&directory.join("fifo"), libc::S_IFIFO | 0o640, 0, 0)?;
        sys::mknod(&directory.join("socket"), libc::S_IFSOCK | 0o700, 0, 0)?;
        if sys::is_root() {
            sys::mknod(&directory.join("character"), libc::S_IFCHR | 0o666, 1, 3)?;
            sys::mknod(&directory.join("block"), libc::S_IFBLK | 0o660, 300, 70_000)?;
        }
        Ok(())
    }

    /// Creates a chain of `depth` directories with a file in each.
    fn deep(&mut self, depth: u32) -> io::Result<()> {
        let mut directory = self.directory("deep")?;
        for level in 0..depth {
            directory.push(format!("level-{level}"));
            fs::create_dir(&directory)?;
            self.file(&directory.join("file"), 100 + u64::from(level))?;
        }
        Ok(())
    }

    /// Creates a directory of many entries, and removes some so that its blocks have gaps.
    fn big_directory(&mut self, entries: u32) -> io::Result<()> {
        let directory = self.directory("big-directory")?;
        for index in 0..entries {
            let pad = "x".repeat((index % 40) as usize);
            File::create(directory.join(format!("entry-{index:06}-{pad}")))?;
        }
        for index in (0..entries).step_by(7) {
            let pad = "x".repeat((index % 40) as usize);
            fs::remove_file(directory.join(format!("entry-{index:06}-{pad}")))?;
        }
        Ok(())
    }

    /// Creates small files of random size in a few directories.
    fn random(&mut self, files: u32) -> io::Result<()> {
        for index in 0..files {
            let name = format!("random/{}", self.rng.range(0, 8));
            let parent = self.directory(&name)?;
            let len = self.rng.range(0, 40 * KIB);
            self.file(&parent.join(format!("file-{index}")), len)?;
        }
        Ok(())
    }

    /// Creates a fragmented file: every second block is exchanged with a block of another file, as
    /// a defragmenter does.
    fn fragmented(&mut self, fragments: u64) -> io::Result<()> {
        let directory = self.directory("fragmented")?;
        let b = self.block;
        let blocks = fragments + 200;
        let path = directory.join("scattered");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.write_all_at(&self.rng.bytes(blocks * b - 77), 0)?;
        file.sync_all()?;
        let donor_path = directory.join("donor");
        let donor = OpenOptions::new().read(true).write(true).create_new(true).open(&donor_path)?;
        sys::fallocate(&donor, 0, 0, blocks * b)?;
        for index in (1..blocks).step_by(2) {
            sys::exchange_blocks(&file, &donor, index, 1)?;
        }
        fs::remove_file(&donor_path)?;
        let extents = sys::fiemap(&file)?.len() as u64;
        if extents <= fragments {
            return Err(io::Error::other(format!("{} has {extents} extents", path.display())));
        }
        Ok(())
    }

    /// Sets owners, modes and times of everything below the root. Directories come after their
    /// contents, which would change their times.
    fn attributes(&mut self) -> io::Result<()> {
        let mut paths = Vec::new();
        collect(&self.root, &mut paths)?;
        paths.sort();
        let owners = [0, 1, 1000, 65_534, 65_535, 65_536, 70_000, 4_000_000_000];
        // Before 1970, today, and around the limits of 32 bits.
        let seconds = [
            -2_147_483_648,
            -1,
            0,
            1_700_000_000,
            2_147_483_647,
            2_147_483_648,
            4_294_967_296,
            10_000_000_000,
        ];
        for path in paths.iter().rev() {
            let kind = fs::symlink_metadata(path)?.file_type();
            if sys::is_root() {
                let uid = *self.rng.pick(&owners);
                lchown(path, Some(uid), Some(*self.rng.pick(&owners)))?;
            }
            if !kind.is_symlink() {
                let bits = self.rng.range(0, 0o10000) as u32;
                fs::set_permissions(path, fs::Permissions::from_mode(bits))?;
            }
            let atime = (*self.rng.pick(&seconds), self.rng.range(0, 1_000_000_000) as i64);
            let mtime = (*self.rng.pick(&seconds), self.rng.range(0, 1_000_000_000) as i64);
            sys::set_times(path, atime, mtime)?;
        }
        Ok(())
    }
}

/// Adds everything below `directory` to `paths`, recursively.
fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == "lost+found" {
            continue;
        }
        paths.push(entry.path());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), paths)?;
        }
    }
    Ok(())
}
