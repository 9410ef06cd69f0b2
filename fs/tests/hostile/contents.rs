//! The contents of the images, as commands for debugfs.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use nvio_ext4::Filesystem;

use super::base::tool;
use nvio_testkit::random::Rng;

use super::bytes::{get_be, put, put_be};
use super::journal;
use super::layout::Layout;
use super::seal::{Seal, TAIL};

/// A script for debugfs.
pub struct Script {
    folder: PathBuf,
    lines: String,
    seed: u64,
}

impl Script {
    pub fn new(folder: &Path) -> Self {
        let lines = "set_current_time 20250102030405\n".to_owned();
        Self { folder: folder.to_owned(), lines, seed: 1 }
    }

    pub fn line(&mut self, line: &str) {
        writeln!(self.lines, "{line}").unwrap();
    }

    /// Writes a file with these bytes outside the image, and returns its path.
    pub fn file(&mut self, bytes: &[u8]) -> PathBuf {
        self.seed += 1;
        let path =
            self.folder.join(format!("data-{}", fs::read_dir(&self.folder).unwrap().count()));
        fs::write(&path, bytes).unwrap();
        path
    }

    fn write(&mut self, name: &str, bytes: &[u8]) {
        let file = self.file(bytes);
        self.line(&format!("write {} {name}", file.display()));
    }

    fn random(&mut self, length: usize) -> Vec<u8> {
        self.seed += 1;
        let mut random = Rng::new(self.seed);
        (0..length).map(|_| random.next_u64() as u8 | 1).collect()
    }

    /// Writes a file in which every second block is a hole.
    fn sparse(&mut self, name: &str, blocks: usize) {
        let mut bytes = vec![0; blocks * 2048];
        for at in 0..blocks {
            let block = self.random(1024);
            bytes[at * 2048..][..1024].copy_from_slice(&block);
        }
        self.write(name, &bytes);
    }

    pub fn run(&self, image: &Path) {
        let script = self.folder.join("script");
        fs::write(&script, &self.lines).unwrap();
        let output = tool("debugfs").args(["-w", "-f"]).arg(&script).arg(image).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let complaints = told.lines().filter(|line| !line.starts_with("debugfs 1."));
        let complaints: Vec<&str> = complaints.take(5).collect();
        assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");
    }
}

/// Files, directories, links and devices of all kinds.
pub fn all(script: &mut Script) {
    for (name, count) in [("names", 14), ("few", 2)] {
        script.line("cd /");
        script.line(&format!("mkdir {name}"));
        script.line(&format!("cd {name}"));
        for index in 0..count {
            let bytes = script.random(index * 37);
            script.write(&format!("{index}-{}", "n".repeat(10 + index * 17)), &bytes);
        }
    }
    script.line("cd /");
    script.line("mkdir names/below");
    script.line("mkdir names/below/again");
    let large = script.random(40_000);
    script.write("large", &large);
    script.sparse("sparse", 40);
    script.sparse("deep", 400);
    script.write("prealloc", &large[..3000]);
    script.line("fallocate /prealloc 10 20");
    script.line("symlink short names/below");
    script.line(&format!("symlink long {}", "x".repeat(200)));
    script.line("cd /few");
    script.line("mknod fifo p");
    script.line("mknod char c 4 77");
    script.line("mknod block b 300 60000");
    script.line("ln /large second");
    script.line("sif /large links_count 2");
    script.line("sif /large uid 70000");
    script.line("sif /large mtime_extra 0x1d6f3457");
    attributes(script);
}

fn attributes(script: &mut Script) {
    script.line("ea_set /large user.small value");
    script.line("ea_set /names user.of-a-directory value");
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1, 6, !0), (2, 4, 70_000), (4, 4, !0u32), (16, 4, !0), (32, 0, !0)]
    {
        list.extend([tag, 0, permissions, 0]);
        list.extend(id.to_le_bytes());
    }
    let list = script.file(&list);
    script.line(&format!("ea_set -f {} /large system.posix_acl_access", list.display()));
    script.line(&format!("ea_set -f {} /names system.posix_acl_default", list.display()));
    let value = script.random(300);
    let file = script.file(&value);
    for index in 0..2 {
        script.line(&format!("ea_set -f {} /sparse user.larger-{index}", file.display()));
    }
}

pub fn all_and_large_attributes(script: &mut Script) {
    all(script);
    let value = script.random(3000);
    let file = script.file(&value);
    script.line(&format!("ea_set -f {} /large user.in-an-inode", file.display()));
}

