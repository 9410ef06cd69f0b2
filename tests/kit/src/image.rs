//! Images of filesystems, created by mke2fs and mounted by the kernel through a loop device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Folders of the tools of e2fsprogs, which are not in every user's PATH.
const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the command that starts `program` of a system's folders. The path is absolute: with a
/// name and a `PATH` of its own, each start would copy the page tables of the whole test process.
pub fn command(program: &str) -> Command {
    let mut paths = SEARCHED.split(':').map(|folder| Path::new(folder).join(program));
    let path = paths.find(|path| path.exists());
    let mut command = Command::new(path.unwrap_or_else(|| program.into()));
    command.env("PATH", SEARCHED).env("MKE2FS_SKIP_CHECK_MSG", "1");
    command
}

/// Runs `program`, and fails the test with its output if it fails.
pub fn tool(program: &str, args: &[&str]) -> String {
    let output =
        command(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Creates a folder for images, in memory if possible, because creating an image syncs often.
pub fn work_folder(prefix: &str) -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    let in_memory = builder.tempdir_in("/dev/shm");
    in_memory.or_else(|_| builder.tempdir()).expect("a temporary folder")
}

/// Returns the text of a path that a test has chosen.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// Creates an ext4 image of `size` bytes with mke2fs and its `options`.
pub fn mkfs(image: &Path, size: u64, options: &[&str]) {
    File::create(image).and_then(|file| file.set_len(size)).expect("an image file");
    let mut args = vec!["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    args.extend_from_slice(options);
    args.push(text(image));
    tool("mke2fs", &args);
}

/// An ext4 image for the examples in the documentation. It has the files `/etc/hostname`
/// ("worker-7\n"), `/hello.txt` ("Hello, world"), `/list.txt` ("one\ntwo\nthree\n") and `/table.db`
/// (100,000 bytes, each 7), and the symbolic link `/link` to `hello.txt`.
pub struct Sample(TempDir);

impl Sample {
    /// Creates the image, of 8 MiB.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Creates the image with options of mke2fs.
    pub fn with(options: &[&str]) -> Self {
        let folder = work_folder("nvio-sample");
        let tree = folder.path().join("tree");
        let files: [(&str, &[u8]); 4] = [
            ("etc/hostname", b"worker-7\n"),
            ("hello.txt", b"Hello, world"),
            ("list.txt", b"one\ntwo\nthree\n"),
            ("table.db", &[7; 100_000]),
        ];
        std::fs::create_dir_all(tree.join("etc")).expect("a folder");
        for (name, contents) in files {
            std::fs::write(tree.join(name), contents).expect("a file");
        }
        std::os::unix::fs::symlink("hello.txt", tree.join("link")).expect("a symbolic link");
        let sample = Self(folder);
        mkfs_of_folder(&sample.path(), 8 << 20, &tree, options);
        sample
    }

    /// Returns the path of the image.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("disk.img")
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs commands in debugfs, and fails the test if it reports an error.
pub fn debugfs(image: &Path, lines: &[&str]) {
    let script = image.with_extension("debugfs");
    std::fs::write(&script, lines.join("\n")).expect("a script");
    let output = run_debugfs(image, &["-w", "-f", text(&script)]);
    let errors = String::from_utf8_lossy(&output.stderr);
    // The first line is its version.
    let complaints: Vec<&str> =
        errors.lines().filter(|line| !line.starts_with("debugfs 1.")).collect();
    assert!(complaints.is_empty(), "debugfs: {complaints:?}");
}

/// Returns the output of debugfs with `args` for the image.
pub fn debugfs_bytes(image: &Path, args: &[&str]) -> Vec<u8> {
    run_debugfs(image, args).stdout
}

fn run_debugfs(image: &Path, args: &[&str]) -> Output {
    let output = command("debugfs")
        .args(args)
        .arg(image)
        .env("DEBUGFS_PAGER", "__none__")
        .output()
        .unwrap_or_else(|error| panic!("debugfs: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "debugfs {args:?}: {errors}");
    output
}

/// Creates an ext4 image of `size` bytes with a copy of `folder`. Root is not needed.
pub fn mkfs_of_folder(image: &Path, size: u64, folder: &Path, options: &[&str]) {
    mkfs(image, size, &[options, &["-d", text(folder)]].concat());
}

/// Changes the superblock of the image: `change` edits its 1024 bytes, and the checksum is updated
/// (s_checksum, crc32c of the first 1020 bytes).
pub fn edit_superblock(image: &Path, change: impl FnOnce(&mut [u8; 1024])) {
    let file = File::options().read(true).write(true).open(image).expect("an image file");
    let mut block = [0; 1024];
    file.read_exact_at(&mut block, 1024).expect("a superblock");
    change(&mut block);
    let checksum = crc32c(&block[..1020]);
    block[1020..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&block, 1024).expect("a superblock");
}

/// Returns the CRC-32C as in ext4: the initial value is all ones, and the result is not inverted.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_of(u32::MAX, bytes)
}

/// Returns the CRC-32C that continues from `seed`.
pub fn crc32c_of(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

/// Returns the block size of the filesystem in the image, bytes.
pub fn block_size(image: &Path) -> io::Result<u64> {
    let mut log = [0; 4];
    File::open(image)?.read_exact_at(&mut log, 1024 + 0x18)?;
    Ok(1024 << u32::from_le_bytes(log))
}

/// Returns true if the journal must be replayed (`needs_recovery`).
pub fn needs_recovery(image: &Path) -> io::Result<bool> {
    let mut features = [0; 4];
    File::open(image)?.read_exact_at(&mut features, 1024 + 0x60)?;
    Ok(u32::from_le_bytes(features) & 0x4 != 0)
}

/// A loop device, which is detached on drop.
#[derive(Debug)]
pub struct Loop {
    device: String,
}

impl Loop {
    /// Attaches `image` to a loop device.
    pub fn new(image: &Path) -> Self {
        let device = tool("losetup", &["-f", "--show", text(image)]);
        Self { device: device.trim().to_owned() }
    }

    /// Returns the path of the device.
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A filesystem mounted through a loop device. It is unmounted and detached on drop, even if the
/// test fails.
#[derive(Debug)]
pub struct Mount {
    directory: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Mounts `image` at `directory` with `options` of mount(8).
    pub fn new(image: &Path, directory: &Path, options: &str) -> Self {
        std::fs::create_dir_all(directory).expect("a mount point");
        let options = format!("loop,{options}");
        tool("mount", &["-t", "ext4", "-o", &options, text(image), text(directory)]);
        Self { directory: directory.to_owned(), mounted: true }
    }

    /// Reads the whole device into the kernel's cache, so that single blocks need not be read
    /// later.
    pub fn read_ahead(&self) -> io::Result<()> {
        let device = tool("findmnt", &["-n", "-o", "SOURCE", text(&self.directory)]);
        io::copy(&mut File::open(device.trim())?, &mut io::sink()).map(|_| ())
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Unmounts, which writes everything back and empties the journal.
    pub fn unmount(mut self) -> io::Result<()> {
        self.release()
    }

    fn release(&mut self) -> io::Result<()> {
        if self.mounted {
            unmount(&self.directory)?;
            self.mounted = false;
        }
        Ok(())
    }
}

/// Unmounts a directory. Retries, because a process that another thread starts has the open files
/// of this one until it executes its program.
pub fn unmount(directory: &Path) -> io::Result<()> {
    for _ in 0..100 {
        let mut umount = Command::new("umount");
        if umount.arg(directory).stderr(Stdio::null()).status()?.success() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other(format!("{} stays mounted", directory.display())))
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            eprintln!("{error}");
            // A lazy unmount detaches the filesystem from the tree, so that no later test finds it.
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_usual_nine_digits() {
        // The check value of CRC-32C, which includes the final inversion.
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
