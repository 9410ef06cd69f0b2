//! Recursive copies on a modelled drive, onto targets that only count: the schedule of `nvio cp -r`,
//! and the time that it waits for the device.

// The schedule of `nvio cp -r`, from its source, because a command cannot be linked.
#[path = "../../../../tools/src/copy/reads.rs"]
mod reads;

use std::fs;
use std::path::Path;

use nvio_ext4::{FileQueue, Filesystem, Inode, WalkEvent};
use nvio_testkit::image::mkfs_of_folder;
use nvio_testkit::random::pattern;
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{SIZE, Scattered, mark};

use crate::drive::{BANDWIDTH, Drive, LATENCY, Spent};
use reads::{Failure, Reads, Target};

/// Directories of the tree of small files, and files in each.
const FOLDERS: u64 = 40;
const FILES_EACH: u64 = 100;
/// Device rounds for a small file, at most.
const ROUNDS: f64 = 0.05;
/// Commands for a small file, at most: one for its data, and its share of those for metadata.
const COMMANDS: f64 = 1.15;
/// Bandwidth of the copy of a fragmented file to that of reads of the namespace, at least.
const SHARE: f64 = 0.9;

/// Copies of many small files, and of a large fragmented one.
pub(crate) fn measure(folder: &Path, scattered: &Scattered) -> Result<Vec<Goal>> {
    let mut goals = small(folder)?;
    goals.push(large(scattered)?);
    Ok(goals)
}

fn small(folder: &Path) -> Result<Vec<Goal>> {
    let (tree, image) = (folder.join("tree"), folder.join("small.img"));
    let (files, mut bytes) = (FOLDERS * FILES_EACH, 0);
    for file in 0..files {
        let directory = tree.join(format!("directory-{:02}", file / FILES_EACH));
        fs::create_dir_all(&directory)?;
        let contents = pattern(file, 100 + file as usize * 37 % 8000);
        fs::write(directory.join(format!("file-{file:04}")), &contents)?;
        bytes += contents.len() as u64;
    }
    mkfs_of_folder(&image, 64 << 20, &tree, &["-b", "4096"]);
    fs::remove_dir_all(tree)?;
    let spent = spent(&Drive::new(&image)?, false, Copied { files, bytes })?;
    let rounds = spent.time.div_duration_f64(LATENCY);
    println!("{files} small files: {} commands, {rounds:.1} device rounds", spent.commands);
    let each = |number: f64| number / files as f64;
    Ok(vec![
        Goal::most("copy: device rounds for a small file", each(rounds), ROUNDS),
        Goal::most("copy: commands for a small file", each(spent.commands as f64), COMMANDS),
    ])
}

fn large(scattered: &Scattered) -> Result<Goal> {
    let drive = Drive::new(&scattered.image)?;
    let raw = drive.measure(|| drive.raw(SIZE))?;
    // The other file of the image has unwritten extents only.
    let copied = spent(&drive, true, Copied { files: 2, bytes: SIZE })?;
    for (name, spent) in [("raw", raw), ("copy", copied)] {
        let bandwidth = SIZE as f64 / spent.time.as_secs_f64();
        let (commands, share) = (spent.commands, bandwidth / BANDWIDTH as f64);
        println!("1 GiB, {name}: {commands} commands, {share:.3} of the drive's bandwidth");
    }
    let share = raw.time.div_duration_f64(copied.time);
    Ok(Goal::least("copy: bandwidth for 1 GiB of 10,000 extents, to raw", share, SHARE))
}

/// Returns what a copy of the whole filesystem uses of the drive.
fn spent(drive: &Drive, is_marked: bool, expected: Copied) -> Result<Spent> {
    let filesystem = drive.filesystem()?;
    let mut copied = Copied::default();
    let spent = drive.measure(|| {
        copied = copy(&filesystem, drive.queue()?, is_marked)?;
        Ok(())
    })?;
    match copied == expected {
        true => Ok(spent),
        false => Err(format!("{copied:?} of {expected:?}").into()),
    }
}

/// Copies a filesystem as `nvio cp -r` does: the files in the order of the walk, and the attributes
/// of a file after its contents.
fn copy(filesystem: &Filesystem, queue: FileQueue, is_marked: bool) -> Result<Copied> {
    let mut copied = Copied::default();
    let mut reads = Reads::new(Box::new(queue), filesystem.superblock().block_size().into());
    let mut walk = filesystem.walk(b"/", &filesystem.lookup("/")?);
    while let Some(visit) = walk.step() {
        let visit = visit?;
        if visit.event == WalkEvent::Entry && visit.inode.is_file() {
            let inode = visit.inode.clone();
            let target = Counted { inode, bytes: 0, is_marked, failed: None };
            reads.start(filesystem.file(visit.inode)?, target);
        }
        copied.add(filesystem, reads.take_ended())?;
    }
    reads.drain()?;
    copied.add(filesystem, reads.take_ended())?;
    println!("  {} reads of data, {} waits for a full queue", reads.count, reads.waits);
    Ok(copied)
}

/// Files and bytes of a copy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Copied {
    files: u64,
    bytes: u64,
}

impl Copied {
    fn add(&mut self, filesystem: &Filesystem, ended: Vec<Counted>) -> Result<()> {
        for Counted { inode, bytes, failed, .. } in ended {
            if let Some(why) = failed {
                return Err(format!("inode {}: {why}", inode.number()).into());
            }
            filesystem.xattrs(&inode)?.try_for_each(|xattr| xattr.map(drop))?;
            self.files += 1;
            self.bytes += bytes;
        }
        Ok(())
    }
}

/// A target that counts bytes. It checks them if the file was filled by [`mark`].
struct Counted {
    inode: Inode,
    bytes: u64,
    is_marked: bool,
    failed: Option<String>,
}

impl Target for Counted {
    fn write(&mut self, data: &[u8], pos: u64) {
        self.bytes += data.len() as u64;
        let mut expected = vec![0; data.len()];
        mark(&mut expected, pos);
        if self.is_marked && expected != data {
            self.failed = Some(format!("wrong data at {pos}"));
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failed.get_or_insert_with(|| match failure {
            Failure::File(error) => error.to_string(),
            Failure::Queue(error) => error.to_string(),
            Failure::Lost => "a read was lost".to_owned(),
        });
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}
