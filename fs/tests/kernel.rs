//! What this crate says of a filesystem against what the kernel says of it. Needs root and a
//! kernel with loop devices; skipped with a reason otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{Mount, kind_of, mke2fs, pattern, run};
use nvio_ext4::{FileType, Filesystem, Inode};

/// Ways of making a filesystem: a name, a size, options of mke2fs.
const VARIANTS: &[(&str, &str, &str)] = &[
    ("4k", "128M", "-t ext4 -b 4096"),
    ("1k", "128M", "-t ext4 -b 1024"),
    ("2k", "128M", "-t ext4 -b 2048"),
    ("1k-no64bit", "128M", "-t ext4 -b 1024 -O ^64bit"),
    ("4k-no64bit", "128M", "-t ext4 -b 4096 -O ^64bit"),
    ("1k-nocsum", "128M", "-t ext4 -b 1024 -O ^metadata_csum"),
    ("4k-nocsum", "128M", "-t ext4 -b 4096 -O ^metadata_csum,^64bit"),
    ("uninit_bg", "128M", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit"),
    ("uninit_bg-64bit", "128M", "-t ext4 -b 2048 -O ^metadata_csum,uninit_bg,64bit"),
    ("inode-128", "128M", "-t ext4 -b 4096 -I 128"),
    ("inode-128-1k-nocsum", "128M", "-t ext4 -b 1024 -I 128 -O ^metadata_csum"),
    ("inode-1024", "192M", "-t ext4 -b 4096 -I 1024"),
    ("noflex", "128M", "-t ext4 -b 1024 -O ^flex_bg"),
    ("noflex-nocsum", "128M", "-t ext4 -b 2048 -O ^flex_bg,^metadata_csum,^64bit"),
    ("meta_bg", "128M", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    ("sparse_super2", "128M", "-t ext4 -b 1024 -O sparse_super2"),
    ("csum_seed", "128M", "-t ext4 -O metadata_csum_seed"),
    ("no-filetype", "128M", "-t ext4 -O ^filetype"),
    ("bigalloc", "256M", "-t ext4 -b 4096 -C 65536 -O bigalloc"),
    ("bigalloc-1k", "256M", "-t ext4 -b 1024 -C 4096 -O bigalloc,meta_bg,^resize_inode"),
    (
        "features",
        "128M",
        "-t ext4 -b 4096 -O ea_inode,large_dir,mmp,verity,encrypt,orphan_file,fast_commit",
    ),
    ("no-journal", "128M", "-t ext4 -O ^has_journal,^dir_index"),
    ("ext2", "160M", "-t ext2 -b 1024"),
    ("ext3", "160M", "-t ext3 -b 1024"),
    ("ext3-4k", "160M", "-t ext3 -b 4096 -I 128"),
];

#[test]
fn the_kernel_agrees() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    let mut checked = 0;
    for (name, size, options) in VARIANTS {
        let options: Vec<&str> = options.split(' ').collect();
        mke2fs(&image, size, &options, None);
        let mounted = match Mount::new(&image, &mount, "loop,noatime") {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED {name}: {reason}");
                continue;
            }
        };
        populate(&mounted.path);
        drop(mounted);
        // A new mount: the kernel reads everything from the image as we do.
        let mounted = Mount::new(&image, &mount, "loop,ro,noatime").unwrap();
        let count = compare(name, &image, &mounted.path);
        drop(mounted);
        println!("{name}: {count:?}");
        assert!(count.paths >= 200 && count.extents > 1000, "{name}: {count:?}");
        checked += 1;
    }
    assert!(checked >= 12 || checked == 0, "only {checked} variants could be mounted");
}

