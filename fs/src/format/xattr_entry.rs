//! Entries of extended attributes: names, and the places of the values.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::corrupt::Problem;
use crate::format::features::IncompatFeatures;
use crate::format::superblock::Superblock;
use crate::number::{InodeNumber, as_usize};

/// `EXT4_XATTR_MAGIC`.
pub(crate) const MAGIC: u32 = 0xea02_0000;
/// `EXT4_XATTR_INDEX_SYSTEM`, for inline data, which programs cannot see.
pub(crate) const SYSTEM: u8 = 7;
/// Largest value, bytes: the limit of `getxattr` (`XATTR_SIZE_MAX`).
pub(crate) const VALUE_MAX: u32 = 64 << 10;
/// Size of the terminator after the last entry, bytes. It consists of zeroes.
const END: usize = 4;

/// `struct ext4_xattr_entry`, without the name.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    name_len: u8,
    name_index: u8,
    value_offset: U16,
    value_inode: U32,
    value_size: U32,
    hash: U32,
}

const HEADER: usize = 16;
const _: () = assert!(size_of::<RawEntry>() == HEADER);

/// Returns the size of an entry, without its value, bytes.
pub(crate) fn size(name: &[u8]) -> usize {
    name.len().next_multiple_of(4).saturating_add(HEADER)
}

/// Writes the header and the name of an entry at `at` of an area. `value` is the byte offset, the
/// size and the inode of the value, 0 if the value is in the area. Returns the offset of the next
/// entry; `None` if the entry does not fit.
pub(crate) fn write(
    area: &mut [u8],
    at: usize,
    (index, name): (u8, &[u8]),
    value: (u16, u32, u32),
    hash: u32,
) -> Option<usize> {
    let (value_offset, value_size, value_inode) = value;
    let name_len = u8::try_from(name.len()).ok()?;
    let next = at.checked_add(size(name))?;
    let (raw, rest) = RawEntry::mut_from_prefix(area.get_mut(at..next)?).ok()?;
    rest.fill(0);
    rest.get_mut(..name.len())?.copy_from_slice(name);
    *raw = RawEntry {
        name_len,
        name_index: index,
        value_offset: value_offset.into(),
        value_inode: value_inode.into(),
        value_size: value_size.into(),
        hash: hash.into(),
    };
    Some(next)
}

/// An entry: a name without its prefix, and the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Index of the name's prefix.
    pub(crate) index: u8,
    pub(crate) name: &'a [u8],
    pub(crate) value: Value<'a>,
}

/// The value of an attribute, or its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A value in the same inode or block as the entry.
    Here(&'a [u8]),
    /// A value in an inode of its own.
    Inode {
        number: InodeNumber,
        /// Size of the value, bytes.
        size: u32,
        /// Hash of the name and the value.
        hash: u32,
    },
}

/// Parses the entries in `area`, which start at byte `first`; value offsets count from the start of
/// the area. The checks are the kernel's: names and values are inside the area, and values do not
/// overlap the names.
pub(crate) fn entries<'a>(
    superblock: &Superblock,
    area: &'a [u8],
    first: usize,
) -> Result<Vec<Entry<'a>>, Problem> {
    let mut found = Vec::new();
    let mut at = first;
    // The loop ends, because each entry starts at least a header after the one before.
    let names_end = loop {
        let rest = area.get(at..).unwrap_or_default();
        let name_problem = Problem::AttributeName { offset: at };
        let (next, _) = rest.split_first_chunk::<END>().ok_or(name_problem)?;
        if *next == [0; END] {
            break at.saturating_add(END);
        }
        let (raw, rest) = RawEntry::ref_from_prefix(rest).map_err(|_| name_problem)?;
        let name = rest.get(..usize::from(raw.name_len)).ok_or(name_problem)?;
        if name.contains(&0) {
            return Err(name_problem);
        }
        found.push((at, raw, name));
        at = at.saturating_add(size(name));
    };
    let entry = |(offset, raw, name): (usize, &RawEntry, &'a [u8])| {
        let value = value(superblock, area, names_end, offset, raw)?;
        Ok(Entry { index: raw.name_index, name, value })
    };
    found.into_iter().map(entry).collect()
}

