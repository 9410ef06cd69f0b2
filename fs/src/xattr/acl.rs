//! POSIX access control lists, in the on-disk form and in the form that `getxattr` returns.

use std::fmt;

use crate::format::corrupt::Problem;

/// Version of the on-disk form, in which entries without an id are shorter.
const DISK_VERSION: u32 = 1;
/// Version of the form that `getxattr` returns.
const XATTR_VERSION: u32 = 2;
/// The id of entries without one, in the form that `getxattr` returns.
const NO_ID: u32 = u32::MAX;

/// The user or group that an entry applies to.
///
/// See the [example](Acl#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AclTag {
    /// The owner.
    Owner,
    /// A user, by id.
    User(u32),
    /// The owning group.
    OwningGroup,
    /// A group, by id.
    Group(u32),
    /// The upper limit for users, groups and the owning group.
    Mask,
    /// All other users.
    Other,
}

/// An entry of an access control list.
///
/// See the [example](Acl#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// The user or group.
    pub tag: AclTag,
    /// Permission bits: 4 is read, 2 write, 1 execute.
    pub permissions: u16,
}

/// An access control list. [`Display`](fmt::Display) prints it like `getfacl -n`, one entry per
/// line.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use nvio_ext4::AclTag;
///
/// // `None` for a file whose permissions are its mode.
/// if let Some(acl) = fs.acl(&fs.lookup("/hello.txt")?)? {
///     for entry in acl.entries() {
///         if let AclTag::User(uid) = entry.tag {
///             println!("user {uid}: {:03b}", entry.permissions);
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    pub(super) entries: Vec<AclEntry>,
}

impl Acl {
    /// Returns the entries in stored order.
    ///
    /// See the [example](Self#examples).
    pub fn entries(&self) -> &[AclEntry] {
        &self.entries
    }

    /// Decodes the on-disk form: a version, and entries of 4 bytes, or 8 bytes if they have an id.
    pub(crate) fn from_disk(bytes: &[u8]) -> Result<Self, Problem> {
        let mut rest = after_version(bytes, DISK_VERSION)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let offset = bytes.len().saturating_sub(rest.len());
            let problem = Problem::AclEntry { offset };
            let (head, behind) = rest.split_first_chunk::<4>().ok_or(problem)?;
            let (tag, permissions) = tag_and_permissions(head);
            let mut id = NO_ID;
            rest = behind;
            if has_id(tag) {
                let (stored, behind) = rest.split_first_chunk::<4>().ok_or(problem)?;
                id = u32::from_le_bytes(*stored);
                rest = behind;
            }
            let tag = decode_tag(tag, id).ok_or(problem)?;
            entries.push(AclEntry { tag, permissions });
        }
        Ok(Self { entries })
    }

    /// Encodes the on-disk form.
    pub(crate) fn to_disk(&self) -> Vec<u8> {
        let mut bytes = DISK_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            let (tag, id) = encode_tag(entry.tag);
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            if has_id(tag) {
                bytes.extend_from_slice(&id.to_le_bytes());
            }
        }
        bytes
    }

    /// Decodes the form that `getxattr` returns for `system.posix_acl_access`: a version, and
    /// entries of 8 bytes.
    pub(crate) fn from_xattr(bytes: &[u8]) -> Result<Self, Problem> {
        let rest = after_version(bytes, XATTR_VERSION)?;
        let (chunks, left) = rest.as_chunks::<8>();
        let end = bytes.len().saturating_sub(left.len());
        let mut entries = Vec::with_capacity(chunks.len());
        for (chunk, offset) in chunks.iter().zip((4usize..).step_by(8)) {
            let problem = Problem::AclEntry { offset };
            let (head, id) = chunk.split_first_chunk::<4>().ok_or(problem)?;
            let (tag, permissions) = tag_and_permissions(head);
            let id = id.try_into().map_or(NO_ID, u32::from_le_bytes);
            let tag = decode_tag(tag, id).ok_or(problem)?;
            entries.push(AclEntry { tag, permissions });
        }
        if left.is_empty() { Ok(Self { entries }) } else { Err(Problem::AclEntry { offset: end }) }
    }

    /// Encodes the form that `getxattr` returns.
    pub(crate) fn to_xattr(&self) -> Vec<u8> {
        let mut bytes = XATTR_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            let (tag, id) = encode_tag(entry.tag);
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }
}

