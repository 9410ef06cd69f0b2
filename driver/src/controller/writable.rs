//! What changes a controller or what it stores: only through a type of its own.

use std::ops::Deref;

use nvio_spec::Sqe;

use super::Controller;
use crate::dma::DmaBuf;
use crate::namespace::WritableNamespace;
use crate::{Error, Result};

/// Most bytes of an admin command: what PRPs in one page describe.
const MOST_BYTES: usize = 2 << 20;

/// A controller whose namespaces can be written to, and that takes any command. Cheap to clone.
#[derive(Clone)]
pub struct WritableController(pub(super) Controller);

impl Deref for WritableController {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.0
    }
}

impl Controller {
    /// The same controller, for writing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] unless it was opened with
    /// [`Options::writable`](crate::Options::writable).
    pub fn writable(&self) -> Result<WritableController> {
        match self.0.options.writable {
            true => Ok(WritableController(self.clone())),
            false => Err(Error::ReadOnly),
        }
    }
}

impl WritableController {
    /// An active namespace, to be written to.
    ///
    /// # Errors
    /// As [`Controller::namespace`].
    pub fn writable_namespace(&self, nsid: u32) -> Result<WritableNamespace> {
        self.namespace(nsid).map(WritableNamespace::new)
    }

    /// Runs any admin command, and gives DW0 of its completion and the buffer. Its identifier and
    /// data pointer are set here, the rest is sent as it is.
    ///
    /// # Errors
    /// [`Error::TransferSize`] for more than 2 MiB; [`Error::Command`] for what the controller
    /// refuses; what it fails with otherwise.
    ///
    /// # Safety
    /// A command that transfers more than `buf` has makes the controller write, or read, what
    /// follows it in the arena. A command about queues or doorbells breaks those that there are.
    pub unsafe fn admin(&self, sqe: Sqe, buf: Option<DmaBuf>) -> Result<(u32, Option<DmaBuf>)> {
        let bytes = buf.as_ref().map_or(0, DmaBuf::len);
        if bytes > MOST_BYTES {
            return Err(Error::TransferSize { bytes, max: MOST_BYTES });
        }
        let answer = self.0.0.execute("an admin command", sqe, buf)?;
        Ok((answer.dw0, answer.buf))
    }
}
