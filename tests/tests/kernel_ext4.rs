//! The same filesystem through the kernel's ext4 and through `nvio`: every path, every attribute,
//! every byte and every extent must agree. The kernel makes the tree through a loop mount, and
//! its view is taken from a second, read-only mount, when all is on the disk.
//!
//! Needs root and loop devices: `tests/run kernel-ext4`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nvio_tests::image::{self, Mount};
use nvio_tests::nvio;
use nvio_tests::sys::{self, Extent};
use nvio_tests::tree::{self, Options};
use nvio_tests::view::{self, View};

const MIB: u64 = 1 << 20;
/// Paths that a variant has at least.
const PATHS: usize = 200;
/// `nvio cat` is run on one file in so many; `nvio cp -r` reads them all.
const CAT_STRIDE: usize = 7;

/// A filesystem, as mke2fs makes it.
struct Variant {
    name: &'static str,
    mkfs: &'static str,
    size: u64,
    big_directory: u32,
    /// Logical block size of the device it lies on.
    lba_size: &'static str,
}

/// What the kernel says of a filesystem.
struct Expected {
    view: View,
    digests: BTreeMap<Vec<u8>, String>,
    extents: BTreeMap<Vec<u8>, Vec<Extent>>,
}

impl Variant {
    fn check(&self) {
        let work = tempfile::Builder::new().prefix("nvio-kernel-ext4-").tempdir().unwrap();
        let disk = work.path().join("disk.img");
        let options: Vec<&str> = self.mkfs.split_whitespace().collect();
        image::mkfs(&disk, self.size, &options);
        let mount_point = work.path().join("mnt");

        let mount = Mount::new(&disk, &mount_point, "noatime");
        let seed =
            self.name.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
        let options =
            Options { seed, big_directory: self.big_directory, random_files: 60, fragmented: true };
        tree::populate(mount.path(), options).unwrap();
        mount.unmount().unwrap();

        let mount = Mount::new(&disk, &mount_point, "ro,noatime");
        let expected = Expected::of(mount.path());
        mount.unmount().unwrap();
        assert!(expected.view.len() >= PATHS, "{} paths only", expected.view.len());

        let before = fs::metadata(&disk).unwrap();
        self.check_listing(&disk, &expected);
        self.check_maps(&disk, &expected);
        self.check_cat(&disk, &expected);
        self.check_copy(&disk, &expected, &work.path().join("copy"));
        let after = fs::metadata(&disk).unwrap();
        let written = |metadata: &fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
        assert_eq!(written(&before), written(&after), "{}: nvio wrote to the image", self.name);
    }

    fn check_listing(&self, disk: &Path, expected: &Expected) {
        let flags = ["-l", "-R", "--lba-size", self.lba_size];
        let listed = view::of_json(&nvio::json("ls", disk, b"/", &flags));
        report(self.name, "ls", &view::differences(&expected.view, &listed));
    }

    fn check_maps(&self, disk: &Path, expected: &Expected) {
        let mut wrong = Vec::new();
        for (index, (path, kernel)) in expected.extents.iter().enumerate() {
            // A large directory of empty files says the same of all of them.
            if path.starts_with(b"big-directory/") && index % 50 != 0 {
                continue;
            }
            let map = nvio::json("map", disk, &rooted(path), &["--lba-size", self.lba_size]);
            let found = view::extents_of_json(&map);
            if view::joined(&found) != view::joined(kernel) {
                let name = path.escape_ascii();
                wrong.push(format!("{name}:\n  kernel {kernel:?}\n  nvio   {found:?}"));
            }
        }
        report(self.name, "map", &wrong);
    }

    fn check_cat(&self, disk: &Path, expected: &Expected) {
        let mut wrong = Vec::new();
        for (path, digest) in expected.digests.iter().step_by(CAT_STRIDE) {
            if expected.view[path].size > 256 * MIB {
                continue;
            }
            let bytes = nvio::ok("cat", disk, &rooted(path), &["--lba-size", self.lba_size]);
            if view::digest_of(&bytes) != *digest {
                wrong.push(format!("{}: {} bytes", path.escape_ascii(), bytes.len()));
            }
        }
        report(self.name, "cat", &wrong);
    }

