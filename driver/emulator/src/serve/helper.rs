//! Commands that are executed in a thread of the client.

use std::sync::Arc;

use crate::serve::poller::BUDGET;
use crate::serve::shared::Shared;

/// Lets a client of this process execute the commands of an [`Emulator`](crate::Emulator) in its own
/// thread: a thread that waits for a completion need not wait until another one has a core.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, NamespaceConfig};
///
/// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// let (emulator, connection) = config.connect()?;
/// let helper = emulator.helper();
/// assert!(!helper.run(), "no client has enabled the controller");
/// # drop(connection);
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Helper(pub(crate) Arc<Shared>);

impl Helper {
    /// Executes commands that wait, and returns true if there may be new completions. Returns false if
    /// there was nothing to do. While another thread executes commands, yields to it.
    ///
    /// See the [example](Self#examples).
    pub fn run(&self) -> bool {
        self.0.help(BUDGET)
    }
}
