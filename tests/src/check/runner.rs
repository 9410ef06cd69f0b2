//! Runs checks, and prints a line for each.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nvio_driver::{Address, Controller, Error, Options, Resets};

/// Maximum time of one check. A check that takes longer hangs, and ends the program.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Exit code after a check that hung.
const HUNG: i32 = 3;

thread_local! {
    /// Reset counters of the controllers that the current check has opened.
    static OPENED: RefCell<Vec<Resets>> = const { RefCell::new(Vec::new()) };
}

/// Opens the controller at `address`. The check fails if the driver has to reset it.
pub(super) fn open(address: &Address, options: Options) -> Result<Controller, Error> {
    let controller = Controller::open_with(address, options)?;
    OPENED.with_borrow_mut(|opened| opened.push(controller.resets()));
    Ok(controller)
}

/// The result of a check.
pub type Verdict = Result<(), Problem>;

/// The reason why a check did not succeed.
#[derive(Debug)]
pub enum Problem {
    /// The check failed.
    Failed(String),
    /// The controller does not have the feature under test.
    Skipped(String),
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text += &format!(": {cause}");
            next = cause.source();
        }
        Self::Failed(text)
    }
}

/// Fails the check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::check::runner::Problem::Failed(format!($($message)+)));
        }
    };
}
/// Fails the check unless both are equal.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $what:expr) => {
        match (&$found, &$wanted) {
            (found, wanted) => {
                $crate::check::runner::ensure!(
                    found == wanted,
                    "{}: {found:?}, not {wanted:?}",
                    $what
                )
            }
        }
    };
}
pub(crate) use {ensure, ensure_eq};

/// Fails if a controller of the check was reset without a request.
fn no_unrequested_resets() -> Verdict {
    let count: u64 = OPENED.take().iter().map(Resets::unrequested).sum();
    ensure_eq!(count, 0, "resets that were not requested");
    Ok(())
}

/// Runs checks, and prints a line for each.
#[derive(Debug)]
pub struct Runner {
    role: String,
    failed: usize,
}

impl Runner {
    /// Creates a runner of the checks of `role`.
    pub fn new(role: &str) -> Self {
        Self { role: role.to_owned(), failed: 0 }
    }

    /// Returns the number of checks that failed.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Runs `check` and prints `ok ROLE/NAME`, `FAILED ROLE/NAME: why` or `SKIPPED ROLE/NAME: why`.
    /// A panic is a failure. A check that does not end ends the program.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Verdict) {
        let name = format!("{}/{name}", self.role);
        let (done, ended) = mpsc::channel::<()>();
        let watched = name.clone();
        let watch = thread::spawn(move || {
            if ended.recv_timeout(TIME_LIMIT) == Err(RecvTimeoutError::Timeout) {
                println!("FAILED {watched}: no end within {} s", TIME_LIMIT.as_secs());
                process::exit(HUNG);
            }
        });
        let verdict = panic::catch_unwind(AssertUnwindSafe(check));
        let verdict = verdict.map(|verdict| no_unrequested_resets().and(verdict));
        drop(done);
        let _ = watch.join();
        match verdict {
            Ok(Ok(())) => println!("ok {name}"),
            Ok(Err(Problem::Skipped(why))) => println!("SKIPPED {name}: {}", OneLine(&why)),
            Ok(Err(Problem::Failed(why))) => self.fail(&name, &why),
            Err(_) => self.fail(&name, "panicked"),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        println!("FAILED {name}: {}", OneLine(why));
        self.failed += 1;
    }
}

struct OneLine<'a>(&'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('\n', " | "))
    }
}
