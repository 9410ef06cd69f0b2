//! Images made by mke2fs, and the command run on them as a user would.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod mount;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a run of `nvio` came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a run that went well and said nothing else.
    pub fn ok(self) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self.stdout
    }

    pub fn text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    pub fn json(self) -> Value {
        serde_json::from_slice(&self.ok()).unwrap()
    }

    /// A refusal: exit code 1, nothing on standard output, one line that has all of `parts`.
    pub fn refused(self, parts: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (1, &b""[..]), "{}", self.stderr);
        assert!(
            self.stderr.starts_with("nvio: ") && self.stderr.ends_with('\n'),
            "{}",
            self.stderr
        );
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
    }
}

pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvio"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub fn nvio<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    let output = command(args).output().unwrap();
    Outcome {
        code: output.status.code().expect("an exit code, not a signal"),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a program of e2fsprogs or util-linux, which must succeed.
pub fn must(program: &str, args: &[&OsStr]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (e2fsprogs, fdisk): {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder, and an image made of it.
pub struct Disk {
    pub dir: TempDir,
}

impl Disk {
    pub fn new(fill: impl FnOnce(&Path), mke2fs: &[&str]) -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(disk.folder()).unwrap();
        fill(&disk.folder());
        fs::File::create(disk.image()).unwrap().set_len(48 << 20).unwrap();
        let (folder, image) = (disk.folder(), disk.image());
        let mut args: Vec<&OsStr> = ["-q", "-F", "-t", "ext4"].map(OsStr::new).to_vec();
        args.extend(mke2fs.iter().map(OsStr::new));
        args.extend([OsStr::new("-d"), folder.as_ref(), image.as_ref()]);
        must("mke2fs", &args);
        disk
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    pub fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `nvio VERB IMAGE REST...`
    pub fn run(&self, verb: &str, rest: &[&str]) -> Outcome {
        let image = self.image();
        let first = [OsStr::new(verb), image.as_ref()];
        nvio(first.into_iter().chain(rest.iter().map(OsStr::new)))
    }

    /// Changes the image by debugfs.
    pub fn debugfs(&self, request: &str) -> String {
        let image = self.image();
        must("debugfs", &["-w".as_ref(), "-R".as_ref(), request.as_ref(), image.as_ref()])
    }
}

/// Returns bytes that `seed` decides.
pub fn pattern(length: usize, seed: u32) -> Vec<u8> {
    nvio_testkit::random::pattern(seed.into(), length)
}
