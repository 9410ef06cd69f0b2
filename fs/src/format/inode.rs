//! Inodes: the layout on disk, and the parsed form.

mod edit;
pub(crate) mod new;

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::extent;
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::file_type::FileType;
use crate::format::halves::{join_32, join_64, split_32, split_64};
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::format::time::Timestamp;
use crate::format::xattr_body;
use crate::number::{InodeNumber, PhysicalBlock, as_u64};

/// Size of the part that all inodes have, bytes.
const BASE_SIZE: usize = 128;
/// Size of `i_block`, bytes.
pub(crate) const BLOCK_AREA: usize = 60;
/// Byte offset of `i_block` in an inode.
pub(crate) const BLOCK_FIELD: u64 = 0x28;

/// `struct ext4_inode`, the first 128 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInode {
    mode: U16,
    uid_lo: U16,
    size_lo: U32,
    atime: U32,
    ctime: U32,
    mtime: U32,
    dtime: U32,
    gid_lo: U16,
    links: U16,
    blocks_lo: U32,
    flags: U32,
    version: U32,
    block: [u8; BLOCK_AREA],
    generation: U32,
    file_acl_lo: U32,
    size_hi: U32,
    fragment: U32,
    blocks_hi: U16,
    file_acl_hi: U16,
    uid_hi: U16,
    gid_hi: U16,
    checksum_lo: U16,
    reserved: U16,
}

/// The fields after the first 128 bytes, in filesystems with larger inodes. `extra_isize` is the
/// number of bytes that an inode uses.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInodeExtra {
    extra_isize: U16,
    checksum_hi: U16,
    ctime_extra: U32,
    mtime_extra: U32,
    atime_extra: U32,
    crtime: U32,
    crtime_extra: U32,
    version_hi: U32,
    project: U32,
}

const _: () = {
    assert!(size_of::<RawInode>() == BASE_SIZE);
    assert!(size_of::<RawInodeExtra>() == 0xa0 - BASE_SIZE);
    assert!(offset_of!(RawInode, flags) == 0x20);
    assert!(offset_of!(RawInode, block) == 0x28 && BLOCK_FIELD == 0x28);
    assert!(offset_of!(RawInode, generation) == 0x64);
    assert!(offset_of!(RawInode, blocks_hi) == 0x74);
    assert!(offset_of!(RawInode, checksum_lo) == 0x7c);
    assert!(offset_of!(RawInodeExtra, crtime) == 0x90 - BASE_SIZE);
};

/// A parsed and checked inode: the attributes of a file and the root of its map.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use nvio_ext4::{FileType, InodeFlags};
///
/// let inode = fs.lookup("/table.db")?;
/// assert!(inode.is_file() && !inode.is_dir() && !inode.is_symlink());
/// assert_eq!((inode.kind(), inode.size()), (FileType::Regular, 100_000));
/// assert_eq!(inode.permissions(), inode.mode() & 0o7777);
/// assert_eq!((inode.uid(), inode.gid(), inode.links()), (0, 0, 1));
/// assert!(inode.number().get() > 10, "the first inodes are reserved");
/// assert_eq!(inode.blocks_512(), 196, "98 blocks of 1 KiB");
/// assert!(inode.flags().contains(InodeFlags::EXTENTS) && !inode.has_inline_data());
/// println!("written {:?}, read {:?}", inode.mtime(), inode.atime());
/// println!("changed {:?}, created {:?}", inode.ctime(), inode.crtime());
/// println!("generation {}, project {:?}", inode.generation(), inode.project());
/// assert_eq!(inode.rdev(), None, "only devices have a number");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Inode {
    number: InodeNumber,
    kind: FileType,
    mode: u16,
    uid: u32,
    gid: u32,
    size: u64,
    links: u16,
    blocks_512: u64,
    flags: InodeFlags,
    generation: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    crtime: Option<Timestamp>,
    project: Option<u32>,
    /// Number of changes, `i_version`.
    version: u64,
    /// Block of extended attributes, or 0.
    pub(crate) attribute_block: PhysicalBlock,
    /// Byte offset of the extended attributes inside the inode.
    attributes_at: usize,
    /// The space for attributes inside the inode begins with its magic number.
    has_attribute_space: bool,
    /// Capacity for inline data, bytes; `None` if the data is not inline.
    inline_size: Option<u64>,
    /// Seed for the checksums of the blocks that belong to this inode.
    pub(crate) checksum_seed: u32,
    /// `i_block`: the root of the extent tree, block pointers, a short symlink target, or a device
    /// number.
    pub(crate) block: [u8; BLOCK_AREA],
}

