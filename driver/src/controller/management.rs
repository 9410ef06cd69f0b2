//! Changing namespaces: Format NVM, Namespace Management and Namespace Attachment (Base 5.14, 5.23,
//! 5.22).
//!
//! These commands destroy stored data or make it inaccessible, and are sent only on explicit
//! request. The namespace must have no handle, and the controller is reset first, so that no
//! command for the former format is executed afterwards. A namespace that another controller or
//! host changes is reported by an asynchronous event only.

use std::time::Duration;

use nvio_spec::namespace::{ControllerList, FormatSettings, erase, oacs};
use nvio_spec::{IdentifyNamespace, NSID_ALL, Sqe, cns};
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::Controller;
use super::inner::Inner;
use super::writable::WritableController;
use crate::admin::Command;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, WritableNamespace};

/// Format NVM Attributes of Identify Controller (Base figure 275, FNA).
mod fna {
    /// Format NVM formats all namespaces.
    pub(super) const FORMAT_ALL: u8 = 1 << 0;
    /// A secure erase erases all namespaces.
    pub(super) const ERASE_ALL: u8 = 1 << 1;
    /// Cryptographic erase is supported.
    pub(super) const CRYPTOGRAPHIC: u8 = 1 << 2;
}

/// NMIC: the namespace can be attached to more than one controller (NVM 4.1.5.1).
const NMIC_SHARED: u8 = 1 << 0;

/// The settings of [`WritableController::create_namespace`].
///
/// ```
/// use nvio_driver::NewNamespace;
/// use nvio_driver::spec::namespace::FormatSettings;
///
/// let new = NewNamespace { blocks: 1 << 20, format: FormatSettings::default(), shared: false };
/// assert_eq!(new.format.index, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    /// Number of logical blocks, all of which are allocated.
    pub blocks: u64,
    /// Index of the format, usually one of [`Namespace::identify`], and the place and kind of the
    /// metadata.
    pub format: FormatSettings,
    /// The namespace can be attached to more than one controller.
    pub shared: bool,
}

impl Namespace {
    /// Returns the index of the format with blocks of `block_size` bytes and `metadata` bytes of
    /// metadata for each, for [`WritableController::format`]. Of several formats, the one with the
    /// best relative performance is chosen.
    pub fn find_format(&self, block_size: u32, metadata: u16) -> Option<u8> {
        let identify = self.identify();
        let formats = identify.lbaf.iter().take(usize::from(identify.nlbaf) + 1).zip(0..);
        formats
            .filter(|(format, _)| 1u32.checked_shl(format.lbads.into()) == Some(block_size))
            .filter(|(format, _)| format.ms.get() == metadata)
            .min_by_key(|(format, _)| format.rp & 0b11)
            .map(|(_, index)| index)
    }
}

impl Controller {
    /// Returns the IDs of all namespaces, attached to this controller or not, ascending (Base
    /// 5.17.2.13).
    ///
    /// See the [example](crate::WritableController#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; if the command fails, or the list is
    /// not ascending.
    pub fn allocated_namespace_ids(&self) -> Result<Vec<u32>> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        self.0.list_namespaces(cns::ALLOCATED_NAMESPACES)
    }

    fn require(&self, bit: u16, what: &'static str) -> Result<()> {
        match self.identify().oacs.get() {
            oacs if oacs & bit != 0 => Ok(()),
            oacs => Err(Error::unsupported(what, format!("the controller's OACS is {oacs:#06x}"))),
        }
    }
}

