//! Access control lists as text, such as `u::rw,u:1000:r,g::r,m::r,o::-`.

use crate::users;

/// Version of the form of a list that setxattr(2) expects.
const LIST_VERSION: u32 = 2;

/// A user or a group in an entry.
type Id<'a> = fn(&'a str, &'a str, Option<&'a str>) -> Option<u32>;

/// Encodes a list of entries in the order that the kernel expects. Users and groups are numbers.
pub fn encode(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let number: Id<'_> = |_, id, number| if number.is_none() { id.parse().ok() } else { None };
    list(text.split([',', '\n']), number)
}

/// Encodes a list as programs archive it: users and groups are numbers, or names with their number after the
/// permissions, or names of this machine. Effective permissions are in comments.
pub fn encode_archived(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let named: Id<'_> = |kind, id, number| match number {
        Some(number) => number.parse().ok(),
        None => id.parse().ok().or_else(|| match kind.starts_with('u') {
            true => users::user_id(id),
            false => users::group_id(id),
        }),
    };
    let entries = text.split([',', '\n']).map(without_comment);
    list(entries.filter(|entry| !entry.is_empty()), named)
}

fn without_comment(entry: &str) -> &str {
    entry.split('#').next().unwrap_or_default().trim()
}

fn list<'a>(entries: impl Iterator<Item = &'a str>, id_of: Id<'a>) -> Option<Vec<u8>> {
    let mut entries = entries.map(|text| entry(text, id_of)).collect::<Option<Vec<_>>>()?;
    entries.sort_unstable();
    let mut bytes = LIST_VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Some(bytes)
}

/// Returns tag, id and permissions of an entry.
fn entry<'a>(text: &'a str, id_of: Id<'a>) -> Option<(u16, u32, u16)> {
    let mut parts = text.trim().split(':');
    let (kind, id, bits) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, None) = (parts.next(), parts.next()) else { return None };
    let tag = match (kind, id.is_empty()) {
        ("u" | "user", true) => 0x01,
        ("u" | "user", false) => 0x02,
        ("g" | "group", true) => 0x04,
        ("g" | "group", false) => 0x08,
        ("m" | "mask", true) => 0x10,
        ("o" | "other", true) => 0x20,
        _ => return None,
    };
    let id = match id.is_empty() {
        true if number.is_some() => return None,
        true => u32::MAX,
        false => id_of(kind, id, number)?,
    };
    let bit = |letter| match letter {
        'r' => Some(4),
        'w' => Some(2),
        'x' => Some(1),
        '-' => Some(0),
        _ => None,
    };
    let bits = bits.chars().map(bit).try_fold(0, |sum, bit| Some(sum | bit?))?;
    Some((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archived_lists_have_names() {
        let numbers = encode(b"u::rw,u:0:rw,u:1234:r,g::r,g:8:rx,m::rwx,o::r").unwrap();
        let lists: [&[u8]; 3] = [
            b"user::rw-\nuser:root:rw-\nuser:1234:r--\ngroup::r--\ngroup:8:r-x\nmask::rwx\nother::r--\n",
            b"user::rw-,user:nobody-here:rw-:0,user:1234:r--,group::r--,group:x:r-x:8,mask::rwx,other::r--",
            b"user::rw-\t\nuser:0:rw-  #effective:r--\nuser:1234:r--\ngroup::r--\ngroup:8:r-x\nmask::rwx\n# end\nother::r--",
        ];
        for text in lists {
            assert_eq!(encode_archived(text).unwrap(), numbers, "{}", text.escape_ascii());
        }
        for text in [
            &b"user:nobody-here:rw-"[..],
            b"group:nobody-here:rw-",
            b"user::rw-:0",
            b"user:a:rw-:b",
            b"user:a:rw-:0:0",
            b"user:a",
            b"user::\xff",
        ] {
            assert_eq!(encode_archived(text), None, "{}", text.escape_ascii());
        }
        assert_eq!(encode(b"u:root:r"), None);
        assert_eq!(encode(b"u:root:r:0"), None);
    }
}
