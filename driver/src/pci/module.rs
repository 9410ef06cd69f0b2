//! Loading a kernel driver's module.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::error::Error;
use super::sysfs::{Sysfs, poll_for};

/// Longest message of modprobe that is kept, bytes.
const OUTPUT_BYTES_MAX: u64 = 1024;

impl Sysfs {
    /// Loads the PCI driver `driver` with modprobe unless it is loaded.
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
        let Some((name, arguments)) = self.modprobe.split_first() else {
            return Err("no modprobe".to_owned());
        };
        let start = |program: &Path| spawn(program, arguments, module);
        // An ordinary user's PATH often lacks /sbin.
        let mut child = start(Path::new(name))
            .or_else(|error| match error.kind() {
                ErrorKind::NotFound => start(&Path::new("/sbin").join(name)),
                _ => Err(error),
            })
            .map_err(|error| format!("{name}: {error}"))?;
        let ended = poll_for(self.timeout, || child.try_wait());
        let Some(status) = ended.map_err(|error| format!("{name}: {error}"))? else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} did not end within {:?}", self.timeout));
        };
        if status.success() {
            Ok(())
        } else {
            Err(first_error_line(child).unwrap_or(format!("{name}: {status}")))
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

/// Returns the first line of the child's stderr.
fn first_error_line(child: Child) -> Option<String> {
    let mut bytes = Vec::new();
    child.stderr?.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
