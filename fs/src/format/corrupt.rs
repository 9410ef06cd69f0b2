//! Errors of damage: the damaged structure, its place, and the rule that it breaks.

use crate::format::superblock_copy::SuperblockCopy;
use crate::number::{InodeNumber, PhysicalBlock};

/// A broken rule of an on-disk structure. [`Display`](std::fmt::Display) prints one line: the
/// structure, its place, and the rule.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio_ext4::{Error, Filesystem, StructureKind};
///
/// let mut image = std::fs::read(image)?;
/// image[1024 + 4] ^= 1; // The number of blocks in the superblock.
/// let Err(Error::Corrupt(damage)) = Filesystem::open(image) else { panic!("damage was not found") };
/// assert_eq!(damage.structure(), StructureKind::Superblock);
/// assert!(damage.is_checksum());
/// assert_eq!((damage.inode(), damage.group(), damage.sound_copy()), (None, None, None));
/// println!("{damage}, block {:?}", damage.block());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {structure}: {problem}; run e2fsck")]
pub struct Corrupt {
    pub(crate) structure: Structure,
    pub(crate) problem: Problem,
    /// See [`sound_copy`](Self::sound_copy).
    pub(crate) sound_copy: Option<SuperblockCopy>,
}

impl Corrupt {
    /// Creates the error for `problem` in `structure`.
    pub(crate) fn new(structure: Structure, problem: Problem) -> Self {
        Self { structure, problem, sound_copy: None }
    }

    /// Returns the copy of the superblock for [`Options::superblock`](crate::Options::superblock)
    /// that goes with a sound copy of the damaged group descriptor, if one was found.
    ///
    /// See the [example](Self#examples).
    pub fn sound_copy(&self) -> Option<SuperblockCopy> {
        self.sound_copy
    }

    /// Returns the kind of the damaged structure.
    ///
    /// See the [example](Self#examples).
    pub fn structure(&self) -> StructureKind {
        self.structure.place().0
    }

    /// Returns the damaged block of the filesystem, or `None` if the structure does not fill a
    /// block. For a block of the journal, this is its block number in the log.
    ///
    /// See the [example](Self#examples).
    pub fn block(&self) -> Option<PhysicalBlock> {
        self.structure.place().1
    }

    /// Returns the number of the damaged inode, or of the inode that owns the damaged structure.
    ///
    /// See the [example](Self#examples).
    pub fn inode(&self) -> Option<InodeNumber> {
        self.structure.place().2
    }

    /// Returns the block group of the damaged structure.
    ///
    /// See the [example](Self#examples).
    pub fn group(&self) -> Option<u32> {
        match self.structure {
            Structure::GroupDescriptor(group) => Some(group),
            _ => None,
        }
    }

    /// Returns true if the checksum is wrong or missing: the structure was changed by something
    /// that does not maintain checksums.
    ///
    /// See the [example](Self#examples).
    pub fn is_checksum(&self) -> bool {
        matches!(self.problem, Problem::Checksum { .. } | Problem::NoChecksum)
    }
}

/// A kind of on-disk structure.
///
/// See the [example](Corrupt#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StructureKind {
    /// The superblock.
    Superblock,
    /// The descriptor of a block group.
    GroupDescriptor,
    /// The bitmap of the blocks or the inodes of a group.
    Bitmap,
    /// The multi-mount protection block.
    MmpBlock,
    /// An inode or one of its fields.
    Inode,
    /// Encodes a node of an extent tree.
    ExtentTree,
    /// The block pointers of an inode without extents, or an indirect block.
    BlockPointers,
    /// The block map of an inode as a whole.
    BlockMap,
    /// A directory, or a block of it.
    Directory,
    /// The target of a symbolic link.
    Symlink,
    /// A block of the orphan file.
    OrphanFile,
    /// The journal, or the superblock of the device that holds it.
    Journal,
    /// Extended attributes: inside an inode, in a block, or a value in an inode of its own.
    Attributes,
    /// Data inside an inode.
    InlineData,
    /// A block of the fast-commit area, after the journal's log.
    FastCommit,
}