/// Returns the value of the entry at `offset`. `names_end` is the first byte after the names.
fn value<'a>(
    superblock: &Superblock,
    area: &'a [u8],
    names_end: usize,
    offset: usize,
    raw: &RawEntry,
) -> Result<Value<'a>, Problem> {
    let (size, number) = (raw.value_size.get(), InodeNumber::from(raw.value_inode));
    Problem::verify_max("size of an attribute", size, VALUE_MAX)?;
    if number != 0 {
        let allowed = superblock.has(IncompatFeatures::EA_INODE)
            && superblock.inodes().contains(&number)
            && number != InodeNumber::ROOT;
        return match allowed {
            true => Ok(Value::Inode { number, size, hash: raw.hash.get() }),
            false => Err(Problem::EntryInode { offset, inode: number }),
        };
    }
    if size == 0 {
        return Ok(Value::Here(&[]));
    }
    let start = usize::from(raw.value_offset.get());
    let length = as_usize(size);
    // The value's padding to a multiple of four bytes must be inside the area, too.
    let padded = area.get(start..start.saturating_add(length.next_multiple_of(4)));
    let value = padded.filter(|_| start >= names_end).and_then(|padded| padded.get(..length));
    value.map(Value::Here).ok_or(Problem::AttributeValue { offset, start, size: length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Image, attribute};

    fn superblock(features: u32) -> Superblock {
        Image::with(|raw| raw.incompat = (raw.incompat.get() | features).into()).superblock
    }

    /// Returns an area of 128 bytes: two entries from byte 8, and their values at the end.
    fn area() -> Vec<u8> {
        let mut area = vec![0; 128];
        let at = attribute(&mut area, 8, (1, b"first"), 120, 8);
        attribute(&mut area, at, (6, b"second1"), 112, 5);
        area[112..].copy_from_slice(b"12345...abcdefgh");
        area
    }

    #[test]
    fn names_and_values() {
        let area = area();
        let found = entries(&superblock(0), &area, 8).unwrap();
        let here = |index, name, value| Entry { index, name, value: Value::Here(value) };
        assert_eq!(found, [here(1, b"first", b"abcdefgh"), here(6, b"second1", b"12345")]);
        assert!(entries(&superblock(0), &[0; 12], 8).unwrap().is_empty());
    }

    #[test]
    fn every_rule() {
        let message = |features, change: fn(&mut Vec<u8>)| {
            let mut area = area();
            change(&mut area);
            entries(&superblock(features), &area, 8).unwrap_err().to_string()
        };
        let name = "the attribute at byte 32 has a name that does not fit, or has a zero byte";
        assert_eq!(message(0, |area| area[32] = 81), name, "past the end");
        assert_eq!(message(0, |area| area[32] = 80), name, "no room for the end");
        assert_eq!(message(0, |area| area[50] = 0), name);
        assert_eq!(message(0, |area| area.truncate(56)), name.replace("32", "56"));
        let value = "the attribute at byte 32 has a value of 5 bytes at";
        assert!(message(0, |area| area[34] = 124).starts_with(value), "padded past the end");
        assert!(message(0, |area| area[34] = 56).starts_with(value), "in the end of the names");
        assert!(message(0, |area| area[34..36].fill(0xff)).starts_with(value));
        let large = message(0, |area| area[40..44].copy_from_slice(&[1, 0, 1, 0]));
        assert_eq!(large, "size of an attribute is 65537, the maximum is 65536");
        let inode = "the entry at byte 32 refers to inode";
        assert!(message(0, |area| area[36] = 20).starts_with(inode), "without the feature");
        assert!(message(0x400, |area| area[36] = 2).starts_with(inode), "the root");
        assert!(message(0x400, |area| area[36] = 8).starts_with(inode), "the journal");
        assert!(message(0x400, |area| area[38] = 1).starts_with(inode), "too large");
    }

    #[test]
    fn values_elsewhere_and_empty_values() {
        let mut area = area();
        area[34..36].fill(0xff);
        area[36] = 20;
        area[44] = 7;
        let superblock = superblock(0x400);
        let found = entries(&superblock, &area, 8).unwrap();
        assert_eq!(found[1].value, Value::Inode { number: 20.into(), size: 5, hash: 7 });
        area[36] = 0;
        area[40] = 0;
        let found = entries(&superblock, &area, 8).unwrap();
        assert_eq!(found[1].value, Value::Here(&[]), "the offset of an empty value is ignored");
    }
}
