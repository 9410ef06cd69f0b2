//! New inodes.

use zerocopy::{FromBytes, IntoBytes};

use crate::error::Error;
use crate::format::extent;
use crate::format::inode::{BASE_SIZE, BLOCK_AREA, Inode, RawInode, RawInodeExtra, seal};
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::format::time::Timestamp;
use crate::number::InodeNumber;

/// The fields of an inode that is created. It has no blocks and no attributes.
pub(crate) struct Fields {
    pub number: InodeNumber,
    /// Type and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u16,
    pub flags: InodeFlags,
    pub generation: u32,
    /// All of its times.
    pub time: Timestamp,
    pub project: u32,
}

impl Fields {
    /// Returns the inode, and its bytes in the inode table. Fields that inodes of the filesystem are too
    /// small for are left out.
    pub(crate) fn build(self, superblock: &Superblock) -> Result<(Inode, Vec<u8>), Error> {
        let mut bytes = blank(superblock, &self);
        let mut inode = Inode::parse_orphan(superblock, self.number, &bytes)?;
        (inode.uid, inode.gid, inode.links) = (self.uid, self.gid, self.links);
        inode.flags = self.flags;
        inode.set_atime(self.time);
        inode.set_mtime(self.time);
        inode.set_ctime(self.time);
        inode.crtime = inode.crtime.map(|_| self.time);
        inode.project = inode.project.map(|_| self.project);
        if self.flags.contains(InodeFlags::EXTENTS) {
            extent::clear_root(&mut inode.block);
        }
        inode.encode(superblock, &mut bytes);
        Ok((inode, bytes))
    }
}

/// Returns the bytes of an inode with nothing but what is needed to parse it.
fn blank(superblock: &Superblock, fields: &Fields) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(superblock.inode_size())];
    if let Ok((raw, rest)) = RawInode::mut_from_prefix(&mut bytes) {
        (raw.mode, raw.generation) = (fields.mode.into(), fields.generation.into());
        if let Ok((extra, _)) = RawInodeExtra::mut_from_prefix(rest) {
            extra.extra_isize = extra_size(superblock).into();
        }
    }
    seal(superblock, fields.number, &mut bytes);
    bytes
}

/// Returns the number of bytes that the fields after the first 128 bytes have in new inodes: as many as
/// the superblock asks for, or all that are known.
fn extra_size(superblock: &Superblock) -> u16 {
    let room = usize::from(superblock.inode_size()).saturating_sub(BASE_SIZE);
    let known = u16::try_from(size_of::<RawInodeExtra>()).unwrap_or(0);
    let wanted = superblock.want_extra_isize.max(superblock.min_extra_isize);
    let is_good = wanted != 0 && wanted.is_multiple_of(4) && usize::from(wanted) <= room;
    if is_good { wanted } else { known }
}

impl Inode {
    /// Stores the target of a symbolic link in the inode. Returns false if it is too long.
    pub(crate) fn set_short_target(&mut self, target: &[u8]) -> bool {
        // A zero byte follows.
        if target.len() >= BLOCK_AREA {
            return false;
        }
        self.block.fill(0);
        self.block.iter_mut().zip(target).for_each(|(to, from)| *to = *from);
        self.size = target.len().try_into().unwrap_or(0);
        self.flags.remove(InodeFlags::EXTENTS);
        true
    }

    /// Stores the number of a device, in the older form if that has room for it.
    pub(crate) fn set_device(&mut self, major: u32, minor: u32) {
        let (old, new) = match (major < 256, minor < 256) {
            (true, true) => (major.wrapping_shl(8) | minor, 0),
            _ => (0, (minor & 0xff) | major.wrapping_shl(8) | (minor & !0xff).wrapping_shl(12)),
        };
        self.block.fill(0);
        let fields = [old, new].map(u32::to_le_bytes);
        self.block.iter_mut().zip(fields.as_bytes()).for_each(|(to, from)| *to = *from);
    }
}