impl WritableController {
    /// Formats a namespace (Base 5.14), which destroys all its data, and returns a new handle. The
    /// command takes at most `bound`, which may have to be minutes or hours.
    ///
    /// The namespace must have no other handle. The controller is reset first: commands in flight
    /// on any of its queues, also of other namespaces, complete with
    /// [`ABORTED_BY_HOST`](crate::spec::status::ABORTED_BY_HOST). Queue pairs wait during the
    /// format.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use nvio_driver::spec::namespace::FormatSettings;
    /// # use nvio_driver::{Address, Controller, Options};
    /// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = NamespaceConfig::new(Backing::memory(16 << 20));
    /// # let emulator = Emulator::builder().namespace(disk).format_nvm(true).start()?;
    /// # let address = Address::vfio_user(emulator.socket());
    /// # let options = Options { writable: true, ..Options::default() };
    /// # let controller = Controller::open_with(&address, options)?.writable()?;
    /// let namespace = controller.writable_namespace(1)?;
    /// let index = namespace.find_format(4096, 0).ok_or("no blocks of 4 KiB")?;
    /// let format = FormatSettings { index, ..FormatSettings::default() };
    /// let namespace = controller.format(namespace, format, Duration::from_secs(600))?;
    /// assert_eq!(namespace.block_size(), 4096);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Before the command is sent: [`Error::Unsupported`]; [`Error::Invalid`] for a format that the
    /// namespace does not have; [`Error::NamespaceInUse`]; [`Error::FormatsAll`] if the controller
    /// formats or erases all namespaces at once and has others. Later: [`Error::Command`] if the
    /// controller rejects the command; [`Error::Timeout`] after `bound`, when the namespace may be
    /// formatted or not; [`Error::Unsupported`] if the driver does not support the new format.
    pub fn format(
        &self,
        namespace: WritableNamespace,
        format: FormatSettings,
        bound: Duration,
    ) -> Result<WritableNamespace> {
        self.check_format(format)?;
        let (nsid, last) = (namespace.id(), namespace.identify().nlbaf);
        if format.index > last {
            return Err(invalid("index of the format", format.index.into()));
        }
        let inner = self.inner();
        let mut handles = inner.handles.lock();
        let formats_all = formats_all(self.identify().fna, format.erase);
        if formats_all && self.all_namespaces()?.len() > 1 {
            return Err(Error::FormatsAll { nsid });
        }
        let scope = if formats_all { NSID_ALL } else { nsid };
        handles.check_none(scope, Some(&namespace))?;
        drop(namespace);
        let command = Command::new("Format NVM", Sqe::format_nvm(nsid, format));
        inner.execute_alone(command.within(bound))?;
        let fresh = inner.identify_active(nsid)?;
        handles.add(&fresh);
        Ok(WritableNamespace::new(fresh))
    }

    /// Formats all namespaces of the controller at once; see [`format`](Self::format).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`format`](Self::format), also if the controller does not support this.
    pub fn format_all(&self, format: FormatSettings, bound: Duration) -> Result<()> {
        self.check_format(format)?;
        let command = Command::new("Format NVM", Sqe::format_nvm(NSID_ALL, format));
        self.change_unused(NSID_ALL, command.within(bound))
    }