/// Adds an orphan to the list and one to the orphan file. Both are to be truncated.
pub fn orphans(image: &mut Vec<u8>) {
    let layout = Layout::new(image.as_slice().into());
    let fs = Filesystem::open(image.clone()).unwrap();
    let [listed, filed] =
        [&b"large"[..], b"prealloc"].map(|path| fs.lookup(path).unwrap().number().get());
    let file = layout.places.iter().find(|place| place.kind == "orphan block").unwrap();
    let mut set = |start: usize, length: usize, seal: Seal, values: &[(usize, usize, u64)]| {
        let bytes = &mut image[start..start + length];
        for &(at, width, value) in values {
            put(bytes, at, width, value);
        }
        seal.apply(&layout, bytes);
    };
    let ro_compat = layout.superblock(0x64, 4) | 0x1_0000;
    let values = [(0xe8, 4, listed.into()), (0x64, 4, ro_compat)];
    set(1024, 1024, Seal::Superblock, &values);
    set(file.start, file.length, file.seal, &[(0, 4, filed.into())]);
    // The deletion time is the next inode in the list.
    let values = [(0x4, 4, 20_000), (0x14, 4, 0)];
    set(layout.inode(listed), 256, Seal::Inode(listed), &values);
}

pub fn any_case(script: &mut Script) {
    all(script);
    script.line("cd /");
    // Only an empty directory can be changed to ignore case.
    script.line("mkdir folded");
    script.line("sif folded flags 0x40080000");
    script.line("cd folded");
    for name in ["Name", "STRASSE", "other"] {
        script.write(name, name.as_bytes());
    }
}

pub fn many_names(script: &mut Script) {
    script.line("mkdir many");
    script.line("cd many");
    script.write("first", b"first");
    // A block of 1 KiB holds three of these entries, and the root of a hash tree refers to 123
    // blocks.
    for index in 0..560 {
        if index % 3 == 0 {
            script.line("expand_dir .");
        }
        script.line(&format!("ln first {index}-{}", "m".repeat(230 + index % 20)));
    }
    script.line("sif first links_count 561");
    script.line("cd /");
    script.line("mkdir few");
    script.line("cd few");
    script.write("one", b"one");
}

pub fn first_change(script: &mut Script) {
    script.line("mkdir names/new");
    script.line("cd /names/new");
    let bytes = script.random(5000);
    script.write("file", &bytes);
    script.line("rm /names/0-nnnnnnnnnn");
}

pub fn second_change(script: &mut Script) {
    script.line("cd /names/new");
    script.write("second", b"second");
    script.line("sif /names/new/file size 4000");
    script.line("symlink link file");
}

/// Writes fast commits after the log that change an inode, names and blocks. `last` is the image
/// after the whole log.
pub fn fast_commits(image: &mut [u8], last: &[u8]) {
    const BLOCKS: u64 = 64;
    let layout = Layout::new((&*image).into());
    let after = Layout::new(last.into());
    let fs = Filesystem::open(last.to_vec()).unwrap();
    let number = |path: &[u8]| fs.lookup(path).unwrap().number().get();
    let superblock = layout.places.iter().find(|place| place.kind == "journal superblock").unwrap();
    let bytes = &mut image[superblock.start..][..superblock.length];
    let (length, incompat) = (get_be(bytes, 16, 4), get_be(bytes, 40, 4));
    // The log contains two transactions.
    let tid = get_be(bytes, 24, 4) as u32 + 2;
    put_be(bytes, 40, 4, incompat | 0x20);
    put_be(bytes, 84, 4, BLOCKS);
    superblock.seal.apply(&layout, bytes);

    let tag = |kind: u16, value: &[&[u8]]| {
        let value = value.concat();
        [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), &value].concat()
    };
    let [large, few, prealloc] = [&b"large"[..], b"few", b"prealloc"].map(number);
    let at = after.inode(large);
    let mut inode = last[at..at + 160].to_vec();
    put(&mut inode, 0, 2, 0o100_600);
    put(&mut inode, 4, 4, 30_000);
    let [large, few, prealloc] = [large, few, prealloc].map(u32::to_le_bytes);
    // 2 blocks from logical block 40.
    let extent = [40, 0, 0, 0, 2, 0, 0, 0, 0x90, 0xf, 0, 0];
    let mut block = [
        tag(9, &[&[0; 4], &tid.to_le_bytes()]),
        tag(6, &[&large, &inode]),
        tag(1, &[&prealloc, &extent]),
        tag(2, &[&prealloc, &15u32.to_le_bytes(), &3u32.to_le_bytes()]),
        tag(4, &[&few, &large, b"third"]),
        tag(5, &[&few, &large, b"second"]),
    ]
    .concat();
    let left = 1024 - block.len() - 4;
    block.extend(tag(TAIL as u16, &[&tid.to_le_bytes(), &vec![0; left - 4]]));
    Seal::FastCommit.apply(&layout, &mut block);
    let at = journal::block(&layout, length - BLOCKS + 1) as usize * 1024;
    image[at..at + 1024].copy_from_slice(&block);
}
