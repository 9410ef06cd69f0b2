//! `nvio mount` beside fuse2fs, a loop mount and a FUSE server that does nothing, on the same image.
//!
//! `cargo bench -p nvio-tests --bench mount` mounts an image in memory by turns, as root, and prints the
//! medians of 7 rounds and their ratios with the goals. Direct reads are those of files that are opened
//! with O_DIRECT; all of these systems then ask their server for each block. A stream is read through
//! the cache of the kernel, in which nothing of the file is: each round mounts anew.
//!
//! fuse2fs reads the image through the kernel's cache, as the embedded controller does. The server that does nothing
//! has the settings of `nvio mount`, and replies with zeroes. `NVIO` is the command; a build of another
//! profile than `release` says little.
//!
//! The program runs in namespaces of its own: whatever ends it, its mounts and its image are gone.

// Rates and numbers of blocks, none near the limits of its type.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
#![allow(missing_docs)]

mod load;
mod nothing;
mod system;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nvio_testkit::image::{command, mkfs_of_folder, work_folder};
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::{Goal, median};

use self::load::{BLOCK, Rates};
use self::system::System;

const ROUNDS: usize = 7;
const FILES: u64 = 4;
const FILE_BYTES: u64 = 256 << 20;
/// Threads of the servers.
const THREADS: usize = 8;
/// First argument of the process that measures.
const INSIDE: &str = "inside";
/// First argument of the server that does nothing.
const NOTHING: &str = "nothing";

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|first| first.to_str()) {
        Some(NOTHING) => nothing::serve(Path::new(args.get(1).ok_or("no directory")?)),
        Some(INSIDE) => measure(Path::new(args.get(1).ok_or("no folder")?)),
        _ if !rustix::process::geteuid().is_root() => Err("only root can mount".into()),
        _ => inside(),
    }
}

/// Runs this program again in namespaces of mounts and of processes, which end with it.
fn inside() -> Result<()> {
    let folder = work_folder("nvio-mount-bench");
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let status = unshare.arg(std::env::current_exe()?).arg(INSIDE).arg(folder.path()).status()?;
    if status.success() { Ok(()) } else { Err(format!("the bench has failed: {status}").into()) }
}

fn measure(folder: &Path) -> Result<()> {
    tmpfs(folder)?;
    let image = image(folder)?;
    let directory = folder.join("mounted");
    fs::create_dir(&directory)?;
    let systems: Vec<_> = System::ALL.into_iter().filter(|system| system.is_here()).collect();
    let mut rounds: Vec<Vec<Rates>> = systems.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        // Every second round backwards, so that no system always follows the same other one.
        let backwards = round % 2 == 1;
        for turn in 0..systems.len() {
            let at = if backwards { systems.len() - 1 - turn } else { turn };
            let mounted = systems[at].mount(&image, &directory)?;
            rounds[at].push(load::measure(&directory, systems[at].has_data())?);
            mounted.unmount()?;
        }
    }
    let medians: Vec<_> = rounds.iter().map(|rounds| medians(rounds)).collect();
    report(&systems, &medians);
    Ok(())
}

fn report(systems: &[System], rates: &[Rates]) {
    println!("{:<24} {:>14} {:>14} {:>12}", "", "direct, 1", "direct, 8", "stream");
    for (system, [one, eight, stream]) in systems.iter().zip(rates) {
        let name = system.name();
        println!("{name:<24} {one:>10.0} IOPS {eight:>9.0} IOPS {stream:>6.0} MiB/s");
    }
    println!();
    let find = |wanted| systems.iter().position(|&system| system == wanted).map(|at| rates[at]);
    for ours in [System::Nvio, System::NvioWritable] {
        let Some(rates) = find(ours) else { continue };
        for (other, least) in [
            (System::Fuse2fs, [2.0, 3.0, 5.0]),
            (System::Nothing, [0.8; 3]),
            (System::Loop, [0.0; 3]),
        ] {
            let Some(others) = find(other) else { continue };
            let loads = ["direct, 1 thread", "direct, 8 threads", "stream"];
            for (at, load) in loads.into_iter().enumerate() {
                let name = format!("{} to {}, {load}", ours.name(), other.name());
                Goal::least(name, rates[at] / others[at], least[at]).print();
            }
        }
    }
}

fn medians(rounds: &[Rates]) -> Rates {
    [0, 1, 2].map(|load| median(rounds.iter().map(|rates| rates[load]).collect()))
}

/// Mounts memory on a folder.
fn tmpfs(folder: &Path) -> Result<()> {
    run(command("mount").args(["-t", "tmpfs", "nvio-mount-bench"]).arg(folder))
}

/// Creates the image of the files `0` to `3`, whose blocks begin with their numbers.
fn image(folder: &Path) -> Result<PathBuf> {
    let (tree, image) = (folder.join("tree"), folder.join("disk.img"));
    fs::create_dir(&tree)?;
    for file in 0..FILES {
        let mut to = BufWriter::new(fs::File::create(tree.join(file.to_string()))?);
        for block in 0..FILE_BYTES / BLOCK {
            to.write_all(&load::block(block))?;
        }
        to.flush()?;
    }
    mkfs_of_folder(&image, (FILES + 1) * FILE_BYTES, &tree, &["-b", "4096"]);
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

/// Runs a command that has to succeed.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} has failed: {status}").into()) }
}
