//! Controllers that accept commands which change stored data.

use nvio_spec::Sqe;

use super::Controller;
use crate::admin::Command;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::WritableNamespace;

/// Most bytes of an admin command: the memory that one page of PRPs describes.
const ADMIN_BYTES_MAX: usize = 2 << 20;

/// A controller that accepts writes and any other command. Cheap to clone.
///
/// # Examples
/// ```
/// # let disk = nvio_emulator::NamespaceConfig::new(nvio_emulator::Backing::memory(1 << 20));
/// # let emulator = nvio_emulator::Emulator::builder().namespace(disk).format_nvm(true);
/// # let emulator = emulator.namespace_management(16 << 20);
/// # let served =
/// #     nvio_testkit::controller::Served::start(emulator, nvio_testkit::controller::writable());
/// # let controller = &served.controller;
/// use std::time::Duration;
///
/// use nvio_driver::NewNamespace;
/// use nvio_driver::spec::namespace::FormatSettings;
///
/// // `controller` was opened with `Options::writable`.
/// let controller = controller.writable()?;
/// let namespace = controller.writable_namespace(1)?;
/// let mut queue = controller.queue_pair(8)?;
/// queue.write(&namespace, 0, controller.alloc(4096)?, ())?;
/// queue.wait(|done| assert!(done.status.is_success()))?;
/// drop((queue, namespace));
///
/// // Namespaces are created, attached to controllers, and formatted. Each call waits at most
/// // `bound`.
/// let bound = Duration::from_secs(600);
/// let new = NewNamespace { blocks: 2048, format: FormatSettings::default(), shared: false };
/// let nsid = controller.create_namespace(new, bound)?;
/// let this = [controller.identify().cntlid.get()];
/// controller.attach_namespace(nsid, &this)?;
/// let namespace = controller.writable_namespace(nsid)?;
/// let namespace = controller.format(namespace, FormatSettings::default(), bound)?;
/// assert_eq!(namespace.blocks(), 2048);
/// assert!(controller.allocated_namespace_ids()?.contains(&nsid));
/// drop(namespace);
/// controller.detach_namespace(nsid, &this)?;
/// controller.delete_namespace(nsid, bound)?;
///
/// // Formats all namespaces at once, which most controllers do not support.
/// let formatted = controller.format_all(FormatSettings::default(), bound);
/// println!("{formatted:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, derive_more::Deref)]
pub struct WritableController(pub(super) Controller);

impl Controller {
    /// Returns a handle of this controller that can write.
    ///
    /// See the [example](Self#examples).
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
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::namespace`].
    pub fn writable_namespace(&self, nsid: u32) -> Result<WritableNamespace> {
        self.namespace(nsid).map(WritableNamespace::new)
    }

    /// Runs any admin command, and returns DW0 of its completion and the buffer. The driver sets
    /// the command's identifier and data pointer.
    ///
    /// See the [example](Self#examples).
    ///
    /// ```
    /// # let served = nvio_testkit::controller::Served::memory(16 << 20);
    /// # let controller = &served.controller;
    /// use nvio_driver::spec::{Sqe, cns};
    ///
    /// let controller = controller.writable()?;
    /// let buf = controller.alloc(4096)?;
    /// // SAFETY: Identify transfers 4096 bytes, the length of the buffer.
    /// let (_, buf) = unsafe { controller.admin(Sqe::identify(cns::CONTROLLER, 0), Some(buf))? };
    /// assert!(buf.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let command = Command::new("an admin command", sqe);
        let answer = self.0.0.execute(buf.into_iter().fold(command, Command::with))?;
        Ok((answer.dw0, Some(answer.buf)))
    }
}