/// The kind of an on-disk structure, and the numbers of its block and inode.
type Place = (StructureKind, Option<PhysicalBlock>, Option<InodeNumber>);

/// An on-disk structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Structure {
    /// The primary superblock, at byte 1024.
    #[error("superblock")]
    Superblock,
    /// The descriptor of a block group, by group number.
    #[error("group descriptor {0}")]
    GroupDescriptor(u32),
    /// The block bitmap of a block group, by group number.
    #[error("block bitmap of group {0}")]
    BlockBitmap(u32),
    /// The inode bitmap of a block group, by group number.
    #[error("inode bitmap of group {0}")]
    InodeBitmap(u32),
    /// The multi-mount protection block, by block number in the filesystem.
    #[error("multi-mount protection block {0}")]
    MmpBlock(PhysicalBlock),
    /// An inode, by number.
    #[error("inode {0}")]
    Inode(InodeNumber),
    /// The root of an extent tree, which is inside the inode.
    #[error("extent tree root of inode {inode}")]
    ExtentRoot {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A block of an extent tree.
    #[error("extent block {block} of inode {inode}")]
    ExtentBlock {
        /// Block number in the filesystem.
        block: PhysicalBlock,
        /// Number of the inode that owns the tree.
        inode: InodeNumber,
    },
    /// The fifteen block pointers of an inode without extents.
    #[error("block pointers of inode {inode}")]
    BlockPointers {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// An indirect block.
    #[error("indirect block {block} of inode {inode}")]
    IndirectBlock {
        /// Block number in the filesystem.
        block: PhysicalBlock,
        /// Number of the inode that owns the block.
        inode: InodeNumber,
    },
    /// The block map of an inode, as a whole.
    #[error("block map of inode {inode}")]
    BlockMap {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A directory as a whole, by inode number.
    #[error("directory, inode {0}")]
    Directory(InodeNumber),
    /// A block of a directory.
    #[error("directory block {index} of inode {inode}")]
    DirectoryBlock {
        /// Number of the directory's inode.
        inode: InodeNumber,
        /// Index of the block in the directory, from 0.
        index: u64,
    },
    /// The target of a symbolic link, by inode number.
    #[error("symbolic link, inode {0}")]
    Symlink(InodeNumber),
    /// A block of the orphan file.
    #[error("block {index} of the orphan file")]
    OrphanFile {
        /// Index of the block in the file, from 0.
        index: u64,
    },
    /// The log of the journal as a whole.
    #[error("journal")]
    Journal,
    /// The superblock of the journal.
    #[error("superblock of the journal")]
    JournalSuperblock,
    /// A block of the journal, by its block number in the log.
    #[error("journal, block {0} of the log")]
    JournalBlock(u32),
    /// The superblock of the device that holds an external journal.
    #[error("superblock of the journal's device")]
    JournalDevice,
    /// The extended attributes inside an inode.
    #[error("extended attributes inside inode {inode}")]
    Attributes {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A block of extended attributes.
    #[error("extended attribute block {block} of inode {inode}")]
    AttributeBlock {
        /// Block number in the filesystem.
        block: PhysicalBlock,
        /// Number of an inode that refers to this block.
        inode: InodeNumber,
    },
    /// An inode that holds the value of an extended attribute.
    #[error("inode {value}, an attribute value of inode {inode}")]
    AttributeInode {
        /// Number of the inode that holds the value.
        value: InodeNumber,
        /// Number of the inode that owns the attribute.
        inode: InodeNumber,
    },
    /// A POSIX access control list, by inode number.
    #[error("access control list of inode {0}")]
    Acl(InodeNumber),
    /// Data inside of an inode, by inode number.
    #[error("inline data of inode {0}")]
    InlineData(InodeNumber),
    /// A block of the fast-commit area.
    #[error("fast commit block {index}")]
    FastCommit {
        /// Index of the block in the area, from 0.
        index: u32,
    },
}

/// A kind of metadata with a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Area {
    /// A superblock, group descriptors, or the space reserved for more descriptors.
    #[error("superblocks and group descriptors")]
    Descriptors,
    /// A block bitmap or an inode bitmap.
    #[error("a bitmap")]
    Bitmap,
    /// An inode table.
    #[error("an inode table")]
    InodeTable,
    /// The multi-mount protection block.
    #[error("the multi-mount protection block")]
    MmpBlock,
    /// A file of the filesystem itself, by inode number: the journal, quotas, or the orphan file.
    #[error("the journal or another system file, inode {0}")]
    SystemFile(InodeNumber),
}

/// The rule that a structure breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// The checksum does not match the contents.
    #[error("its checksum is {stored:#x}, but {computed:#x} was computed")]
    Checksum {
        /// The stored checksum.
        stored: u32,
        /// The checksum of the contents.
        computed: u32,
    },
    /// The structure does not start with its magic number.
    #[error("its magic number is {found:#x}, not {expected:#x}")]
    Magic {
        /// The number found.
        found: u32,
        /// The magic number of the structure.
        expected: u32,
    },
    /// A field has an invalid value.
    #[error("{field} is {value}: {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// The rule, as half a sentence: "must be ...".
        rule: &'static str,
    },
    /// A field is larger than another part of the filesystem allows.
    #[error("{field} is {value}, the maximum is {max}")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// The largest possible value.
        max: u64,
    },
    /// Two fields that must agree do not.
    #[error("{field} is {value}, not {expected}")]
    Mismatch {
        /// Name of the field.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// The value that it must have.
        expected: u64,
    },
    /// A range of blocks is outside the filesystem, or overlaps the superblock or the group
    /// descriptors.
    #[error("{count} block(s) from block {start} are not data blocks of this filesystem")]
    BlockRange {
        /// First block of the range.
        start: PhysicalBlock,
        /// Length of the range, blocks.
        count: u64,
    },
    /// Blocks of a file are where the filesystem's own metadata is.
    #[error("{count} block(s) from block {start} overlap {area}")]
    Overlap {
        /// First block of the range.
        start: PhysicalBlock,
        /// Length of the range, blocks.
        count: u64,
        /// The number found.
        area: Area,
    },
    /// A block that is to be allocated is in use, or one that is to be freed is free.
    #[error("block {block} is {} already", if *.used { "in use" } else { "free" })]
    Bit {
        /// The block.
        block: PhysicalBlock,
        /// True if it is in use.
        used: bool,
    },
    /// A node of an extent tree other than the root has no entries.
    #[error("it has no entries")]
    EmptyNode,
    /// Entries of an extent tree are out of order, overlap, or are outside their parent's range.
    #[error("entry {entry} covers logical blocks [{start}, {end}), outside [{low}, {high})")]
    ExtentOrder {
        /// Index of the entry in its node.
        entry: u16,
        /// First logical block of the entry.
        start: u64,
        /// First logical block after the entry.
        end: u64,
        /// First logical block that the entry may cover.
        low: u64,
        /// First logical block after those that the entry may cover.
        high: u64,
    },
    /// An inode maps more blocks than the filesystem has.
    #[error("it maps more than the {limit} blocks that the filesystem has")]
    TooManyBlocks {
        /// Number of blocks of the filesystem.
        limit: u64,
    },
    /// Something that must be all there has a hole or unwritten blocks.
    #[error("logical block {logical} is missing")]
    Missing {
        /// The logical block.
        logical: u64,
    },
    /// A directory entry's length is impossible.
    #[error("the entry at byte {offset} has length {rec_len} and a name of {name_len} bytes")]
    EntryLength {
        /// Byte offset in the block.
        offset: usize,
        /// The entry's length, bytes.
        rec_len: usize,
        /// The name's length, bytes.
        name_len: usize,
    },
    /// A directory entry's inode is impossible.
    #[error("the entry at byte {offset} refers to inode {inode}")]
    EntryInode {
        /// Byte offset in the block.
        offset: usize,
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A directory entry's name is empty, or contains a slash or a zero byte.
    #[error("the entry at byte {offset} has a name that is empty or has a slash or zero byte")]
    EntryName {
        /// Byte offset in the block.
        offset: usize,
    },
    /// A directory has an entry "." or ".." after its first two entries.
    #[error("the entry at byte {offset} is a second \".\" or \"..\"")]
    SecondDot {
        /// Byte offset in the block.
        offset: usize,
    },
    /// A directory has two entries of the same name.
    #[error("it has a second entry of this name, for inode {inode}")]
    NameTwice {
        /// Number of the second entry's inode.
        inode: InodeNumber,
    },
    /// A directory has more problems than are reported one by one.
    #[error("it has {count} more problems")]
    MoreProblems {
        /// Number of the problems that are not reported.
        count: u64,
    },
    /// The block that the caller selected is not a superblock.
    #[error("block {block} has no copy of it, whatever the block size")]
    NoSuperblock {
        /// The selected block.
        block: u64,
    },
    /// The list of orphans refers to an inode that cannot be an orphan, or returns to one.
    #[error("its list of orphans is broken at inode {inode}, and the rest of it is ignored")]
    OrphanList {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A directory block has no room for its checksum.
    #[error("it has no checksum")]
    NoChecksum,
    /// A directory entry refers to a free inode.
    #[error("an entry refers to inode {inode}, which is free")]
    NameOfFreeInode {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A tag of a fast commit is not known, or has an impossible length.
    #[error("the tag {tag:#x} at byte {offset} is unknown, or {length} bytes is an invalid length")]
    FastCommitTag {
        /// Byte offset in the block.
        offset: usize,
        /// The tag.
        tag: u16,
        /// Length of its value, bytes.
        length: u16,
    },
    /// A directory is inside itself.
    #[error("it contains inode {inode}, which is one of its ancestors")]
    DirectoryLoop {
        /// Number of the directory's inode.
        inode: InodeNumber,
    },
    /// The transactions of a log do not come to an end.
    #[error("its transactions need more blocks than the log has ({blocks})")]
    EndlessLog {
        /// Blocks of the log that transactions may use.
        blocks: u32,
    },
    /// A transaction is incomplete, although a later one is complete.
    #[error("transaction {sequence} is not complete, but a later one is")]
    FailedTransaction {
        /// Sequence number of the transaction.
        sequence: u32,
    },
    /// A directory has two places, or is in itself by a longer way.
    #[error("it contains a second entry for directory inode {inode}")]
    DirectoryTwice {
        /// Number of the directory's inode.
        inode: InodeNumber,
    },
    /// The name of an extended attribute extends past its inode or block, or contains a zero byte.
    #[error("the attribute at byte {offset} has a name that does not fit, or has a zero byte")]
    AttributeName {
        /// Byte offset of the entry.
        offset: usize,
    },
    /// The value of an extended attribute is not where values can be.
    #[error(
        "the attribute at byte {offset} has a value of {size} bytes at byte {start}, outside the \
         space for values"
    )]
    AttributeValue {
        /// Byte offset of the entry.
        offset: usize,
        /// Byte offset of the value.
        start: usize,
        /// Length of the value, bytes.
        size: usize,
    },
    /// An entry of an access control list is cut off, or about nobody that is known.
    #[error("the entry at byte {offset} is truncated, or its tag is unknown")]
    AclEntry {
        /// Byte offset in the list.
        offset: usize,
    },
    /// An inode that says its data is inline has no attribute for it.
    #[error("its attribute system.data is missing")]
    NoInlineData,
    /// The target of a symbolic link has a zero byte, or does not end where its size says.
    #[error("the length of its target is not {size} bytes, the size of the inode")]
    TargetLength {
        /// Size of the inode.
        size: u64,
    },
}

