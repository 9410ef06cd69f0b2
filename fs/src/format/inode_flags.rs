//! Inode flags.

use bitflags::bitflags;

bitflags! {
    /// Flags of an inode. lsattr prints most of them.
    ///
    /// See the [example](crate::Inode#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// Secure deletion.
        const SECRM = 0x1;
        /// Undeletable.
        const UNRM = 0x2;
        /// Compressed.
        const COMPR = 0x4;
        /// Synchronous updates.
        const SYNC = 0x8;
        /// Immutable.
        const IMMUTABLE = 0x10;
        /// Append only.
        const APPEND = 0x20;
        /// Excluded from dumps.
        const NODUMP = 0x40;
        /// No updates of the access time.
        const NOATIME = 0x80;
        /// Encrypted.
        const ENCRYPT = 0x800;
        /// The directory has a hash tree.
        const INDEX = 0x1000;
        /// Data is journaled.
        const JOURNAL_DATA = 0x4000;
        /// The tail is not merged with others.
        const NOTAIL = 0x8000;
        /// Directory entries are written synchronously.
        const DIRSYNC = 0x1_0000;
        /// Top of a directory hierarchy: a hint for the allocator.
        const TOPDIR = 0x2_0000;
        /// The block count is in filesystem blocks.
        const HUGE_FILE = 0x4_0000;
        /// The file is mapped by extents.
        const EXTENTS = 0x8_0000;
        /// Protected by fs-verity.
        const VERITY = 0x10_0000;
        /// The inode holds the value of an extended attribute.
        const EA_INODE = 0x20_0000;
        /// Direct access to persistent memory (DAX).
        const DAX = 0x200_0000;
        /// The data is inside the inode.
        const INLINE_DATA = 0x1000_0000;
        /// New files inherit this directory's project id.
        const PROJINHERIT = 0x2000_0000;
        /// The directory ignores case.
        const CASEFOLD = 0x4000_0000;

        const _ = !0;
    }
}
