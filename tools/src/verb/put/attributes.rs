//! Owner, mode, times and extended attributes of a file of this machine. An attribute that cannot be read
//! is printed, and the copy continues.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nvio::ext4::Timestamp;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::create::Creator;
use crate::create::attributes::Attributes;
use crate::error::Error;

/// Maximum length of a value, and of the list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 65_536;

/// Reads the attributes of a file.
pub fn read(creator: &mut Creator<'_>, source: &Path, metadata: &Metadata) -> Attributes {
    Attributes {
        uid: metadata.uid(),
        gid: metadata.gid(),
        permissions: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0),
        xattrs: xattrs(creator, source),
        atime: Some(timestamp(metadata.atime(), metadata.atime_nsec())),
        mtime: Some(timestamp(metadata.mtime(), metadata.mtime_nsec())),
    }
}

/// Reads the extended attributes.
fn xattrs(creator: &mut Creator<'_>, source: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; XATTR_BYTES_MAX];
    let names = match llistxattr(source, &mut buffer) {
        Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
        Err(Errno::OPNOTSUPP) => Vec::new(),
        Err(errno) => {
            creator.report(Err(Error::host("list the attributes of", source, errno)));
            Vec::new()
        }
    };
    let mut attributes = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match lgetxattr(source, OsStr::from_bytes(name), &mut buffer) {
            Ok(length) => {
                let value = buffer.get(..length).unwrap_or_default();
                attributes.push((name.to_vec(), value.to_vec()));
            }
            Err(errno) => creator.report(Err(Error::host("read an attribute of", source, errno))),
        }
    }
    attributes
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}
