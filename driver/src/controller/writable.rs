//! Controllers that accept commands which change stored data.

use std::ops::Deref;

use nvio_spec::Sqe;

use super::Controller;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::WritableNamespace;

/// Most bytes of an admin command: the memory that one page of PRPs describes.
const ADMIN_BYTES_MAX: usize = 2 << 20;

/// A controller that accepts writes and any other command. Cheap to clone.
///
/// ```
/// use nvio_driver::{Address, Controller, Options};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = NamespaceConfig::new(Backing::memory(1 << 20));
/// # let emulator = Emulator::builder().namespace(disk).start()?;
/// # let address = Address::vfio_user(emulator.socket());
/// let options = Options { writable: true, ..Options::default() };
/// let controller = Controller::open_with(&address, options)?.writable()?;
/// let namespace = controller.writable_namespace(1)?;
/// let mut queue = controller.queue_pair(8)?;
/// queue.write(&namespace, 0, controller.alloc(4096)?, ())?;
/// queue.wait(|done| assert!(done.status.is_success()))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WritableController(pub(super) Controller);

impl Deref for WritableController {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.0
    }
}

impl Controller {
    /// Returns a handle of this controller that can write.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] unless the controller was opened with
    /// [`Options::writable`](crate::Options::writable).
    pub fn writable(&self) -> Result<WritableController> {
        match self.0.options.writable {
            true => Ok(WritableController(self.clone())),
            false => Err(Error::ReadOnly),
        }
    }
}

impl WritableController {
    /// Returns a handle of an active namespace that can write.
    ///
    /// # Errors
    /// As [`Controller::namespace`].
    pub fn writable_namespace(&self, nsid: u32) -> Result<WritableNamespace> {
        self.namespace(nsid).map(WritableNamespace::new)
    }

    /// Runs any admin command, and returns DW0 of its completion and the buffer. The driver sets the
    /// command's identifier and data pointer.
    ///
    /// # Errors
    /// [`Error::TransferSize`] for more than 2 MiB; [`Error::Command`] if the controller completes
    /// the command with an error; the error of a controller that fails.
    ///
    /// # Safety
    /// A command that transfers more than the length of `buf` accesses the memory after it in the
    /// arena. A command that changes queues or doorbells breaks the existing ones.
    pub unsafe fn admin(&self, sqe: Sqe, buf: Option<DmaBuf>) -> Result<(u32, Option<DmaBuf>)> {
        let bytes = buf.as_ref().map_or(0, DmaBuf::len);
        if bytes > ADMIN_BYTES_MAX {
            return Err(Error::TransferSize { bytes, max: ADMIN_BYTES_MAX });
        }
        let answer = self.0.0.execute("an admin command", sqe, buf)?;
        Ok((answer.dw0, answer.buf))
    }
}
