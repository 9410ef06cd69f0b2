//! Images that mke2fs fills from a folder, compared with the folder.

use crate::common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{debugfs, mke2fs, pattern};
use nvio_ext4::{
    BlockSource, Error, FileType, Filesystem, IncompatFeatures, InodeNumber, Options, Recovery,
    SourceError, Unsupported,
};

/// Options of mke2fs, most of them with block sizes that a kernel with small pages cannot mount.
const VARIANTS: &[&str] = &[
    "-t ext4 -b 1024",
    "-t ext4 -b 1024 -I 128 -O ^metadata_csum,^64bit,^dir_index",
    "-t ext4 -b 2048 -I 512",
    "-t ext4 -b 4096 -I 4096 -N 2500",
    "-t ext4 -b 8192",
    "-t ext4 -b 16384 -I 128",
    "-t ext4 -b 32768 -O ^metadata_csum",
    "-t ext4 -b 65536",
    "-t ext4 -b 65536 -O ^metadata_csum,^flex_bg",
    "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode",
    "-t ext4 -b 1024 -g 512 -O meta_bg,^resize_inode,^64bit,^metadata_csum,uninit_bg",
    "-t ext4 -b 1024 -g 1024 -O sparse_super2,^sparse_super,^resize_inode",
    "-t ext4 -b 1024 -g 1024 -O ^flex_bg,^sparse_super,^resize_inode",
    "-t ext4 -b 4096 -E hash_seed=01234567-89ab-cdef-0123-456789abcdef -O metadata_csum_seed",
    "-t ext4 -b 4096 -O large_dir,ea_inode,project,quota,casefold,encrypt,mmp",
    "-t ext4 -b 1024 -C 8192 -O bigalloc",
    "-t ext4 -b 4096 -C 65536 -O bigalloc",
    "-t ext3 -b 1024",
    "-t ext2 -b 1024 -r 0 -O none",
    "-t ext2 -b 65536",
];

#[test]
fn files_that_mke2fs_stored_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let pieces = fill(&source);
    let image = dir.path().join("image");
    for options in VARIANTS {
        println!("{options}");
        let size = if options.contains("-b 65536") { "512M" } else { "128M" };
        mke2fs(&image, size, &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let fs = common::open(&image);
        let device = File::open(&image).unwrap();
        let mut paths = 0;
        for path in common::walk(&source) {
            compare(&format!("{options}: /{}", path.display()), &fs, &device, &source, &path);
            paths += 1;
        }
        assert!(paths > 1000, "{paths}");
        let extents = fs.extents(&fs.lookup(b"fragmented").unwrap()).unwrap();
        let extents = extents.map(Result::unwrap).count();
        // In larger blocks, the holes are smaller than a block.
        let expected = if fs.superblock().block_size() <= 4096 { pieces } else { 1 };
        assert!(extents >= expected, "{options}: {extents}");
    }
}

/// Creates the folder, and returns the number of pieces of its most fragmented file.
fn fill(source: &Path) -> usize {
    fs::create_dir(source).unwrap();
    for size in [0, 1, 1023, 1024, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_000] {
        fs::write(source.join(format!("size-{size}")), pattern(size as u64, size)).unwrap();
    }
    let fragmented = File::create(source.join("fragmented")).unwrap();
    let pieces = 2500;
    for index in 0..pieces {
        fragmented.write_all_at(&pattern(index, 4096), index * 8192).unwrap();
    }
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(&pattern(1, 5000), 30_000_000).unwrap();
    sparse.set_len(40_000_000).unwrap();
    for length in [1, 59, 60, 61, 255, 1000] {
        symlink("t".repeat(length), source.join(format!("target-{length}"))).unwrap();
    }
    let many = source.join("many");
    fs::create_dir(&many).unwrap();
    for index in 0..1000 {
        let name = format!("{index}-{}", "n".repeat(index % 250));
        fs::write(many.join(name), index.to_string()).unwrap();
    }
    let mut deep = source.join("deep");
    for _ in 0..20 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    pieces as usize
}

