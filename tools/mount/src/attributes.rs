//! The attributes of an inode, as the kernel wants them.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};
use nvio_ext4::{Inode, InodeNumber, Timestamp};

/// Returns the number by which the kernel knows an inode. The root has 1 in every FUSE filesystem, and
/// 2 in ext4, where 1 has no name.
pub(crate) fn to_kernel(number: InodeNumber) -> INodeNo {
    match number {
        InodeNumber::ROOT => INodeNo::ROOT,
        number => INodeNo(number.get().into()),
    }
}

/// Returns the number of an inode that the kernel knows by `number`.
pub(crate) fn from_kernel(number: INodeNo) -> u64 {
    match number {
        INodeNo::ROOT => InodeNumber::ROOT.get().into(),
        number => number.0,
    }
}

/// Returns the generation of an inode.
pub(crate) fn generation(inode: &Inode) -> Generation {
    Generation(inode.generation().into())
}

/// Returns the attributes of an inode.
pub(crate) fn attributes(inode: &Inode, block_size: u32) -> FileAttr {
    let (major, minor) = inode.rdev().unwrap_or((0, 0));
    FileAttr {
        ino: INodeNo(inode.number().get().into()),
        size: inode.size(),
        blocks: inode.blocks_512(),
        atime: time(inode.atime()),
        mtime: time(inode.mtime()),
        ctime: time(inode.ctime()),
        crtime: time(inode.crtime().unwrap_or_default()),
        kind: kind(inode.kind()),
        perm: inode.permissions(),
        nlink: inode.links(),
        uid: inode.uid(),
        gid: inode.gid(),
        // The encoding of the protocol has 12 and 20 bits.
        rdev: minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12,
        blksize: block_size,
        flags: 0,
    }
}

/// Returns the kind of a file as the kernel wants it.
pub(crate) fn kind(kind: nvio_ext4::FileType) -> FileType {
    match kind {
        nvio_ext4::FileType::Regular => FileType::RegularFile,
        nvio_ext4::FileType::Directory => FileType::Directory,
        nvio_ext4::FileType::Symlink => FileType::Symlink,
        nvio_ext4::FileType::CharDevice => FileType::CharDevice,
        nvio_ext4::FileType::BlockDevice => FileType::BlockDevice,
        nvio_ext4::FileType::Fifo => FileType::NamedPipe,
        nvio_ext4::FileType::Socket => FileType::Socket,
    }
}

fn time(time: Timestamp) -> SystemTime {
    time.to_system_time().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns a time as an inode stores it.
pub(crate) fn timestamp(time: TimeOrNow) -> Timestamp {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => after(since),
        Err(error) => before(error.duration()),
    }
}

fn after(since: Duration) -> Timestamp {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanoseconds: since.subsec_nanos() }
}

/// Returns a time before 1970: its nanoseconds count from the second before it.
fn before(until: Duration) -> Timestamp {
    let seconds = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
    match until.subsec_nanos() {
        0 => Timestamp { seconds: -seconds, nanoseconds: 0 },
        nanoseconds => {
            Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970() {
        let of = |seconds, nanoseconds| {
            let there = Timestamp { seconds, nanoseconds };
            let back = timestamp(TimeOrNow::SpecificTime(time(there)));
            assert_eq!(back, there);
        };
        for nanoseconds in [0, 1, 999_999_999] {
            for seconds in [-2, -1, 0, 1, 1 << 33] {
                of(seconds, nanoseconds);
            }
        }
    }
}
