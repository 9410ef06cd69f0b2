//! System calls without a wrapper in the standard library.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An extent as FIEMAP reports it. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub logical: u64,
    /// Offset on the filesystem's device.
    pub physical: u64,
    /// Length of the extent.
    pub length: u64,
    /// True if the blocks are allocated but read as zeroes (`FIEMAP_EXTENT_UNWRITTEN`).
    pub unwritten: bool,
    /// True if the data is in the inode or in a block of attributes (`FIEMAP_EXTENT_DATA_INLINE`).
    pub inline: bool,
    /// True for the last extent of the file (`FIEMAP_EXTENT_LAST`).
    pub last: bool,
}

/// `_IOWR('f', 11, struct fiemap)`, Documentation/filesystems/fiemap.rst.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
const FIEMAP_EXTENT_LAST: u32 = 0x0001;
const FIEMAP_EXTENT_UNKNOWN: u32 = 0x0002;
const FIEMAP_EXTENT_DATA_INLINE: u32 = 0x0200;
const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x0800;
/// Number of extents per call.
const FIEMAP_BATCH: usize = 512;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; FIEMAP_BATCH],
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL")
}

/// Returns all extents of `file` from the kernel's FIEMAP ioctl.
pub fn fiemap(file: &File) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut start = 0;
    loop {
        let mut map = Box::new(Fiemap {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped_extents: 0,
            extent_count: FIEMAP_BATCH as u32,
            reserved: 0,
            extents: [FiemapExtent::default(); FIEMAP_BATCH],
        });
        // SAFETY: the descriptor is open, `map` has the layout of struct fiemap with room for
        // `extent_count` extents after the header, and it outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *map) })?;
        let mapped = &map.extents[..map.mapped_extents as usize];
        for extent in mapped {
            assert_eq!(extent.flags & FIEMAP_EXTENT_UNKNOWN, 0, "an extent with no place yet");
            extents.push(Extent {
                logical: extent.logical,
                physical: extent.physical,
                length: extent.length,
                unwritten: extent.flags & FIEMAP_EXTENT_UNWRITTEN != 0,
                inline: extent.flags & FIEMAP_EXTENT_DATA_INLINE != 0,
                last: extent.flags & FIEMAP_EXTENT_LAST != 0,
            });
        }
        match extents.last() {
            Some(end) if !mapped.is_empty() && !end.last => start = end.logical + end.length,
            _ => return Ok(extents),
        }
    }
}

/// fallocate(2); `mode` is a set of `FALLOC_FL_*`.
pub fn fallocate(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).expect("an offset below 2^63");
    let length = libc::off_t::try_from(length).expect("a length below 2^63");
    // SAFETY: the call takes only numbers, and the descriptor is open.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

/// `_IOWR('f', 15, struct move_extent)`, fs/ext4/ext4.h.
const EXT4_IOC_MOVE_EXT: libc::c_ulong = 0xC028_660F;

#[repr(C)]
struct MoveExtent {
    reserved: u32,
    donor: u32,
    original_start: u64,
    donor_start: u64,
    length: u64,
    moved: u64,
}

/// Exchanges the `length` blocks from block `start` on of two files of one ext4 filesystem. The
/// contents of `file` do not change.
pub fn exchange_blocks(file: &File, donor: &File, start: u64, length: u64) -> io::Result<()> {
    let mut request = MoveExtent {
        reserved: 0,
        donor: donor.as_raw_fd() as u32,
        original_start: start,
        donor_start: start,
        length,
        moved: 0,
    };
    for _ in 0..100 {
        // SAFETY: both descriptors are open, `request` has the layout of struct move_extent and
        // outlives the call.
        match check(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_MOVE_EXT, &raw mut request) }) {
            Ok(()) if request.moved == length => return Ok(()),
            Ok(()) => return Err(io::Error::other(format!("{} blocks moved", request.moved))),
            // The pages of the file are still being written.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => syncfs(file)?,
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(ErrorKind::ResourceBusy))
}

/// Sets the access and modification time of `path` itself, as (seconds, nanoseconds) since 1970.
pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) -> io::Result<()> {
    let times = [atime, mtime].map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
    let path = c_path(path);
    // SAFETY: the path ends in NUL and `times` has two elements; both outlive the call.
    check(unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
}

/// mknod(2). `mode` contains type and permissions.
pub fn mknod(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL and outlives the call.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })
}

