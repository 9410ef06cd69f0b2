//! Runs `nvio` on a served image.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::nvio::binary;
use sha2::{Digest, Sha256};

use crate::walk::Result;

/// `nvio emulate` of an image; ended when this is dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    /// Serves `image` until the value is dropped.
    pub fn new(image: &Path, options: &[&str]) -> Result<Self> {
        let socket = image.with_extension("socket");
        let mut command = Command::new(binary());
        command.arg("emulate").arg(image).arg("--socket").arg(&socket).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.is_empty() {
            true => Err(format!("nvio emulate does not serve: {}", child.wait()?).into()),
            false => Ok(Self { child, socket }),
        }
    }

    /// Returns the command `nvio VERB` on the served image.
    pub fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).arg(format!("vfio-user:{}", self.socket.display())).args(arguments);
        command
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Runs a command with its output in a file, and returns the time it took.
pub fn timed(mut command: Command, output: &Path) -> Result<Duration> {
    command.stdout(File::create(output)?);
    let start = Instant::now();
    let status = command.status()?;
    let time = start.elapsed();
    match status.success() {
        true => Ok(time),
        false => Err(format!("{command:?}: {status}").into()),
    }
}

/// Output of a command, and its peak memory.
#[derive(Debug)]
pub struct Listed {
    /// Lines of the output.
    pub lines: u64,
    /// SHA-256 of the output.
    pub hash: [u8; 32],
    /// Peak resident memory of the process, in MiB.
    pub peak: f64,
}

/// Runs a command, and samples its memory while it writes.
pub fn listed(mut command: Command) -> Result<Listed> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or("no pipe")?;
    let (mut lines, mut peak, mut hash) = (0, 0.0, Sha256::new());
    let mut buf = vec![0; 64 << 10];
    loop {
        let read = stdout.read(&mut buf)?;
        let bytes = buf.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        hash.update(bytes);
        // The peak only grows, and the rest of the output fits in the pipe.
        peak = peak_of(child.id()).unwrap_or(peak);
    }
    match child.wait()?.success() && peak > 0.0 {
        true => Ok(Listed { lines, hash: hash.finalize().into(), peak }),
        false => Err(format!("{command:?} has failed").into()),
    }
}

/// Returns VmHWM of a process, MiB.
fn peak_of(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
