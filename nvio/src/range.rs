//! The bytes of a device that a location selects.

use nvio_ext4::BlockSource;

use crate::error::Error;
use crate::location::{Location, Range};
use crate::partition;

/// Returns first byte and length of the range that `location` selects, or `None` for the whole device, which
/// `whole` reads.
pub(crate) fn byte_range<S: BlockSource>(
    location: &Location,
    block_bytes: u32,
    whole: impl FnOnce() -> Result<S, Error>,
) -> Result<Option<(u64, u64)>, Error> {
    let (start, length) = match location.range {
        Range::Whole if location.skip == 0 => return Ok(None),
        Range::Whole => (0, BlockSource::size(&whole()?)),
        Range::Bytes { offset, length } => (offset, length),
        Range::Partition(number) => {
            let found = partition::find(&whole()?, number, block_bytes)?;
            (found.offset, found.length)
        }
    };
    let outside = Error::Offset { offset: location.skip, size: length };
    match (start.checked_add(location.skip), length.checked_sub(location.skip)) {
        (Some(first), Some(length)) if length > 0 => Ok(Some((first, length))),
        _ => Err(outside),
    }
}
