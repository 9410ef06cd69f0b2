//! Shared parts of the integration tests: tools, images, and reading a file through its map.
#![allow(dead_code, clippy::cast_possible_truncation)]

pub mod attributes;
pub mod compare;
pub mod extents;
pub mod view;

pub use nvio_testkit::random::{Rng, pattern};

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nvio_ext4::{BlockSource, FileType, Filesystem, Inode};
use nvio_iomap::{Mapper, MappingKind, Op};

/// Runs a command and returns its standard output. Panics with its output if it fails.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = nvio_testkit::image::command(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Creates an image of `size` (in the notation of truncate), filled with the contents of `source`,
/// if any.
pub fn mke2fs(image: &Path, size: &str, options: &[&str], source: Option<&Path>) {
    let image_name = image.to_str().unwrap();
    let _ = fs::remove_file(image);
    run("truncate", &["-s", size, image_name]);
    let mut arguments = vec!["-q", "-F"];
    arguments.extend(options);
    if let Some(source) = source {
        arguments.extend(["-d", source.to_str().unwrap()]);
    }
    arguments.push(image_name);
    run("mke2fs", &arguments);
}

/// Runs commands in debugfs, and panics if it reports an error.
pub fn debugfs(image: &Path, lines: &[&str]) {
    let script = image.with_extension("debugfs");
    fs::write(&script, lines.join("\n")).unwrap();
    let output = nvio_testkit::image::command("debugfs")
        .args(["-w", "-f", script.to_str().unwrap(), image.to_str().unwrap()])
        .env("DEBUGFS_PAGER", "__none__")
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| !line.starts_with("debugfs 1.")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");
}

/// Returns the checksum of an image, to see whether it was changed.
pub fn sum(image: &Path) -> Vec<u8> {
    run("cksum", &[image.to_str().unwrap()])
}

/// Panics unless e2fsck finds no errors.
pub fn assert_clean(image: &Path) {
    run("e2fsck", &["-f", "-n", image.to_str().unwrap()]);
}

pub fn open(image: &Path) -> Filesystem {
    Filesystem::open(File::open(image).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// Reads a file's contents from the device through its map.
pub fn read_file(fs: &Filesystem, image: &impl BlockSource, inode: &Inode) -> Vec<u8> {
    let mut file = fs.file(inode).unwrap();
    let size = file.size();
    let mut contents = vec![0xa5; usize::try_from(size).unwrap()];
    let mut pos = 0;
    while pos < size {
        let mapping = file.begin(pos, size - pos, Op::empty()).unwrap();
        assert!(mapping.offset <= pos && mapping.end() > pos, "{mapping:?} at {pos}");
        let end = mapping.end().min(size);
        let part = &mut contents[pos as usize..end as usize];
        match mapping.kind {
            MappingKind::Mapped => {
                image.read(mapping.device_address(pos).unwrap(), part).unwrap();
            }
            MappingKind::Hole | MappingKind::Unwritten => part.fill(0),
            MappingKind::Inline => file.read_inline(&mapping, pos, part).unwrap(),
            other => panic!("{other:?}"),
        }
        file.end(&mapping, pos, size - pos, end - pos, Op::empty()).unwrap();
        // The mapping is now cached.
        assert_eq!(file.begin(pos, 1, Op::NOWAIT).unwrap(), mapping);
        pos = end;
    }
    contents
}

pub fn is_root() -> bool {
    run("id", &["-u"]) == b"0\n"
}

/// A loop mount, which is unmounted on drop.
pub struct Mount {
    pub path: PathBuf,
}

impl Mount {
    /// Mounts the image, or returns the reason why it cannot be mounted.
    pub fn new(image: &Path, path: &Path, options: &str) -> Result<Self, String> {
        fs::create_dir_all(path).unwrap();
        let output = Command::new("mount")
            .args(["-o", options, image.to_str().unwrap(), path.to_str().unwrap()])
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = nvio_testkit::image::unmount(&self.path) {
            eprintln!("{error}");
        }
    }
}

/// Returns every path below `directory` in order; the directory itself is the empty path.
pub fn walk(directory: &Path) -> Vec<PathBuf> {
    fn below(top: &Path, path: &Path, all: &mut Vec<PathBuf>) {
        all.push(path.strip_prefix(top).unwrap().to_owned());
        if path.symlink_metadata().unwrap().is_dir() {
            let mut names: Vec<PathBuf> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            for name in names {
                below(top, &name, all);
            }
        }
    }
    let mut all = Vec::new();
    below(directory, directory, &mut all);
    all
}

pub fn kind_of(metadata: &fs::Metadata) -> FileType {
    use std::os::unix::fs::MetadataExt;
    FileType::from_mode(metadata.mode() as u16).unwrap()
}
