//! A filesystem of 16 TiB: opened at once, and its descriptors read as they are needed.

use std::fs;
use std::path::Path;

use nvio_testkit::image::mkfs;

use nvio_tests::walk::Result;
use nvio_tests::walk::command::{Served, timed};
use nvio_tests::walk::goal::{Goal, median};

/// As much as a file of ext4 can have, without the last group.
const SIZE: u64 = (1 << 44) - (128 << 20);
const ROUNDS: usize = 5;

pub(crate) fn measure(folder: &Path) -> Result<Vec<Goal>> {
    let image = folder.join("huge.img");
    let options = ["-b", "4096", "-O", "64bit,flex_bg,^resize_inode", "-i", "16777216"];
    let lazily = ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    mkfs(&image, SIZE, &[&options[..], &lazily].concat());
    let goals = goals(&image);
    fs::remove_file(&image)?;
    goals
}

fn goals(image: &Path) -> Result<Vec<Goal>> {
    let served = Served::new(image, &["--latency", "80us"])?;
    let times: Result<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let command = served.command("stat", &["/lost+found"]);
            Ok(timed(command, &image.with_extension("stat"))?.as_secs_f64())
        })
        .collect();
    let name = "s from the start of the command to a file's inode in 16 TiB";
    Ok(vec![Goal::most(name, median(times?), 0.5)])
}