impl Inode {
    /// Parses and checks inode `number`. `bytes` has the length of `s_inode_size`.
    pub(crate) fn parse(
        superblock: &Superblock,
        number: InodeNumber,
        bytes: &[u8],
    ) -> Result<Self, Error> {
        Self::parse_with(superblock, number, bytes, false)
    }

    /// Parses and checks inode `number`, which may have no links: it is to be freed.
    pub(crate) fn parse_orphan(
        superblock: &Superblock,
        number: InodeNumber,
        bytes: &[u8],
    ) -> Result<Self, Error> {
        Self::parse_with(superblock, number, bytes, true)
    }

    fn parse_with(
        superblock: &Superblock,
        number: InodeNumber,
        bytes: &[u8],
        may_be_unlinked: bool,
    ) -> Result<Self, Error> {
        let corrupt = |problem| Structure::Inode(number).corrupt(problem);
        let Ok((raw, rest)) = RawInode::ref_from_prefix(bytes) else {
            return Err(corrupt(Problem::Missing { logical: 0 }));
        };
        let extra = Extra::parse(rest).map_err(corrupt)?;
        let checksum_seed = checksum_seed(superblock, number, raw);
        if superblock.has_metadata_csum() {
            verify_checksum(checksum_seed, raw, &extra, bytes).map_err(|problem| {
                // An inode table that was never initialised contains zeroes or old data.
                if raw.mode == 0 {
                    Error::InodeNotInUse { inode: number }
                } else {
                    corrupt(problem)
                }
            })?;
        }
        let mode = raw.mode.get();
        if mode == 0 || raw.links == 0 && !may_be_unlinked {
            return Err(Error::InodeNotInUse { inode: number });
        }
        let rule = "its upper four bits are not a file type";
        let kind = FileType::from_mode(mode)
            .ok_or_else(|| corrupt(Problem::Field { field: "mode", value: mode.into(), rule }))?;
        let flags = InodeFlags::from_bits_retain(raw.flags.get());
        let size = size(superblock, kind, raw);
        Problem::verify_max("size", size, i64::MAX.unsigned_abs()).map_err(corrupt)?;
        let both = InodeFlags::INLINE_DATA.union(InodeFlags::EXTENTS);
        let rule = "inline data and extents exclude each other";
        let is_good = !flags.contains(both);
        Structure::Inode(number).ensure(is_good, "flags", flags.bits(), rule)?;
        let inline_size = if flags.contains(InodeFlags::INLINE_DATA) {
            let space = bytes.get(extra.end..).unwrap_or_default();
            inline_size(superblock, space)
                .map_err(|problem| Structure::Attributes { inode: number }.corrupt(problem))?
        } else {
            None
        };
        let mut blocks_512 = blocks_512(superblock, flags, raw);
        if inline_size.is_some() && kind == FileType::Regular {
            // The kernel adds the inline size to `st_blocks`, so that programs do not treat the
            // data as a hole.
            blocks_512 = blocks_512.saturating_add(size.div_ceil(512));
        }
        let time = |seconds: U32, more: U32| Timestamp::decode(seconds.get(), Some(more.get()));
        Ok(Self {
            number,
            kind,
            mode,
            uid: join_32(raw.uid_lo, raw.uid_hi),
            gid: join_32(raw.gid_lo, raw.gid_hi),
            size,
            links: raw.links.get(),
            blocks_512,
            flags,
            generation: raw.generation.get(),
            atime: time(raw.atime, extra.raw.atime_extra),
            mtime: time(raw.mtime, extra.raw.mtime_extra),
            ctime: time(raw.ctime, extra.raw.ctime_extra),
            crtime: extra.crtime(),
            project: extra.project(superblock),
            version: join_64(raw.version, extra.raw.version_hi),
            attribute_block: attribute_block(superblock, raw),
            attributes_at: extra.end,
            has_attribute_space: xattr_body::is_there(bytes.get(extra.end..).unwrap_or_default()),
            inline_size,
            checksum_seed,
            block: raw.block,
        })
    }

    /// Returns the inode number, from 1.
    ///
    /// See the [example](Self#examples).
    pub fn number(&self) -> InodeNumber {
        self.number
    }

