//! The command on invalid input. Each error is one line on standard error that names the cause,
//! nothing on standard output, and exit code 1. Wrong usage is exit code 2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nvio_testkit::image;
use nvio_testkit::random::Rng;
use nvio_tests::nvio;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Offset of s_feature_incompat in the superblock.
const FEATURE_INCOMPAT: usize = 0x60;
/// `needs_recovery`: the journal contains newer metadata.
const INCOMPAT_RECOVER: u32 = 0x4;
/// First bytes of the superblock of a journal.
const JOURNAL_SUPERBLOCK: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];

/// A folder with a valid image of a few files.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("nvio-bad-input-").tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("directory")).unwrap();
        fs::write(source.join("file"), Rng::new(5).bytes(3 * MIB)).unwrap();
        fs::write(source.join("directory/inner"), "inner\n").unwrap();
        symlink("loop", source.join("loop")).unwrap();
        symlink("gone", source.join("dangling")).unwrap();
        let fixture = Self { folder };
        image::mkfs_of_folder(&fixture.image(), 16 * MIB, &source, options);
        fixture
    }

    fn image(&self) -> PathBuf {
        self.path("disk.img")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Runs `nvio args` and checks that it fails with one line that contains all of `words`, ignoring
/// case.
fn refused(args: &[&str], words: &[&str]) {
    let output = nvio::run(args);
    let stderr = String::from_utf8(output.stderr).expect("an error is text");
    assert_eq!(output.status.code(), Some(1), "nvio {args:?}: {}: {stderr}", output.status);
    assert_eq!(output.stdout, b"", "nvio {args:?} printed something");
    assert_eq!(stderr.lines().count(), 1, "nvio {args:?}: not one line: {stderr}");
    assert!(stderr.starts_with("nvio: "), "nvio {args:?}: {stderr}");
    let lower = stderr.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "nvio {args:?}: no {word} in: {stderr}");
    }
}

/// Checks that each verb that opens a filesystem rejects `image`.
fn refused_by_all(image: &Path, words: &[&str]) {
    let device = image::text(image);
    refused(&["ls", device, "/"], words);
    refused(&["cat", device, "/file"], words);
    refused(&["stat", device, "/"], words);
    refused(&["map", device, "/file"], words);
    refused(&["df", device], words);
    refused(&["du", device, "/"], words);
    refused(&["find", device, "/"], words);
    refused(&["tree", device, "/"], words);
    refused(&["write", device, "/file"], words);
}

#[test]
fn blocks_smaller_than_the_devices() {
    let fixture = Fixture::new(&["-b", "1024"]);
    let image = fixture.image();
    let image = image.to_str().unwrap();
    refused(&["ls", image, "/", "--lba-size", "4096"], &["disk.img", "1024", "4096"]);
    let seen = nvio::run(["cat", image, "/directory/inner"]);
    assert_eq!(seen.stdout, b"inner\n");
}

#[test]
fn a_good_image_is_read() {
    let fixture = Fixture::new(&[]);
    let source = fs::read(fixture.path("source/file")).unwrap();
    assert!(nvio::ok("cat", &fixture.image(), b"/file", &[]) == source);
}

#[test]
fn an_image_that_is_no_ext4() {
    let fixture = Fixture::new(&[]);
    fs::write(fixture.image(), Rng::new(7).bytes(4 * MIB)).unwrap();
    refused_by_all(&fixture.image(), &["ext4"]);
    fs::write(fixture.image(), vec![0; 4 << 20]).unwrap();
    refused_by_all(&fixture.image(), &["ext4"]);
}

#[test]
fn a_truncated_image() {
    let fixture = Fixture::new(&[]);
    let file = File::options().write(true).open(fixture.image()).unwrap();
    // Truncated in the data, in the superblock, and before it.
    for len in [8 * MIB, 64 << 10, 1536, 1024] {
        file.set_len(len).unwrap();
        refused_by_all(&fixture.image(), &[]);
    }
    file.set_len(8 * MIB).unwrap();
}

#[test]
fn a_truncated_image_names_the_sizes() {
    let fixture = Fixture::new(&[]);
    File::options().write(true).open(fixture.image()).unwrap().set_len(8 * MIB).unwrap();
    // The sizes of the filesystem and of the device.
    refused_by_all(&fixture.image(), &["16777216", "8388608"]);
}

#[test]
fn an_empty_image() {
    let fixture = Fixture::new(&[]);
    File::options().write(true).open(fixture.image()).unwrap().set_len(0).unwrap();
    refused_by_all(&fixture.image(), &[]);
}

#[test]
fn an_unknown_incompatible_feature_is_named() {
    let fixture = Fixture::new(&[]);
    image::edit_superblock(&fixture.image(), |block| block[FEATURE_INCOMPAT + 3] |= 0x80);
    refused_by_all(&fixture.image(), &["80000000"]);
}

#[test]
fn an_unsupported_feature_is_named() {
    let fixture = Fixture::new(&[]);
    image::edit_superblock(&fixture.image(), |block| block[FEATURE_INCOMPAT + 1] |= 0x10);
    refused_by_all(&fixture.image(), &["dirdata"]);
}

