//! SIGINT, SIGTERM and SIGHUP: a thread shuts the controllers down, removes temporary files and ends
//! the process, wherever the verb is: in a wait for the device, for a pipe or for another program.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use nvio::Shutdown;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Shuts down the devices that the verb has opened.
pub static SHUTDOWN: LazyLock<Shutdown> = LazyLock::new(Shutdown::new);

static LEFT: Mutex<Left> = Mutex::new(Left { paths: Vec::new(), report: None, stop: None });

/// The work that is left for the end of the process.
pub struct Left {
    /// Temporary files and directories.
    paths: Vec<PathBuf>,
    /// The line to print if a signal ends the verb.
    report: Option<String>,
    /// Called instead of the end of the process, with the number of the signal.
    stop: Option<Box<dyn FnOnce(i32) + Send>>,
}

/// Starts the thread that ends the process at a signal, with exit code 128 + signal.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn watch() -> io::Result<()> {
    let mut signals = catch(&[])?;
    let thread = std::thread::Builder::new().name("nvio-signals".into()).spawn(move || {
        for signal in signals.forever() {
            // Not in the match, which would hold the lock.
            let stop = hold().stop.take();
            match stop {
                // A second signal ends the process at once.
                Some(stop) => stop(signal),
                None => end(signal),
            }
        }
    });
    thread.map(drop)
}

/// Catches the signals that end a verb, and `others`. A second one of the former ends the process at
/// once.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn catch(others: &[i32]) -> io::Result<Signals> {
    // SIGHUP stays ignored under nohup. A shell's background jobs ignore SIGINT, too, but a user who
    // sends it means it.
    let is_caught = |signal: &i32| *signal != SIGHUP || !is_ignored(SIGHUP);
    let ending = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(is_caught);
    // Handlers run in the order of their installation. This one is first, so that no signal only sets
    // the flag; and the last one sets the flag that the one before looks at.
    let signals = Signals::new(ending.clone().chain(others.iter().copied()))?;
    let is_ending = Arc::new(AtomicBool::new(false));
    for signal in ending {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_ending))
            .and_then(|_| flag::register(signal, Arc::clone(&is_ending)))?;
    }
    Ok(signals)
}

/// Returns true if the process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn end(signal: i32) -> ! {
    // Never unlocked: the verb creates no other file, and prints no error of the shutdown.
    let left = hold();
    SHUTDOWN.run();
    for path in &left.paths {
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(path),
            false => std::fs::remove_file(path),
        };
        if let Err(error) = removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            log::warn!("{}: {error}", path.display());
        }
    }
    if let Some(report) = &left.report {
        print(report);
    }
    signal_hook::low_level::exit(128 + signal)
}

/// Returns the exit code of a verb that a signal ended.
pub fn exit_code(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// Keeps a signal from ending the process as long as the guard lives. After a signal this does not
/// return.
pub fn hold() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the watch for signals: the exit code of the verb is that of the process.
pub fn finish() {
    std::mem::forget(hold());
}

/// Sets the line that is printed if a signal ends the verb.
pub fn report_at_end(report: String) {
    hold().report = Some(report);
}

/// Lets the next signal call `stop` instead of ending the process, for a verb that then ends soon.
pub fn stop_at_next(stop: impl FnOnce(i32) + Send + 'static) {
    hold().stop = Some(Box::new(stop));
}

/// Prints a line to standard error, unless a signal is ending the process.
pub fn say(line: &str) {
    drop(hold());
    print(line);
}

fn print(line: &str) {
    // Without a reader of standard error the exit code still tells.
    let _ = writeln!(io::stderr(), "nvio: {line}");
}

/// A file or a directory that a signal removes. It is forgotten when this is dropped.
pub struct Temporary(PathBuf);

impl Temporary {
    /// Creates a file or a directory at the path that `path` returns.
    ///
    /// # Errors
    /// The error of `create`.
    pub fn create<T, E>(
        create: impl FnOnce() -> Result<T, E>,
        path: impl FnOnce(&T) -> PathBuf,
    ) -> Result<(Self, T), E> {
        let mut left = hold();
        let made = create()?;
        let path = path(&made);
        left.paths.push(path.clone());
        Ok((Self(path), made))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        hold().paths.retain(|path| *path != self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_are_known_while_they_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let create = || std::fs::write(&path, "");
        let (temporary, ()) = Temporary::create(create, |()| path.clone()).unwrap();
        assert!(hold().paths.contains(&path));
        drop(temporary);
        assert!(!hold().paths.contains(&path));
        let failed = Temporary::create(
            || std::fs::read(&path).and(std::fs::read("/none")),
            |_| path.clone(),
        );
        assert!(failed.is_err() && !hold().paths.contains(&path));
    }
}