    /// Creates a namespace (Base 5.23), which is attached to no controller, and returns its ID. The
    /// command takes at most `bound`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::Command`] if the controller
    /// rejects the command, for example because its capacity is exceeded.
    pub fn create_namespace(&self, new: NewNamespace, bound: Duration) -> Result<u32> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let FormatSettings { index, extended, protection, first, .. } = new.format;
        if index > 63 || protection > 3 {
            return Err(invalid("index of the format, or type of protection,", index.into()));
        }
        let mut data = IdentifyNamespace::new_zeroed();
        (data.nsze, data.ncap) = (U64::new(new.blocks), U64::new(new.blocks));
        data.flbas = index & 0xf | u8::from(extended) << 4 | (index >> 4) << 5;
        data.dps = protection | u8::from(first) << 3;
        data.nmic = if new.shared { NMIC_SHARED } else { 0 };
        let create = Command::new("Namespace Management (create)", Sqe::create_namespace());
        let create = create.with(self.copied(data.as_bytes())?).within(bound);
        match self.inner().execute(create)?.dw0 {
            nsid @ (0 | NSID_ALL) => {
                Err(Error::invalid("Namespace Management", "ID of the namespace created", nsid))
            }
            nsid => Ok(nsid),
        }
    }

    /// Deletes a namespace, or all with [`NSID_ALL`] (Base 5.23), and with it all its data. The
    /// namespace must have no handle, and the controller is reset first; see
    /// [`format`](Self::format). The command takes at most `bound`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::NamespaceInUse`];
    /// [`Error::Command`] if the controller rejects the command.
    pub fn delete_namespace(&self, nsid: u32, bound: Duration) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let delete = Command::new("Namespace Management (delete)", Sqe::delete_namespace(nsid));
        self.change_unused(nsid, delete.within(bound))
    }

    /// Attaches a namespace to controllers of the subsystem (Base 5.22), given by their IDs. The ID
    /// of this controller is [`cntlid`](crate::spec::IdentifyController::cntlid).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::Command`] if the controller
    /// rejects the command.
    pub fn attach_namespace(&self, nsid: u32, controllers: &[u16]) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let attach = Command::new("Namespace Attachment (attach)", Sqe::attach_namespace(nsid));
        self.inner().execute(attach.with(self.controller_list(controllers)?)).map(drop)
    }

    /// Detaches a namespace from controllers (Base 5.22). Its data stays, but is inaccessible. The
    /// namespace must have no handle, and the controller is reset first; see
    /// [`format`](Self::format).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`attach_namespace`](Self::attach_namespace); [`Error::NamespaceInUse`].
    pub fn detach_namespace(&self, nsid: u32, controllers: &[u16]) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let detach = Command::new("Namespace Attachment (detach)", Sqe::detach_namespace(nsid));
        self.change_unused(nsid, detach.with(self.controller_list(controllers)?))
    }

    fn inner(&self) -> &Inner {
        &self.0.0
    }

    /// Runs a command that changes a namespace, or all with [`NSID_ALL`], without a handle.
    fn change_unused(&self, nsid: u32, command: Command) -> Result<()> {
        let handles = self.inner().handles.lock();
        handles.check_none(nsid, None)?;
        self.inner().execute_alone(command).map(drop)
    }

    /// Copies the data of a command to a buffer.
    fn copied(&self, data: &[u8]) -> Result<DmaBuf> {
        let mut buf = self.alloc(data.len())?;
        buf.copy_from_slice(data);
        Ok(buf)
    }

    fn check_format(&self, format: FormatSettings) -> Result<()> {
        self.require(oacs::FORMAT_NVM, "Format NVM")?;
        let fna = self.identify().fna;
        if format.erase == erase::CRYPTOGRAPHIC && fna & fna::CRYPTOGRAPHIC == 0 {
            let detail = format!("the controller's FNA is {fna:#04x}");
            return Err(Error::unsupported("cryptographic erase", detail));
        }
        // The fields of the command are narrower than those of the settings.
        match format {
            FormatSettings { index: 64.., .. } => Err(invalid("index", format.index.into())),
            FormatSettings { protection: 4.., .. } => {
                Err(invalid("type of protection", format.protection.into()))
            }
            FormatSettings { erase: 3.., .. } => Err(invalid("erase", format.erase.into())),
            _ => Ok(()),
        }
    }

    /// Returns the IDs of all namespaces that the controller reports.
    fn all_namespaces(&self) -> Result<Vec<u32>> {
        let managed = self.identify().oacs.get() & oacs::NAMESPACE_MANAGEMENT != 0;
        if managed { self.allocated_namespace_ids() } else { self.namespace_ids() }
    }

    fn controller_list(&self, ids: &[u16]) -> Result<DmaBuf> {
        let list = ControllerList::new(ids);
        if usize::from(list.count.get()) != ids.len() {
            return Err(invalid("number of controllers", ids.len() as u64));
        }
        self.copied(list.as_bytes())
    }
}

fn invalid(field: &'static str, value: u64) -> Error {
    Error::Invalid { structure: "namespace settings", field, value }
}

/// Returns true if a format of one namespace with this secure erase affects all namespaces.
fn formats_all(fna: u8, erase: u8) -> bool {
    fna & fna::FORMAT_ALL != 0 || (erase != erase::NONE && fna & fna::ERASE_ALL != 0)
}

#[cfg(test)]
mod tests;
