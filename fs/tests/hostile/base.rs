//! The images that are damaged: small, and with every kind of structure. e2fsprogs make them, the
//! same every time.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nvio_ext4::Filesystem;
use tempfile::TempDir;

use super::bytes::{Random, put};
use super::layout::Layout;
use super::seal::Seal;
use super::source::Changed;
use super::view::{Part, View, explore};

/// How an image is made.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    /// Options of mke2fs.
    options: &'static str,
    /// Writes what debugfs is to do.
    contents: fn(&mut Script),
    /// Changes that are in the journal, for mounts to see to.
    journal: &'static [fn(&mut Script)],
    /// Options of debugfs' `journal_open`.
    journal_options: &'static str,
    /// Options of tune2fs, at the end.
    tune: &'static str,
    /// What e2fsprogs cannot do.
    finish: fn(&mut Vec<u8>),
}

const PLAIN: Recipe = Recipe {
    name: "",
    options: "",
    contents: all,
    journal: &[],
    journal_options: "",
    tune: "",
    finish: |_| (),
};

pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "ext4",
        options: "-t ext4 -O metadata_csum,64bit,ea_inode,^resize_inode,^has_journal",
        contents: all_and_large_attributes,
        ..PLAIN
    },
    Recipe { name: "none", options: "-t ext4 -O ^metadata_csum,^64bit,uninit_bg", ..PLAIN },
    Recipe { name: "ext3", options: "-t ext3 -I 128", ..PLAIN },
    Recipe {
        name: "small-inodes",
        options: "-t ext4 -I 128 -O metadata_csum,^has_journal",
        ..PLAIN
    },
    Recipe {
        name: "htree",
        options: "-t ext4 -O metadata_csum,^has_journal",
        contents: many_names,
        ..PLAIN
    },
    Recipe {
        name: "features",
        // Tools wait for seconds where they find multi-mount protection.
        tune: "-O mmp",
        options: "-t ext4 -g 2048 -O metadata_csum,meta_bg,^resize_inode,metadata_csum_seed,\
                  encrypt,verity,large_dir,sparse_super2,^has_journal",
        ..PLAIN
    },
    Recipe {
        name: "inline",
        options: "-t ext4 -O metadata_csum,inline_data,^has_journal",
        ..PLAIN
    },
    Recipe {
        name: "orphans",
        options: "-t ext4 -O metadata_csum,orphan_file -J size=1",
        finish: orphans,
        ..PLAIN
    },
    Recipe {
        name: "casefold",
        options: "-t ext4 -O metadata_csum,casefold,^has_journal",
        contents: any_case,
        ..PLAIN
    },
    Recipe {
        name: "journal",
        options: "-t ext4 -O metadata_csum,64bit -J size=1",
        journal: &[first_change, second_change],
        journal_options: "-c -v 3",
        ..PLAIN
    },
    Recipe {
        name: "journal-plain",
        options: "-t ext3 -J size=1",
        journal: &[first_change, second_change],
        ..PLAIN
    },
];

/// An image to be damaged.
pub struct Base {
    pub name: &'static str,
    pub layout: Layout,
    /// What a sound reader may see: all of it, and where there is a log, also what is there when the
    /// log ends early.
    pub views: Vec<View>,
    /// Paths to look up: all that are there, and some that are not.
    pub paths: Vec<Vec<u8>>,
}

/// A folder for images: in memory where that is possible, as the tools wait for what they write.
pub fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl Base {
    /// Makes the image in `folder`, or says why what it needs cannot be read.
    pub fn make(recipe: &Recipe, folder: &Path) -> Part<Self> {
        let states = recipe.states(folder);
        let layout = Layout::new(states[0].clone().into());
        let seen = explore(&Changed::new(&layout.image, Vec::new()), &[])?;
        let mut paths: Vec<Vec<u8>> = seen.names.keys().cloned().collect();
        let absent: Vec<Vec<u8>> =
            paths.iter().step_by(9).map(|path| [path, &b"~"[..]].concat()).collect();
        paths.extend(absent);
        let names: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let views = states
            .into_iter()
            .map(|image| explore(&Changed::new(&Arc::from(image), Vec::new()), &names));
        let mut views = views.collect::<Part<Vec<View>>>()?;
        // It is not in the log, and says in the others that there is none.
        let superblock = views[0].superblock.clone();
        views.iter_mut().for_each(|view| view.superblock.clone_from(&superblock));
        for view in &views {
            assert!(view.broken.is_empty(), "{}: {:?}", recipe.name, view.broken);
            for (path, facts) in &view.names {
                let is_sound = !format!("{facts:?}").contains("Err(");
                assert!(is_sound, "{}: {} {facts:?}", recipe.name, path.escape_ascii());
            }
        }
        Ok(Self { name: recipe.name, layout, views, paths })
    }
}