    /// Copies the whole tree out and compares each file of the copy.
    fn check_copy(&self, disk: &Path, expected: &Expected, copy: &Path) {
        let args = ["cp", "-r", "--lba-size", self.lba_size].map(PathBuf::from);
        let paths = [disk.to_owned(), PathBuf::from("/"), copy.to_owned()];
        let output = nvio::run(args.iter().chain(&paths));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: cp -r: {errors}", self.name);

        let mut wrong = Vec::new();
        for (path, entry) in &expected.view {
            let name = path.escape_ascii();
            let host = view::join(copy, path);
            let Ok(metadata) = host.symlink_metadata() else {
                wrong.push(format!("{name}: not copied"));
                continue;
            };
            let times = (metadata.mtime(), metadata.mtime_nsec());
            let expected_times = (entry.mtime.0, i64::from(entry.mtime.1));
            if metadata.mode() != entry.mode || times != expected_times {
                wrong.push(format!(
                    "{name}: mode {:o} times {times:?}, expected {:o} {expected_times:?}",
                    metadata.mode(),
                    entry.mode
                ));
            }
            if let Some(target) = &entry.target {
                let found = fs::read_link(&host).unwrap();
                if found.as_os_str().as_encoded_bytes() != target {
                    wrong.push(format!("{name}: points to {}", found.display()));
                }
            }
            if entry.is_file() {
                if view::digest(&host).unwrap() != expected.digests[path] {
                    wrong.push(format!("{name}: content"));
                }
                let data: u64 = expected.extents[path]
                    .iter()
                    .filter(|extent| !extent.unwritten)
                    .map(|extent| extent.length)
                    .sum();
                // Room for the host's own block size and extent blocks.
                let allowed = 2 * data + MIB;
                if metadata.blocks() * 512 > allowed {
                    wrong.push(format!("{name}: {} blocks: holes filled", metadata.blocks()));
                }
            }
        }
        report(self.name, "cp -r", &wrong);
    }
}

impl Expected {
    fn of(root: &Path) -> Self {
        let view = view::of_kernel(root).unwrap();
        let mut digests = BTreeMap::new();
        let mut extents = BTreeMap::new();
        for (path, _) in view.iter().filter(|(_, entry)| entry.is_file()) {
            let host = view::join(root, path);
            digests.insert(path.clone(), view::digest(&host).unwrap());
            extents.insert(path.clone(), sys::fiemap(&File::open(&host).unwrap()).unwrap());
        }
        let longest = extents.values().map(Vec::len).max().unwrap() as u64;
        assert!(longest > tree::FRAGMENTS, "the longest map has {longest} extents");
        let unwritten = extents.values().flatten().filter(|extent| extent.unwritten).count();
        assert!(unwritten >= 5, "{unwritten} unwritten extents");
        Self { view, digests, extents }
    }
}

fn rooted(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

/// Fails with the first of `lines`, if there are any.
fn report(variant: &str, what: &str, lines: &[String]) {
    let shown = lines.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(lines.is_empty(), "{variant}: {what}: {} differ\n{shown}", lines.len());
}

macro_rules! variants {
    ($($name:ident: $mkfs:literal, $mib:literal MiB, $entries:literal entries, $lba:literal;)*) => {
        $(
            #[test]
            #[ignore = "needs root and loop devices: tests/run kernel-ext4"]
            fn $name() {
                Variant {
                    name: stringify!($name),
                    mkfs: $mkfs,
                    size: $mib * MIB,
                    big_directory: $entries,
                    lba_size: $lba,
                }
                .check();
            }
        )*
    };
}

variants! {
    block_4k: "-b 4096", 160 MiB, 600 entries, "512";
    block_2k: "-b 2048", 160 MiB, 600 entries, "512";
    block_1k: "-b 1024", 160 MiB, 600 entries, "512";
    block_4k_lba_4k: "-b 4096", 160 MiB, 600 entries, "4096";
    no_64bit: "-b 4096 -O ^64bit", 160 MiB, 600 entries, "512";
    no_64bit_1k: "-b 1024 -O ^64bit", 160 MiB, 600 entries, "512";
    no_metadata_csum: "-b 4096 -O ^metadata_csum", 160 MiB, 600 entries, "512";
    no_metadata_csum_no_64bit_2k: "-b 2048 -O ^metadata_csum,^64bit", 160 MiB, 600 entries, "512";
    inode_128: "-b 4096 -I 128", 160 MiB, 600 entries, "512";
    inode_128_1k_no_64bit: "-b 1024 -I 128 -O ^64bit", 160 MiB, 600 entries, "512";
    inode_512: "-b 4096 -I 512", 160 MiB, 600 entries, "4096";
    no_flex_bg: "-b 4096 -O ^flex_bg", 160 MiB, 600 entries, "512";
    no_flex_bg_1k_inode_128: "-b 1024 -I 128 -O ^flex_bg,^metadata_csum", 160 MiB, 600 entries, "512";
    no_journal: "-b 4096 -O ^has_journal", 160 MiB, 600 entries, "4096";
    uninit_bg: "-b 2048 -O ^metadata_csum,uninit_bg", 160 MiB, 600 entries, "512";
    many_groups_1k: "-b 1024 -g 1024 -N 16384", 160 MiB, 600 entries, "512";
    big_directory_1k: "-b 1024 -N 32768", 160 MiB, 12000 entries, "512";
}
