//! Asynchronous events (Base 5.2).

use nvio_spec::EventType;

/// An asynchronous event (Base 5.2.1, figure 145). The controller repeats it only after its log
/// page was read with [`LogPage::clear_event`](crate::LogPage::clear_event).
///
/// # Examples
/// ```
/// use nvio_driver::AsyncEvent;
/// use nvio_driver::spec::EventType;
///
/// let event = AsyncEvent::from_dword(0x0003_0102);
/// assert_eq!((event.kind, event.info, event.log_page), (EventType::NOTICE, 1, 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, derive_more::Display)]
#[display(
    "asynchronous event of type {}, information {info:#04x}, log page {log_page:#04x}",
    kind.0
)]
pub struct AsyncEvent {
    /// Type of the event: error, health, notice, and others.
    pub kind: EventType,
    /// Information, whose meaning depends on `kind`.
    pub info: u8,
    /// Identifier of the log page with the details; see [`log_id`](crate::spec::log_id).
    pub log_page: u8,
}

impl AsyncEvent {
    /// Decodes DW0 of the request's completion.
    ///
    /// See the [example](Self#examples).
    pub fn from_dword(dw0: u32) -> Self {
        let [kind, info, log_page, _] = dw0.to_le_bytes();
        Self { kind: EventType(kind & 0b111), info, log_page }
    }
}
