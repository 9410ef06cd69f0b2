//! Members: what a header, its extended headers and the defaults of the archive say together.

use nvio_ext4::Timestamp;
use tar::Header;

use super::damage::Damage;
use super::number::field;
use super::pax::{Records, Sparse};
use crate::verb::tar::segments::Segments;

/// A member of an archive.
#[derive(Debug)]
pub struct Member {
    /// The name.
    pub path: Vec<u8>,
    /// The kind of file.
    pub kind: Kind,
    /// The target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions with set-user-ID, set-group-ID and sticky bit.
    pub permissions: u16,
    /// The time of the last change of the data.
    pub mtime: Timestamp,
    /// The values of records that the fields above do not have.
    pub records: Records,
    /// The parts of a regular file that have data, and its size.
    pub segments: Segments,
}

/// The kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a member.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A kind that no filesystem has.
    Other(u8),
}

impl Kind {
    /// Decodes the kind of a member with the name `path`. Old programs archive a directory as a file whose
    /// name ends in a slash.
    pub fn new(header: &Header, path: &[u8]) -> Result<Self, Damage> {
        let device = || -> Result<(u32, u32), Damage> {
            let ustar = header.as_ustar().map(|header| (header.dev_major, header.dev_minor));
            let gnu = header.as_gnu().map(|header| (header.dev_major, header.dev_minor));
            let (major, minor) = ustar.or(gnu).unwrap_or_default();
            Ok((id(&major, "number of a device")?, id(&minor, "number of a device")?))
        };
        Ok(match header.as_old().linkflag[0] {
            0 | b'0' | b'7' if path.ends_with(b"/") => Self::Directory,
            0 | b'0' | b'7' | b'S' => Self::File,
            b'1' => Self::Link,
            b'2' => Self::Symlink,
            b'3' => device().map(|(major, minor)| Self::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Self::BlockDevice(major, minor))?,
            // A directory with a list of its entries, which an incremental archive has.
            b'5' | b'D' => Self::Directory,
            b'6' => Self::Fifo,
            other => Self::Other(other),
        })
    }
}

impl Member {
    /// Joins a header, its records, and names of GNU tar's old format. The segments are still missing.
    ///
    /// # Errors
    /// If a field of the header is not a number that a file can have.
    pub fn new(
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut records: Records,
    ) -> Result<Self, Damage> {
        let old = header.as_old();
        let sparse_name = records.sparse.name.take();
        let path = sparse_name.or(records.path.take()).or(long_name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records.link.take().or(long_link);
        let link = link.unwrap_or_else(|| until_zero(&old.linkname).to_vec());
        let seconds = field(&old.mtime).and_then(|seconds| i64::try_from(seconds).ok());
        let mtime = records.mtime.or(seconds.map(|seconds| Timestamp { seconds, nanoseconds: 0 }));
        let mode = field(&old.mode).ok_or(Damage::Field("mode"))?;
        let id_of = |record: Option<u32>, bytes, name| match record {
            Some(record) => Ok(record),
            None => id(bytes, name),
        };
        Ok(Self {
            kind: Kind::new(header, &path)?,
            path,
            link,
            uid: id_of(records.uid, &old.uid, "owner")?,
            gid: id_of(records.gid, &old.gid, "group")?,
            permissions: u16::try_from(mode & 0o7777).unwrap_or(0),
            mtime: mtime.ok_or(Damage::Field("time"))?,
            records,
            segments: Segments { ranges: Vec::new(), size: 0 },
        })
    }

    /// Returns the number of bytes of data after the header. Links, devices and pipes have none, whatever
    /// their size says.
    ///
    /// # Errors
    /// If the size is not a number.
    pub fn data(&self, header: &Header) -> Result<u64, Damage> {
        let has_data = match self.kind {
            Kind::File | Kind::Other(_) => true,
            Kind::Directory => header.as_old().linkflag[0] != b'5',
            _ => false,
        };
        match has_data {
            true => self.records.size.map_or_else(|| size(header), Ok),
            false => Ok(0),
        }
    }

    /// Returns the records of a file with holes, if it is one in the POSIX format.
    pub fn sparse(&self) -> Option<&Sparse> {
        let sparse = &self.records.sparse;
        let is_file = self.kind == Kind::File;
        Some(sparse)
            .filter(|sparse| is_file && (sparse.size.is_some() || sparse.version.0.is_some()))
    }
}

/// Returns the size in a header.
///
/// # Errors
/// If it is not a number.
pub fn size(header: &Header) -> Result<u64, Damage> {
    let size = field(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
    size.ok_or(Damage::Field("size"))
}

/// Returns the bytes before the first zero.
pub fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

fn id(bytes: &[u8], name: &'static str) -> Result<u32, Damage> {
    let id = field(bytes).and_then(|id| u32::try_from(id).ok());
    id.ok_or(Damage::Field(name))
}
