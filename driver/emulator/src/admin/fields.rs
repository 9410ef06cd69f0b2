//! The fields of admin commands, and their checks.

use nvio_spec::Status;

/// Returns bits 15:0 of a command dword.
pub(crate) fn low_half(dword: u32) -> u16 {
    (dword & 0xffff) as u16
}

/// Returns bits 31:16 of a command dword.
pub(crate) fn high_half(dword: u32) -> u16 {
    (dword >> 16) as u16
}

/// Returns `otherwise` unless a command is `good`.
pub(crate) fn require(good: bool, otherwise: Status) -> Result<(), Status> {
    if good { Ok(()) } else { Err(otherwise) }
}
