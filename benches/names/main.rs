//! A directory of 1,000,000 names: created, looked up and half removed by nvio, beside the kernel's ext4 on a
//! loop device of an equal image.
//!
//! `cargo bench -p nvio-tests --bench names` prints the ratios of one run of each. Both make all durable at the
//! end of each part, and both are left with an image that e2fsck checks. It needs root.

#![allow(missing_docs)]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use nvio_ext4::{JournaledFilesystem, NewFile, Options};
use nvio_testkit::image::{Mount, mkfs, text, tool, work_folder};
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;

const NAMES: u32 = 1_000_000;
const IMAGE: u64 = 640 << 20;
const OPTIONS: [&str; 6] = ["-b", "4096", "-J", "size=64", "-N", "1050000"];

/// Parts of a run, in order.
const PARTS: [&str; 3] = ["created", "looked up", "half removed"];
type Seconds = [f64; PARTS.len()];

fn main() -> Result<()> {
    let folder = work_folder("nvio-names");
    let image = folder.path().join("disk.img");
    let of = |run: fn(&Path) -> Result<Seconds>| {
        mkfs(&image, IMAGE, &OPTIONS);
        let seconds = run(&image)?;
        tool("e2fsck", &["-f", "-n", text(&image)]);
        Ok::<_, Box<dyn std::error::Error>>(seconds)
    };
    let (ours, theirs) = (of(nvio)?, of(kernel)?);
    println!();
    for (part, (ours, theirs)) in PARTS.into_iter().zip(ours.into_iter().zip(theirs)) {
        println!("{NAMES} names {part}: nvio {ours:.2} s, the kernel {theirs:.2} s");
        let name = format!("names {part}, times as fast as the kernel");
        Goal::least(name, theirs / ours, 1.0).print();
    }
    Ok(())
}

fn name(at: u32) -> String {
    format!("file-{at:07}")
}

/// Returns the seconds since the last call.
fn lap(start: &mut Instant) -> f64 {
    let seconds = start.elapsed().as_secs_f64();
    *start = Instant::now();
    seconds
}

fn nvio(image: &Path) -> Result<Seconds> {
    let device = File::options().read(true).write(true).open(image)?;
    let fs = JournaledFilesystem::open(device, Options::default())?;
    let root = fs.root()?.number();
    let top = fs.create_dir(root, "d", NewFile::with_permissions(0o755))?.number();
    let mut start = Instant::now();
    for at in 0..NAMES {
        fs.create_file(top, name(at), NewFile::with_permissions(0o644))?;
    }
    fs.sync()?;
    let created = lap(&mut start);
    let directory = fs.inode(top)?;
    for at in 0..NAMES {
        let found = fs.lookup_in(&directory, name(at))?.ok_or("a name was lost")?;
        fs.inode(found.number())?;
    }
    let found = lap(&mut start);
    for at in (0..NAMES).step_by(2) {
        fs.remove_file(top, name(at))?;
    }
    fs.sync()?;
    let removed = lap(&mut start);
    fs.close()?;
    Ok([created, found, removed])
}

fn kernel(image: &Path) -> Result<Seconds> {
    let mount = Mount::new(image, &image.with_extension("mnt"), "loop,noatime");
    let top = mount.path().join("d");
    std::fs::create_dir(&top)?;
    let sync = || rustix::fs::syncfs(File::open(&top)?).map_err(std::io::Error::from);
    let mut start = Instant::now();
    for at in 0..NAMES {
        File::create(top.join(name(at)))?;
    }
    sync()?;
    let created = lap(&mut start);
    for at in 0..NAMES {
        std::fs::symlink_metadata(top.join(name(at)))?;
    }
    let found = lap(&mut start);
    for at in (0..NAMES).step_by(2) {
        std::fs::remove_file(top.join(name(at)))?;
    }
    sync()?;
    let removed = lap(&mut start);
    mount.unmount()?;
    Ok([created, found, removed])
}
