//! Names of extended attributes, whose prefixes are stored as numbers.

/// `EXT4_XATTR_INDEX_POSIX_ACL_ACCESS`.
pub(crate) const ACL_ACCESS: u8 = 2;
/// `EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT`.
pub(crate) const ACL_DEFAULT: u8 = 3;

/// The numbers and their prefixes. The missing numbers are unused or internal to the filesystem.
const PREFIXES: &[(u8, &[u8])] = &[
    (1, b"user."),
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
}
