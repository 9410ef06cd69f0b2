//! Loading a kernel driver that is not there yet.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Error, Sysfs};

/// What is kept of what modprobe says.
const OUTPUT_MAX: u64 = 1024;

impl Sysfs {
    /// Sees to it that the PCI driver `driver` is there, by modprobe if need be.
    pub(super) fn ensure_driver(&self, driver: &str) -> Result<(), Error> {
        let dir = self.driver_dir(driver);
        if dir.exists() {
            return Ok(());
        }
        let missing = |reason| Err(Error::NoDriver { driver: driver.to_owned(), reason });
        if let Err(reason) = self.modprobe(driver) {
            return missing(reason);
        }
        if dir.exists() { Ok(()) } else { missing(format!("{} did not appear", dir.display())) }
    }

    fn modprobe(&self, module: &str) -> Result<(), String> {
        let (name, arguments) = match self.modprobe.split_first() {
            Some((name, arguments)) => (name.as_str(), arguments),
            None => return Err("no modprobe".to_owned()),
        };
        let start = |program: &Path| spawn(program, arguments, module);
        // An ordinary user's PATH often lacks /sbin.
        let mut child = start(Path::new(name))
            .or_else(|error| match error.kind() {
                ErrorKind::NotFound => start(&Path::new("/sbin").join(name)),
                _ => Err(error),
            })
            .map_err(|error| format!("{name}: {error}"))?;
        let deadline = Instant::now() + self.patience;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(10)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("{name} did not end within {:?}", self.patience));
                }
                Err(error) => return Err(format!("{name}: {error}")),
            }
        };
        if status.success() {
            Ok(())
        } else {
            Err(said(child).unwrap_or(format!("{name}: {status}")))
        }
    }
}

fn spawn(program: &Path, arguments: &[String], module: &str) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .arg(module)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// The first line of the child's stderr.
fn said(child: Child) -> Option<String> {
    let mut bytes = Vec::new();
    child.stderr?.take(OUTPUT_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
