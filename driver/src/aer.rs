//! Asynchronous events: what a controller tells without being asked (Base 5.2).

use std::fmt;

use nvio_spec::EventType;

/// An asynchronous event (Base 5.2.1, figure 145). It comes again only after its log page was read
/// with [`LogPage::clear_event`](crate::LogPage::clear_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// What it is about: error, health, notice, and others.
    pub kind: EventType,
    /// What happened; the meaning depends on `kind`.
    pub info: u8,
    /// The log page that says more, such as those of [`log_id`](crate::spec::log_id).
    pub log_page: u8,
}

impl AsyncEvent {
    /// Decodes DW0 of the request's completion.
    pub fn from_dword(dw0: u32) -> Self {
        let [kind, info, log_page, _] = dw0.to_le_bytes();
        Self { kind: EventType(kind & 0b111), info, log_page }
    }
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: EventType(kind), info, log_page } = self;
        write!(f, "asynchronous event of type {kind}, information {info:#04x}, ")?;
        write!(f, "log page {log_page:#04x}")
    }
}