#[test]
fn a_damaged_journal_that_needs_recovery_is_named() {
    let fixture = Fixture::new(&[]);
    image::edit_superblock(&fixture.image(), |block| {
        let bytes = &mut block[FEATURE_INCOMPAT..FEATURE_INCOMPAT + 4];
        let features = u32::from_le_bytes(bytes.try_into().unwrap()) | INCOMPAT_RECOVER;
        bytes.copy_from_slice(&features.to_le_bytes());
    });
    // An empty log needs no replay.
    nvio::ok("ls", &fixture.image(), b"/", &[]);
    let mut bytes = fs::read(fixture.image()).unwrap();
    let is_journal = |block: &[u8]| block.starts_with(&JOURNAL_SUPERBLOCK);
    let journal = bytes.chunks_exact_mut(1024).find(|block| is_journal(block)).unwrap();
    // The block size of the journal.
    journal[0xc] ^= 1;
    fs::write(fixture.image(), bytes).unwrap();
    refused_by_all(&fixture.image(), &["journal"]);
}

#[test]
fn a_superblock_with_a_wrong_checksum() {
    let fixture = Fixture::new(&[]);
    image::edit_superblock(&fixture.image(), |_| ());
    nvio::ok("ls", &fixture.image(), b"/", &[]);
    // The volume name is covered only by the checksum.
    let mut bytes = fs::read(fixture.image()).unwrap();
    bytes[1024 + 0x78] ^= 1;
    fs::write(fixture.image(), bytes).unwrap();
    refused_by_all(&fixture.image(), &["superblock", "checksum"]);
}

#[test]
fn a_pci_address_that_is_not_nvme() {
    // On most machines this is the host bridge; on a machine without PCI it does not exist. Both
    // are rejected.
    for verb in ["identify", "bind", "unbind"] {
        refused(&[verb, "0000:00:00.0"], &["0000:00:00.0"]);
    }
    refused(&["ls", "0000:00:00.0", "/"], &["0000:00:00.0"]);
}

#[test]
fn a_pci_address_without_a_device() {
    refused(&["identify", "ffff:ff:1f.7"], &["ffff:ff:1f.7"]);
    refused(&["bind", "ffff:ff:1f.7"], &["ffff:ff:1f.7"]);
}

#[test]
fn a_socket_that_nobody_serves() {
    let fixture = Fixture::new(&[]);
    let socket = fixture.path("socket");
    let device = format!("vfio-user:{}", socket.display());
    refused(&["identify", &device], &[image::text(&socket)]);
    // The socket of a server that has ended.
    drop(UnixListener::bind(&socket).unwrap());
    refused(&["identify", &device], &[image::text(&socket)]);
    refused(&["cat", &device, "/file"], &[image::text(&socket)]);
}

#[test]
fn a_socket_that_is_a_file() {
    let fixture = Fixture::new(&[]);
    let device = format!("vfio-user:{}", fixture.image().display());
    refused(&["identify", &device], &[image::text(&fixture.image())]);
}

#[test]
fn an_image_that_does_not_exist() {
    refused(&["ls", "/no/such/image", "/"], &["/no/such/image"]);
    refused(&["ls", "/", "/"], &[]);
}

#[test]
fn a_path_that_does_not_exist() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    let device = image::text(&image);
    for verb in ["cat", "ls", "stat", "map"] {
        refused(&[verb, device, "/no/such/file"], &["/no/such/file"]);
        refused(&[verb, device, "/directory/nothing"], &["/directory/nothing"]);
    }
    refused(&["cp", device, "/nothing", image::text(&fixture.path("copy"))], &["/nothing"]);
    assert!(!fixture.path("copy").exists());
    refused(&["cat", device, "/dangling"], &["dangling"]);
}

#[test]
fn a_path_that_cannot_be_walked() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    let device = image::text(&image);
    refused(&["cat", device, "/file/below"], &["/file"]);
    refused(&["cat", device, "/loop"], &["loop"]);
    refused(&["cat", device, &format!("/{}", "n".repeat(256))], &[]);
}

#[test]
fn a_directory_given_to_cat() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    refused(&["cat", image::text(&image), "/directory"], &["directory"]);
    refused(&["cat", image::text(&image), "/"], &["directory"]);
}

#[test]
fn a_directory_given_to_cp_without_r() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    let copy = fixture.path("copy");
    refused(&["cp", image::text(&image), "/directory", image::text(&copy)], &["directory"]);
    assert!(!copy.exists());
}

#[test]
fn a_namespace_or_a_partition_that_is_not_there() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    let device = image::text(&image);
    refused(&["ls", device, "/", "--namespace", "2"], &["namespace 2"]);
    refused(&["ls", device, "/", "--namespace", "4294967295"], &["namespace"]);
    refused(&["ls", device, "/", "--partition", "1"], &["partition"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let fixture = Fixture::new(&[]);
    let image = fixture.image();
    let device = image::text(&image);
    let wrong: [&[&str]; 12] = [
        &[],
        &["no-such-verb"],
        &["cat"],
        &["cat", device],
        &["ls", device, "/", "--no-such-option"],
        &["ls", device, "/", "--lba-size", "513"],
        &["ls", device, "/", "--namespace", "one"],
        &["ls", device, "/", "--namespace", "0"],
        &["ls", device, "/", "--partition", "0"],
        &["bind", device],
        &["cat", device, "/file", "--offset", "-1"],
        &["cat", device, "/file", "--length", "many"],
    ];
    for args in wrong {
        let output = nvio::run(args);
        assert_eq!(output.status.code(), Some(2), "nvio {args:?}");
        assert_eq!(output.stdout, b"", "nvio {args:?} printed something");
        assert!(!output.stderr.is_empty(), "nvio {args:?} prints an error");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let fixture = Fixture::new(&[]);
    for verb in [["cat", "/file"], ["ls", "/"]] {
        let mut child = Command::new(nvio::binary())
            .args([verb[0], image::text(&fixture.image()), verb[1]])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        child.wait().unwrap();
        assert!(!stderr.contains("panicked"), "{verb:?}: {stderr}");
    }
}
