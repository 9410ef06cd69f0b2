//! Extended attributes inside of an inode, behind its fields.

use super::MAGIC;
use super::entry::{Entry, Value, entries};
use super::name::SYSTEM;
use crate::Superblock;
use crate::corrupt::Problem;

/// Name of the attribute that holds what of a file's inline data is not in `i_block`.
const INLINE_DATA: &[u8] = b"data";

/// The attributes in what an inode has behind its fields: first a magic number, without which
/// there are none.
pub(crate) fn attributes<'a>(
    superblock: &Superblock,
    space: &'a [u8],
) -> Result<Vec<Entry<'a>>, Problem> {
    match space.split_first_chunk() {
        Some((magic, area)) if u32::from_le_bytes(*magic) == MAGIC => entries(superblock, area, 0),
        _ => Ok(Vec::new()),
    }
}

/// What follows the 60 bytes of inline data in `i_block`; `None` if there is no inline data.
pub(crate) fn inline_data<'a>(
    superblock: &Superblock,
    space: &'a [u8],
) -> Result<Option<&'a [u8]>, Problem> {
    let all = attributes(superblock, space)?;
    let is_data = |entry: &&Entry<'_>| entry.index == SYSTEM && entry.name == INLINE_DATA;
    match all.iter().find(is_data).map(|entry| entry.value) {
        None => Ok(None),
        Some(Value::Here(value)) => Ok(Some(value)),
        Some(Value::Inode { number, .. }) => {
            let rule = "inline data cannot be in an inode of its own";
            Err(Problem::Field { field: "inode of system.data", value: number.into(), rule })
        }
    }
}