    /// Returns the file type.
    ///
    /// See the [example](Self#examples).
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// Returns true for a directory.
    ///
    /// See the [example](Self#examples).
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Returns true for a regular file.
    ///
    /// See the [example](Self#examples).
    pub fn is_file(&self) -> bool {
        self.kind == FileType::Regular
    }

    /// Returns true for a symbolic link.
    ///
    /// See the [example](Self#examples).
    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Returns type and permissions, in the encoding of `st_mode`.
    ///
    /// See the [example](Self#examples).
    pub fn mode(&self) -> u16 {
        self.mode
    }

    /// Returns the lower twelve bits of the mode.
    ///
    /// See the [example](Self#examples).
    pub fn permissions(&self) -> u16 {
        self.mode & 0o7777
    }

    /// Returns the user id of the owner.
    ///
    /// See the [example](Self#examples).
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the group id of the owner.
    ///
    /// See the [example](Self#examples).
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Returns the size in bytes, at most 2^63 - 1.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the link count. It is 1 for a directory with more subdirectories than the field can
    /// count.
    ///
    /// See the [example](Self#examples).
    pub fn links(&self) -> u32 {
        self.links.into()
    }

    /// Returns the stored count of allocated blocks, metadata included, in units of 512 bytes. The
    /// next mount may correct it if it replays fast commits or truncates orphans.
    ///
    /// See the [example](Self#examples).
    pub fn blocks_512(&self) -> u64 {
        self.blocks_512
    }

    /// Returns the flags.
    ///
    /// See the [example](Self#examples).
    pub fn flags(&self) -> InodeFlags {
        self.flags
    }

    /// Returns the generation, which changes when the inode number is reused.
    ///
    /// See the [example](Self#examples).
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the time of the last access.
    ///
    /// See the [example](Self#examples).
    pub fn atime(&self) -> Timestamp {
        self.atime
    }

    /// Returns the time of the last change of the contents.
    ///
    /// See the [example](Self#examples).
    pub fn mtime(&self) -> Timestamp {
        self.mtime
    }

    /// Returns the time of the last change of the inode.
    ///
    /// See the [example](Self#examples).
    pub fn ctime(&self) -> Timestamp {
        self.ctime
    }

    /// Returns the creation time; `None` if the inode is too small to store it.
    ///
    /// See the [example](Self#examples).
    pub fn crtime(&self) -> Option<Timestamp> {
        self.crtime
    }

    /// Returns the project id; `None` if the inode is too small to store it.
    ///
    /// See the [example](Self#examples).
    pub fn project(&self) -> Option<u32> {
        self.project
    }

    /// Returns major and minor number of a device; `None` for other file types.
    ///
    /// See the [example](Self#examples).
    pub fn rdev(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind, FileType::CharDevice | FileType::BlockDevice) {
            return None;
        }
        let ([old, new, ..], _) = self.block.as_chunks::<4>() else { return None };
        let (old, new) = (u32::from_le_bytes(*old), u32::from_le_bytes(*new));
        Some(if old != 0 {
            ((old >> 8) & 0xff, old & 0xff)
        } else {
            ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xf_ff00))
        })
    }

    /// Returns true if the target of a symbolic link is stored in `i_block`. With `ea_inode` the
    /// size decides, because the block count includes the blocks of attribute values in other
    /// inodes.
    pub(crate) fn is_fast_symlink(&self, superblock: &Superblock) -> bool {
        if superblock.has(IncompatFeatures::EA_INODE) {
            return self.size < 60;
        }
        if self.inline_size.is_some() {
            return false;
        }
        let attributes = if self.attribute_block != 0 { superblock.cluster_size() >> 9 } else { 0 };
        self.blocks_512 == u64::from(attributes)
    }

    /// Returns true if the data is stored inside the inode (`inline_data`).
    ///
    /// See the [example](Self#examples).
    pub fn has_inline_data(&self) -> bool {
        self.inline_size.is_some()
    }

    /// Returns the number of data bytes inside the inode; the rest of the file is a hole.
    pub(crate) fn inline_size(&self) -> Option<u64> {
        self.inline_size.map(|room| room.min(self.size))
    }

    /// Returns true if the inode may have extended attributes.
    pub(crate) fn may_have_attributes(&self) -> bool {
        self.attribute_block != 0 || self.has_attribute_space
    }

    /// Returns the part of the inode's bytes that may hold extended attributes.
    pub(crate) fn attribute_space<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.attributes_at..).unwrap_or_default()
    }
}

