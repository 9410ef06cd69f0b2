//! Logs written by debugfs, compared with the recovery by e2fsck.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{debugfs, mke2fs, pattern};
use nvio_ext4::{Error, Filesystem, JournalReplay, Options};

/// Number of blocks of the file that the logs change.
const BLOCKS: usize = 40;

/// Commands that open the journal in debugfs, with each kind of checksums.
const OPENINGS: [&str; 3] = ["jo", "jo -c -v 2", "jo -c -v 3"];

const FORMATS: [&str; 5] = [
    "-t ext4 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -b 1024 -O ^64bit",
    "-t ext4 -b 4096 -O ^64bit,^metadata_csum",
    "-t ext3 -b 2048",
];

/// Creates an image with a file, and returns the first of eight contiguous blocks of the file on
/// the device.
fn image(dir: &Path, options: &str) -> u64 {
    let source = dir.join("source");
    let image = dir.join("image");
    fs::create_dir_all(&source).unwrap();
    let size = if options.contains("4096") { 4096 } else { 2048 };
    fs::write(source.join("data"), pattern(1, BLOCKS * size)).unwrap();
    fs::write(source.join("other"), "other").unwrap();
    let options: Vec<&str> = options.split(' ').collect();
    mke2fs(&image, "16M", &options, Some(&source));
    let fs = common::open(&image);
    let extents: Vec<_> =
        fs.extents(&fs.lookup(b"/data").unwrap()).unwrap().map(Result::unwrap).collect();
    let size = u64::from(fs.superblock().block_size());
    let extent = extents.iter().find(|extent| extent.length >= 8 * size).unwrap();
    extent.physical / size
}

