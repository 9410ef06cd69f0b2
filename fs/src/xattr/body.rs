//! Extended attributes inside of an inode, behind its fields.

use super::MAGIC;
use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::format::xattr_entry::{Entry, Value, entries};
use crate::xattr::name::SYSTEM;

/// Name of the attribute that holds what of a file's inline data is not in `i_block`.
const INLINE_DATA: &[u8] = b"data";

/// Whether what an inode has behind its fields are attributes: a magic number says so.
pub(crate) fn is_there(space: &[u8]) -> bool {
    space.starts_with(&MAGIC.to_le_bytes())
}

/// The attributes in what an inode has behind its fields.
pub(crate) fn attributes<'a>(
    superblock: &Superblock,
    space: &'a [u8],
) -> Result<Vec<Entry<'a>>, Problem> {
    match space.strip_prefix(&MAGIC.to_le_bytes()) {
        Some(area) => entries(superblock, area, 0),
        None => Ok(Vec::new()),
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