impl Inode {
    /// Writes the fields to the inode in `bytes`, whose other fields stay, and stores the checksum,
    /// if the filesystem has metadata checksums. Fields that the inode is too small for are left
    /// out.
    pub(crate) fn encode(&self, superblock: &Superblock, bytes: &mut [u8]) {
        let Ok((raw, rest)) = RawInode::mut_from_prefix(bytes) else { return };
        raw.mode = self.mode.into();
        (raw.uid_lo, raw.uid_hi) = split_32(self.uid);
        (raw.gid_lo, raw.gid_hi) = split_32(self.gid);
        raw.links = self.links.into();
        raw.flags = self.flags.bits().into();
        raw.generation = self.generation.into();
        raw.block = self.block;
        let (version_lo, version_hi) = split_64(self.version);
        raw.version = version_lo;
        let (size_lo, size_hi) = split_64(self.size);
        raw.size_lo = size_lo;
        if self.kind == FileType::Regular || superblock.has(IncompatFeatures::LARGEDIR) {
            raw.size_hi = size_hi;
        }
        let (attributes_lo, attributes_hi) = split_64(self.attribute_block.get());
        raw.file_acl_lo = attributes_lo;
        if superblock.has(IncompatFeatures::BITS64) {
            (raw.file_acl_hi, _) = split_32(attributes_hi.get());
        }
        let (blocks_lo, blocks_hi) = split_64(self.stored_blocks(superblock));
        raw.blocks_lo = blocks_lo;
        if superblock.ro_compat.contains(RoCompatFeatures::HUGE_FILE) {
            (raw.blocks_hi, _) = split_32(blocks_hi.get());
        }
        let [atime, mtime, ctime] = [self.atime, self.mtime, self.ctime].map(Timestamp::encode);
        (raw.atime, raw.mtime, raw.ctime) = (atime.0.into(), mtime.0.into(), ctime.0.into());
        if let Ok((stored, _)) = RawInodeExtra::mut_from_prefix(rest) {
            let mut extra = stored.clone();
            (extra.atime_extra, extra.mtime_extra) = (atime.1.into(), mtime.1.into());
            extra.ctime_extra = ctime.1.into();
            extra.version_hi = version_hi;
            if let Some((seconds, more)) = self.crtime.map(Timestamp::encode) {
                (extra.crtime, extra.crtime_extra) = (seconds.into(), more.into());
            }
            if superblock.ro_compat.contains(RoCompatFeatures::PROJECT) {
                extra.project = self.project.unwrap_or(0).into();
            }
            let declared = usize::from(stored.extra_isize.get());
            let fields = stored.as_mut_bytes().iter_mut().zip(extra.as_bytes());
            fields.take(declared).for_each(|(to, from)| *to = *from);
        }
        seal(superblock, self.number, bytes);
    }

    /// Returns the count of blocks as it is stored: without inline data, and in blocks of the
    /// filesystem for huge files.
    fn stored_blocks(&self, superblock: &Superblock) -> u64 {
        let inline = self.inline_size.is_some() && self.kind == FileType::Regular;
        let inline = if inline { self.size.div_ceil(512) } else { 0 };
        let blocks = self.blocks_512.saturating_sub(inline);
        let huge = superblock.ro_compat.contains(RoCompatFeatures::HUGE_FILE)
            && self.flags.contains(InodeFlags::HUGE_FILE);
        let shift = if huge { superblock.geometry.block_bits.saturating_sub(9) } else { 0 };
        blocks.wrapping_shr(shift)
    }
}

/// Returns the next inode in the list of orphans, which is stored in the deletion time of inode
/// `number`.
pub(crate) fn next_orphan(number: InodeNumber, bytes: &[u8]) -> Result<InodeNumber, Error> {
    let raw = RawInode::ref_from_prefix(bytes);
    let missing = |_| Structure::Inode(number).corrupt(Problem::Missing { logical: 0 });
    raw.map(|(raw, _)| raw.dtime.into()).map_err(missing)
}

/// Sets the next inode in the list of orphans, and updates the checksum.
pub(crate) fn set_next_orphan(
    superblock: &Superblock,
    number: InodeNumber,
    bytes: &mut [u8],
    next: InodeNumber,
) {
    if let Ok((raw, _)) = RawInode::mut_from_prefix(bytes) {
        raw.dtime = next.get().into();
    }
    seal(superblock, number, bytes);
}

