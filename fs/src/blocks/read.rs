//! Reads of a source that return errors of this crate.

use crate::blocks::source::BlockSource;
use crate::error::Error;

/// Maximum length of one read, bytes.
pub(crate) const READ_MAX: u32 = 256 << 10;

/// Reads `bytes` at byte `offset` of `source`.
pub(crate) fn read(
    source: &(impl BlockSource + ?Sized),
    offset: u64,
    bytes: &mut [u8],
) -> Result<(), Error> {
    let length = bytes.len();
    source.read(offset, bytes).map_err(|error| Error::Source { offset, length, error })
}
