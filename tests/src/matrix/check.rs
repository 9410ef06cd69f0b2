//! The check of one row: creates the image, reads it in all ways, and compares.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::command::Command;
use super::node::{self, Tree};
use super::{Made, Oracle, Row, controller, kernel, library, offline};
use nvio_testkit::image::{self, Loop};

/// `nvio cp -r` runs on one of this number of images.
const COPY_STRIDE: u64 = 4;

/// Maximum size of images to read ahead, because larger images are sparse.
const READ_AHEAD_MAX: u64 = 1 << 30;

/// Fails the test with all differences.
pub fn check(row: &Row) {
    let lines = run(row).unwrap_or_else(|error| panic!("{}: {error}", row.name));
    assert!(lines.is_empty(), "{}: {} differ\n{}", row.name, lines.len(), node::report(&lines));
}

fn run(row: &Row) -> io::Result<Vec<String>> {
    let made = Made::new(row)?;
    let image = made.image();
    let before = stamp(&image)?;
    let mut lines = match row.oracle {
        Oracle::Kernel => mounted(row, &made, &image, "ro", i64::MAX)?,
        Oracle::Recovered => {
            let copy = made.path("recovered.img");
            made.copy(&image, &copy);
            // The kernel also writes to the journal.
            let journal = made.journal().map(|journal| {
                made.copy(&journal, &made.path("recovered.journal"));
                Loop::new(&made.path("recovered.journal"))
            });
            let journal = journal.as_ref().map(Loop::device);
            let begin = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
            // Recovery and the processing of orphans need a writable mount.
            made.mount(&copy, &with_journal("noinit_itable", journal)).unmount()?;
            let options = with_journal("ro", journal);
            mounted(row, &made, &copy, &options, begin.as_secs() as i64)?
        }
        Oracle::Offline => {
            let expected = offline::tree(&image, &made.source())?;
            compare(row, &made, expected, None, i64::MAX)?
        }
        Oracle::Refused(words) => {
            let mut lines = Command::new(&image, None, 512).refused(words);
            let found = library::tree(&image, None);
            if !words.iter().all(|word| found.problems.concat().contains(word)) {
                lines.push(format!("the library does not say {words:?}: {:?}", found.problems));
            }
            lines
        }
    };
    if stamp(&image)? != before {
        lines.push("nvio wrote to the image".to_owned());
    }
    Ok(lines)
}

/// Returns the modification time and the size, which must not change.
fn stamp(image: &Path) -> io::Result<(i64, i64, u64)> {
    let metadata = fs::metadata(image)?;
    Ok((metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

/// Returns the mount options for a journal on `device`.
fn with_journal(options: &str, device: Option<&str>) -> String {
    match device {
        Some(device) => format!("{options},journal_path={device}"),
        None => options.to_owned(),
    }
}

fn mounted(
    row: &Row,
    made: &Made,
    theirs: &Path,
    options: &str,
    recovered: i64,
) -> io::Result<Vec<String>> {
    let mount = made.mount(theirs, options);
    if fs::metadata(theirs)?.len() <= READ_AHEAD_MAX {
        mount.read_ahead()?;
    }
    let expected = kernel::tree(mount.path())?;
    let lines = compare(row, made, expected, Some(mount.path()), recovered)?;
    mount.unmount()?;
    Ok(lines)
}

/// `recovered` is the time in seconds when the recovery by the kernel began.
fn compare(
    row: &Row,
    made: &Made,
    mut expected: Tree,
    root: Option<&Path>,
    recovered: i64,
) -> io::Result<Vec<String>> {
    let image = made.image();
    let found = library::tree(&image, made.journal().as_deref());
    let mut lines = found.problems;
    // The change time of truncated inodes is the time of the recovery, which is unpredictable. The
    // kernel also recounts the blocks of files that it truncates or that fast commits changed. The
    // library returns the stored count, which is the kernel's in all other cases.
    let recounts = row.name.starts_with("dirty_fast_commit");
    for node in expected.values_mut() {
        if recounts || node.entry.ctime.0 >= recovered {
            node.blocks = None;
        }
    }
    for (path, node) in expected.iter_mut().filter(|(_, node)| node.entry.ctime.0 >= recovered) {
        if let Some(found) = found.tree.get(path) {
            (node.entry.mtime, node.entry.ctime) = (found.entry.mtime, found.entry.ctime);
        }
    }
    let expected = &expected;
    lines.extend(node::differences(expected, &found.tree));
    let seed = row.name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
    // The block size of the filesystem must not be smaller than the device's.
    let large = image::block_size(&image)? >= 4096 && seed.is_multiple_of(2);
    let lba_size = if large { 4096 } else { 512 };
    let command = Command::new(&image, made.journal().as_deref(), lba_size);
    if let Some(root) = root {
        match controller::compare(&image, made.journal().as_deref(), expected, root, lba_size, seed)
        {
            Ok(more) => lines.extend(more),
            Err(error) => lines.push(format!("on the controller: {error}")),
        }
    }
    let mut say = |said: Result<Vec<String>, String>| match said {
        Ok(more) => lines.extend(more.into_iter().map(|line| format!("nvio: {line}"))),
        Err(error) => lines.push(format!("nvio {error}")),
    };
    say(command.listing(expected));
    say(command.paths(expected));
    if seed.is_multiple_of(COPY_STRIDE) {
        let copy = made.path("copied");
        say(command.copy(expected, &copy));
        let _ = fs::remove_dir_all(&copy);
    }
    Ok(lines)
}
