//! Changes of a parsed inode.

use std::mem::offset_of;

use zerocopy::little_endian::U32;

use crate::format::extent;
use crate::format::inode::{BASE_SIZE, Inode, RawInodeExtra};
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::format::time::Timestamp;
use crate::format::xattr_body;
use crate::number::PhysicalBlock;

impl Inode {
    /// Removes size, blocks, links and attributes from an inode that is freed. Mode and flags stay.
    pub(crate) fn clear(&mut self) {
        (self.size, self.blocks_512, self.links) = (0, 0, 0);
        self.attribute_block = PhysicalBlock::default();
        self.block.fill(0);
        if self.flags.contains(InodeFlags::EXTENTS) {
            extent::clear_root(&mut self.block);
        }
    }

    /// Sets the lower twelve bits of the mode.
    pub(crate) fn set_permissions(&mut self, permissions: u16) {
        self.mode = self.mode & !0o7777 | permissions & 0o7777;
    }

    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        (self.uid, self.gid) = (uid, gid);
    }

    /// Sets the size in bytes.
    pub(crate) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Sets the count of blocks to that of `other`.
    pub(crate) fn set_blocks_of(&mut self, other: &Self) {
        self.blocks_512 = other.blocks_512;
    }

    /// Counts blocks of the filesystem that the inode now has.
    pub(crate) fn add_blocks(&mut self, superblock: &Superblock, blocks: u64) {
        self.blocks_512 = self.blocks_512.saturating_add(superblock.bytes(blocks) >> 9);
    }

    /// Counts blocks of the filesystem that the inode no longer has.
    pub(crate) fn remove_blocks(&mut self, superblock: &Superblock, blocks: u64) {
        self.blocks_512 = self.blocks_512.saturating_sub(superblock.bytes(blocks) >> 9);
    }

    /// Sets the count of links.
    pub(crate) fn set_links(&mut self, links: u16) {
        self.links = links;
    }

    /// Marks a directory as one with a hash tree.
    pub(crate) fn set_index_flag(&mut self) {
        self.flags.insert(InodeFlags::INDEX);
    }

    /// Counts a change in `i_version`.
    pub(crate) fn increase_version(&mut self) {
        self.version = self.version.wrapping_add(1);
    }

    /// Replaces the space for attributes in the inode's bytes, whose checksum is not updated.
    pub(crate) fn set_attribute_space(&mut self, bytes: &mut [u8], space: &[u8]) {
        let place = bytes.get_mut(self.attributes_at..).unwrap_or_default();
        place.iter_mut().zip(space).for_each(|(to, from)| *to = *from);
        self.has_attribute_space = xattr_body::is_there(space);
    }

    pub(crate) fn set_atime(&mut self, time: Timestamp) {
        self.atime = self.storable(time, offset_of!(RawInodeExtra, atime_extra));
    }

    pub(crate) fn set_mtime(&mut self, time: Timestamp) {
        self.mtime = self.storable(time, offset_of!(RawInodeExtra, mtime_extra));
    }

    pub(crate) fn set_ctime(&mut self, time: Timestamp) {
        self.ctime = self.storable(time, offset_of!(RawInodeExtra, ctime_extra));
    }

    /// Returns a time as the inode stores it: in whole seconds of 32 bits, if it is too small for the extra
    /// field of that time. Without the cut, the time would change when the inode is read again.
    fn storable(&self, time: Timestamp, extra: usize) -> Timestamp {
        let end = BASE_SIZE.saturating_add(extra).saturating_add(size_of::<U32>());
        // An inode that declares no extra fields ends at `usize::MAX`.
        let has_extra = end <= self.attributes_at && self.attributes_at != usize::MAX;
        if has_extra {
            let (seconds, more) = time.encode();
            return Timestamp::decode(seconds, Some(more));
        }
        let seconds = time.seconds.clamp(i32::MIN.into(), i32::MAX.into());
        Timestamp { seconds, nanoseconds: 0 }
    }
}