fn compare(what: &str, fs: &Filesystem, device: &File, source: &Path, path: &Path) {
    let host = source.join(path);
    let metadata = host.symlink_metadata().unwrap();
    let inode = fs
        .lookup_no_follow(path.as_os_str().as_bytes())
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(inode.kind(), common::kind_of(&metadata), "{what}");
    assert_eq!(u32::from(inode.mode()), metadata.mode(), "{what}: mode");
    assert_eq!((inode.uid(), inode.gid()), (metadata.uid(), metadata.gid()), "{what}: owner");
    // mke2fs changes the root directory after it has set its times.
    if path != Path::new("") {
        assert_eq!(inode.mtime().seconds, metadata.mtime(), "{what}: mtime");
    }
    match inode.kind() {
        FileType::Regular => {
            assert_eq!(inode.size(), metadata.size(), "{what}: size");
            let ours = common::read_file(fs, device, &inode);
            assert!(ours == fs::read(&host).unwrap(), "{what}: contents");
        }
        FileType::Symlink => {
            let target = fs::read_link(&host).unwrap();
            assert_eq!(fs.read_link(&inode).unwrap(), target.as_os_str().as_bytes(), "{what}");
        }
        FileType::Directory => {
            let mut names: BTreeMap<Vec<u8>, FileType> = fs::read_dir(&host)
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let kind = common::kind_of(&entry.path().symlink_metadata().unwrap());
                    (entry.file_name().as_bytes().to_vec(), kind)
                })
                .collect();
            for entry in fs.read_dir(&inode).unwrap() {
                let entry = entry.unwrap();
                if path == Path::new("") && entry.name == b"lost+found" {
                    continue;
                }
                let kind = names.remove(&entry.name);
                assert!(kind.is_some(), "{what}: {entry:?}");
                assert!(entry.kind.is_none() || entry.kind == kind, "{what}: {entry:?}");
            }
            assert!(names.is_empty(), "{what}: {names:?}");
        }
        _ => (),
    }
}

/// Creates an image of 8 MiB with a file and a few links.
fn small(dir: &Path, options: &[&str]) -> PathBuf {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/b/file"), b"contents").unwrap();
        symlink("/a/b", source.join("absolute")).unwrap();
        symlink("b/../b/file", source.join("a/relative")).unwrap();
        symlink("loop", source.join("loop")).unwrap();
        symlink("../../..", source.join("a/up")).unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        symlink("a/b/", source.join("slash")).unwrap();
        symlink("a/b/file/", source.join("bad-slash")).unwrap();
        for index in 0..41 {
            let target = if index == 0 { "a".to_owned() } else { format!("chain-{}", index - 1) };
            symlink(target, source.join(format!("chain-{index}"))).unwrap();
        }
    }
    mke2fs(&image, "8M", options, Some(&source));
    image
}

