//! Log pages (Base 5.16).

use std::collections::BTreeSet;

use nvio_spec::{
    ChangedNamespaces, CommandEffects, ErrorLogEntry, FirmwareSlotLog, HealthLog, NSID_ALL, Sqe,
    SupportedLogPages, log_id, lpa,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::Controller;
use crate::admin::Command;
use crate::error::{Error, Result};

/// Most bytes of one command, because the arena is for I/O.
const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Most bytes of one command without extended data, where NUMD has 12 bits (Base 5.16).
const SHORT_COMMAND_BYTES_MAX: usize = 16 << 10;

/// A log page to be read by [`Controller::read_log_page`].
///
/// # Examples
/// ```
/// use nvio_driver::LogPage;
/// use nvio_driver::spec::log_id;
/// # use nvio_driver::{Address, Controller};
/// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = NamespaceConfig::new(Backing::memory(1 << 20));
/// # let emulator = Emulator::builder().namespace(disk).start()?;
/// # let controller = Controller::open(&Address::vfio_user(emulator.socket()))?;
/// let mut slots = [0; 512];
/// controller.read_log_page(LogPage::new(log_id::FIRMWARE_SLOT), 0, &mut slots)?;
/// assert_eq!(slots[..], *zerocopy::IntoBytes::as_bytes(&*controller.firmware_slots()?));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Identifier of the page; see [`log_id`].
    pub id: u8,
    /// ID of the page's namespace; [`NSID_ALL`] for a page of the controller.
    pub nsid: u32,
    /// Reading the page to its end allows the controller to repeat the page's asynchronous event
    /// (RAE cleared).
    pub clear_event: bool,
}

impl LogPage {
    /// Returns the page `id` of the controller. Reading it does not clear its event.
    ///
    /// See the [example](Self#examples).
    pub const fn new(id: u8) -> Self {
        Self { id, nsid: NSID_ALL, clear_event: false }
    }
}

impl Controller {
    /// Reads `out.len()` bytes of a log page at byte `offset`, a multiple of 4, by several commands
    /// if the controller's limits require them. For bytes after the end of the page, the controller
    /// returns zeroes or an error.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Command`] if the controller rejects the page or the range; [`Error::Misaligned`]
    /// for the offset; [`Error::Unsupported`] if the range needs an offset, and the controller
    /// accepts none.
    pub fn read_log_page(&self, page: LogPage, offset: u64, out: &mut [u8]) -> Result<()> {
        let extended = self.has_log_attribute(lpa::EXTENDED_DATA);
        let bytes_max = if extended { COMMAND_BYTES_MAX } else { SHORT_COMMAND_BYTES_MAX };
        self.read_log_in(page, offset, out, self.max_transfer().min(bytes_max))
    }

    /// Reads a log page into a structure.
    ///
    /// See the [example](crate::Controller#examples).
    ///
    /// ```
    /// # let served = nvio_testkit::controller::Served::memory(16 << 20);
    /// # let controller = &served.controller;
    /// use nvio_driver::LogPage;
    /// use nvio_driver::spec::{HealthLog, log_id};
    ///
    /// let health: Box<HealthLog> = controller.log_page(LogPage::new(log_id::HEALTH))?;
    /// println!("{} kelvins", health.temperature());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page).
    pub fn log_page<D: FromBytes + IntoBytes + KnownLayout + Immutable>(
        &self,
        page: LogPage,
    ) -> Result<Box<D>> {
        let mut log = Box::new(D::new_zeroed());
        self.read_log_page(page, 0, log.as_mut_bytes())?;
        Ok(log)
    }

    /// Reads SMART / Health Information (Base 5.16.1.3) of the controller, or of a namespace.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); [`Error::Unsupported`] if the controller has no
    /// page for each namespace, and one is requested.
    pub fn health(&self, nsid: Option<u32>) -> Result<Box<HealthLog>> {
        if nsid.is_some() {
            self.require_log("health information of a namespace", lpa::HEALTH_PER_NAMESPACE)?;
        }
        let nsid = nsid.unwrap_or(NSID_ALL);
        self.log_page(LogPage { nsid, ..LogPage::new(log_id::HEALTH) })
    }

    /// Reads the entries of the Error Information log (Base 5.16.1.2), newest first.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page).
    pub fn error_log(&self) -> Result<Vec<ErrorLogEntry>> {
        let entries = usize::from(self.identify().elpe) + 1;
        let mut log = vec![ErrorLogEntry::new_zeroed(); entries];
        let page = LogPage::new(log_id::ERROR_INFORMATION);
        self.read_log_page(page, 0, log.as_mut_bytes())?;
        Ok(in_use(log))
    }

