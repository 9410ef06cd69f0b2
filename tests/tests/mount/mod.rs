//! `nvio mount`, judged by programs that nobody here wrote, and by the kernel's ext4 on an equal image.
//!
//! Needs root, FUSE and loop devices: `tests/run mount`.

mod damaged;
mod database;
mod ends;
mod judges;
mod programs;
mod protection;
mod reading;
mod stress;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nvio_testkit::image;
use nvio_tests::nvio;

const MIB: u64 = 1 << 20;

/// A mount by nvio, which is unmounted on drop.
struct Mounted {
    path: PathBuf,
    child: Child,
    /// Keeps the pipe open, so that the verb can print.
    _output: BufReader<std::process::ChildStdout>,
}

impl Mounted {
    fn new(image: &Path, path: &Path, options: &[&str]) -> Self {
        Self::try_new(image, path, options).unwrap()
    }

    /// Mounts an image, or returns the line that the verb failed with.
    fn try_new(image: &Path, path: &Path, options: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(path).unwrap();
        let mut command = Command::new(nvio::binary());
        command.arg("mount").args([image, path]).args(options).env_remove("RUST_LOG");
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nvio starts");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if line.contains(" is mounted on ") {
            return Ok(Self { path: path.to_owned(), child, _output: output });
        }
        let failed = child.wait_with_output().unwrap();
        Err(String::from_utf8_lossy(&failed.stderr).into_owned())
    }

    /// Unmounts it, and waits for the end of the verb, which must be a success without a word.
    fn unmount(mut self) {
        run("nvio umount", Command::new(nvio::binary()).arg("umount").arg(&self.path));
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = self.child.wait().unwrap().code();
        assert_eq!((code, &said[..]), (Some(0), ""));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program, and returns its standard output.
fn run(what: &str, command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    output.stdout
}

/// Runs a program with arguments in a directory.
fn run_in(directory: &Path, program: &str, args: &[&str]) -> Vec<u8> {
    run(program, Command::new(program).args(args).current_dir(directory))
}

/// Creates an image of `mib` MiB.
fn mkfs(image: &Path, mib: u64, options: &[&str]) {
    let _ = fs::remove_file(image);
    image::mkfs(image, mib * MIB, options);
}

fn check(image: &Path) {
    run("e2fsck", Command::new("e2fsck").args(["-f", "-n"]).arg(image));
}

/// Returns a listing of a tree: names, types, modes, owners, links, sizes, times, targets; and the sums of
/// contents and the attributes.
fn listing(top: &Path) -> String {
    let format = "%P %y %m %U %G %n %s %T@ %l\\n";
    let mut listing = run_in(top, "find", &[".", "-not", "-type", "d", "-printf", format]);
    // The size of a directory depends on what was in it before.
    let format = "%P %y %m %U %G %n %T@\\n";
    listing.extend(run_in(top, "find", &[".", "-type", "d", "-printf", format]));
    let sums = "find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
    listing.extend(run_in(top, "sh", &["-c", sums]));
    let attributes = "find . -print0 | sort -z | xargs -0 -r getfattr -h -d -m -";
    listing.extend(run_in(top, "sh", &["-c", attributes]));
    let mut lines: Vec<String> =
        String::from_utf8_lossy(&listing).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Panics with the first lines that differ.
fn assert_same(what: &str, ours: &str, theirs: &str) {
    let missing = theirs.lines().find(|line| !ours.lines().any(|other| other == *line));
    let more = ours.lines().find(|line| !theirs.lines().any(|other| other == *line));
    assert!(ours == theirs, "{what}: without {missing:?}, with {more:?}");
}

/// Returns the listing of an image that the kernel mounts.
fn by_kernel(image: &Path, directory: &Path) -> String {
    let mount = image::Mount::new(image, directory, "loop,ro,noatime");
    let listing = listing(mount.path());
    mount.unmount().unwrap();
    listing
}

/// Waits until a condition holds. The limit ends a test that hangs; no result depends on it.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} does not come");
}