#[test]
fn paths() {
    let dir = tempfile::tempdir().unwrap();
    let fs = common::open(&small(dir.path(), &["-t", "ext4"]));
    let number = |path: &[u8]| fs.lookup(path).map(|inode| inode.number());
    let file = number(b"/a/b/file").unwrap();
    for path in [
        "a/b/file",
        "//a///b//file",
        "/a/./b/../b/file",
        "/../../a/b/file",
        "/absolute/file",
        "/a/relative",
        "/a/up/a/b/file",
        "/slash/file",
    ] {
        assert_eq!(number(path.as_bytes()).unwrap(), file, "{path}");
    }
    for path in ["", "/", "..", "/.", "/a/up", "/a/../", "a/up/"] {
        assert_eq!(number(path.as_bytes()).unwrap(), 2, "{path}");
    }
    let error = |path: &str| number(path.as_bytes()).unwrap_err().to_string();
    assert_eq!(error("/a/x"), "/a/x: no such file or directory");
    assert_eq!(error("/dangling"), "/dangling: no such file or directory");
    assert_eq!(error("/a/b/file/x"), "/a/b/file/x: not a directory");
    assert_eq!(error("/a/b/file/"), "/a/b/file/: not a directory");
    assert_eq!(error("/a/b/file/.."), "/a/b/file/..: not a directory");
    assert_eq!(error("/bad-slash"), "/bad-slash: not a directory");
    assert_eq!(error("/loop"), "/loop: more than 40 symbolic links");
    assert_eq!(error(&"x".repeat(256)), "the name has 256 bytes, the maximum is 255");
    // Forty links are followed, but not forty-one.
    assert_eq!(number(b"chain-39").unwrap(), number(b"a").unwrap());
    assert!(error("chain-40").contains("more than 40"));
    let link = |path: &[u8]| fs.lookup_no_follow(path).unwrap().kind();
    assert_eq!(link(b"/slash"), FileType::Symlink);
    assert_eq!(link(b"/slash/"), FileType::Directory);
    assert_eq!(link(b"/slash/file"), FileType::Regular);
    assert_eq!(link(b"/loop"), FileType::Symlink);
}

#[test]
fn wrong_types_of_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fs = common::open(&small(dir.path(), &["-t", "ext4"]));
    let (directory, file, link) = (
        fs.lookup(b"a").unwrap(),
        fs.lookup(b"a/b/file").unwrap(),
        fs.lookup_no_follow(b"slash").unwrap(),
    );
    assert!(matches!(fs.file(&directory), Err(Error::IsADirectory { .. })));
    assert!(matches!(fs.file(&link), Err(Error::NotAFile { kind: FileType::Symlink, .. })));
    assert!(matches!(fs.read_dir(&file), Err(Error::NotADirectory { .. })));
    assert!(matches!(fs.read_link(&file), Err(Error::NotASymlink { .. })));
    assert!(matches!(fs.extents(&link), Err(Error::NotAFile { .. })));
    let count = fs.superblock().inodes_count;
    assert!(matches!(fs.inode(0), Err(Error::NoSuchInode { .. })));
    assert!(matches!(fs.inode(count + 1), Err(Error::NoSuchInode { .. })));
    assert!(matches!(fs.inode(count), Err(Error::InodeNotInUse { .. })));
}

fn open_error(image: &Path) -> Error {
    Filesystem::open(File::open(image).unwrap()).unwrap_err()
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let message = |image: &Path| open_error(image).to_string();

    fs::write(&image, vec![0; 1 << 20]).unwrap();
    assert!(
        message(&image)
            .starts_with("not an ext4 filesystem: the magic number at byte 1080 is 0x0000")
    );
    fs::write(&image, b"short").unwrap();
    assert_eq!(message(&image), "truncated: the filesystem has 2048 bytes, the device only 5");

    let image = small(dir.path(), &["-t", "ext4"]);
    File::options().write(true).open(&image).unwrap().set_len((8 << 20) - 1).unwrap();
    let expected = "truncated: the filesystem has 8388608 bytes, the device only 8388607";
    assert_eq!(message(&image), expected);

    let image = small(dir.path(), &["-t", "ext4"]);
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1024 + 0x78).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1024 + 0x78).unwrap();
    assert!(message(&image).starts_with("corrupt superblock: its checksum is 0x"));

    let with_features = |line: &str| {
        let image = small(dir.path(), &["-t", "ext4"]);
        debugfs(&image, &[line]);
        message(&image)
    };
    let unknown = with_features("ssv feature_incompat 0x1002c2");
    assert_eq!(unknown, "unknown incompat feature bit 0x100000");
    let known = with_features("ssv feature_incompat 0x12c3");
    assert_eq!(known, "unsupported incompat features: compression, dirdata");
    let image = small(dir.path(), &["-t", "ext4"]);
    debugfs(&image, &["ssv feature_incompat 0x2c6"]);
    let refuse = Options::default().recovery(Recovery::Refuse);
    let dirty = Filesystem::open_with(File::open(&image).unwrap(), refuse).unwrap_err();
    let expected = "the journal needs recovery: mount the filesystem once, or run e2fsck on it";
    assert_eq!(dirty.to_string(), expected);
    // The log is empty.
    assert_eq!(common::open(&image).recovered().unwrap().transactions, 0);

    let image = dir.path().join("journal");
    mke2fs(&image, "8M", &["-O", "journal_dev"], None);
    assert_eq!(message(&image), "unsupported incompat feature: journal_dev");
}

