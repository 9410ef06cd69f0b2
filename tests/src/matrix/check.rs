//! Checks one row: makes the image, asks everybody, and compares.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::node::{self, Tree};
use super::{Made, Oracle, Row, command, controller, kernel, library, offline};

/// `nvio cp -r` is run on one image in so many.
const COPY_STRIDE: u64 = 4;

/// Fails the test with all that differs.
pub fn check(row: &Row) {
    let lines = run(row).unwrap_or_else(|error| panic!("{}: {error}", row.name));
    assert!(lines.is_empty(), "{}: {} differ\n{}", row.name, lines.len(), node::report(&lines));
}

fn run(row: &Row) -> io::Result<Vec<String>> {
    let made = Made::new(row)?;
    let image = made.image();
    let before = stamp(&image)?;
    let mut lines = match row.oracle {
        Oracle::Kernel => mounted(row, &made, &image)?,
        Oracle::Recovered => {
            let copy = made.path("recovered.img");
            made.copy(&image, &copy);
            // Recovery and orphans need a mount that may write, even if nobody else writes.
            made.mount(&copy, "noinit_itable").unmount()?;
            mounted(row, &made, &copy)?
        }
        Oracle::Offline => {
            let expected = offline::tree(&image, &made.source())?;
            compare(row, &made, &expected, None)?
        }
        Oracle::Refused(words) => {
            let mut lines = command::refused(&image, words);
            let found = library::tree(&image);
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

/// What must not change: modification time and size.
fn stamp(image: &Path) -> io::Result<(i64, i64, u64)> {
    let metadata = fs::metadata(image)?;
    Ok((metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

fn mounted(row: &Row, made: &Made, theirs: &Path) -> io::Result<Vec<String>> {
    let mount = made.mount(theirs, "ro");
    let expected = kernel::tree(mount.path())?;
    let lines = compare(row, made, &expected, Some(mount.path()))?;
    mount.unmount()?;
    Ok(lines)
}

fn compare(
    row: &Row,
    made: &Made,
    expected: &Tree,
    root: Option<&Path>,
) -> io::Result<Vec<String>> {
    let image = made.image();
    let found = library::tree(&image);
    let mut lines = found.problems;
    lines.extend(node::differences(expected, &found.tree));
    let seed = row.name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
    if let Some(root) = root {
        match controller::compare(&image, expected, root, seed) {
            Ok(more) => lines.extend(more),
            Err(error) => lines.push(format!("on the controller: {error}")),
        }
    }
    let mut say = |said: Result<Vec<String>, String>| match said {
        Ok(more) => lines.extend(more.into_iter().map(|line| format!("nvio: {line}"))),
        Err(error) => lines.push(format!("nvio {error}")),
    };
    say(command::listing(&image, expected));
    say(command::paths(&image, expected));
    if seed.is_multiple_of(COPY_STRIDE) {
        let copy = made.path("copied");
        say(command::copy(&image, expected, &copy));
        fs::remove_dir_all(&copy)?;
    }
    Ok(lines)
}
