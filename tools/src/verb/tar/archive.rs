//! Members of an archive in the POSIX format. A value that its field of the header cannot hold is in
//! a record of an extended header.

use std::borrow::Cow;

use nvio::Inode;
use nvio_ext4::{FileType, Timestamp, Xattr};
use tar::{Builder, EntryType, Header};

use super::segments::Segments;
use crate::error::Error;
use crate::target::Target;

/// Size of a block of the archive in bytes.
const BLOCK: u64 = 512;
/// Bytes of the archive are a multiple of this: 20 blocks, as GNU tar writes them.
const RECORD: u64 = 20 * BLOCK;
/// Length of the fields of names in bytes.
const NAME_MAX: usize = 100;
/// Largest values of the fields, in octal digits.
const ID_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// The archive being written.
pub struct Archive {
    target: Target,
    bytes: u64,
    /// Number of members.
    pub members: u64,
}

/// A member: the name, the inode, and the records of its extended header.
pub struct Member<'a> {
    /// The inode.
    pub inode: &'a Inode,
    name: Cow<'a, [u8]>,
    records: Vec<(String, Vec<u8>)>,
}

impl<'a> Member<'a> {
    /// Creates a member without attributes.
    pub fn new(name: &'a [u8], inode: &'a Inode) -> Self {
        Self { inode, name: name.into(), records: Vec::new() }
    }

    /// Adds a record.
    pub fn record(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.records.push((key.into(), value.into()));
    }

    /// Adds an extended attribute. Access control lists have records of their own. GNU tar decodes
    /// `%` and `=` in keys; other programs do so with bytes that are not UTF-8.
    pub fn attribute(&mut self, xattr: &Xattr) {
        if xattr.name.starts_with(b"system.posix_acl_") {
            return;
        }
        let mut key = String::from("SCHILY.xattr.");
        for chunk in xattr.name.utf8_chunks() {
            key += &chunk.valid().replace('%', "%25").replace('=', "%3D");
            for byte in chunk.invalid() {
                key += &format!("%{byte:02X}");
            }
        }
        self.record(key, xattr.value.clone());
    }
}

impl Archive {
    /// Begins an archive.
    pub fn new(target: Target) -> Self {
        Self { target, bytes: 0, members: 0 }
    }

    /// Adds another name of a file.
    ///
    /// # Errors
    /// If the output fails.
    pub fn hard_link(&mut self, member: &Member<'_>, first: &[u8]) -> Result<(), Error> {
        let member = Member::new(&member.name, member.inode);
        self.header(member, EntryType::Link, 0, first)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// If the output fails.
    pub fn symlink(&mut self, member: Member<'_>, target: &[u8]) -> Result<(), Error> {
        self.header(member, EntryType::Symlink, 0, target)
    }

    /// Adds a directory, a device or a pipe.
    ///
    /// # Errors
    /// If the output fails.
    pub fn bare(&mut self, member: Member<'_>) -> Result<(), Error> {
        let kind = match member.inode.kind() {
            FileType::Directory => EntryType::Directory,
            FileType::CharDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => EntryType::Fifo,
        };
        self.header(member, kind, 0, b"")
    }

    /// Begins a regular file, whose data comes next, and returns the number of bytes of data.
    ///
    /// # Errors
    /// If the output fails.
    pub fn begin_file(
        &mut self,
        mut member: Member<'_>,
        segments: &Segments,
    ) -> Result<u64, Error> {
        let data = segments.data();
        if !segments.is_sparse() {
            self.header(member, EntryType::Regular, data, b"")?;
            return Ok(data);
        }
        let map = segments.map();
        // Programs that do not know the records extract a file of this name with map and data.
        let name = [b"GNUSparseFile.0/", &*member.name].concat();
        member.record("GNU.sparse.major", "1");
        member.record("GNU.sparse.minor", "0");
        let real = std::mem::replace(&mut member.name, name.into());
        member.record("GNU.sparse.name", real);
        member.record("GNU.sparse.realsize", segments.size.to_string());
        self.header(member, EntryType::Regular, data.saturating_add(map.len() as u64), b"")?;
        self.data(&map)?;
        Ok(data)
    }

    /// Adds data of the file.
    ///
    /// # Errors
    /// If the output fails.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.target.bytes(bytes)
    }

