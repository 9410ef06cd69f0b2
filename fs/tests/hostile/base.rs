//! The images to damage: small, reproducible, and with every kind of structure. They are created by
//! e2fsprogs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::contents::{
    Script, all, all_and_large_attributes, any_case, fast_commits, first_change, many_names,
    orphans, second_change,
};
use super::layout::Layout;
use super::source::Changed;
use super::view::{Part, View, explore};

/// Instructions for the creation of an image.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    /// Options of mke2fs.
    options: &'static str,
    size: &'static str,
    /// Writes the commands for debugfs that create the contents.
    contents: fn(&mut Script),
    /// Changes that are written to the journal, one transaction each.
    journal: &'static [fn(&mut Script)],
    /// Options of debugfs' command `journal_open`.
    journal_options: &'static str,
    /// Options of tune2fs, which runs at the end.
    tune: &'static str,
    /// Changes that e2fsprogs cannot make.
    finish: fn(&mut Vec<u8>),
    /// Such changes after the log was written. The second argument is the image after the last
    /// transaction.
    finish_log: fn(&mut [u8], &[u8]),
}

const PLAIN: Recipe = Recipe {
    name: "",
    options: "",
    size: "4M",
    contents: all,
    journal: &[],
    journal_options: "",
    tune: "",
    finish: |_| (),
    finish_log: |_, _| (),
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
        // At the end, because with multi-mount protection each tool waits for seconds.
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
        name: "journal-v2",
        options: "-t ext4 -O metadata_csum,^64bit -J size=1",
        journal: &[first_change, second_change],
        journal_options: "-c -v 2",
        ..PLAIN
    },
    Recipe {
        name: "fast-commit",
        options: "-t ext4 -O metadata_csum,fast_commit -J size=2",
        size: "8M",
        journal: &[first_change],
        journal_options: "-c -v 3",
        finish_log: fast_commits,
        ..PLAIN
    },
    Recipe {
        name: "journal-plain",
        options: "-t ext3 -J size=1",
        journal: &[first_change, second_change],
        ..PLAIN
    },
];

/// An image to damage.
pub struct Base {
    pub name: &'static str,
    pub layout: Layout,
    /// The valid views: the whole image and, if there is a log, also the states in which the log
    /// ends early.
    pub views: Vec<View>,
    /// Paths to look up: all that exist, and some that do not.
    pub paths: Vec<Vec<u8>>,
}

/// Creates a folder for images, in memory if possible, because the tools wait for their writes.
pub fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl Base {
    /// Creates the image in `folder`, or returns the error with which it cannot be read.
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
        // The superblock is not in the log, so the superblocks of the later states differ.
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
    /// Returns the image to damage and, with a journal, the state after the replay of each
    /// transaction.
    fn states(&self, folder: &Path) -> Vec<Vec<u8>> {
        let image = folder.join(format!("{}.img", self.name));
        let _ = fs::remove_file(&image);
        let mut arguments: Vec<&str> =
            "-q -F -b 1024 -N 256 -U 6e76696f-0000-4000-8000-000000000001".split(' ').collect();
        arguments.extend(["-E", "hash_seed=6e76696f-0000-4000-8000-000000000002"]);
        arguments.extend(self.options.split_whitespace());
        run("mke2fs", &[&arguments[..], &[&image.to_string_lossy(), self.size]].concat());
        let mut script = Script::new(folder);
        (self.contents)(&mut script);
        script.run(&image);
        // e2fsck builds the hash trees of directories. Exit code 1 means that it changed the image.
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
        let mut dirty = fs::read(&image).unwrap();
        (self.finish_log)(&mut dirty, states.last().unwrap());
        states.insert(0, dirty);
        states
    }

    /// Returns the script that writes the changes to the log, one transaction each.
    fn log(&self, folder: &Path, image: &Path, states: &mut Vec<Vec<u8>>) -> Script {
        let mut log = Script::new(folder);
        log.line(&format!("journal_open {}", self.journal_options));
        for change in self.journal {
            let mut script = Script::new(folder);
            change(&mut script);
            script.run(image);
            let (before, after) = (states.last().unwrap(), fs::read(image).unwrap());
            let changed = before.chunks(1024).zip(after.chunks(1024)).enumerate();
            // The superblock is not written to the log, because only its checksum and times differ.
            let changed = changed.filter(|&(at, (old, new))| at != 1 && old != new);
            let (numbers, blocks): (Vec<String>, Vec<&[u8]>) =
                changed.map(|(at, (_, new))| (at.to_string(), new)).unzip();
            let file = log.file(&blocks.concat());
            // A data block that is not in the log, so revoking it has no effect.
            log.line("journal_write -r 3000");
            log.line(&format!("journal_write -b {} {}", numbers.join(","), file.display()));
            states.push(after);
        }
        log.line("journal_close");
        log
    }
}

pub fn tool(name: &str) -> Command {
    let mut command = nvio_testkit::image::command(name);
    command.env("E2FSPROGS_FAKE_TIME", "1735787045").env("DEBUGFS_PAGER", "__none__");
    command
}

fn run(name: &str, arguments: &[&str]) {
    let output = tool(name).args(arguments).output().unwrap();
    let told = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&told));
}
