//! What this crate says of a filesystem against what the kernel says of it. Needs root and a
//! kernel with loop devices; skipped with a reason otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::compare::compare;
use common::{Mount, mke2fs, pattern, run};

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