fn write(path: PathBuf, contents: &[u8]) {
    fs::write(&path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// All kinds of files, by the kernel.
fn populate(top: &Path) {
    let mut seed = 0;
    for size in [0, 1, 59, 60, 511, 1023, 1024, 1025, 4095, 4096, 4097, 12_288, 65_536, 300_001] {
        seed += 1;
        write(top.join(format!("size-{size}")), &pattern(seed, size));
    }
    large(top);
    sparse(top);
    links(top);
    directories(top);
    attributes(top);
}

fn large(top: &Path) {
    write(top.join("large"), &pattern(100, 20_000_000));
    // Two files that grow in turns have their blocks in turns, if they are synced each time.
    let files: Vec<File> =
        ["turn-a", "turn-b"].iter().map(|name| File::create(top.join(name)).unwrap()).collect();
    for round in 0..20 {
        for (index, file) in (0u64..).zip(&files) {
            file.write_all_at(&pattern(200 + round * 2 + index, 8192), round * 8192).unwrap();
            file.sync_data().unwrap();
        }
    }
}

fn sparse(top: &Path) {
    // An extent for every second block: deep trees where blocks are small.
    let fragmented = File::create(top.join("fragmented")).unwrap();
    let block = fragmented.metadata().unwrap().blksize();
    let count = if block == 1024 { 9000 } else { 2000 };
    for index in 0..count {
        let bytes = pattern(index, 100);
        fragmented.write_all_at(&bytes, index * block * 2 + index % block / 2).unwrap();
    }
    let hole = File::create(top.join("hole")).unwrap();
    hole.set_len(50_000_000).unwrap();
    // Where ext2 has direct, indirect, double and triple indirect blocks (with 1 KiB).
    let far = File::create(top.join("far")).unwrap();
    let mut positions = vec![5 * block, 20 * block, 400 * block, 66_000 * block, 70_000 * block];
    if far.set_len(0xffff_fffe * block).is_ok() {
        positions.push(0xffff_fffd * block + 7);
        far.set_len(0).unwrap();
    }
    for (index, pos) in (300u64..).zip(positions) {
        far.write_all_at(&pattern(index, 77), pos).unwrap();
    }
    let fallocate = |options: &[&str], name: &str| {
        let path = top.join(name);
        let mut arguments = options.to_vec();
        arguments.push(path.to_str().unwrap());
        let done = std::process::Command::new("fallocate").args(arguments).output().unwrap();
        done.status.success()
    };
    if fallocate(&["-l", "3000000"], "preallocated") {
        let file = File::options().write(true).open(top.join("preallocated")).unwrap();
        file.write_all_at(&pattern(400, 5000), 700_000).unwrap();
        write(top.join("past-end"), &pattern(401, 10_000));
        assert!(fallocate(&["-n", "-l", "5000000"], "past-end"));
        write(top.join("punched"), &pattern(402, 1_000_000));
        assert!(fallocate(&["-p", "-o", "100000", "-l", "300000"], "punched"));
        assert!(fallocate(&["-z", "-o", "600000", "-l", "100000"], "punched"));
        // More than one extent can hold, written and not.
        assert!(fallocate(&["-l", "60M"], "unwritten"));
    }
}

fn links(top: &Path) {
    let dir = top.join("links");
    fs::create_dir(&dir).unwrap();
    for length in [1, 30, 58, 59, 60, 61, 255, 1000, 1022, 1023, 2047, 4095] {
        let target = "t".repeat(length);
        // Targets longer than a block are refused by the kernel.
        let _ = symlink(target, dir.join(format!("target-{length}")));
    }
    symlink("../size-1", dir.join("to-file")).unwrap();
    symlink("/deep", dir.join("to-dir")).unwrap();
    fs::hard_link(top.join("size-1"), dir.join("hard")).unwrap();
    let device = |name: &str, arguments: &[&str]| {
        let path = dir.join(name);
        let mut all = vec![path.to_str().unwrap()];
        all.extend(arguments);
        run("mknod", &all);
    };
    device("fifo", &["p"]);
    device("char-small", &["c", "1", "3"]);
    device("block-large", &["b", "259", "70000"]);
    std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
}

fn directories(top: &Path) {
    let mut deep = top.join("deep");
    for level in 0..30 {
        fs::create_dir(&deep).unwrap();
        write(deep.join("file"), &pattern(500 + level, 100));
        deep.push(format!("level-{level}"));
    }
    let names = top.join("names");
    fs::create_dir(&names).unwrap();
    for length in [1usize, 2, 3, 4, 5, 254, 255] {
        write(names.join("n".repeat(length)), b"x");
    }
    let odd: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    write(names.join(std::ffi::OsString::from_vec(odd)), b"odd");
    // Hash trees, some with entries taken out.
    let many = top.join("many");
    fs::create_dir(&many).unwrap();
    for index in 0..3000 {
        write(many.join(format!("{index}-{}", "m".repeat(index % 60))), b"");
    }
    for index in (0..3000).step_by(7) {
        fs::remove_file(many.join(format!("{index}-{}", "m".repeat(index % 60)))).unwrap();
    }
    let dirs = top.join("dirs");
    fs::create_dir(&dirs).unwrap();
    for index in 0..200 {
        fs::create_dir(dirs.join(format!("d{index}"))).unwrap();
    }
}

fn attributes(top: &Path) {
    let dir = top.join("attributes");
    fs::create_dir(&dir).unwrap();
    for (index, mode) in [0o000, 0o644, 0o4755, 0o2755, 0o1777, 0o7777].into_iter().enumerate() {
        let path = dir.join(format!("mode-{mode:o}"));
        write(path.clone(), b"mode");
        let id = [0, 1000, 65_535, 65_536, 70_000, 4_000_000_000][index];
        chown(&path, Some(id), Some(id / 2)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("x", dir.join("owned-link")).unwrap();
    lchown(dir.join("owned-link"), Some(123_456), Some(654_321)).unwrap();
    let times =
        [-2_000_000_000, -1, 0, 1, 2_147_483_647, 2_147_483_648, 5_000_000_000, 15_000_000_000];
    for (index, seconds) in times.into_iter().enumerate() {
        let file = File::create(dir.join(format!("time-{index}"))).unwrap();
        let whole = Duration::from_secs(i64::unsigned_abs(seconds));
        let time = if seconds < 0 {
            SystemTime::UNIX_EPOCH - whole
        } else {
            SystemTime::UNIX_EPOCH + whole
        };
        let time = time + Duration::from_nanos(123_456_789);
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    }
}

#[derive(Debug, Default)]
struct Count {
    paths: usize,
    files: usize,
    bytes: u64,
    extents: usize,
}

/// Compares everything below `mount` with what is in the image.
fn compare(variant: &str, image: &Path, mount: &Path) -> Count {
    let fs = common::open(image);
    let device = File::open(image).unwrap();
    let mut count = Count::default();
    let mut with_extents = Vec::new();
    for path in common::walk(mount) {
        let what = format!("{variant}: /{}", path.display());
        let kernel_path = mount.join(&path);
        let metadata = kernel_path.symlink_metadata().unwrap();
        let inode = fs
            .lookup_no_follow(path.as_os_str().as_bytes())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        compare_metadata(&what, &metadata, &inode);
        count.paths += 1;
        match inode.kind() {
            FileType::Regular => {
                compare_contents(&what, &fs, &device, &kernel_path, &inode);
                count.files += 1;
                count.bytes += inode.size();
                with_extents.push((path, inode));
            }
            FileType::Directory => {
                compare_names(&what, &fs, &kernel_path, &inode);
                with_extents.push((path, inode));
            }
            FileType::Symlink => {
                let target = fs::read_link(&kernel_path).unwrap();
                let ours = fs.read_link(&inode).unwrap();
                assert_eq!(ours, target.as_os_str().as_bytes(), "{what}");
            }
            _ => (),
        }
    }
    count.extents = compare_extents(variant, &fs, mount, &with_extents);
    count
}

fn compare_metadata(what: &str, kernel: &fs::Metadata, inode: &Inode) {
    assert_eq!(u64::from(inode.number()), kernel.ino(), "{what}: number");
    assert_eq!(inode.kind(), kind_of(kernel), "{what}: kind");
    assert_eq!(u32::from(inode.mode()), kernel.mode(), "{what}: mode");
    assert_eq!((inode.uid(), inode.gid()), (kernel.uid(), kernel.gid()), "{what}: owner");
    assert_eq!(inode.size(), kernel.size(), "{what}: size");
    assert_eq!(u64::from(inode.links()), kernel.nlink(), "{what}: links");
    assert_eq!(inode.blocks_512(), kernel.blocks(), "{what}: blocks");
    let times = [inode.atime(), inode.mtime(), inode.ctime()]
        .map(|time| (time.seconds, i64::from(time.nanoseconds)));
    let expected = [
        (kernel.atime(), kernel.atime_nsec()),
        (kernel.mtime(), kernel.mtime_nsec()),
        (kernel.ctime(), kernel.ctime_nsec()),
    ];
    assert_eq!(times, expected, "{what}: times");
    let created = inode.crtime().map(|time| time.to_system_time().unwrap());
    assert_eq!(created, kernel.created().ok(), "{what}: creation");
    let rdev = kernel.rdev();
    let major = ((rdev >> 8) & 0xfff) as u32;
    let minor = ((rdev & 0xff) | ((rdev >> 12) & 0xf_ff00)) as u32;
    let device = matches!(inode.kind(), FileType::CharDevice | FileType::BlockDevice);
    assert_eq!(inode.rdev(), device.then_some((major, minor)), "{what}: device number");
}

fn compare_contents(what: &str, fs: &Filesystem, device: &File, path: &Path, inode: &Inode) {
    if inode.size() < 1 << 27 {
        let ours = common::read_file(fs, device, inode);
        assert!(ours == fs::read(path).unwrap(), "{what}: contents");
        return;
    }
    // Too large to hold: what has data is compared, and that the rest has none by the extents.
    let kernel = File::open(path).unwrap();
    for extent in fs.file(inode).unwrap().extents() {
        let extent = extent.unwrap();
        let length = extent.length.min(inode.size().saturating_sub(extent.logical));
        let mut theirs = vec![0; length as usize];
        kernel.read_exact_at(&mut theirs, extent.logical).unwrap();
        let mut ours = vec![0; length as usize];
        if !extent.unwritten {
            device.read_exact_at(&mut ours, extent.physical).unwrap();
        }
        assert!(ours == theirs, "{what}: contents at {}", extent.logical);
    }
}

fn compare_names(what: &str, fs: &Filesystem, path: &Path, inode: &Inode) {
    let theirs: BTreeMap<Vec<u8>, (u64, fs::FileType)> = fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let ino = std::os::unix::fs::DirEntryExt::ino(&entry);
            (entry.file_name().into_vec(), (ino, entry.file_type().unwrap()))
        })
        .collect();
    let mut ours = BTreeMap::new();
    for entry in fs.read_dir(inode).unwrap() {
        let entry = entry.unwrap();
        if let Some(kind) = entry.kind {
            let theirs = theirs[&entry.name].1;
            assert_eq!(
                (kind == FileType::Directory, kind == FileType::Regular, kind == FileType::Symlink),
                (theirs.is_dir(), theirs.is_file(), theirs.is_symlink()),
                "{what}: {entry:?}"
            );
        }
        assert!(ours.insert(entry.name, u64::from(entry.inode)).is_none(), "{what}: twice");
    }
    let theirs: BTreeMap<Vec<u8>, u64> =
        theirs.into_iter().map(|(name, (ino, _))| (name, ino)).collect();
    assert_eq!(ours, theirs, "{what}: names");
}

/// Logical block, physical block, count, unwritten.
type Record = (u64, u64, u64, bool);

/// Asks the kernel for all extents (FIEMAP) and compares. The kernel joins neighbours that it has
/// in its cache, so both sides are joined before.
fn compare_extents(
    variant: &str,
    fs: &Filesystem,
    mount: &Path,
    files: &[(PathBuf, Inode)],
) -> usize {
    let mut all = 0;
    for chunk in files.chunks(200) {
        let paths: Vec<PathBuf> = chunk.iter().map(|(path, _)| mount.join(path)).collect();
        // One reference for each so that odd names do no harm to the output.
        let theirs = filefrag(&paths);
        for ((path, inode), theirs) in chunk.iter().zip(theirs) {
            let block = u64::from(fs.superblock().block_size());
            let records: Vec<_> =
                fs.extents(inode).unwrap().map(|extent| extent.unwrap()).collect();
            let last = records.iter().filter(|extent| extent.last).count();
            assert_eq!(last, usize::from(!records.is_empty()), "{variant}: {}", path.display());
            let ours = records.iter().map(|extent| {
                let start = extent.logical / block;
                (start, extent.physical / block, extent.length / block, extent.unwritten)
            });
            let ours = join(ours);
            all += ours.len();
            assert_eq!(ours, join(theirs.into_iter()), "{variant}: {}", path.display());
        }
    }
    all
}

fn join(records: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for record in records {
        match joined.last_mut() {
            Some(last)
                if last.0 + last.2 == record.0
                    && last.1 + last.2 == record.1
                    && last.3 == record.3 =>
            {
                last.2 += record.2;
            }
            _ => joined.push(record),
        }
    }
    joined
}

/// What filefrag -v says of each file.
fn filefrag(paths: &[PathBuf]) -> Vec<Vec<Record>> {
    let mut arguments = vec!["-v"];
    let dir = tempfile::tempdir().unwrap();
    // Links with plain names: filefrag prints the name it was given.
    let links: Vec<PathBuf> =
        (0..paths.len()).map(|index| dir.path().join(index.to_string())).collect();
    for (link, path) in links.iter().zip(paths) {
        symlink(path, link).unwrap();
    }
    arguments.extend(links.iter().map(|link| link.to_str().unwrap()));
    let output = String::from_utf8(run("filefrag", &arguments)).unwrap();
    let mut files: Vec<Vec<Record>> = Vec::new();
    for line in output.lines() {
        if line.starts_with("File size of ") {
            files.push(Vec::new());
        }
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if fields.len() < 4 || fields[0].parse::<u64>().is_err() {
            continue;
        }
        let start = |range: &str| range.split("..").next().unwrap().trim().parse::<u64>().unwrap();
        let unwritten = line.contains("unwritten");
        let record = (start(fields[1]), start(fields[2]), fields[3].parse().unwrap(), unwritten);
        files.last_mut().unwrap().push(record);
    }
    assert_eq!(files.len(), paths.len(), "{output}");
    files
}
