//! The numbers of resets of a controller, requested and unrequested.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// The resets of a controller since it was opened.
///
/// A clone stays connected with its controller, and keeps the numbers when that is closed. A
/// controller that is gone cannot be reset, so its end is not counted.
///
/// # Examples
/// ```
/// use nvio_driver::{Address, Controller};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = NamespaceConfig::new(Backing::memory(1 << 20));
/// # let emulator = Emulator::builder().namespace(disk).start()?;
/// let controller = Controller::open(&Address::vfio_user(emulator.socket()))?;
/// let resets = controller.resets();
/// controller.reset()?;
/// assert_eq!((resets.requested(), resets.unrequested()), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Resets(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requested: AtomicU64,
    unrequested: AtomicU64,
}

impl Resets {
    /// Returns the number of resets that [`Controller::reset`](crate::Controller::reset) made, and
    /// calls that change namespaces.
    ///
    /// See the [example](Self#examples).
    pub fn requested(&self) -> u64 {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Returns the number of resets that the driver made because the controller failed, or did not
    /// complete a command in time.
    ///
    /// See the [example](Self#examples).
    pub fn unrequested(&self) -> u64 {
        self.0.unrequested.load(Ordering::Relaxed)
    }

    /// Counts and logs a reset because of `why`.
    pub(super) fn note(&self, why: &Error) {
        match why {
            Error::ResetRequested => {
                log::info!("resetting the controller on request");
                self.0.requested.fetch_add(1, Ordering::Relaxed);
            }
            Error::Gone => log::warn!("{why}"),
            _ => {
                log::warn!("resetting the controller: {why}");
                self.0.unrequested.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Logs the numbers of a controller that is being closed.
    pub(super) fn log(&self) {
        let (requested, other) = (self.requested(), self.unrequested());
        let level = if other == 0 { log::Level::Info } else { log::Level::Warn };
        log::log!(
            level,
            "closing the controller after {requested} requested, {other} other resets"
        );
    }
}
