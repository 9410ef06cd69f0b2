//! Filesystems whose journal needs recovery, read with the command.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Disk, must, pattern};

/// Blocks of the files.
const BLOCK: usize = 4096;
const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Fills a folder with files of ten blocks and of a little more than one.
fn fill(folder: &Path) {
    fs::write(folder.join("data"), pattern(10 * BLOCK, 1)).unwrap();
    fs::write(folder.join("small"), pattern(BLOCK + 7, 2)).unwrap();
}

/// Writes new contents of blocks to the journal with debugfs, which `open` opens: blocks 3 and 4 of
/// one file, all blocks of the other. Returns the contents of the files after recovery.
fn journal(disk: &Disk, open: &str) -> (Vec<u8>, Vec<u8>) {
    let blocks = |path: &str| -> Vec<u64> {
        let listed = disk.debugfs(&format!("blocks {path}"));
        listed.split_whitespace().map(|block| block.parse().unwrap()).collect()
    };
    let mut requests = vec![open.to_owned()];
    let mut replace = |path: &str, first: usize, count: usize| {
        let mut contents = fs::read(disk.folder().join(path)).unwrap();
        let new = pattern(count * BLOCK, 99);
        let file = disk.path(&format!("new-{path}"));
        fs::write(&file, &new).unwrap();
        let list: Vec<String> = blocks(path)[first..][..count].iter().map(u64::to_string).collect();
        requests.push(format!("jw -b {} {}", list.join(","), file.display()));
        let end = contents.len().min((first + count) * BLOCK);
        contents[first * BLOCK..end].copy_from_slice(&new[..end - first * BLOCK]);
        contents
    };
    let contents = (replace("data", 3, 2), replace("small", 0, 2));
    requests.push("jc".to_owned());
    let script = disk.path("requests");
    fs::write(&script, requests.join("\n")).unwrap();
    must("debugfs", &["-w".as_ref(), "-f".as_ref(), script.as_ref(), disk.image().as_ref()]);
    contents
}

#[test]
fn files_are_as_they_are_after_recovery() {
    let disk = Disk::new(fill, &["-b", "4096"]);
    let (data, small) = journal(&disk, "jo -c");
    let before = fs::read(disk.image()).unwrap();
    assert!(disk.run("cat", &["/data"]).ok() == data);
    assert!(disk.run("cat", &["/small", "/data"]).ok() == [&small[..], &data[..]].concat());
    let part = disk.run("cat", &["/data", "--offset", "12290", "--length", "9000"]).ok();
    assert!(part == data[12_290..][..9000]);
    disk.run("ls", &["-lR", "/"]).text();
    // The extents do not depend on the journal.
    let extents = disk.run("map", &["/data", "--json"]).json();
    assert!(!extents.to_string().contains("inline\":true"), "{extents}");
    disk.run("write", &["/data"]).refused(&["disk.img", "mount the filesystem once"]);
    assert!(before == fs::read(disk.image()).unwrap());
    // With -v it logs the replay.
    let said = disk.run("ls", &["-v"]);
    assert!(said.stderr.contains("journal replayed in memory: 2 transaction(s), 4 block(s)"));

    must(
        "e2fsck",
        &["-fy".as_ref(), "-E".as_ref(), "journal_only".as_ref(), disk.image().as_ref()],
    );
    assert!(disk.run("cat", &["/data"]).ok() == data);
}

#[test]
fn the_journal_may_be_on_another_device() {
    let disk = Disk::new(fill, &["-b", "4096", "-O", "^has_journal", "-U", UUID]);
    let path = disk.path("journal.img");
    let device = path.to_str().unwrap();
    let make = |path: &Path, uuid: &str| {
        File::create(path).unwrap().set_len(8 << 20).unwrap();
        let options = ["-q", "-F", "-b", "4096", "-O", "journal_dev", "-U", uuid];
        let mut args: Vec<_> = options.map(AsRef::as_ref).to_vec();
        args.push(path.as_ref());
        must("mke2fs", &args);
        // The filesystem is its only user.
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[1], 4096 + 0x43).unwrap();
        let user = UUID.replace('-', "");
        let byte = |at: usize| u8::from_str_radix(&user[2 * at..][..2], 16).unwrap();
        file.write_all_at(&std::array::from_fn::<u8, 16, _>(byte), 4096 + 0x100).unwrap();
    };
    let uuid = UUID.replace('1', "a");
    make(&path, &uuid);
    disk.debugfs("feature has_journal");
    disk.debugfs(&format!("ssv journal_uuid {uuid}"));
    // A clean filesystem is read without its journal.
    disk.run("ls", &[]).text();
    disk.run("ls", &["--journal", device]).text();

    let (data, small) = journal(&disk, &format!("jo -f {device}"));
    disk.run("ls", &[]).refused(&["disk.img", "--journal DEVICE", &uuid]);
    let before = (fs::read(disk.image()).unwrap(), fs::read(&path).unwrap());
    assert!(
        disk.run("cat", &["/data", "/small", "--journal", device]).ok() == [data, small].concat()
    );
    assert!(before == (fs::read(disk.image()).unwrap(), fs::read(&path).unwrap()));

    let refused = |journal: &str, part: &str| {
        disk.run("ls", &["--journal", journal]).refused(&["disk.img", part]);
    };
    let image = disk.image();
    refused(image.to_str().unwrap(), "is not an external journal");
    make(&disk.path("other"), UUID);
    refused(disk.path("other").to_str().unwrap(), UUID);
    disk.run("ls", &["--journal", "/dev/null"]).refused(&["character device"]);
    disk.run("ls", &["--journal", device, "--journal-namespace", "7"]).refused(&["7"]);
    disk.run("ls", &["--journal", device, "--journal-partition", "1"]).refused(&["partition"]);
}
