//! What changes namespaces as such: Format NVM, Namespace Management and Namespace Attachment
//! (Base 5.14, 5.23, 5.22).
//!
//! All of it destroys what is stored, or takes it away, and is only done on explicit request. The
//! controller is reset first, so that no command that was made for the namespace as it was is
//! executed afterwards; and there must be no handle of it. Of a namespace that another controller
//! or host changes, a driver learns only by an event.

use std::time::Duration;

use nvio_spec::namespace::{ControllerList, FormatSettings, erase, oacs};
use nvio_spec::{IdentifyNamespace, NSID_ALL, Sqe, cns};
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::Controller;
use super::inner::Inner;
use super::writable::WritableController;
use crate::admin::Answer;
use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, WritableNamespace};

/// Format NVM Attributes of Identify Controller (Base figure 275, FNA).
mod fna {
    /// A format is one of all namespaces.
    pub(super) const FORMAT_ALL: u8 = 1 << 0;
    /// An erase is one of all namespaces.
    pub(super) const ERASE_ALL: u8 = 1 << 1;
    /// There is cryptographic erase.
    pub(super) const CRYPTOGRAPHIC: u8 = 1 << 2;
}

/// NMIC: the namespace can be attached to more than one controller (NVM 4.1.5.1).
const NMIC_SHARED: u8 = 1 << 0;

/// A namespace to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    /// Logical blocks, all of which are allocated.
    pub blocks: u64,
    /// The index of its format, those of [`Namespace::identify`] as a rule, and the place and kind
    /// of its metadata.
    pub format: FormatSettings,
    /// Whether it can be attached to more than one controller.
    pub shared: bool,
}

impl Namespace {
    /// The index of the format with blocks of `block_size` bytes and `metadata` bytes beside each,
    /// for [`WritableController::format`]; of several the one that performs best.
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
    /// IDs of the namespaces that there are, attached to this controller or not, ascending (Base
    /// 5.17.2.13).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; when the command fails, or the list is
    /// not ascending.
    pub fn allocated_namespace_ids(&self) -> Result<Vec<u32>> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        self.0.list_namespaces(cns::ALLOCATED_NAMESPACES)
    }

    fn require(&self, bit: u16, what: &'static str) -> Result<()> {
        match self.identify().oacs.get() {
            oacs if oacs & bit != 0 => Ok(()),
            oacs => {
                let detail = format!("the controller's OACS is {oacs:#06x}");
                Err(Error::Unsupported { what, detail })
            }
        }
    }
}