#[test]
fn unknown_ro_compat_features_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = small(dir.path(), &["-t", "ext4"]);
    debugfs(&image, &["ssv feature_ro_compat 0x8000046b"]);
    assert_eq!(common::open(&image).lookup(b"a/b/file").unwrap().size(), 8);
}

/// Marks the multi-mount protection block as in use by a host. debugfs cannot do this, because it
/// resets the block on exit.
fn set_mmp(image: &Path, sequence: u32) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let (mut superblock, mut mmp) = ([0; 1024], [0; 1024]);
    file.read_exact_at(&mut superblock, 1024).unwrap();
    let block_size = 1024u64 << superblock[0x18];
    let offset = u64::from_le_bytes(superblock[0x168..0x170].try_into().unwrap()) * block_size;
    file.read_exact_at(&mut mmp, offset).unwrap();
    mmp[4..8].copy_from_slice(&sequence.to_le_bytes());
    mmp[16..26].copy_from_slice(b"storage-7\0");
    mmp[80..85].copy_from_slice(b"sdx1\0");
    let crc = !crc32c::crc32c_append(crc32c::crc32c(&superblock[0x68..0x78]), &mmp[..1020]);
    mmp[1020..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&mmp, offset).unwrap();
}

#[test]
fn another_host() {
    let dir = tempfile::tempdir().unwrap();
    for options in [["-O", "mmp"], ["-O", "mmp,^metadata_csum"]] {
        let image = small(dir.path(), &["-t", "ext4", options[0], options[1]]);
        common::open(&image).lookup(b"a/b/file").unwrap();
        set_mmp(&image, 0x77);
        let error = open_error(&image);
        assert!(matches!(error, Error::InUse(_)));
        let expected = "multi-mount protection: in use by host 'storage-7', device 'sdx1' \
                        (sequence 0x77); unmount it there, or, if that host is gone, run \
                        tune2fs -E clear_mmp";
        assert_eq!(error.to_string(), expected);
        set_mmp(&image, 0xe24d_4d50);
        assert!(open_error(&image).to_string().contains("e2fsck is running"));
    }
}

#[test]
fn inodes_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = small(dir.path(), &["-t", "ext4", "-O", "encrypt,casefold"]);
    debugfs(
        &image,
        &[
            "sif /a/b/file flags 0x80800",
            "sif /a/relative flags 0x800",
            "sif /a/b flags 0x40081000",
        ],
    );
    let fs = common::open(&image);
    assert!(fs.superblock().incompat.contains(IncompatFeatures::ENCRYPT));
    let file = fs.lookup(b"a/b/file").unwrap();
    let encrypted =
        |error| matches!(error, Error::UnsupportedInode { what: Unsupported::Encrypted, .. });
    assert!(encrypted(fs.file(&file).unwrap_err()));
    assert_eq!(fs.extents(&file).unwrap().count(), 1, "the extents are not encrypted");
    // The target was not encrypted, so its length field is wrong.
    let error = fs.lookup(b"a/relative").unwrap_err().to_string();
    assert!(error.contains("the length of its target is not"), "{error}");
    // The directory has the flag of a tree, but no tree, so all blocks are searched.
    assert_eq!(fs.lookup(b"a/b/FILE").unwrap().number(), file.number());
    assert!(matches!(fs.lookup(b"a/b/FILES"), Err(Error::NotFound { .. })));
    // These names are shorter than any encrypted name.
    debugfs(&image, &["sif /a flags 0x80800"]);
    let fs = common::open(&image);
    assert!(matches!(fs.lookup(b"a/b"), Err(Error::NotFound { .. })));
    let listed: Result<Vec<_>, _> = fs.read_dir(&fs.lookup(b"a").unwrap()).unwrap().collect();
    assert!(matches!(listed, Err(Error::Corrupt(_))));
}

