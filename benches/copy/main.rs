//! `nvio cp -r` onto tmpfs, beside `debugfs rdump` of the same image.
//!
//! `cargo bench -p nvio-tests --bench copy` prints the ratios of the medians of 9 runs by turns, for
//! many small files and for a few large ones. `NVIO` is the command; a build of another profile than
//! `release` says little. `tests/run walk` judges the counts.

// Sizes of files, none near the limits of its type.
#![allow(clippy::cast_possible_truncation)]
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nvio_testkit::image::{command, mkfs_of_folder, work_folder};
use nvio_testkit::random::pattern;
use nvio_tests::nvio::binary;
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::{Goal, median};

const RUNS: usize = 9;

/// Files of a tree, and the size of each.
struct Tree {
    name: &'static str,
    files: u64,
    size: fn(u64) -> usize,
}

const TREES: [Tree; 2] = [
    Tree { name: "4000 small files", files: 4000, size: |file| 1000 + file as usize % 3000 },
    Tree { name: "3 files of 48 MiB", files: 3, size: |_| 48 << 20 },
];

fn main() -> Result<()> {
    let goals = TREES.iter().map(speed).collect::<Result<Vec<_>>>()?;
    println!();
    goals.iter().for_each(Goal::print);
    Ok(())
}

/// Copies the same image by turns.
fn speed(tree: &Tree) -> Result<Goal> {
    let folder = work_folder("nvio-copy");
    let (source, image) = (folder.path().join("tree"), folder.path().join("disk.img"));
    fs::create_dir(&source)?;
    for file in 0..tree.files {
        fs::write(source.join(format!("file-{file:04}")), pattern(file, (tree.size)(file)))?;
    }
    mkfs_of_folder(&image, 256 << 20, &source, &["-b", "4096"]);
    fs::remove_dir_all(&source)?;
    let target = folder.path().join("target");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        let mut ours = Command::new(binary());
        ours.arg("cp").arg("-r").arg(&image).arg("/").arg(&target);
        let mut theirs = command("debugfs");
        theirs.arg("-R").arg(format!("rdump / {}", target.display())).arg(&image);
        times[0].push(run(ours, &target, tree.files)?);
        times[1].push(run(theirs, &target, tree.files)?);
    }
    let [ours, theirs] = times.map(median);
    println!("{} onto tmpfs: nvio {:.1} ms, debugfs {:.1} ms", tree.name, ours * 1e3, theirs * 1e3);
    let name = format!("{} onto tmpfs, cp -r to debugfs rdump, times faster", tree.name);
    Ok(Goal::least(name, theirs / ours, 1.0))
}

/// Returns the seconds of a copy of `files` files.
fn run(mut copy: Command, target: &Path, files: u64) -> Result<f64> {
    fs::create_dir(target)?;
    let start = Instant::now();
    let status = copy.stderr(Stdio::null()).status()?;
    let time = start.elapsed().as_secs_f64();
    // Both copy lost+found, too.
    if !status.success() || fs::read_dir(target)?.count() as u64 != files + 1 {
        return Err(format!("{copy:?} has failed").into());
    }
    fs::remove_dir_all(target)?;
    Ok(time)
}
