//! The completion queue entry and its status (Base 3.3.3.2).

use std::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A completion queue entry, 16 bytes (Base 3.3.3.2, figure 90).
///
/// # Examples
/// ```
/// use nvio_spec::{Cqe, Status, status};
///
/// let mut cqe = Cqe::default();
/// cqe.status_phase = Cqe::pack_status(status::LBA_OUT_OF_RANGE, true);
/// assert!(cqe.phase());
/// assert_eq!(cqe.status(), status::LBA_OUT_OF_RANGE);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cqe {
    /// Command specific.
    pub dw0: U32,
    /// Command specific.
    pub dw1: U32,
    /// Submission queue head pointer when the entry was made.
    pub sqhd: U16,
    /// Submission queue the command came from.
    pub sqid: U16,
    /// Command identifier.
    pub cid: U16,
    /// Bit 0: phase tag; bits 15:1: [`Status`].
    pub status_phase: U16,
}

const _: () = assert!(size_of::<Cqe>() == crate::CQE_SIZE);

impl Cqe {
    /// Returns the phase tag (Base 3.3.3.2.2).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn phase(&self) -> bool {
        self.status_phase.get() & 1 != 0
    }

    /// Returns the status field.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn status(&self) -> Status {
        Status(self.status_phase.get() >> 1)
    }

    /// Returns the status field, with the phase tag beside it, as the wire has them.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn pack_status(status: Status, phase: bool) -> U16 {
        U16::new(status.0 << 1 | u16::from(phase))
    }
}

/// The 15-bit status field of a completion (Base 3.3.3.2.1, figure 93).
///
/// Bits 7:0 are the status code (SC), bits 10:8 its type (SCT), bits 12:11 the command retry
/// delay (CRD), bit 13 More (M) and bit 14 Do Not Retry (DNR).
///
/// # Examples
/// ```
/// use nvio_spec::{Status, status};
///
/// let failed = status::UNRECOVERED_READ_ERROR.do_not_retry();
/// assert!(!failed.is_success() && failed.dnr());
/// assert_eq!((failed.kind(), failed.code()), (2, 0x81));
/// assert_eq!(failed.bare(), status::UNRECOVERED_READ_ERROR);
/// assert_eq!(Status::named("unrecovered-read-error"), Some(failed.bare()));
/// println!("{:?}", failed.name());
///
/// // Values without a name: by type and code.
/// assert_eq!(Status::new(0, 0), Status::SUCCESS);
/// assert_eq!(Status::media(0x81), failed.bare());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(pub u16);

impl Status {
    /// Successful Completion.
    pub const SUCCESS: Self = Self::new(0, 0x00);

    /// Creates a media and data integrity error (SCT 2h).
    ///
    /// See the [example](Self#examples).
    pub const fn media(code: u8) -> Self {
        Self::new(2, code)
    }

    /// Creates a status of this type (0 to 7) and code.
    ///
    /// See the [example](Self#examples).
    pub const fn new(kind: u8, code: u8) -> Self {
        Self((kind as u16 & 7) << 8 | code as u16)
    }

    /// Sets Do Not Retry.
    ///
    /// See the [example](Self#examples).
    pub const fn do_not_retry(self) -> Self {
        Self(self.0 | 1 << 14)
    }

    /// Returns true if the command succeeded: type and code are both 0.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub const fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }

    /// Returns the status code (SC).
    ///
    /// See the [example](Self#examples).
    pub const fn code(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Returns the status code type (SCT).
    ///
    /// See the [example](Self#examples).
    pub const fn kind(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }

    /// Returns true if a retry would fail, too (DNR).
    ///
    /// See the [example](Self#examples).
    pub const fn dnr(self) -> bool {
        self.0 >> 14 & 1 != 0
    }

    /// Returns type and code without retry delay, More and DNR, for comparison with the constants
    /// of [`status`].
    ///
    /// See the [example](Self#examples).
    pub const fn bare(self) -> Self {
        Self(self.0 & 0x7ff)
    }

    /// Returns the specification's name, if this crate has it.
    ///
    /// See the [example](Self#examples).
    pub fn name(self) -> Option<&'static str> {
        let at = status::NAMES.binary_search_by_key(&self.bare().0, |(known, _)| known.0).ok()?;
        Some(status::NAMES[at].1)
    }

