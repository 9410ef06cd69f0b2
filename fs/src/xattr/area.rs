//! Attributes in memory, and the bytes of the inode or the block that holds them.

use crate::format::corrupt::Problem;
use crate::format::xattr_entry::{self, Entry, MAGIC, Value};
use crate::xattr::block::HEADER;
use crate::xattr::hash;

/// Size of the magic number before the attributes in an inode, bytes.
const MAGIC_SIZE: usize = 4;
/// Size of the terminator after the last entry, bytes.
const END: usize = 4;

/// An attribute with its value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// Index of the name's prefix.
    pub(crate) index: u8,
    /// The name without its prefix.
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Attribute {
    /// Copies entries whose values are all in the same place as the names.
    pub(crate) fn copy_all(entries: Vec<Entry<'_>>) -> Result<Vec<Self>, Problem> {
        let copy = |entry: Entry<'_>| match entry.value {
            Value::Here(value) => {
                let (name, value) = (entry.name.to_vec(), value.to_vec());
                Ok(Self { index: entry.index, name, value })
            }
            Value::Inode { number, .. } => Err(Problem::EntryInode { offset: 0, inode: number }),
        };
        entries.into_iter().map(copy).collect()
    }
}

/// Encodes attributes for the space of `length` bytes in an inode; `None` if they do not fit. The space
/// of an inode without attributes is empty.
pub(crate) fn in_inode(attributes: &[Attribute], length: usize) -> Option<Vec<u8>> {
    let mut space = vec![0; length];
    if attributes.is_empty() {
        return Some(space);
    }
    let (magic, area) = space.split_at_mut_checked(MAGIC_SIZE)?;
    magic.copy_from_slice(&MAGIC.to_le_bytes());
    // The kernel stores no hashes there.
    fill(area, 0, attributes, |_| 0)?;
    Some(space)
}

/// Encodes attributes for a block of `length` bytes, whose header is left out; `None` if they do not
/// fit. Returns the hash of all attributes, too.
pub(crate) fn in_block(attributes: &[Attribute], length: usize) -> Option<(Vec<u8>, u32)> {
    let mut sorted: Vec<&Attribute> = attributes.iter().collect();
    sorted.sort_by_key(|attribute| (attribute.index, attribute.name.len(), &attribute.name));
    let sorted: Vec<Attribute> = sorted.into_iter().cloned().collect();
    let hash = |attribute: &Attribute| hash::entry_with(&attribute.name, &attribute.value);
    let mut block = vec![0; length];
    fill(&mut block, HEADER, &sorted, hash)?;
    Some((block, hash::block(sorted.iter().map(hash))))
}

/// Writes entries from the start of an area on, and values from its end backwards. Returns `None` if
/// they meet.
fn fill(
    area: &mut [u8],
    start: usize,
    attributes: &[Attribute],
    hash: impl Fn(&Attribute) -> u32,
) -> Option<()> {
    let (mut at, mut values) = (start, area.len());
    for attribute in attributes {
        let Attribute { index, name, value } = attribute;
        let mut place = 0;
        if !value.is_empty() {
            values = values.checked_sub(value.len().next_multiple_of(4))?;
            place = values;
            let to = area.get_mut(values..values.checked_add(value.len())?)?;
            to.copy_from_slice(value);
        }
        let size = u32::try_from(value.len()).ok()?;
        let value = (u16::try_from(place).ok()?, size, 0);
        let next = xattr_entry::size(name).checked_add(at)?;
        if next.checked_add(END)? > values {
            return None;
        }
        at = xattr_entry::write(area, at, (*index, name), value, hash(attribute))?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::xattr_body;
    use crate::testing::Image;
    use crate::xattr::block;

    fn attribute(name: &str, value: &[u8]) -> Attribute {
        Attribute { index: 1, name: name.into(), value: value.into() }
    }

    #[test]
    fn the_last_byte_is_used_in_an_inode() {
        let superblock = Image::new().superblock;
        let parsed = |space: &[u8]| {
            Attribute::copy_all(xattr_body::attributes(&superblock, space).unwrap()).unwrap()
        };
        // Two entries of 20 bytes, their end, and the magic number.
        for room in 0..40 {
            let all = [attribute("a", &vec![1; room]), attribute("b", b"")];
            let length = 48 + room.next_multiple_of(4);
            assert_eq!(parsed(&in_inode(&all, length).unwrap()), all, "{room}");
            assert_eq!(in_inode(&all, length - 4), None, "{room}");
        }
        assert_eq!(in_inode(&[], 8).unwrap(), [0; 8]);
        assert_eq!(in_inode(&[], 0), Some(Vec::new()));
        assert_eq!(in_inode(&[attribute("a", b"")], 0), None);
    }

    #[test]
    fn blocks_are_sorted() {
        let superblock = Image::new().superblock;
        let mut all = vec![
            attribute("b", b"1"),
            Attribute { index: 0x80, ..attribute("a", b"0") },
            attribute("aa", &[2; 301]),
            Attribute { index: 6, ..attribute("a", b"") },
            attribute("a", b"4444"),
        ];
        let (mut bytes, hash) = in_block(&all, 4096).unwrap();
        block::seal(&superblock, 9.into(), (1, hash), &mut bytes);
        block::check(&superblock, 9.into(), &bytes).unwrap();
        let found = xattr_entry::entries(&superblock, &bytes, HEADER).unwrap();
        all.sort_by_key(|attribute| {
            (attribute.index, attribute.name.len(), attribute.name.clone())
        });
        assert_eq!(Attribute::copy_all(found).unwrap(), all);
        assert_eq!(all[0].name, b"a");
        assert_eq!(in_block(&all, 400), None);
    }
}
