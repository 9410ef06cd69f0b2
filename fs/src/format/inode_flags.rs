//! Flags of inodes.

use bitflags::bitflags;

bitflags! {
    /// Flags of an inode, as lsattr shows most of them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// Secure deletion.
        const SECRM = 0x1;
        /// Undelete.
        const UNRM = 0x2;
        /// Compress.
        const COMPR = 0x4;
        /// Synchronous updates.
        const SYNC = 0x8;
        /// Immutable.
        const IMMUTABLE = 0x10;
        /// Append only.
        const APPEND = 0x20;
        /// Not for dump.
        const NODUMP = 0x40;
        /// No updates of the access time.
        const NOATIME = 0x80;
        /// Encrypted.
        const ENCRYPT = 0x800;
        /// The directory has a hash tree.
        const INDEX = 0x1000;
        /// Data goes through the journal.
        const JOURNAL_DATA = 0x4000;
        /// The tail is not merged.
        const NOTAIL = 0x8000;
        /// Directory entries are written synchronously.
        const DIRSYNC = 0x1_0000;
        /// Top of a directory hierarchy, for the allocator.
        const TOPDIR = 0x2_0000;
        /// Blocks are counted in filesystem blocks.
        const HUGE_FILE = 0x4_0000;
        /// The file is mapped by extents.
        const EXTENTS = 0x8_0000;
        /// fs-verity.
        const VERITY = 0x10_0000;
        /// Holds the value of an extended attribute.
        const EA_INODE = 0x20_0000;
        /// Direct access to persistent memory.
        const DAX = 0x200_0000;
        /// The data is inside the inode.
        const INLINE_DATA = 0x1000_0000;
        /// New files get this directory's project id.
        const PROJINHERIT = 0x2000_0000;
        /// The directory ignores case.
        const CASEFOLD = 0x4000_0000;

        const _ = !0;
    }
}