#[test]
fn names_of_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let image = small(dir.path(), &["-t", "ext4"]);
    debugfs(&image, &["sif /a/b/file links_count 0", "sif /a/b mode 0"]);
    let fs = common::open(&image);
    let error = fs.lookup(b"a/b").unwrap_err().to_string();
    assert!(error.starts_with("corrupt directory, inode 12: an entry refers to inode"), "{error}");
    // A directory with a second name inside itself.
    let image = small(dir.path(), &["-t", "ext4"]);
    debugfs(&image, &["ln /a /a/b/again"]);
    let fs = common::open(&image);
    let error = fs.lookup(b"a/b/again/b/file").unwrap_err().to_string();
    assert!(error.contains("which is one of its ancestors"), "{error}");
}

#[test]
fn owners_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let image = small(dir.path(), &["-t", "ext4"]);
    debugfs(&image, &["sif /a/b/file uid 70000", "sif /a/b/file mtime_extra 0x1d6f3457"]);
    let fs = common::open(&image);
    let file = fs.lookup(b"a/b/file").unwrap();
    assert_eq!((file.uid(), file.mtime().nanoseconds), (70000, 0x1d6f_3457 >> 2));
    assert!(file.mtime().seconds > 3 << 32);
}

/// A source that counts reads.
struct Counted(File, Arc<AtomicUsize>);

impl BlockSource for Counted {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        BlockSource::read(&self.0, offset, buf)
    }
}

#[test]
fn metadata_is_read_in_large_pieces_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (image, source) = (dir.path().join("image"), dir.path().join("source"));
    fs::create_dir_all(source.join("many")).unwrap();
    for index in 0..4000 {
        File::create(source.join("many").join(format!("a-file-with-a-number-{index}"))).unwrap();
    }
    mke2fs(&image, "32M", &["-t", "ext4", "-b", "4096", "-N", "8192"], Some(&source));
    let reads = Arc::new(AtomicUsize::new(0));
    let fs = Filesystem::open(Counted(File::open(&image).unwrap(), Arc::clone(&reads))).unwrap();
    let list = || {
        let many = fs.lookup(b"many").unwrap();
        fs.read_dir(&many)
            .unwrap()
            .map(|entry| fs.inode(entry.unwrap().inode).unwrap().number())
            .collect::<std::collections::BTreeSet<InodeNumber>>()
            .len()
    };
    assert_eq!(list(), 4000);
    // 4,000 inodes of 256 bytes need 16 reads of 64 KiB, and the directory's 160 KiB a few more.
    let cold = reads.load(Ordering::Relaxed);
    assert!(cold <= 32, "{cold} reads");
    assert_eq!(list(), 4000);
    fs.lookup(b"many/a-file-with-a-number-3999").unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), cold, "what was read is read again");

    // With caches of size 0.
    let options = Options::default().cache_bytes(0).extents_per_file(0);
    let fs = Filesystem::open_with(File::open(&image).unwrap(), options).unwrap();
    assert_eq!(fs.read_dir(&fs.lookup(b"many").unwrap()).unwrap().count(), 4000);
}

#[test]
fn threads_share_a_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let fs = common::open(&small(dir.path(), &["-t", "ext4"]));
    let expected = fs.lookup(b"absolute/file").unwrap().number();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let fs = fs.clone();
            scope.spawn(move || {
                for _ in 0..500 {
                    assert!(fs.lookup(b"a/absolute/file").is_err());
                    assert_eq!(fs.lookup(b"absolute/file").unwrap().number(), expected);
                }
            });
        }
    });
}
