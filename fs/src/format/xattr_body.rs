//! Extended attributes inside an inode, after its fields.

use crate::format::corrupt::Problem;
use crate::format::superblock::Superblock;
use crate::format::xattr_entry::{Entry, MAGIC, SYSTEM, Value, entries};

/// Name of the attribute that holds the inline data after the first 60 bytes, which are in
/// `i_block`.
const INLINE_DATA: &[u8] = b"data";

/// Returns true if the space after an inode's fields holds attributes: it begins with a magic
/// number.
pub(crate) fn is_there(space: &[u8]) -> bool {
    space.starts_with(&MAGIC.to_le_bytes())
}

/// Parses the attributes in the space after an inode's fields.
pub(crate) fn attributes<'a>(
    superblock: &Superblock,
    space: &'a [u8],
) -> Result<Vec<Entry<'a>>, Problem> {
    match space.strip_prefix(&MAGIC.to_le_bytes()) {
        Some(area) => entries(superblock, area, 0),
        None => Ok(Vec::new()),
    }
}

/// Returns the inline data after the first 60 bytes, which are in `i_block`; `None` if the
/// attribute does not exist.
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
            let rule = "inline data must not be in an inode of its own";
            Err(Problem::Field { field: "inode of system.data", value: number.into(), rule })
        }
    }
}
