//! Log pages (Base 5.16).

use std::collections::BTreeSet;

use nvio_spec::{
    ChangedNamespaces, CommandEffects, ErrorLogEntry, FirmwareSlotLog, HealthLog, NSID_ALL, Sqe,
    SupportedLogPages, log_id, lpa,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::Controller;
use crate::error::{Error, Result};

/// Most bytes of one command: log pages are read seldom, and the arena is for I/O.
const MOST_IN_ONE_COMMAND: usize = 64 << 10;
/// Most bytes of one command without extended data: NUMD then has 12 bits (Base 5.16).
const MOST_WITHOUT_EXTENSION: usize = 16 << 10;

/// Which log page is read, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Identifier, such as those of [`log_id`].
    pub id: u8,
    /// The namespace it is about; [`NSID_ALL`] for the controller.
    pub nsid: u32,
    /// Whether reading the page to its end lets its asynchronous event come again (RAE cleared).
    pub clear_event: bool,
}

impl LogPage {
    /// The page `id` of the controller; its event stays as it is.
    pub const fn new(id: u8) -> Self {
        Self { id, nsid: NSID_ALL, clear_event: false }
    }
}

impl Controller {
    /// Reads `out.len()` bytes of a log page from byte `offset`, a multiple of 4, in as many
    /// commands as the controller's limits make of it. What lies behind the end of the page is
    /// zeroes, or an error, as the controller likes it.
    ///
    /// # Errors
    /// [`Error::Command`] when the controller refuses the page or the range; [`Error::Misaligned`]
    /// for the offset; [`Error::Unsupported`] when the controller takes no offsets and the range
    /// needs them.
    pub fn read_log_page(&self, page: LogPage, offset: u64, out: &mut [u8]) -> Result<()> {
        let extended = self.has_log_attribute(lpa::EXTENDED_DATA);
        let most = if extended { MOST_IN_ONE_COMMAND } else { MOST_WITHOUT_EXTENSION };
        self.read_log_in(page, offset, out, self.max_transfer().min(most))
    }

    /// Reads a log page into a structure.
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

    /// SMART / Health Information (Base 5.16.1.3) of the controller, or of a namespace where the
    /// controller keeps that.
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); [`Error::Unsupported`] for a namespace when
    /// there is none of its own.
    pub fn health(&self, nsid: Option<u32>) -> Result<Box<HealthLog>> {
        if nsid.is_some() {
            self.require_log("health information of a namespace", lpa::HEALTH_PER_NAMESPACE)?;
        }
        let nsid = nsid.unwrap_or(NSID_ALL);
        self.log_page(LogPage { nsid, ..LogPage::new(log_id::HEALTH) })
    }

    /// The entries of the Error Information log (Base 5.16.1.2), newest first.
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

    /// Firmware Slot Information (Base 5.16.1.4).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page).
    pub fn firmware_slots(&self) -> Result<Box<FirmwareSlotLog>> {
        self.log_page(LogPage::new(log_id::FIRMWARE_SLOT))
    }

    /// The namespaces that changed since this was last read (Base 5.16.1.5). The list then
    /// begins anew, and its event may come again.
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); not every controller has this page.
    pub fn changed_namespaces(&self) -> Result<Box<ChangedNamespaces>> {
        self.log_page(LogPage { clear_event: true, ..LogPage::new(log_id::CHANGED_NAMESPACES) })
    }

    /// Commands Supported and Effects (Base 5.16.1.6).
    ///
    /// # Errors
    /// As [`read_log_page`](Self::read_log_page); [`Error::Unsupported`] without the page.
    pub fn command_effects(&self) -> Result<Box<CommandEffects>> {
        self.require_log("the Commands Supported and Effects log", lpa::COMMAND_EFFECTS)?;
        self.log_page(LogPage::new(log_id::COMMAND_EFFECTS))
    }

    /// Supported Log Pages (Base 5.16.1.1).
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
            false => Err(Error::Unsupported { what, detail: self.lpa_detail() }),
        }
    }

    fn lpa_detail(&self) -> String {
        format!("the controller's LPA is {:#04x}", self.identify().lpa)
    }

    fn read_log_in(&self, page: LogPage, offset: u64, out: &mut [u8], most: usize) -> Result<()> {
        if !offset.is_multiple_of(4) {
            return Err(Error::Misaligned { value: offset, align: 4 });
        }
        let most = (most & !3).max(4);
        let one = offset == 0 && out.len() <= most;
        if !one && !self.has_log_attribute(lpa::EXTENDED_DATA) {
            let what = "a log page from an offset, or in several commands,";
            return Err(Error::Unsupported { what, detail: self.lpa_detail() });
        }
        let mut at = offset;
        let mut pieces = out.chunks_mut(most).peekable();
        while let Some(piece) = pieces.next() {
            // Its event must not come again before all of the page has been seen.
            let retain = pieces.peek().is_some() || !page.clear_event;
            self.read_log_piece(page, at, piece, retain)?;
            let overflow = Error::Invalid { structure: "log page", field: "offset", value: at };
            at = at.checked_add(piece.len() as u64).ok_or(overflow)?;
        }
        Ok(())
    }

    /// Reads what one command can.
    fn read_log_piece(&self, page: LogPage, at: u64, out: &mut [u8], retain: bool) -> Result<()> {
        let bytes = out.len().next_multiple_of(4);
        // Zeroed: the controller may have less to send.
        let buf = self.alloc(bytes)?;
        let dwords = u32::try_from(bytes / 4).unwrap_or(u32::MAX);
        let sqe = Sqe::get_log_page(page.id, page.nsid, at, dwords, retain);
        let answer = self.0.execute("Get Log Page", sqe, Some(buf))?;
        let read = answer.buf.as_deref().and_then(|buf| buf.get(..out.len()));
        let lost = Error::Invalid { structure: "log page", field: "length", value: bytes as u64 };
        out.copy_from_slice(read.ok_or(lost)?);
        Ok(())
    }
}

/// The entries that hold an error, each once: when there was a new one while the log was read in
/// pieces, the last of one piece comes again as the first of the next.
fn in_use(log: Vec<ErrorLogEntry>) -> Vec<ErrorLogEntry> {
    let mut seen = BTreeSet::from([0]);
    log.into_iter().filter(|entry| seen.insert(entry.error_count.get())).collect()
}

#[cfg(test)]
mod tests;