/// Writes transactions with debugfs that replace most of the eight blocks from `first` on. `open`
/// is the command that opens the journal.
fn write_log(dir: &Path, open: &str, first: u64, revokes: bool) {
    let image = dir.join("image");
    let size = common::open(&image).superblock().block_size() as usize;
    let new = |name: &str, count: usize| {
        let path = dir.join(name);
        let mut bytes = pattern(name.len() as u64, count * size);
        // The second block begins with the magic number of log blocks.
        if count > 1 {
            bytes[size..size + 4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        }
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let block = |index: u64| first + index;
    let mut lines = vec![
        open.to_owned(),
        format!("jw -b {}-{} {}", block(0), block(5), new("six", 6)),
        format!("jw -r {},{}", block(2), block(3)),
        format!("jw -b {} {}", block(3), new("one", 1)),
        format!("jw -b {}-{} {}", block(6), block(7), new("second", 2)),
        format!("jw -r {}", block(6)),
        // A transaction without a commit block.
        format!("jw -c -b {} {}", block(0), new("torn", 1)),
        "jc".to_owned(),
    ];
    if !revokes {
        lines.retain(|line| !line.contains("-r"));
    }
    debugfs(&image, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Compares the files of both images. Only `theirs` was recovered by e2fsck.
fn compare(ours: (&Filesystem, &Path), theirs: &Path) {
    let clean = common::open(theirs);
    assert_eq!(clean.recovered(), None);
    let device = |path: &Path| File::open(path).unwrap();
    for path in [&b"/data"[..], b"/other"] {
        let (a, b) = (ours.0.lookup(path).unwrap(), clean.lookup(path).unwrap());
        assert_eq!((a.number(), a.size(), a.mtime()), (b.number(), b.size(), b.mtime()));
        let a = common::read_file(ours.0, &device(ours.1), &a);
        assert!(a == common::read_file(&clean, &device(theirs), &b));
    }
}

#[test]
fn e2fsck_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("image"), dir.path().join("theirs"));
    for options in FORMATS {
        for open in OPENINGS {
            let first = image(dir.path(), options);
            // The commit checksums of debugfs cover revoke blocks, those of the kernel do not. With
            // both in a log, the kernel and e2fsck report a corrupt journal.
            let is_old = open.contains("-c") && !has_checksums(options);
            write_log(dir.path(), open, first, !is_old);
            let before = fs::read(&ours).unwrap();
            let fs = common::open(&ours);
            let summary = fs.recovered().unwrap();
            let JournalReplay { transactions, blocks, revoked, .. } = summary;
            let expected = if is_old { (3, 8, 0) } else { (5, 6, 3) };
            assert_eq!((transactions, blocks, revoked), expected, "{options} {open}");

            fs::copy(&ours, &theirs).unwrap();
            check(&["-fy", "-E", "journal_only", theirs.to_str().unwrap()]);
            compare((&fs, &ours), &theirs);
            // The replay has changed the file.
            let device = File::open(&ours).unwrap();
            let data = fs.lookup(b"/data").unwrap();
            let size = data.size() as usize;
            let new = common::read_file(&fs, &device, &data);
            assert!(new != pattern(1, size), "{options} {open}");
            assert!(before == fs::read(&ours).unwrap(), "{options} {open}");
        }
    }
}

#[test]
fn e2fsck_and_the_kernel_refuse_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let first = image(dir.path(), "-t ext3 -b 2048");
    write_log(dir.path(), "jo -c", first, true);
    let image = dir.path().join("image");
    let error = Filesystem::open(File::open(&image).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("corrupt journal, block 10 of the log: its checksum is "), "{error}");
    let said = check(&["-fy", "-E", "journal_only", image.to_str().unwrap()]);
    assert!(said.contains("transaction 2 was corrupt"), "{said}");
}

fn has_checksums(options: &str) -> bool {
    options.starts_with("-t ext4") && !options.contains("^metadata_csum")
}

/// Runs e2fsck, which may repair the image.
fn check(arguments: &[&str]) -> String {
    let output = std::process::Command::new("/sbin/e2fsck").args(arguments).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {text}");
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Creates an external journal with `users` users, the first of which is `user`.
fn external(path: &Path, uuid: &str, users: u8, user: [u8; 16]) {
    mke2fs(path, "8M", &["-O", "journal_dev", "-b", "4096", "-U", uuid], None);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[users], 4096 + 0x43).unwrap();
    file.write_all_at(&user, 4096 + 0x100).unwrap();
}

#[test]
fn journals_on_another_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (ours, journal) = (path("image"), path("journal"));
    for open in OPENINGS {
        let first = image(dir.path(), "-t ext4 -b 4096 -O ^has_journal");
        let user = common::open(&ours).superblock().uuid;
        external(&journal, UUID, 1, user);
        debugfs(&ours, &["feature has_journal", &format!("ssv journal_uuid {UUID}")]);

        // A clean filesystem does not need its journal, but a wrong journal is rejected.
        let with = |journal: &Path| {
            let (image, journal) = (File::open(&ours).unwrap(), File::open(journal).unwrap());
            Filesystem::open_with_journal(image, journal, Options::default())
        };
        assert_eq!(common::open(&ours).recovered(), None);
        assert_eq!(with(&journal).unwrap().recovered(), None);
        let refusal = |name: &str| with(&path(name)).unwrap_err().to_string();
        let other = UUID.replace('1', "a");
        external(&path("other"), &other, 1, user);
        let expected = "external journal: the device has another UUID, \
                        aaaaaaaa-2222-3333-4444-555555555555";
        assert_eq!(refusal("other"), expected);

        write_log(
            dir.path(),
            &open.replace("jo", &format!("jo -f {}", text("journal"))),
            first,
            true,
        );
        let before = (fs::read(&ours).unwrap(), fs::read(&journal).unwrap());
        let error = Filesystem::open(File::open(&ours).unwrap()).unwrap_err();
        assert!(matches!(error, Error::NeedsJournal { .. }));
        assert!(error.to_string().contains(UUID));
        let wrong = "external journal: the device is not an external journal";
        assert_eq!(refusal("image"), wrong);
        assert_eq!(refusal("other"), expected);

        let fs = with(&journal).unwrap();
        let JournalReplay { transactions, blocks, revoked, .. } = fs.recovered().unwrap();
        assert_eq!((transactions, blocks, revoked), (5, 6, 3), "{open}");
        for (from, to) in [("image", "theirs"), ("journal", "their-journal")] {
            fs::copy(path(from), path(to)).unwrap();
        }
        let theirs = text("theirs");
        check(&["-fy", "-j", &text("their-journal"), "-E", "journal_only", &theirs]);
        compare((&fs, &ours), Path::new(&theirs));
        assert!(before == (fs::read(&ours).unwrap(), fs::read(&journal).unwrap()));
    }

    // A shared journal, and the journal of another filesystem.
    let fs = common::open(&path("theirs")).superblock().uuid;
    let refusal = |users: u8, user: [u8; 16]| {
        external(&journal, UUID, users, user);
        let (image, journal) = (File::open(&ours).unwrap(), File::open(&journal).unwrap());
        let opened = Filesystem::open_with_journal(image, journal, Options::default());
        opened.unwrap_err().to_string()
    };
    let shared = "external journal: it is shared by 2 filesystems, the maximum is 1";
    assert_eq!(refusal(2, fs), shared);
    assert!(refusal(1, [0x77; 16]).contains("another filesystem, with UUID 77777777-7777-"));
    // A device that is smaller than the journal.
    external(&journal, UUID, 1, fs);
    File::options().write(true).open(&journal).unwrap().set_len(4 << 20).unwrap();
    let refused = |image: File, journal: File| {
        Filesystem::open_with_journal(image, journal, Options::default()).unwrap_err()
    };
    let error = refused(File::open(&ours).unwrap(), File::open(&journal).unwrap());
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    // A filesystem with an internal journal.
    image(dir.path(), "-t ext4 -b 4096");
    let error = refused(File::open(&ours).unwrap(), File::open(&journal).unwrap());
    let expected = "external journal: the filesystem has no journal on another device";
    assert_eq!(error.to_string(), expected);
}