impl WritableController {
    /// Formats a namespace (Base 5.14): everything in it is destroyed. Gives the namespace as it is
    /// then; `bound` is how long it may take, which can be minutes or hours.
    ///
    /// There must be no other handle of the namespace, so that nobody takes its blocks for what
    /// they were. The controller is reset first: commands in flight on any of its queues, also of
    /// other namespaces, end with
    /// [`ABORTED_BY_HOST`](crate::spec::status::ABORTED_BY_HOST). Queue pairs wait meanwhile.
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
    /// # let address = Address::VfioUser(emulator.socket().to_owned());
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
    /// Before anything is done: [`Error::Unsupported`], [`Error::Invalid`] for a format that the
    /// namespace does not have, [`Error::NamespaceInUse`], [`Error::FormatsAll`] if the controller
    /// formats or erases all namespaces together and there are others. [`Error::Command`] for what
    /// the controller refuses; [`Error::Timeout`] after `bound`, and then the namespace may be
    /// formatted or not; that the new format is not supported, by name.
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
        let mut handles = inner.handles();
        let formats_all = formats_all(self.identify().fna, format.erase);
        if formats_all && self.all_namespaces()?.len() > 1 {
            return Err(Error::FormatsAll { nsid });
        }
        let scope = if formats_all { NSID_ALL } else { nsid };
        handles.check_none(scope, Some(&namespace))?;
        drop(namespace);
        inner.execute_alone("Format NVM", Sqe::format_nvm(nsid, format), None, bound)?;
        let fresh = inner.identify_active(nsid)?;
        handles.add(&fresh);
        Ok(WritableNamespace::new(fresh))
    }

    /// Formats all namespaces of the controller, as [`format`](Self::format) does one.
    ///
    /// # Errors
    /// As [`format`](Self::format); not every controller can do that for all at once.
    pub fn format_all(&self, format: FormatSettings, bound: Duration) -> Result<()> {
        self.check_format(format)?;
        let inner = self.inner();
        let handles = inner.handles();
        handles.check_none(NSID_ALL, None)?;
        inner.execute_alone("Format NVM", Sqe::format_nvm(NSID_ALL, format), None, bound).map(drop)
    }

    /// Creates a namespace (Base 5.23), and gives its ID. It is attached to no controller; `bound`
    /// is how long it may take.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::Command`] for what the
    /// controller refuses, such as a size above what is left.
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
        let inner = self.inner();
        let mut buf = self.alloc(size_of::<IdentifyNamespace>())?;
        buf.copy_from_slice(data.as_bytes());
        let name = "Namespace Management (create)";
        let answer = inner.execute_within(name, Sqe::create_namespace(), Some(buf), bound)?;
        match answer.dw0 {
            0 | NSID_ALL => Err(Error::Invalid {
                structure: "Namespace Management",
                field: "ID of the namespace created",
                value: answer.dw0.into(),
            }),
            nsid => Ok(nsid),
        }
    }

    /// Deletes a namespace, or all with [`NSID_ALL`] (Base 5.23): everything in it is destroyed.
    /// There must be no handle of it; the controller is reset first, as [`format`](Self::format)
    /// does. `bound` is how long it may take.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::NamespaceInUse`];
    /// [`Error::Command`] for what the controller refuses.
    pub fn delete_namespace(&self, nsid: u32, bound: Duration) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let handles = self.inner().handles();
        handles.check_none(nsid, None)?;
        let sqe = Sqe::delete_namespace(nsid);
        self.inner().execute_alone("Namespace Management (delete)", sqe, None, bound).map(drop)
    }

    /// Attaches a namespace to controllers of the subsystem (Base 5.22), by the IDs that they have
    /// there: this one's is [`cntlid`](crate::spec::IdentifyController::cntlid).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without namespace management; [`Error::Command`] for what the
    /// controller refuses.
    pub fn attach_namespace(&self, nsid: u32, controllers: &[u16]) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let buf = self.controller_list(controllers)?;
        let (name, sqe) = ("Namespace Attachment (attach)", Sqe::attach_namespace(nsid));
        self.inner().execute(name, sqe, Some(buf)).map(drop)
    }

    /// Detaches a namespace from controllers (Base 5.22): what is stored stays, and is out of
    /// reach. There must be no handle of it; the controller is reset first, as
    /// [`format`](Self::format) does.
    ///
    /// # Errors
    /// As [`attach_namespace`](Self::attach_namespace); [`Error::NamespaceInUse`].
    pub fn detach_namespace(&self, nsid: u32, controllers: &[u16]) -> Result<()> {
        self.require(oacs::NAMESPACE_MANAGEMENT, "namespace management")?;
        let handles = self.inner().handles();
        handles.check_none(nsid, None)?;
        let buf = self.controller_list(controllers)?;
        let bound = self.inner().options.admin_timeout;
        let (name, sqe) = ("Namespace Attachment (detach)", Sqe::detach_namespace(nsid));
        self.inner().execute_alone(name, sqe, Some(buf), bound).map(drop)
    }

    fn inner(&self) -> &Inner {
        &self.0.0
    }

    fn check_format(&self, format: FormatSettings) -> Result<()> {
        self.require(oacs::FORMAT_NVM, "Format NVM")?;
        let fna = self.identify().fna;
        if format.erase == erase::CRYPTOGRAPHIC && fna & fna::CRYPTOGRAPHIC == 0 {
            let detail = format!("the controller's FNA is {fna:#04x}");
            return Err(Error::Unsupported { what: "cryptographic erase", detail });
        }
        // Fields of the command are narrower than those of the settings.
        match format {
            FormatSettings { index: 64.., .. } => Err(invalid("index", format.index.into())),
            FormatSettings { protection: 4.., .. } => {
                Err(invalid("type of protection", format.protection.into()))
            }
            FormatSettings { erase: 3.., .. } => Err(invalid("erase", format.erase.into())),
            _ => Ok(()),
        }
    }

    /// All namespaces that the controller knows of.
    fn all_namespaces(&self) -> Result<Vec<u32>> {
        let managed = self.identify().oacs.get() & oacs::NAMESPACE_MANAGEMENT != 0;
        if managed { self.allocated_namespace_ids() } else { self.namespace_ids() }
    }

    fn controller_list(&self, ids: &[u16]) -> Result<DmaBuf> {
        let list = ControllerList::new(ids);
        if usize::from(list.count.get()) != ids.len() {
            return Err(invalid("number of controllers", ids.len() as u64));
        }
        let mut buf = self.alloc(size_of::<ControllerList>())?;
        buf.copy_from_slice(list.as_bytes());
        Ok(buf)
    }
}

fn invalid(field: &'static str, value: u64) -> Error {
    Error::Invalid { structure: "namespace settings", field, value }
}

/// Whether a format of one namespace, with this erase, is one of all.
fn formats_all(fna: u8, erase: u8) -> bool {
    fna & fna::FORMAT_ALL != 0 || (erase != erase::NONE && fna & fna::ERASE_ALL != 0)
}

impl Inner {
    /// Runs an admin command that has a bound of its own.
    fn execute_within(
        &self,
        name: &'static str,
        sqe: Sqe,
        buf: Option<DmaBuf>,
        bound: Duration,
    ) -> Result<Answer> {
        let mut managed = self.managed();
        let usual = managed.admin.set_timeout(bound);
        let result = self.execute_in(&mut managed, name, sqe, buf);
        managed.admin.set_timeout(usual);
        result
    }

    /// The same, after a reset: no I/O command of before is executed after it, nor meanwhile.
    fn execute_alone(
        &self,
        name: &'static str,
        sqe: Sqe,
        buf: Option<DmaBuf>,
        bound: Duration,
    ) -> Result<Answer> {
        let mut managed = self.managed();
        managed.check()?;
        self.recover_in(&mut managed, &Error::ResetRequested);
        managed.check()?;
        let usual = managed.admin.set_timeout(bound);
        let result = self.execute_in(&mut managed, name, sqe, buf);
        managed.admin.set_timeout(usual);
        result
    }
}

#[cfg(test)]
mod tests;
