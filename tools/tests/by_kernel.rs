//! Disks of the field, whose oracle is the kernel: copies are compared with those of GNU cp from a
//! loop mount. sfdisk makes the partition tables, and partx finds the partitions.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{command, must, nvio, pattern};
use nvio_testkit::image::{Mount, edit_superblock, mkfs_of_folder, text, work_folder};
use tempfile::TempDir;

use crate::cp_kernel::seen;

const MIB: u64 = 1 << 20;

fn fill(folder: &Path, name: &str) {
    fs::create_dir_all(folder.join("dir/sub")).unwrap();
    fs::write(folder.join(name), name).unwrap();
    fs::write(folder.join("dir/large"), pattern(300_000, 1)).unwrap();
    fs::hard_link(folder.join(name), folder.join("dir/second")).unwrap();
    symlink("dir/large", folder.join("link")).unwrap();
}

/// A folder of work, and a tree in it that has a file of this name.
fn work(name: &str) -> (TempDir, PathBuf) {
    let work = work_folder("nvio-by-kernel");
    let tree = work.path().join("tree");
    fill(&tree, name);
    (work, tree)
}

/// Compares a copy of `image` by `nvio cp -r` with `options`, and by GNU cp from a mount. Returns
/// the names.
fn compare(work: &Path, image: &Path, options: &[&str], mount: &str) -> Vec<String> {
    let (ours, theirs) = (work.join("ours"), work.join("theirs"));
    let paths = ["cp", "-r", text(image), "/", text(&ours)];
    nvio(paths.iter().chain(options)).ok();
    let mounted = Mount::new(image, &work.join("mnt"), mount);
    let from = format!("{}/.", mounted.path().display());
    must("cp", &["-a", &from, text(&theirs)].map(OsStr::new));
    mounted.unmount().unwrap();
    let expected = seen(&theirs);
    assert_eq!(seen(&ours), expected, "{options:?}, kernel {mount}");
    fs::remove_dir_all(ours).unwrap();
    fs::remove_dir_all(theirs).unwrap();
    expected.into_keys().collect()
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn partitions_of_sfdisk_are_those_that_the_kernel_mounts() {
    // Logical partitions after a gap, and a table whose order is not that of the disk.
    let dos = "start=2048,size=16384\nstart=20480,size=60000,type=5\nstart=22528,size=16384\n\
               start=45056,size=16384\n";
    let gpt = "start=40960,size=16384,name=second\nstart=2048,size=16384,name=first\n";
    for (label, script, expected) in [("dos", dos, 3), ("gpt", gpt, 2)] {
        let (work, _) = work("unused");
        let disk = work.path().join("disk.img");
        File::create(&disk).unwrap().set_len(64 * MIB).unwrap();
        fs::write(work.path().join("script"), script).unwrap();
        let shell = format!("sfdisk -q --label {label} \"$0\" < \"$1\"");
        must(
            "sh",
            &["-c".as_ref(), shell.as_ref(), disk.as_ref(), work.path().join("script").as_ref()],
        );
        let columns = ["-go", "NR,START,SECTORS,TYPE", text(&disk)];
        let listed = must("partx", &columns.map(OsStr::new));
        let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows: Vec<_> = rows.filter(|row| row[3] != "0x5").collect();
        assert_eq!(rows.len(), expected, "{listed}");
        let numbers = |row: &[&str]| [1, 2].map(|at| row[at].parse::<u64>().unwrap() * 512);
        for row in &rows {
            let ([start, size], tree) = (numbers(row), work.path().join(row[0]));
            fill(&tree, &format!("number-{}", row[0]));
            let part = work.path().join("part.img");
            mkfs_of_folder(&part, size, &tree, &["-b", "1024"]);
            let file = File::options().write(true).open(&disk).unwrap();
            file.write_all_at(&fs::read(&part).unwrap(), start).unwrap();
        }
        for row in &rows {
            let [start, size] = numbers(row);
            let mount = format!("ro,offset={start},sizelimit={size}");
            let names = compare(work.path(), &disk, &["--partition", row[0]], &mount);
            assert!(names.contains(&format!("number-{}", row[0])), "{names:?}");
            let offset = start.to_string();
            compare(work.path(), &disk, &["--fs-offset", &offset], &mount);
        }
    }
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn copies_of_the_superblock_are_those_that_the_kernel_mounts() {
    for (block, copy, options) in [
        ("1024", 8193, &["-O", "metadata_csum"][..]),
        ("1024", 24_577, &["-O", "^metadata_csum,^64bit"]),
        ("1024", 8193, &["-O", "sparse_super2", "-E", "num_backup_sb=1"]),
        ("4096", 32_768, &[]),
    ] {
        let (work, tree) = work("file");
        let image = work.path().join("disk.img");
        mkfs_of_folder(&image, 160 * MIB, &tree, &[&["-b", block], options].concat());
        // The superblock and the first descriptors of groups.
        let file = File::options().write(true).open(&image).unwrap();
        file.write_all_at(&[0; 4096], 0).unwrap();
        let in_kib = copy * block.parse::<u64>().unwrap() / 1024;
        let number = copy.to_string();
        let options = ["--superblock", &number, "--block-size", block];
        let names = compare(work.path(), &image, &options, &format!("ro,sb={in_kib}"));
        assert!(names.contains(&"dir/large".to_owned()));
    }
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn a_disk_that_lost_power_is_read_with_and_without_its_journal() {
    let (work, tree) = work("old-name");
    let (image, taken) = (work.path().join("disk.img"), work.path().join("taken.img"));
    mkfs_of_folder(&image, 64 * MIB, &tree, &["-b", "1024"]);
    let mounted = Mount::new(&image, &work.path().join("mnt"), "noatime");
    fs::write(mounted.path().join("new"), "new").unwrap();
    fs::remove_file(mounted.path().join("old-name")).unwrap();
    File::open(mounted.path().join("new")).unwrap().sync_all().unwrap();
    fs::copy(&image, &taken).unwrap();
    mounted.unmount().unwrap();
    let without = compare(work.path(), &taken, &["--noload"], "ro,noload");
    // This mount writes the journal back.
    let mut copied = fs::read(&taken).unwrap();
    let with = compare(work.path(), &taken, &[], "rw");
    assert!(with.contains(&"new".to_owned()) && !with.contains(&"old-name".to_owned()));
    assert!(without != with, "the journal has changes");
    // A journal that is damaged, too.
    let journal = must("debugfs", &["-R", "blocks <8>", text(&image)].map(OsStr::new));
    let journal: usize = journal.split_whitespace().next().unwrap().parse().unwrap();
    copied[journal * 1024..][..4].fill(0xff);
    fs::write(&taken, copied).unwrap();
    nvio(["ls", text(&taken)]).refused(&["journal", "--noload"]);
    assert_eq!(compare(work.path(), &taken, &["--noload"], "ro,noload"), without);
}

/// `nvio write` is refused if the kernel does not mount the filesystem for writing.
#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn features_that_the_kernel_does_not_write_with_are_refused() {
    let (work, tree) = work("file");
    let (sound, image) = (work.path().join("sound.img"), work.path().join("disk.img"));
    mkfs_of_folder(&sound, 16 * MIB, &tree, &["-b", "4096", "-O", "^metadata_csum,^has_journal"]);
    let (mut written, mut refused) = (0, 0);
    for bit in 0..32 {
        // QUOTA and PROJECT need a kernel that is configured for them. An overwrite changes neither.
        if [8, 13].contains(&bit) {
            continue;
        }
        fs::copy(&sound, &image).unwrap();
        edit_superblock(&image, |block| {
            let features = &mut block[0x64..0x68];
            features[bit / 8] |= 1 << (bit % 8);
        });
        let write = command(["write", text(&image), "/file"]).stderr(Stdio::null()).status();
        if !write.unwrap().success() {
            refused += 1;
            continue;
        }
        written += 1;
        let mount_point = work.path().join("mnt");
        fs::create_dir_all(&mount_point).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,rw"]).arg(&image).arg(&mount_point);
        assert!(mount.status().unwrap().success(), "the kernel does not mount it: bit {bit}");
        let created = fs::write(mount_point.join("new"), "new");
        nvio_testkit::image::unmount(&mount_point).unwrap();
        assert!(created.is_ok(), "the kernel does not write with bit {bit}: {created:?}");
    }
    assert!(written >= 6 && refused >= 16, "{written} written, {refused} refused");
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn names_of_another_type_stay_as_gnu_cp_leaves_them() {
    let (work, tree) = work("file");
    let image = work.path().join("disk.img");
    fs::create_dir(tree.join("second")).unwrap();
    fs::write(tree.join("second/inside"), "inside").unwrap();
    mkfs_of_folder(&image, 16 * MIB, &tree, &[]);
    let targets = ["ours", "theirs"].map(|name| work.path().join(name));
    for target in &targets {
        // A directory instead of a file and of a link, a file instead of a directory.
        for (directory, name) in [("file", "kept"), ("link", "kept")] {
            fs::create_dir_all(target.join(directory)).unwrap();
            fs::write(target.join(directory).join(name), "kept").unwrap();
        }
        fs::write(target.join("second"), "kept").unwrap();
        let touched = "find \"$0\" -exec touch -h -d @1000000000 {} +";
        must("sh", &["-c".as_ref(), touched.as_ref(), target.as_ref()]);
    }
    let [ours, theirs] = &targets;
    let outcome = nvio(["cp", "-r", text(&image), "/", text(ours)]);
    let mounted = Mount::new(&image, &work.path().join("mnt"), "ro");
    let mut cp = Command::new("cp");
    cp.args(["-a", &format!("{}/.", mounted.path().display())]).arg(theirs).stderr(Stdio::piped());
    let by_gnu = cp.output().unwrap();
    mounted.unmount().unwrap();
    let complaints = String::from_utf8(by_gnu.stderr).unwrap();
    assert_eq!(by_gnu.status.code(), Some(outcome.code), "{complaints}{}", outcome.stderr);
    assert_eq!(complaints.lines().count(), outcome.stderr.lines().count(), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 3, "{}", outcome.stderr);
    let expected = seen(theirs);
    assert!(expected.contains_key("dir/large") && expected.contains_key("link/kept"));
    assert_eq!(seen(ours), expected);
}
