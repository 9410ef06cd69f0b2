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
/// assert_eq!((failed.kind(), failed.code(), failed.crd()), (2, 0x81, 0));
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

    /// Returns the command retry delay (CRD): 0, or the number of a delay in Identify Controller.
    ///
    /// See the [example](Self#examples).
    pub const fn crd(self) -> u8 {
        (self.0 >> 11 & 3) as u8
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
        let vendor = self.kind() == 7 || self.code() >= 0xc0;
        let other = if vendor { "vendor specific status" } else { "unknown status" };
        let name = self.name().unwrap_or(other);
        write!(f, "{name} (SCT {:#x}, SC {:#04x})", self.kind(), self.code())?;
        let more = match self.bare() {
            status::HOST_PATHING_ERROR => ", the device is gone",
            status::ABORTED_BY_HOST => ", the controller was reset",
            _ if self.dnr() => ", do not retry",
            _ => "",
        };
        f.write_str(more)
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
        /// Aborted because the other command of a fused operation failed.
        ABORTED_FAILED_FUSED = (0, 0x09);
        /// Aborted because the other command of a fused operation is missing.
        ABORTED_MISSING_FUSED = (0, 0x0a);
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
        /// The command was denied for lack of access rights.
        OPERATION_DENIED = (0, 0x15);
        /// An SGL descriptor has an offset that is not allowed.
        SGL_OFFSET_INVALID = (0, 0x16);
        /// Host identifiers of 64 and 128 bits are used at once.
        HOST_IDENTIFIER_INCONSISTENT_FORMAT = (0, 0x18);
        /// The keep alive timer has expired.
        KEEP_ALIVE_TIMER_EXPIRED = (0, 0x19);
        /// The keep alive timeout is invalid.
        KEEP_ALIVE_TIMEOUT_INVALID = (0, 0x1a);
        /// Aborted by a reservation that was preempted.
        ABORTED_PREEMPT = (0, 0x1b);
        /// The last sanitize operation failed, and has not been recovered from.
        SANITIZE_FAILED = (0, 0x1c);
        /// A sanitize operation is in progress.
        SANITIZE_IN_PROGRESS = (0, 0x1d);
        /// The length or address of an SGL data block has the wrong granularity.
        SGL_DATA_BLOCK_GRANULARITY_INVALID = (0, 0x1e);
        /// The command is not supported in a queue in the controller memory buffer.
        COMMAND_NOT_SUPPORTED_FOR_QUEUE_IN_CMB = (0, 0x1f);
        /// The namespace is write protected.
        NAMESPACE_WRITE_PROTECTED = (0, 0x20);
        /// The controller was interrupted and could not complete the command.
        COMMAND_INTERRUPTED = (0, 0x21);
        /// The transport had an error that may not last.
        TRANSIENT_TRANSPORT_ERROR = (0, 0x22);
        /// The command is prohibited by Command and Feature Lockdown.
        PROHIBITED_BY_LOCKDOWN = (0, 0x23);
        /// The media that an admin command needs is not ready.
        ADMIN_MEDIA_NOT_READY = (0, 0x24);
        /// The key tag is invalid.
        INVALID_KEY_TAG = (0, 0x25);
        /// The host has not enabled dispersed namespaces.
        HOST_DISPERSED_NAMESPACE_NOT_ENABLED = (0, 0x26);
        /// The host identifier is not set.
        HOST_IDENTIFIER_NOT_INITIALIZED = (0, 0x27);
        /// The media encryption key is wrong.
        INCORRECT_KEY = (0, 0x28);
        /// Flexible Data Placement is disabled in the endurance group.
        FDP_DISABLED = (0, 0x29);
        /// The list of placement handles is invalid.
        INVALID_PLACEMENT_HANDLE_LIST = (0, 0x2a);
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
        /// The firmware image is invalid.
        INVALID_FIRMWARE_IMAGE = (1, 0x07);
        /// The interrupt vector is invalid.
        INVALID_INTERRUPT_VECTOR = (1, 0x08);
        /// The log page is invalid.
        INVALID_LOG_PAGE = (1, 0x09);
        /// The format requested is not supported.
        INVALID_FORMAT = (1, 0x0a);
        /// The firmware is activated by a conventional reset.
        FIRMWARE_NEEDS_CONVENTIONAL_RESET = (1, 0x0b);
        /// A completion queue is deleted before its submission queues.
        INVALID_QUEUE_DELETION = (1, 0x0c);
        /// The feature cannot be saved.
        FEATURE_NOT_SAVEABLE = (1, 0x0d);
        /// The feature cannot be changed.
        FEATURE_NOT_CHANGEABLE = (1, 0x0e);
        /// The feature is not specific to a namespace.
        FEATURE_NOT_NAMESPACE_SPECIFIC = (1, 0x0f);
        /// The firmware is activated by a reset of the NVM subsystem.
        FIRMWARE_NEEDS_SUBSYSTEM_RESET = (1, 0x10);
        /// The firmware is activated by a reset of the controller.
        FIRMWARE_NEEDS_CONTROLLER_RESET = (1, 0x11);
        /// Activation of the firmware would exceed the maximum time (MTFA).
        FIRMWARE_NEEDS_MORE_TIME = (1, 0x12);
        /// Activation of the firmware is prohibited.
        FIRMWARE_ACTIVATION_PROHIBITED = (1, 0x13);
        /// The ranges of the firmware image or boot partition overlap.
        OVERLAPPING_RANGE = (1, 0x14);
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
        /// A device self-test is in progress.
        SELF_TEST_IN_PROGRESS = (1, 0x1d);
        /// The boot partition is locked.
        BOOT_PARTITION_WRITE_PROHIBITED = (1, 0x1e);
        /// The controller identifier is invalid.
        INVALID_CONTROLLER_ID = (1, 0x1f);
        /// The secondary controller is in the wrong state.
        INVALID_SECONDARY_CONTROLLER_STATE = (1, 0x20);
        /// The number of controller resources is invalid.
        INVALID_NUMBER_OF_CONTROLLER_RESOURCES = (1, 0x21);
        /// The resource identifier is invalid.
        INVALID_RESOURCE_ID = (1, 0x22);
        /// Sanitize is prohibited while the persistent memory region is enabled.
        SANITIZE_PROHIBITED_WITH_PMR = (1, 0x23);
        /// The ANA group identifier is not supported.
        ANA_GROUP_ID_INVALID = (1, 0x24);
        /// The namespace cannot be attached because of its ANA state.
        ANA_ATTACH_FAILED = (1, 0x25);
        /// The capacity for the configuration is not available.
        INSUFFICIENT_CAPACITY = (1, 0x26);
        /// The controller has as many namespaces attached as it allows.
        NAMESPACE_ATTACHMENT_LIMIT_EXCEEDED = (1, 0x27);
        /// Prohibition of the command is not supported.
        LOCKDOWN_NOT_SUPPORTED = (1, 0x28);
        /// The I/O command set is not supported.
        IO_COMMAND_SET_NOT_SUPPORTED = (1, 0x29);
        /// The I/O command set is not enabled.
        IO_COMMAND_SET_NOT_ENABLED = (1, 0x2a);
        /// The combination of I/O command sets is not supported.
        IO_COMMAND_SET_COMBINATION_REJECTED = (1, 0x2b);
        /// The I/O command set is invalid.
        INVALID_IO_COMMAND_SET = (1, 0x2c);
        /// No identifier of a domain or endurance group is available.
        IDENTIFIER_UNAVAILABLE = (1, 0x2d);
        /// The namespace is dispersed.
        NAMESPACE_IS_DISPERSED = (1, 0x2e);
        /// The discovery information is invalid.
        INVALID_DISCOVERY_INFORMATION = (1, 0x2f);
        /// The zoning data structure is locked.
        ZONING_DATA_STRUCTURE_LOCKED = (1, 0x30);
        /// The zoning data structure does not exist.
        ZONING_DATA_STRUCTURE_NOT_FOUND = (1, 0x31);
        /// The discovery controller lacks resources.
        INSUFFICIENT_DISCOVERY_RESOURCES = (1, 0x32);
        /// The function is disabled.
        REQUESTED_FUNCTION_DISABLED = (1, 0x33);
        /// The originator of the zone group is invalid.
        ZONEGROUP_ORIGINATOR_INVALID = (1, 0x34);
        /// The attributes in the command conflict.
        CONFLICTING_ATTRIBUTES = (1, 0x80);
        /// The protection information settings are invalid.
        INVALID_PROTECTION_INFORMATION = (1, 0x81);
        /// A write to a range that is read-only.
        WRITE_TO_READ_ONLY_RANGE = (1, 0x82);
        /// A limit on the size of the command is exceeded.
        COMMAND_SIZE_LIMIT_EXCEEDED = (1, 0x83);
        /// The namespace or its format is invalid for the command.
        INVALID_NAMESPACE_OR_FORMAT = (1, 0x84);
        /// The namespaces of a copy are not compatible.
        INCOMPATIBLE_NAMESPACE_OR_FORMAT = (1, 0x85);
        /// A fast copy is not possible.
        FAST_COPY_NOT_POSSIBLE = (1, 0x86);
        /// The source and the destination of a copy overlap.
        OVERLAPPING_IO_RANGE = (1, 0x87);
        /// A namespace of the copy cannot be reached.
        NAMESPACE_NOT_REACHABLE = (1, 0x88);
        /// The controller lacks resources for the command.
        INSUFFICIENT_RESOURCES = (1, 0x89);
        /// The zone operation is invalid.
        INVALID_ZONE_OPERATION_REQUEST = (1, 0xb6);
        /// No resources are left for a zone random write area.
        ZRWA_RESOURCES_UNAVAILABLE = (1, 0xb7);
        /// The command crosses the boundary of a zone.
        ZONE_BOUNDARY_ERROR = (1, 0xb8);
        /// The zone is full.
        ZONE_IS_FULL = (1, 0xb9);
        /// The zone is read-only.
        ZONE_IS_READ_ONLY = (1, 0xba);
        /// The zone is offline.
        ZONE_IS_OFFLINE = (1, 0xbb);
        /// The write does not begin at the write pointer of the zone.
        ZONE_INVALID_WRITE = (1, 0xbc);
        /// The controller allows no more active zones.
        TOO_MANY_ACTIVE_ZONES = (1, 0xbd);
        /// The controller allows no more open zones.
        TOO_MANY_OPEN_ZONES = (1, 0xbe);
        /// The zone cannot change to this state.
        INVALID_ZONE_STATE_TRANSITION = (1, 0xbf);
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
        /// The end-to-end storage tag check failed.
        STORAGE_TAG_CHECK_ERROR = (2, 0x88);
        /// The path to the namespace had an internal error.
        INTERNAL_PATH_ERROR = (3, 0x00);
        /// The ANA group is in the Persistent Loss state.
        ASYMMETRIC_ACCESS_PERSISTENT_LOSS = (3, 0x01);
        /// The ANA group is in the Inaccessible state.
        ASYMMETRIC_ACCESS_INACCESSIBLE = (3, 0x02);
        /// The ANA group is changing its state.
        ASYMMETRIC_ACCESS_TRANSITION = (3, 0x03);
        /// The controller found an error of the path.
        CONTROLLER_PATHING_ERROR = (3, 0x60);
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
        assert_eq!((status.crd(), Status(status.0 | 2 << 11).crd()), (0, 2));
        assert!(cqe.status().dnr() && !cqe.status().is_success());
    }

    #[test]
    fn names_are_ordered_for_the_search_and_unknown_values_are_printable() {
        assert!(status::NAMES.windows(2).all(|w| w[0].0.0 < w[1].0.0));
        assert_eq!(status::LBA_OUT_OF_RANGE.name(), Some("LBA_OUT_OF_RANGE"));
        assert_eq!(Status::new(7, 0xee).to_string(), "vendor specific status (SCT 0x7, SC 0xee)");
        let gone = status::HOST_PATHING_ERROR.to_string();
        assert!(gone.ends_with("the device is gone"), "{gone}");
        assert_eq!(Status::new(1, 0x7f).to_string(), "unknown status (SCT 0x1, SC 0x7f)");
    }
}