/// Byte offset of the link count.
pub(crate) const LINKS_OFFSET: usize = offset_of!(RawInode, links);

/// Replaces an inode by the first bytes of it that a fast commit stores. The map is kept; if the
/// inode has no map yet, an empty one is created.
pub(crate) fn replace(bytes: &mut [u8], fresh: &[u8]) {
    let map = offset_of!(RawInode, block)..offset_of!(RawInode, generation);
    let mut copy = |range: Range<usize>| {
        if let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), fresh.get(range)) {
            to.copy_from_slice(from);
        }
    };
    copy(0..map.start);
    copy(map.end..fresh.len());
    let Ok((raw, _)) = RawInode::read_from_prefix(fresh) else { return };
    let flags = InodeFlags::from_bits_retain(raw.flags.get());
    if flags.contains(InodeFlags::EXTENTS) {
        let root = bytes.get_mut(map).unwrap_or_default();
        if !extent::is_root(root) {
            extent::clear_root(root);
        }
    } else if flags.contains(InodeFlags::INLINE_DATA) {
        copy(map);
    }
}

/// Returns the part of an inode's bytes that has fields: without space for attributes.
pub(crate) fn declared(bytes: &[u8]) -> &[u8] {
    let (base, rest) = bytes.split_at_checked(BASE_SIZE).unwrap_or((bytes, &[]));
    let extra =
        RawInodeExtra::ref_from_prefix(rest).map_or(0, |(extra, _)| extra.extra_isize.get());
    bytes.get(..base.len().saturating_add(extra.into())).unwrap_or(base)
}

/// Returns true if a free inode with the bytes `old` has nothing left in its map and in its space for
/// attributes. `new` are the bytes of the inode that will replace it.
pub(crate) fn is_blank(old: &[u8], new: &[u8]) -> bool {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    let space = old.get(declared(new).len()..).unwrap_or_default();
    let map = old.get(offset_of!(RawInode, block)..offset_of!(RawInode, generation));
    let map = map.unwrap_or_default();
    is_zero(space) && (is_zero(map) || extent::is_empty_root(map))
}

/// Marks an inode as free: no links and no blocks.
pub(crate) fn free(bytes: &mut [u8]) {
    if let Ok((raw, _)) = RawInode::mut_from_prefix(bytes) {
        raw.links = 0.into();
        extent::clear_root(&mut raw.block);
    }
}

/// Updates the checksum of the inode.
pub(crate) fn seal(superblock: &Superblock, number: InodeNumber, bytes: &mut [u8]) {
    if !superblock.has_metadata_csum() {
        return;
    }
    let Ok((raw, rest)) = RawInode::ref_from_prefix(bytes) else { return };
    let has_high = Extra::parse(rest).is_ok_and(|extra| extra.has_checksum());
    let seed = checksum_seed(superblock, number, raw);
    let (low, high) = split_32(computed_checksum(seed, has_high, bytes));
    if let Ok((raw, rest)) = RawInode::mut_from_prefix(bytes) {
        raw.checksum_lo = low;
        if let Ok((extra, _)) = RawInodeExtra::mut_from_prefix(rest)
            && has_high
        {
            extra.checksum_hi = high;
        }
    }
}

/// Returns the size in bytes. Directories have a 64-bit size only with `large_dir`, because their
/// upper half was once another field.
fn size(superblock: &Superblock, kind: FileType, raw: &RawInode) -> u64 {
    let wide = kind == FileType::Regular || superblock.has(IncompatFeatures::LARGEDIR);
    join_64(raw.size_lo, if wide { raw.size_hi } else { U32::ZERO })
}

fn blocks_512(superblock: &Superblock, flags: InodeFlags, raw: &RawInode) -> u64 {
    let low = u64::from(raw.blocks_lo.get());
    if !superblock.ro_compat.contains(RoCompatFeatures::HUGE_FILE) {
        return low;
    }
    let blocks = low | (u64::from(raw.blocks_hi.get()) << 32);
    let unit = if flags.contains(InodeFlags::HUGE_FILE) { superblock.block_size() >> 9 } else { 1 };
    blocks.saturating_mul(u64::from(unit))
}

fn attribute_block(superblock: &Superblock, raw: &RawInode) -> PhysicalBlock {
    let wide = superblock.has(IncompatFeatures::BITS64);
    let high = if wide { u64::from(raw.file_acl_hi.get()) << 32 } else { 0 };
    (u64::from(raw.file_acl_lo.get()) | high).into()
}