impl Structure {
    fn place(self) -> Place {
        use StructureKind as Kind;
        match self {
            Self::Superblock => (Kind::Superblock, None, None),
            Self::GroupDescriptor(_) => (Kind::GroupDescriptor, None, None),
            Self::BlockBitmap(_) | Self::InodeBitmap(_) => (Kind::Bitmap, None, None),
            Self::MmpBlock(block) => (Kind::MmpBlock, Some(block), None),
            Self::Inode(inode) => (Kind::Inode, None, Some(inode)),
            Self::ExtentRoot { inode } => (Kind::ExtentTree, None, Some(inode)),
            Self::ExtentBlock { block, inode } => (Kind::ExtentTree, Some(block), Some(inode)),
            Self::BlockPointers { inode } => (Kind::BlockPointers, None, Some(inode)),
            Self::IndirectBlock { block, inode } => (Kind::BlockPointers, Some(block), Some(inode)),
            Self::BlockMap { inode } => (Kind::BlockMap, None, Some(inode)),
            Self::Directory(inode) | Self::DirectoryBlock { inode, .. } => {
                (Kind::Directory, None, Some(inode))
            }
            Self::Symlink(inode) => (Kind::Symlink, None, Some(inode)),
            Self::OrphanFile { .. } => (Kind::OrphanFile, None, None),
            Self::Journal | Self::JournalSuperblock | Self::JournalDevice => {
                (Kind::Journal, None, None)
            }
            Self::JournalBlock(block) => (Kind::Journal, Some(u64::from(block).into()), None),
            Self::Attributes { inode } | Self::Acl(inode) => (Kind::Attributes, None, Some(inode)),
            Self::AttributeBlock { block, inode } => (Kind::Attributes, Some(block), Some(inode)),
            Self::AttributeInode { value, .. } => (Kind::Attributes, None, Some(value)),
            Self::InlineData(inode) => (Kind::InlineData, None, Some(inode)),
            Self::FastCommit { .. } => (Kind::FastCommit, None, None),
        }
    }
}

