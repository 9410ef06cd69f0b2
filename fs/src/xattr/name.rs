//! Names of extended attributes, whose prefixes are stored as numbers.

/// `EXT4_XATTR_INDEX_USER`.
pub(crate) const USER: u8 = 1;
/// `EXT4_XATTR_INDEX_POSIX_ACL_ACCESS`.
pub(crate) const ACL_ACCESS: u8 = 2;
/// `EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT`.
pub(crate) const ACL_DEFAULT: u8 = 3;

/// The numbers and their prefixes. The missing numbers are unused or internal to the filesystem.
const PREFIXES: &[(u8, &[u8])] = &[
    (USER, b"user."),
    (ACL_ACCESS, b"system.posix_acl_access"),
    (ACL_DEFAULT, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (10, b"gnu."),
];

/// Returns the whole name; `None` if programs cannot see the attribute.
pub(crate) fn whole(index: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let (_, prefix) = PREFIXES.iter().find(|&&(known, _)| known == index)?;
    Some([prefix, rest].concat())
}

/// Returns the number of the prefix and the rest of a name; `None` if no attribute has such a name.
pub(crate) fn split(whole: &[u8]) -> Option<(u8, &[u8])> {
    let with = |&(index, prefix): &(u8, &[u8])| Some((index, whole.strip_prefix(prefix)?));
    let (index, rest) = PREFIXES.iter().find_map(with)?;
    // A prefix that ends with a dot needs more, and a list has no more.
    let is_list = matches!(index, ACL_ACCESS | ACL_DEFAULT);
    (is_list == rest.is_empty() && !rest.contains(&0)).then_some((index, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_programs_see_them() {
        assert_eq!(whole(1, b"mime_type").unwrap(), b"user.mime_type");
        assert_eq!(whole(2, b"").unwrap(), b"system.posix_acl_access");
        assert_eq!(whole(6, b"capability").unwrap(), b"security.capability");
        assert_eq!(whole(10, b"author").unwrap(), b"gnu.author");
        assert_eq!(whole(crate::format::xattr_entry::SYSTEM, b"data"), None);
        assert_eq!(whole(9, b"c"), None, "the context of encryption");
        assert_eq!(whole(0, b"x"), None);
    }

    #[test]
    fn names_as_programs_give_them() {
        assert_eq!(split(b"user.a.b"), Some((1, &b"a.b"[..])));
        assert_eq!(split(b"system.posix_acl_default"), Some((3, &b""[..])));
        for name in [&b""[..], b"user", b"user.", b"system.data", b"other.x", b"user.a\0"] {
            assert_eq!(split(name), None, "{}", name.escape_ascii());
        }
        assert_eq!(split(b"system.posix_acl_access2"), None);
    }
}