/// Returns the capacity for inline data in bytes, or `None` if the inode has no attribute for it.
fn inline_size(superblock: &Superblock, space: &[u8]) -> Result<Option<u64>, Problem> {
    let rest = xattr_body::inline_data(superblock, space)?;
    Ok(rest.map(|rest| as_u64(BLOCK_AREA.saturating_add(rest.len()))))
}

/// The fields after byte 128 that the inode declares.
struct Extra {
    /// The fields, of which those after the declared size are zero.
    raw: RawInodeExtra,
    /// Bytes of `raw` that are declared.
    size: usize,
    /// Byte offset after the last declared field, where extended attributes may start; `usize::MAX`
    /// if the inode has no room for them.
    end: usize,
}

impl Extra {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut raw = RawInodeExtra::new_zeroed();
        let Ok((stored, _)) = RawInodeExtra::ref_from_prefix(bytes) else {
            return Ok(Self { raw, size: 0, end: usize::MAX });
        };
        let value = stored.extra_isize.get();
        let declared = usize::from(value);
        if declared > bytes.len() || declared % 4 != 0 {
            let rule = "must be a multiple of 4 and fit in the inode";
            return Err(Problem::Field { field: "extra size", value: value.into(), rule });
        }
        // An inode with size 0 was created before these fields existed. Like the kernel, treat its
        // times as zeroes and not as missing; checksum and project id are missing.
        let (size, end) = match declared {
            0 => (size_of::<RawInodeExtra>(), usize::MAX),
            _ => (declared, BASE_SIZE.saturating_add(declared)),
        };
        let fields = raw.as_mut_bytes().iter_mut().zip(stored.as_bytes());
        fields.take(size).for_each(|(to, from)| *to = *from);
        Ok(Self { raw, size, end })
    }

    /// Returns true if the field of 32 bits at `offset` is declared.
    fn has(&self, offset: usize) -> bool {
        self.size >= offset.saturating_add(size_of::<U32>())
    }

    fn has_checksum(&self) -> bool {
        self.raw.extra_isize.get() >= 4
    }

    fn crtime(&self) -> Option<Timestamp> {
        let time = || Timestamp::decode(self.raw.crtime.get(), Some(self.raw.crtime_extra.get()));
        self.has(offset_of!(RawInodeExtra, crtime)).then(time)
    }

    fn project(&self, superblock: &Superblock) -> Option<u32> {
        let is_stored =
            superblock.ro_compat.contains(RoCompatFeatures::PROJECT) && self.raw.extra_isize != 0;
        let project = if is_stored { self.raw.project.get() } else { 0 };
        self.has(offset_of!(RawInodeExtra, project)).then_some(project)
    }
}

/// Returns the seed for the checksums of the inode and of its blocks.
fn checksum_seed(superblock: &Superblock, number: InodeNumber, raw: &RawInode) -> u32 {
    let seed = crc32c(superblock.checksum_seed, &number.get().to_le_bytes());
    crc32c(seed, raw.generation.as_bytes())
}

/// Verifies the checksum of the whole inode. An inode without room for the upper half stores only
/// the lower 16 bits.
fn verify_checksum(seed: u32, raw: &RawInode, extra: &Extra, bytes: &[u8]) -> Result<(), Problem> {
    let computed = computed_checksum(seed, extra.has_checksum(), bytes);
    match extra.has_checksum() {
        true => Problem::verify_checksum(join_32(raw.checksum_lo, extra.raw.checksum_hi), computed),
        false => Problem::verify_checksum(raw.checksum_lo.get().into(), computed & 0xffff),
    }
}

/// Computes the checksum of an inode, with zeroes in its checksum fields. Most inodes fit in `head`
/// and need a single pass.
fn computed_checksum(seed: u32, has_high: bool, bytes: &[u8]) -> u32 {
    let mut head = [0; 2 * BASE_SIZE];
    let (first, rest) = bytes.split_at_checked(head.len()).unwrap_or((bytes, &[]));
    let head = head.get_mut(..first.len()).unwrap_or_default();
    head.copy_from_slice(first);
    let fields = [0x7c..0x7e, if has_high { 0x82..0x84 } else { 0..0 }];
    for field in fields {
        head.get_mut(field).unwrap_or_default().fill(0);
    }
    let crc = crc32c(seed, head);
    if rest.is_empty() { crc } else { crc32c(crc, rest) }
}

#[cfg(test)]
pub(crate) mod tests;