    /// Reads Firmware Slot Information (Base 5.16.1.4).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page).
    pub fn firmware_slots(&self) -> Result<Box<FirmwareSlotLog>> {
        self.log_page(LogPage::new(log_id::FIRMWARE_SLOT))
    }

    /// Reads the namespaces that changed since the page was last read (Base 5.16.1.5). Reading
    /// empties the list and clears its event.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page), also if the controller does not have this page.
    pub fn changed_namespaces(&self) -> Result<Box<ChangedNamespaces>> {
        self.log_page(LogPage { clear_event: true, ..LogPage::new(log_id::CHANGED_NAMESPACES) })
    }

    /// Reads Commands Supported and Effects (Base 5.16.1.6).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); [`Error::Unsupported`] without the page.
    pub fn command_effects(&self) -> Result<Box<CommandEffects>> {
        self.require_log("the Commands Supported and Effects log", lpa::COMMAND_EFFECTS)?;
        self.log_page(LogPage::new(log_id::COMMAND_EFFECTS))
    }

    /// Reads Supported Log Pages (Base 5.16.1.1).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); [`Error::Unsupported`] without the page.
    pub fn supported_log_pages(&self) -> Result<Box<SupportedLogPages>> {
        self.require_log("the Supported Log Pages log", lpa::SUPPORTED_LOG_PAGES)?;
        self.log_page(LogPage::new(log_id::SUPPORTED_LOG_PAGES))
    }

    fn has_log_attribute(&self, attribute: u8) -> bool {
        self.identify().lpa & attribute != 0
    }

    fn require_log(&self, what: &'static str, attribute: u8) -> Result<()> {
        match self.has_log_attribute(attribute) {
            true => Ok(()),
            false => Err(Error::unsupported(what, self.lpa_detail())),
        }
    }

    fn lpa_detail(&self) -> String {
        format!("the controller's LPA is {:#04x}", self.identify().lpa)
    }

    fn read_log_in(
        &self,
        page: LogPage,
        offset: u64,
        out: &mut [u8],
        bytes_max: usize,
    ) -> Result<()> {
        if !offset.is_multiple_of(4) {
            return Err(Error::Misaligned { value: offset, align: 4 });
        }
        let bytes_max = (bytes_max & !3).max(4);
        let one = offset == 0 && out.len() <= bytes_max;
        if !one && !self.has_log_attribute(lpa::EXTENDED_DATA) {
            let what = "a log page from an offset, or in several commands,";
            return Err(Error::unsupported(what, self.lpa_detail()));
        }
        let mut at = offset;
        let mut pieces = out.chunks_mut(bytes_max).peekable();
        while let Some(piece) = pieces.next() {
            // The event is cleared with the last piece, after the whole page was read.
            let retain = pieces.peek().is_some() || !page.clear_event;
            self.read_log_piece(page, at, piece, retain)?;
            let overflow = Error::invalid("log page", "offset", at);
            at = at.checked_add(piece.len() as u64).ok_or(overflow)?;
        }
        Ok(())
    }

    /// Reads a piece of the page with one command.
    fn read_log_piece(&self, page: LogPage, at: u64, out: &mut [u8], retain: bool) -> Result<()> {
        let bytes = out.len().next_multiple_of(4);
        // The buffer is zeroed, because the controller may transfer less.
        let buf = self.alloc(bytes)?;
        let dwords = u32::try_from(bytes / 4).unwrap_or(u32::MAX);
        let sqe = Sqe::get_log_page(page.id, page.nsid, at, dwords, retain);
        let answer = self.0.execute(Command::new("Get Log Page", sqe).with(buf))?;
        let lost = || Error::invalid("log page", "length", bytes as u64);
        out.copy_from_slice(answer.buf.get(..out.len()).ok_or_else(lost)?);
        Ok(())
    }
}

/// Returns the entries with an error, each once. If an error is logged between two commands, the
/// last entry of a piece is also the first of the next.
fn in_use(log: Vec<ErrorLogEntry>) -> Vec<ErrorLogEntry> {
    let mut seen = BTreeSet::from([0]);
    log.into_iter().filter(|entry| seen.insert(entry.error_count.get())).collect()
}

#[cfg(test)]
mod tests;