impl Recipe {
    /// The image as it is to be damaged; and with a journal, what it is like when the log is
    /// replayed up to each of its transactions.
    fn states(&self, folder: &Path) -> Vec<Vec<u8>> {
        let image = folder.join(format!("{}.img", self.name));
        let _ = fs::remove_file(&image);
        let mut arguments: Vec<&str> =
            "-q -F -b 1024 -N 256 -U 6e76696f-0000-4000-8000-000000000001".split(' ').collect();
        arguments.extend(["-E", "hash_seed=6e76696f-0000-4000-8000-000000000002"]);
        arguments.extend(self.options.split_whitespace());
        run("mke2fs", &[&arguments[..], &[&image.to_string_lossy(), "4M"]].concat());
        let mut script = Script::new(folder);
        (self.contents)(&mut script);
        script.run(&image);
        // This makes hash trees of directories; 1 is that something was changed.
        let fixed = tool("e2fsck").args(["-fyD"]).arg(&image).output().unwrap();
        assert!(fixed.status.code().unwrap() <= 1, "{}", String::from_utf8_lossy(&fixed.stdout));
        if !self.tune.is_empty() {
            let options: Vec<&str> = self.tune.split_whitespace().collect();
            run("tune2fs", &[&options[..], &[&image.to_string_lossy()]].concat());
        }
        let mut states = vec![fs::read(&image).unwrap()];
        (self.finish)(&mut states[0]);
        if self.journal.is_empty() {
            return states;
        }
        let log = self.log(folder, &image, &mut states);
        fs::write(&image, &states[0]).unwrap();
        log.run(&image);
        states.insert(0, fs::read(&image).unwrap());
        states
    }

    /// What writes the changes into the log: a transaction for each.
    fn log(&self, folder: &Path, image: &Path, states: &mut Vec<Vec<u8>>) -> Script {
        let mut log = Script::new(folder);
        log.line(&format!("journal_open {}", self.journal_options));
        for change in self.journal {
            let mut script = Script::new(folder);
            change(&mut script);
            script.run(image);
            let (before, after) = (states.last().unwrap(), fs::read(image).unwrap());
            let changed = before.chunks(1024).zip(after.chunks(1024)).enumerate();
            // The superblock is not in the log: its checksum and its times are of no account.
            let changed = changed.filter(|&(at, (old, new))| at != 1 && old != new);
            let (numbers, blocks): (Vec<String>, Vec<&[u8]>) =
                changed.map(|(at, (_, new))| (at.to_string(), new)).unzip();
            let file = log.file(&blocks.concat());
            log.line(&format!("journal_write -b {} {}", numbers.join(","), file.display()));
            states.push(after);
        }
        log.line("journal_close");
        log
    }
}

/// What debugfs is to do.
pub struct Script {
    folder: PathBuf,
    lines: String,
    seed: u64,
}

impl Script {
    fn new(folder: &Path) -> Self {
        let lines = "set_current_time 20250102030405\n".to_owned();
        Self { folder: folder.to_owned(), lines, seed: 1 }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.lines, "{line}").unwrap();
    }

    /// A file outside with these bytes.
    fn file(&mut self, bytes: &[u8]) -> PathBuf {
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
        let mut random = Random(self.seed);
        (0..length).map(|_| random.next() as u8 | 1).collect()
    }

    /// A file of one block in every two.
    fn sparse(&mut self, name: &str, blocks: usize) {
        let mut bytes = vec![0; blocks * 2048];
        for at in 0..blocks {
            let block = self.random(1024);
            bytes[at * 2048..][..1024].copy_from_slice(&block);
        }
        self.write(name, &bytes);
    }

    fn run(&self, image: &Path) {
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
fn all(script: &mut Script) {
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

fn all_and_large_attributes(script: &mut Script) {
    all(script);
    let value = script.random(3000);
    let file = script.file(&value);
    script.line(&format!("ea_set -f {} /large user.in-an-inode", file.display()));
}

/// One orphan in the list, and one in the file: both are to be truncated.
fn orphans(image: &mut Vec<u8>) {
    let layout = Layout::new(image.as_slice().into());
    let fs = Filesystem::open(image.clone()).unwrap();
    let [listed, filed] =
        [&b"large"[..], b"prealloc"].map(|path| fs.lookup(path).unwrap().number());
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
    // The list goes on at the inode that stands in the time of deletion.
    let values = [(0x4, 4, 20_000), (0x14, 4, 0)];
    set(layout.inode(listed), 256, Seal::Inode(listed), &values);
}

fn any_case(script: &mut Script) {
    all(script);
    script.line("cd /");
    // Only empty directories can begin to ignore case.
    script.line("mkdir folded");
    script.line("sif folded flags 0x40080000");
    script.line("cd folded");
    for name in ["Name", "STRASSE", "other"] {
        script.write(name, name.as_bytes());
    }
}

fn many_names(script: &mut Script) {
    script.line("mkdir many");
    script.line("cd many");
    script.write("first", b"first");
    // A block of 1 KiB has three of these; the root of a hash tree has room for 123 blocks.
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

fn first_change(script: &mut Script) {
    script.line("mkdir names/new");
    script.line("cd /names/new");
    let bytes = script.random(5000);
    script.write("file", &bytes);
    script.line("rm /names/0-nnnnnnnnnn");
}

fn second_change(script: &mut Script) {
    script.line("cd /names/new");
    script.write("second", b"second");
    script.line("sif /names/new/file size 4000");
    script.line("symlink link file");
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("E2FSPROGS_FAKE_TIME", "1735787045")
        .env("MKE2FS_SKIP_CHECK_MSG", "1")
        .env("DEBUGFS_PAGER", "__none__");
    command
}

fn run(name: &str, arguments: &[&str]) {
    let output = tool(name).args(arguments).output().unwrap();
    let told = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&told));
}