    /// Returns the status whose [`Self::name`] is `name`, in any case and with - for _.
    ///
    /// See the [example](Self#examples).
    pub fn named(name: &str) -> Option<Self> {
        let same = |known: &&(Self, &str)| name.replace('-', "_").eq_ignore_ascii_case(known.1);
        status::NAMES.iter().find(same).map(|(known, _)| *known)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("unknown status");
        write!(f, "{name} (SCT {:#x}, SC {:#04x})", self.kind(), self.code())?;
        if self.dnr() { f.write_str(", do not retry") } else { Ok(()) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Status values by name (Base figures 94 to 101, NVM figures 9 to 15).
///
/// # Examples
/// ```
/// use nvio_spec::{Status, status};
///
/// assert_eq!(status::INVALID_FIELD, Status::new(0, 2));
/// ```
pub mod status {
    use super::Status;

    macro_rules! statuses {
        ($($(#[$doc:meta])* $name:ident = ($kind:expr, $code:expr);)*) => {
            $($(#[$doc])* pub const $name: Status = Status::new($kind, $code);)*
            /// Every status above with its name as text, ordered by type and code.
            pub(super) const NAMES: &[(Status, &str)] = &[$(($name, stringify!($name))),*];
        };
    }

    statuses! {
        /// The command completed without error.
        SUCCESS = (0, 0x00);
        /// The opcode is invalid or unsupported.
        INVALID_OPCODE = (0, 0x01);
        /// A reserved or unsupported value in a defined field.
        INVALID_FIELD = (0, 0x02);
        /// The command identifier is already in use.
        COMMAND_ID_CONFLICT = (0, 0x03);
        /// Transferring data or metadata failed.
        DATA_TRANSFER_ERROR = (0, 0x04);
        /// Aborted because power is about to be lost.
        ABORTED_POWER_LOSS = (0, 0x05);
        /// An internal error of the controller.
        INTERNAL_ERROR = (0, 0x06);
        /// Aborted by an Abort command.
        ABORT_REQUESTED = (0, 0x07);
        /// Aborted because its submission queue was deleted.
        ABORTED_SQ_DELETION = (0, 0x08);
        /// The namespace is unknown or its format is not supported.
        INVALID_NAMESPACE = (0, 0x0b);
        /// Commands in an invalid order.
        COMMAND_SEQUENCE_ERROR = (0, 0x0c);
        /// An SGL segment descriptor is invalid.
        INVALID_SGL_SEGMENT_DESCRIPTOR = (0, 0x0d);
        /// The number of SGL descriptors is invalid.
        INVALID_SGL_DESCRIPTOR_COUNT = (0, 0x0e);
        /// A data SGL is too short or too long.
        DATA_SGL_LENGTH_INVALID = (0, 0x0f);
        /// A metadata SGL is too short or too long.
        METADATA_SGL_LENGTH_INVALID = (0, 0x10);
        /// An SGL descriptor type is not supported.
        SGL_DESCRIPTOR_TYPE_INVALID = (0, 0x11);
        /// Use of the controller memory buffer is invalid.
        INVALID_USE_OF_CMB = (0, 0x12);
        /// A PRP entry has an offset that is not allowed.
        PRP_OFFSET_INVALID = (0, 0x13);
        /// The length is above the atomic write unit.
        ATOMIC_WRITE_UNIT_EXCEEDED = (0, 0x14);
        /// The namespace is write protected.
        NAMESPACE_WRITE_PROTECTED = (0, 0x20);
        /// An LBA is beyond the size of the namespace.
        LBA_OUT_OF_RANGE = (0, 0x80);
        /// The capacity of the namespace is exceeded.
        CAPACITY_EXCEEDED = (0, 0x81);
        /// The namespace is not ready.
        NAMESPACE_NOT_READY = (0, 0x82);
        /// A reservation conflict.
        RESERVATION_CONFLICT = (0, 0x83);
        /// A format is in progress.
        FORMAT_IN_PROGRESS = (0, 0x84);
        /// The completion queue of the command does not exist.
        COMPLETION_QUEUE_INVALID = (1, 0x00);
        /// The queue identifier is invalid or in use.
        INVALID_QUEUE_ID = (1, 0x01);
        /// The queue size is 0 or above the maximum.
        INVALID_QUEUE_SIZE = (1, 0x02);
        /// More Abort commands are outstanding than the controller allows.
        ABORT_LIMIT_EXCEEDED = (1, 0x03);
        /// More Asynchronous Event Requests are outstanding than the controller allows.
        AER_LIMIT_EXCEEDED = (1, 0x05);
        /// The firmware slot is invalid.
        INVALID_FIRMWARE_SLOT = (1, 0x06);
        /// The interrupt vector is invalid.
        INVALID_INTERRUPT_VECTOR = (1, 0x08);
        /// The log page is invalid.
        INVALID_LOG_PAGE = (1, 0x09);
        /// The format requested is not supported.
        INVALID_FORMAT = (1, 0x0a);
        /// A completion queue is deleted before its submission queues.
        INVALID_QUEUE_DELETION = (1, 0x0c);
        /// The feature cannot be saved.
        FEATURE_NOT_SAVEABLE = (1, 0x0d);
        /// The feature cannot be changed.
        FEATURE_NOT_CHANGEABLE = (1, 0x0e);
        /// There is not enough unallocated capacity.
        NAMESPACE_INSUFFICIENT_CAPACITY = (1, 0x15);
        /// The controller has as many namespaces as it supports.
        NAMESPACE_ID_UNAVAILABLE = (1, 0x16);
        /// The controller is already attached to the namespace.
        NAMESPACE_ALREADY_ATTACHED = (1, 0x18);
        /// The namespace is private, and attached to another controller.
        NAMESPACE_IS_PRIVATE = (1, 0x19);
        /// The controller is not attached to the namespace.
        NAMESPACE_NOT_ATTACHED = (1, 0x1a);
        /// Thin provisioning is not supported.
        THIN_PROVISIONING_NOT_SUPPORTED = (1, 0x1b);
        /// The list of controllers is invalid.
        CONTROLLER_LIST_INVALID = (1, 0x1c);
        /// The ANA group identifier is not supported.
        ANA_GROUP_ID_INVALID = (1, 0x24);
        /// The I/O command set is not supported.
        IO_COMMAND_SET_NOT_SUPPORTED = (1, 0x29);
        /// The attributes in the command conflict.
        CONFLICTING_ATTRIBUTES = (1, 0x80);
        /// The protection information settings are invalid.
        INVALID_PROTECTION_INFORMATION = (1, 0x81);
        /// A write to a range that is read-only.
        WRITE_TO_READ_ONLY_RANGE = (1, 0x82);
        /// A limit on the size of the command is exceeded.
        COMMAND_SIZE_LIMIT_EXCEEDED = (1, 0x83);
        /// The write could not be committed to the media.
        WRITE_FAULT = (2, 0x80);
        /// The data could not be recovered from the media.
        UNRECOVERED_READ_ERROR = (2, 0x81);
        /// The end-to-end guard check failed.
        GUARD_CHECK_ERROR = (2, 0x82);
        /// The end-to-end application tag check failed.
        APPLICATION_TAG_CHECK_ERROR = (2, 0x83);
        /// The end-to-end reference tag check failed.
        REFERENCE_TAG_CHECK_ERROR = (2, 0x84);
        /// A Compare found a difference.
        COMPARE_FAILURE = (2, 0x85);
        /// Access is denied.
        ACCESS_DENIED = (2, 0x86);
        /// A read of a deallocated or unwritten block.
        DEALLOCATED_OR_UNWRITTEN_BLOCK = (2, 0x87);
        /// The host could not reach the controller. No controller sends this.
        HOST_PATHING_ERROR = (3, 0x70);
        /// The host ended the command, by a reset of the controller. No controller sends this.
        ABORTED_BY_HOST = (3, 0x71);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_status() {
        for (known, name) in status::NAMES {
            assert_eq!((Status::named(name), known.name()), (Some(*known), Some(*name)));
        }
        assert_eq!(Status::named("write-fault"), Some(status::WRITE_FAULT));
        assert_eq!(Status::named(""), None);
    }

    #[test]
    fn status_round_trips_through_an_entry() {
        let status = status::UNRECOVERED_READ_ERROR.do_not_retry();
        let cqe = Cqe { status_phase: Cqe::pack_status(status, true), ..Cqe::default() };
        assert!(cqe.phase());
        assert_eq!(cqe.status(), status);
        assert_eq!(cqe.status().bare(), status::UNRECOVERED_READ_ERROR);
        assert!(cqe.status().dnr() && !cqe.status().is_success());
    }

    #[test]
    fn names_are_ordered_for_the_search_and_unknown_values_are_printable() {
        assert!(status::NAMES.windows(2).all(|w| w[0].0.0 < w[1].0.0));
        assert_eq!(status::LBA_OUT_OF_RANGE.name(), Some("LBA_OUT_OF_RANGE"));
        assert_eq!(Status::new(7, 0xee).to_string(), "unknown status (SCT 0x7, SC 0xee)");
    }
}