impl fmt::Display for AclEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            AclTag::Owner => f.write_str("user::")?,
            AclTag::User(id) => write!(f, "user:{id}:")?,
            AclTag::OwningGroup => f.write_str("group::")?,
            AclTag::Group(id) => write!(f, "group:{id}:")?,
            AclTag::Mask => f.write_str("mask::")?,
            AclTag::Other => f.write_str("other::")?,
        }
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            write!(f, "{}", if self.permissions & bit != 0 { letter } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{entry}")?;
        }
        Ok(())
    }
}

fn after_version(bytes: &[u8], expected: u32) -> Result<&[u8], Problem> {
    let (version, rest) = bytes.split_first_chunk().ok_or(Problem::AclEntry { offset: 0 })?;
    Problem::verify_value("version", u32::from_le_bytes(*version), expected)?;
    Ok(rest)
}

fn tag_and_permissions(bytes: &[u8; 4]) -> (u16, u16) {
    let [tag, more_tag, permissions, more_permissions] = *bytes;
    (u16::from_le_bytes([tag, more_tag]), u16::from_le_bytes([permissions, more_permissions]))
}

fn has_id(tag: u16) -> bool {
    matches!(tag, 0x02 | 0x08)
}

fn decode_tag(tag: u16, id: u32) -> Option<AclTag> {
    Some(match tag {
        0x01 => AclTag::Owner,
        0x02 => AclTag::User(id),
        0x04 => AclTag::OwningGroup,
        0x08 => AclTag::Group(id),
        0x10 => AclTag::Mask,
        0x20 => AclTag::Other,
        _ => return None,
    })
}

fn encode_tag(tag: AclTag) -> (u16, u32) {
    match tag {
        AclTag::Owner => (0x01, NO_ID),
        AclTag::User(id) => (0x02, id),
        AclTag::OwningGroup => (0x04, NO_ID),
        AclTag::Group(id) => (0x08, id),
        AclTag::Mask => (0x10, NO_ID),
        AclTag::Other => (0x20, NO_ID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// u::rwx, u:1000:rw-, g::r-x, g:4000000000:r--, m::rwx, o::---.
    const DISK: [u8; 36] = [
        1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 8, 0, 4, 0, 0x00, 0x28,
        0x6b, 0xee, 0x10, 0, 7, 0, 0x20, 0, 0, 0,
    ];

    #[test]
    fn both_forms() {
        let acl = Acl::from_disk(&DISK).unwrap();
        assert_eq!(
            acl.to_string(),
            "user::rwx\nuser:1000:rw-\ngroup::r-x\ngroup:4000000000:r--\nmask::rwx\nother::---"
        );
        assert_eq!(acl.to_disk(), DISK);
        let xattr = acl.to_xattr();
        assert_eq!(xattr.len(), 4 + 6 * 8);
        assert_eq!(xattr[..12], [2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Acl::from_xattr(&xattr).unwrap(), acl);
        assert!(Acl::from_disk(&DISK[..4]).unwrap().entries().is_empty());
    }

    #[test]
    fn broken_lists() {
        for length in (0..DISK.len()).filter(|length| ![4, 8, 16, 20, 28, 32].contains(length)) {
            Acl::from_disk(&DISK[..length]).unwrap_err();
        }
        let mut bytes = DISK;
        bytes[0] = 2;
        let problem = Problem::Mismatch { field: "version", value: 2, expected: 1 };
        assert_eq!(Acl::from_disk(&bytes), Err(problem));
        let mut bytes = DISK;
        bytes[16] = 3;
        assert_eq!(Acl::from_disk(&bytes), Err(Problem::AclEntry { offset: 16 }));
        let xattr = Acl::from_disk(&DISK).unwrap().to_xattr();
        assert_eq!(Acl::from_xattr(&xattr[..14]), Err(Problem::AclEntry { offset: 12 }));
        Acl::from_xattr(&DISK).unwrap_err();
    }
}