impl Problem {
    /// Returns an error unless `value` is at most `max`.
    pub(crate) fn verify_max(
        field: &'static str,
        value: impl Into<u64>,
        max: impl Into<u64>,
    ) -> Result<(), Self> {
        let (value, max) = (value.into(), max.into());
        if value <= max { Ok(()) } else { Err(Self::TooLarge { field, value, max }) }
    }

    /// Returns an error unless `value` is `expected`.
    pub(crate) fn verify_value(
        field: &'static str,
        value: impl Into<u64>,
        expected: impl Into<u64>,
    ) -> Result<(), Self> {
        let (value, expected) = (value.into(), expected.into());
        if value == expected { Ok(()) } else { Err(Self::Mismatch { field, value, expected }) }
    }

    /// Returns an error unless the checksums are equal.
    pub(crate) fn verify_checksum(stored: u32, computed: u32) -> Result<(), Self> {
        if stored == computed { Ok(()) } else { Err(Self::Checksum { stored, computed }) }
    }

    /// Returns an error unless the magic number is `expected`.
    pub(crate) fn verify_magic(
        found: impl Into<u32>,
        expected: impl Into<u32>,
    ) -> Result<(), Self> {
        let (found, expected) = (found.into(), expected.into());
        if found == expected { Ok(()) } else { Err(Self::Magic { found, expected }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_and_the_rule_can_be_asked_for() {
        let corrupt = |structure: Structure, problem| match structure.corrupt(problem) {
            crate::error::Error::Corrupt(corrupt) => *corrupt,
            other => panic!("{other}"),
        };
        let block = Structure::ExtentBlock { block: 1000.into(), inode: 12.into() };
        let found = corrupt(block, Problem::Checksum { stored: 1, computed: 2 });
        assert_eq!(found.structure(), StructureKind::ExtentTree);
        assert_eq!(
            (found.block(), found.inode(), found.group()),
            (Some(1000.into()), Some(12.into()), None)
        );
        assert!(found.is_checksum());
        let expected = "corrupt extent block 1000 of inode 12: its checksum is 0x1, but 0x2 was \
                        computed; run e2fsck";
        assert_eq!(found.to_string(), expected);

        let range = Problem::BlockRange { start: 0.into(), count: 1 };
        let found = corrupt(Structure::GroupDescriptor(7), range);
        assert_eq!(found.structure(), StructureKind::GroupDescriptor);
        assert_eq!((found.block(), found.inode(), found.group()), (None, None, Some(7)));
        assert!(!found.is_checksum());
    }
}
