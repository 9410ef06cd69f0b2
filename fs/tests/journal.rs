//! Filesystems whose journal needs recovery: images that were copied while mounted, compared with
//! the kernel's recovery of another copy. Needs root and a kernel with loop devices; skipped with a
//! reason otherwise.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use common::compare::compare_with;
use common::{Mount, Rng, mke2fs, pattern, run};
use nvio_ext4::{Error, Filesystem, Options, Recovery};

/// Variants that run without `NVIO_LONG=1`, too. Most of the time is spent in fsync.
const SHORT: [&str; 6] = ["1k", "4k-csum-v1", "async-nocsum", "data-1k", "data-noextents", "ext3"];

/// Variants of the filesystem: name, size, options of mke2fs, mount options.
const VARIANTS: &[(&str, &str, &str, &str)] = &[
    ("4k", "64M", "-t ext4 -b 4096", ""),
    ("1k", "64M", "-t ext4 -b 1024", ""),
    ("2k-no64bit", "64M", "-t ext4 -b 2048 -O ^64bit", ""),
    ("4k-nocsum", "64M", "-t ext4 -b 4096 -O ^metadata_csum", ""),
    ("1k-nocsum-no64bit", "64M", "-t ext4 -b 1024 -O ^metadata_csum,^64bit", ""),
    ("4k-csum-v1", "64M", "-t ext4 -b 4096 -O ^metadata_csum", ",journal_checksum"),
    ("async", "64M", "-t ext4 -b 4096", ",data=writeback,journal_async_commit"),
    (
        "async-nocsum",
        "64M",
        "-t ext4 -b 1024 -O ^metadata_csum",
        ",data=writeback,journal_async_commit",
    ),
    ("small", "64M", "-t ext4 -b 1024 -J size=1", ""),
    ("small-nocsum", "64M", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum", ""),
    ("small-async-data", "64M", "-t ext4 -b 1024 -J size=1", ",data=journal,journal_async_commit"),
    ("data", "64M", "-t ext4 -b 4096", ",data=journal"),
    ("data-1k", "64M", "-t ext4 -b 1024", ",data=journal"),
    ("data-small-nocsum", "64M", "-t ext4 -b 1024 -J size=2 -O ^metadata_csum", ",data=journal"),
    ("data-noextents", "64M", "-t ext3 -b 1024", ",data=journal"),
    ("writeback", "64M", "-t ext4 -b 4096 -O metadata_csum_seed", ",data=writeback"),
    ("bigalloc-data", "64M", "-t ext4 -b 4096 -C 16384 -O bigalloc", ",data=journal"),
    ("ext3", "64M", "-t ext3 -b 1024", ""),
    ("ext3-128", "64M", "-t ext3 -b 4096 -I 128", ""),
];

#[test]
fn the_kernel_agrees_after_recovery() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    let mut checked = 0;
    let all = std::env::var_os("NVIO_LONG").is_some();
    let variants: Vec<_> =
        VARIANTS.iter().filter(|(name, ..)| all || SHORT.contains(name)).collect();
    for (name, size, options, mount_options) in &variants {
        let options: Vec<&str> = options.split(' ').collect();
        mke2fs(&image, size, &options, None);
        let options = format!("loop,noatime{mount_options}");
        let mounted = match Mount::new(&image, &mount, &options) {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED {name}: {reason}");
                continue;
            }
        };
        let mut replayed = 0;
        for round in 0..2 {
            change(&mounted.path, round);
            let what = format!("{name}, round {round}");
            replayed += copy_and_compare(&what, &image, dir.path());
        }
        assert!(replayed > 50, "{name}: {replayed} blocks");
        drop(mounted);
        checked += 1;
    }
    let enough = checked * 2 > variants.len() || checked == 0;
    assert!(enough, "only {checked} variants could be mounted");
}

/// Compares this crate's view of a copy of the image with the kernel's view of another copy.
/// Returns the number of replayed blocks.
fn copy_and_compare(what: &str, image: &Path, dir: &Path) -> u64 {
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    fs::copy(image, &ours).unwrap();
    fs::copy(&ours, &theirs).unwrap();
    let before = fs::read(&ours).unwrap();
    let head = String::from_utf8(run("dumpe2fs", &["-h", ours.to_str().unwrap()])).unwrap();
    assert!(head.contains("needs_recovery"), "{what}: {head}");

    let refuse = Options::default().recovery(Recovery::Refuse);
    let refused = Filesystem::open_with(File::open(&ours).unwrap(), refuse).unwrap_err();
    assert!(matches!(refused, Error::NeedsRecovery), "{what}: {refused}");
    let fs = common::open(&ours);
    let recovered = fs.recovered().unwrap();
    assert!(recovered.transactions > 0 && recovered.blocks > 0, "{what}: {recovered:?}");
    assert!(matches!(fs.writable(), Err(Error::NeedsRecovery)), "{what}");

    let mounted = Mount::new(&theirs, &dir.join("recovered"), "loop,noatime").unwrap();
    let count = compare_with(what, &fs, &ours, &mounted.path);
    println!("{what}: {recovered:?} {count:?}");
    assert!(count.paths > 50, "{what}: {count:?}");
    drop(mounted);

    assert!(fs::read(&ours).unwrap() == before, "{what}: reading changed the image");
    recovered.blocks
}

fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Changes files and directories in several transactions, and ends with an fsync.
fn change(top: &Path, round: u64) {
    let mut random = Rng::new(round * 7919 + 1);
    let dir = |index: u64| top.join(format!("dir-{index}"));
    // Write back all earlier changes, so that some blocks of the log are old.
    if round != 1 {
        run("sync", &["-f", top.to_str().unwrap()]);
    }
    for step in 0..30 {
        let path = dir(random.below(6));
        fs::create_dir_all(&path).unwrap();
        for _ in 0..random.below(30) {
            let name = path.join(format!("file-{}", random.below(60)));
            match random.below(8) {
                0 => drop(fs::remove_file(&name)),
                1 => drop(symlink("t".repeat(1 + random.below(200) as usize), &name)),
                2 => drop(fs::rename(&name, path.join(format!("new-{step}")))),
                3 => drop(File::options().write(true).open(&name).map(|file| {
                    file.set_len(random.below(100_000)).unwrap();
                })),
                _ => {
                    if name.is_symlink() {
                        continue;
                    }
                    let file = File::options().create(true).append(true).open(&name).unwrap();
                    let length = 1 + random.below(20_000) as usize;
                    let at = random.below(50_000);
                    let file =
                        File::options().write(true).open(&name).map(|new| (drop(file), new).1);
                    file.unwrap().write_all_at(&pattern(step + round * 100, length), at).unwrap();
                }
            }
        }
        // Blocks of a directory are revoked and reused for data.
        if random.below(4) == 0 {
            let _ = fs::remove_dir_all(dir(random.below(6)));
            let reused = top.join(format!("reused-{}", random.below(10)));
            fs::write(&reused, pattern(step, 200_000)).unwrap();
            fsync(&reused);
        }
        if random.below(2) == 0 {
            fsync(top);
        }
        // A data block that begins with the magic number of log blocks.
        let mut escaped = vec![0xc0, 0x3b, 0x39, 0x98];
        escaped.extend(pattern(step, 70_000));
        fs::write(top.join("escaped"), &escaped).unwrap();
    }
    let last = top.join(format!("last-{round}"));
    fs::write(&last, pattern(round, 5000)).unwrap();
    fsync(&last);
    fsync(top);
}

/// A loop device, which is detached on drop.
struct Loop {
    device: String,
}

impl Loop {
    fn new(file: &Path) -> Result<Self, String> {
        let output = Command::new("losetup")
            .args(["-f", "--show", file.to_str().unwrap()])
            .output()
            .map_err(|error| error.to_string())?;
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        match output.status.success() {
            true => Ok(Self { device }),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

#[test]
fn the_kernel_agrees_with_a_journal_on_another_device() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (block, options) in [("4096", "loop,noatime"), ("1024", "loop,noatime,data=journal")] {
        mke2fs(&path("journal"), "8M", &["-O", "journal_dev", "-b", block], None);
        let device = match Loop::new(&path("journal")) {
            Ok(device) => device,
            Err(reason) => {
                println!("SKIPPED: {reason}");
                return;
            }
        };
        let journal = format!("device={}", device.device);
        mke2fs(&path("image"), "64M", &["-t", "ext4", "-b", block, "-J", &journal], None);
        let mounted = Mount::new(&path("image"), &path("mnt"), options).unwrap();
        for round in 0..2 {
            change(&mounted.path, round);
            for name in ["image", "journal"] {
                fs::copy(path(name), path(&format!("our-{name}"))).unwrap();
                fs::copy(path(&format!("our-{name}")), path(&format!("their-{name}"))).unwrap();
            }
            let sums = || ["our-image", "our-journal"].map(|name| common::sum(&path(name)));
            let before = sums();
            let open = |name: &str| File::open(path(name)).unwrap();
            let alone = Filesystem::open(open("our-image")).unwrap_err();
            assert!(matches!(alone, Error::NeedsJournal { .. }), "{alone}");
            let options = Options::default();
            let with =
                Filesystem::open_with_journal(open("our-image"), open("our-journal"), options);
            let fs = with.unwrap();
            let recovered = fs.recovered().unwrap();

            let theirs = Loop::new(&path("their-journal")).unwrap();
            let options = format!("loop,noatime,journal_path={}", theirs.device);
            let mounted = Mount::new(&path("their-image"), &path("recovered"), &options).unwrap();
            let what = format!("external, {block}, round {round}");
            let count = compare_with(&what, &fs, &path("our-image"), &mounted.path);
            println!("{what}: {recovered:?} {count:?}");
            assert!(recovered.transactions > 0 && count.paths > 50, "{recovered:?} {count:?}");
            drop(mounted);
            assert_eq!(before, sums(), "an image was changed");
        }
    }
}