/// Writes back only the filesystem that contains `file`.
pub fn syncfs(file: &File) -> io::Result<()> {
    // SAFETY: the call takes the number of an open descriptor.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}

/// Returns the first offset from `offset` on that has data (`SEEK_DATA`); `None` after the last
/// data.
pub fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(offset).expect("an offset below 2^63");
    // SAFETY: the call takes only numbers, and the descriptor is open.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// Returns block size in bytes and number of free blocks of the filesystem that contains `path`.
pub fn free_blocks(path: &Path) -> io::Result<(u64, u64)> {
    let path = c_path(path);
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in NUL, and `stat` has room for the result.
    check(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: all-zero bytes are a valid statvfs, and the call has filled it.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.f_bsize, stat.f_bfree))
}

/// `_IOR('f', 1, long)` and `_IOW('f', 2, long)`; nevertheless the value is an int.
const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;

/// Returns the inode's flags, as lsattr(1) shows them.
pub fn flags(file: &File) -> io::Result<u32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open and `flags` outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags as u32)
}

/// Sets flags of the inode like chattr(1), and keeps the others.
pub fn add_flags(file: &File, more: u32) -> io::Result<()> {
    let flags = libc::c_long::from(flags(file)? | more);
    // SAFETY: the descriptor is open and `flags` outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) })
}

/// `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;

#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// Returns the project id.
pub fn project(file: &File) -> io::Result<u32> {
    let mut answer = FsXattr::default();
    // SAFETY: the descriptor is open, `answer` has the layout of struct fsxattr and outlives the
    // call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut answer) })?;
    Ok(answer.project)
}

/// `_IOWR('f', 23, struct fscrypt_add_key_arg)` and `_IOR('f', 19, struct fscrypt_policy_v1)`,
/// include/uapi/linux/fscrypt.h.
const FS_IOC_ADD_ENCRYPTION_KEY: libc::c_ulong = 0xc050_6617;
const FS_IOC_SET_ENCRYPTION_POLICY: libc::c_ulong = 0x800c_6613;

#[repr(C)]
struct AddKey {
    kind: u32,
    reserved: u32,
    identifier: [u8; 32],
    raw_size: u32,
    key_id: u32,
    more_reserved: [u32; 8],
    raw: [u8; 64],
}

#[repr(C)]
struct PolicyV2 {
    version: u8,
    contents_mode: u8,
    names_mode: u8,
    flags: u8,
    unit: u8,
    reserved: [u8; 3],
    identifier: [u8; 16],
}

/// Encrypts the empty directory and all its future contents (fscrypt, AES-256) with a key that the
/// kernel forgets when the filesystem is unmounted.
pub fn encrypt(directory: &File) -> io::Result<()> {
    const KEY_BY_IDENTIFIER: u32 = 2;
    let mut key = AddKey {
        kind: KEY_BY_IDENTIFIER,
        reserved: 0,
        identifier: [0; 32],
        raw_size: 64,
        key_id: 0,
        more_reserved: [0; 8],
        raw: std::array::from_fn(|index| index as u8),
    };
    // SAFETY: the descriptor is open, `key` has the layout of struct fscrypt_add_key_arg with the
    // raw key after it, and outlives the call.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_ADD_ENCRYPTION_KEY, &raw mut key) })?;
    let mut policy = PolicyV2 {
        version: 2,
        contents_mode: 1,
        names_mode: 4,
        flags: 3,
        unit: 0,
        reserved: [0; 3],
        identifier: [0; 16],
    };
    policy.identifier.copy_from_slice(&key.identifier[..16]);
    // SAFETY: the descriptor is open, the version of the policy implies its size, and the policy
    // outlives the call.
    check(unsafe {
        libc::ioctl(directory.as_raw_fd(), FS_IOC_SET_ENCRYPTION_POLICY, &raw const policy)
    })
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns all extended attributes of `path` itself that this user may see.
pub fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL, and the length is that of the buffer.
    let names = read_whole(|buffer| unsafe {
        libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })?;
    let mut all = Xattrs::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        // SAFETY: path and name end in NUL, and the length is that of the buffer.
        let value = read_whole(|buffer| unsafe {
            libc::lgetxattr(
                path.as_ptr(),
                name.as_ptr().cast(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        })?;
        all.insert(name[..name.len() - 1].to_vec(), value);
    }
    Ok(all)
}

/// Maximum size of a list of names and of a value in Linux (XATTR_LIST_MAX).
const XATTR_MAX: usize = 64 << 10;

fn read_whole(call: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; XATTR_MAX];
    let length = usize::try_from(call(&mut buffer)).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// lsetxattr(2): sets the attribute `name` of `path` itself.
pub fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    let name = CString::new(name).expect("a name has no NUL");
    // SAFETY: path and name end in NUL, and the length is that of the value; all outlive the call.
    check(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// lremovexattr(2).
pub fn remove_xattr(path: &Path, name: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    let name = CString::new(name).expect("a name has no NUL");
    // SAFETY: path and name end in NUL and outlive the call.
    check(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

/// Returns true if the effective user is root.
pub fn is_root() -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