    /// Adds zeroes.
    ///
    /// # Errors
    /// If the output fails.
    pub fn zeroes(&mut self, mut count: u64) -> Result<(), Error> {
        let zeroes = [0; 4096];
        while count > 0 {
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(zeroes.len());
            self.data(zeroes.get(..most).unwrap_or_default())?;
            count -= most as u64;
        }
        Ok(())
    }

    /// Ends a file of this number of bytes of data.
    ///
    /// # Errors
    /// If the output fails.
    pub fn end_file(&mut self, data: u64) -> Result<(), Error> {
        self.zeroes(data.next_multiple_of(BLOCK) - data)
    }

    /// Ends the archive, and returns its size in bytes.
    ///
    /// # Errors
    /// If the output fails.
    pub fn end(&mut self) -> Result<u64, Error> {
        self.zeroes(2 * BLOCK)?;
        self.zeroes(self.bytes.next_multiple_of(RECORD) - self.bytes)?;
        self.target.end()?;
        Ok(self.bytes)
    }

    /// Writes the headers of a member with `size` bytes of data.
    fn header(
        &mut self,
        mut member: Member<'_>,
        kind: EntryType,
        size: u64,
        link: &[u8],
    ) -> Result<(), Error> {
        let inode = member.inode;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(inode.permissions().into());
        header.set_size(size.min(SIZE_MAX));
        header.set_uid(inode.uid().min(ID_MAX).into());
        header.set_gid(inode.gid().min(ID_MAX).into());
        header.set_mtime(u64::try_from(inode.mtime().seconds).unwrap_or(0).min(SIZE_MAX));
        let name = std::mem::take(&mut member.name);
        for (field, text, key) in [(Field::Name, &*name, "path"), (Field::Link, link, "linkpath")] {
            if text.len() > NAME_MAX {
                member.record(key, text);
            }
            field.set(&mut header, text);
        }
        for (key, value, most) in [
            ("size", size, SIZE_MAX),
            ("uid", inode.uid().into(), ID_MAX.into()),
            ("gid", inode.gid().into(), ID_MAX.into()),
        ] {
            if value > most {
                member.record(key, value.to_string());
            }
        }
        for (key, time) in [("mtime", inode.mtime()), ("atime", inode.atime())] {
            member.record(key, decimal(time));
        }
        if let Some((major, minor)) = inode.rdev()
            && let Some(ustar) = header.as_ustar_mut()
        {
            ustar.set_device_major(major);
            ustar.set_device_minor(minor);
        }
        header.set_cksum();
        let records = member.records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let mut extended = Builder::new(Vec::new());
        extended.append_pax_extensions(records).map_err(Error::Output)?;
        self.data(&without_end(extended)?)?;
        self.members += 1;
        self.data(header.as_bytes())
    }
}

/// Returns the bytes that were added, without the end of an archive.
fn without_end(mut builder: Builder<Vec<u8>>) -> Result<Vec<u8>, Error> {
    let bytes = std::mem::take(builder.get_mut());
    builder.into_inner().map_err(Error::Output)?;
    Ok(bytes)
}

/// A field of the header for a name.
enum Field {
    Name,
    Link,
}

impl Field {
    /// Writes the beginning of `text`. The setters of the crate reject some names.
    fn set(&self, header: &mut Header, text: &[u8]) {
        let old = header.as_old_mut();
        let field = match self {
            Self::Name => &mut old.name,
            Self::Link => &mut old.linkname,
        };
        field.iter_mut().zip(text).for_each(|(to, byte)| *to = *byte);
    }
}

/// Formats a time as a decimal number of seconds since 1970.
fn decimal(time: Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, positive) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let (whole, part) = (positive / 1_000_000_000, positive % 1_000_000_000);
    match part {
        0 => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part:09}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (10, 0, "10"),
            (1_350_244_992, 23_960_108, "1350244992.023960108"),
            (5, 500_000_000, "5.5"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 1, "-1.999999999"),
        ] {
            assert_eq!(decimal(Timestamp { seconds, nanoseconds }), text);
        }
    }
}
