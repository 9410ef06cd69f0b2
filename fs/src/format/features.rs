//! Feature bits of the superblock.

use std::borrow::Cow;
use std::fmt;

use bitflags::bitflags;

bitflags! {
    /// Features that neither readers nor writers need to support.
    ///
    /// See the [example](crate::Superblock#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CompatFeatures: u32 {
        /// Blocks are preallocated to directories.
        const DIR_PREALLOC = 0x1;
        /// Obsolete.
        const IMAGIC_INODES = 0x2;
        /// There is a journal.
        const HAS_JOURNAL = 0x4;
        /// Inodes may have extended attributes.
        const EXT_ATTR = 0x8;
        /// Space is reserved for the growth of the group descriptors.
        const RESIZE_INODE = 0x10;
        /// Directories may have hash trees.
        const DIR_INDEX = 0x20;
        /// Obsolete.
        const LAZY_BG = 0x40;
        /// Obsolete.
        const EXCLUDE_INODE = 0x80;
        /// Obsolete.
        const EXCLUDE_BITMAP = 0x100;
        /// At most two backup superblocks, in groups that are listed in the superblock.
        const SPARSE_SUPER2 = 0x200;
        /// The journal has a fast-commit area.
        const FAST_COMMIT = 0x400;
        /// Inode numbers and the UUID may not change.
        const STABLE_INODES = 0x800;
        /// Orphans may be kept in a file.
        const ORPHAN_FILE = 0x1000;

        const _ = !0;
    }
}

bitflags! {
    /// Features that readers must support.
    ///
    /// See the [example](crate::Superblock#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IncompatFeatures: u32 {
        /// Compressed files (never in the kernel).
        const COMPRESSION = 0x1;
        /// Directory entries store the file's type.
        const FILETYPE = 0x2;
        /// The journal needs recovery.
        const RECOVER = 0x4;
        /// This is an external journal, not a filesystem.
        const JOURNAL_DEV = 0x8;
        /// Group descriptors are spread over the device.
        const META_BG = 0x10;
        /// Files may be mapped by extents.
        const EXTENTS = 0x40;
        /// Block numbers have 48 or 64 bits.
        const BITS64 = 0x80;
        /// Multi-mount protection.
        const MMP = 0x100;
        /// A group's bitmaps and inode table may be outside the group.
        const FLEX_BG = 0x200;
        /// Large extended attributes are stored in inodes of their own.
        const EA_INODE = 0x400;
        /// Directory entries carry data (never in the kernel).
        const DIRDATA = 0x1000;
        /// The seed of checksums is stored in the superblock.
        const CSUM_SEED = 0x2000;
        /// Directories larger than 2 GiB, and hash trees of three levels.
        const LARGEDIR = 0x4000;
        /// Small files are inside their inodes.
        const INLINE_DATA = 0x8000;
        /// Files may be encrypted.
        const ENCRYPT = 0x10000;
        /// Directories may ignore case.
        const CASEFOLD = 0x20000;

        const _ = !0;
    }
}

bitflags! {
    /// Features that writers must support, but readers need not.
    ///
    /// See the [example](crate::Superblock#examples).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RoCompatFeatures: u32 {
        /// Not all groups have a copy of the superblock.
        const SPARSE_SUPER = 0x1;
        /// Files may be larger than 2 GiB.
        const LARGE_FILE = 0x2;
        /// Never used.
        const BTREE_DIR = 0x4;
        /// Inodes may count their blocks in filesystem blocks, in 48 bits.
        const HUGE_FILE = 0x8;
        /// Group descriptors have a CRC-16 (`uninit_bg`).
        const GDT_CSUM = 0x10;
        /// Directories may have more than 65,000 subdirectories.
        const DIR_NLINK = 0x20;
        /// Inodes have a declared minimum of extra fields.
        const EXTRA_ISIZE = 0x40;
        /// Never in the kernel.
        const HAS_SNAPSHOT = 0x80;
        /// Quota is kept in hidden files.
        const QUOTA = 0x100;
        /// Space is allocated in clusters of blocks.
        const BIGALLOC = 0x200;
        /// Metadata has CRC-32C checksums.
        const METADATA_CSUM = 0x400;
        /// Never in the kernel.
        const REPLICA = 0x800;
        /// The filesystem asks to be mounted read-only.
        const READONLY = 0x1000;
        /// Inodes have a project id.
        const PROJECT = 0x2000;
        /// Blocks may be shared between files (never in the kernel).
        const SHARED_BLOCKS = 0x4000;
        /// Files may have fs-verity hash trees.
        const VERITY = 0x8000;
        /// The orphan file has entries.
        const ORPHAN_PRESENT = 0x10000;

        const _ = !0;
    }
}

/// Bits and their names in e2fsprogs.
const COMPAT: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (0x4, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x40, "lazy_bg"),
    (0x100, "snapshot_bitmap"),
    (0x200, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];

const INCOMPAT: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x10000, "encrypt"),
    (0x20000, "casefold"),
];

const RO_COMPAT: &[(u32, &str)] = &[
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x10000, "orphan_present"),
];

/// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A bit without a
/// name is `FEATURE_`, `kind` and its number.
fn words(
    bits: u32,
    table: &'static [(u32, &str)],
    kind: char,
) -> impl Iterator<Item = Cow<'static, str>> {
    named(bits, table).map(move |(bit, name)| match name {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("FEATURE_{kind}{}", bit.trailing_zeros())),
    })
}

/// Returns the set bits from the lowest, each with its name if it has one.
fn named(
    bits: u32,
    table: &'static [(u32, &str)],
) -> impl Iterator<Item = (u32, Option<&'static str>)> {
    (0..32u32).filter_map(move |shift| {
        let bit = 1u32.checked_shl(shift)? & bits;
        let name = table.iter().find(|&&(known, _)| known == bit).map(|&(_, name)| name);
        (bit != 0).then_some((bit, name))
    })
}

fn list(
    f: &mut fmt::Formatter<'_>,
    mut words: impl Iterator<Item = Cow<'static, str>>,
) -> fmt::Result {
    words.next().map_or(Ok(()), |first| f.write_str(&first))?;
    words.try_for_each(|word| write!(f, " {word}"))
}

impl CompatFeatures {
    /// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A bit
    /// without a name is `FEATURE_C` and its number, 0 to 31.
    pub fn words(self) -> impl Iterator<Item = Cow<'static, str>> {
        words(self.bits(), COMPAT, 'C')
    }
}

/// Prints the [words](Self::words), separated by spaces.
impl fmt::Display for CompatFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.words())
    }
}

impl IncompatFeatures {
    /// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A bit
    /// without a name is `FEATURE_I` and its number, 0 to 31.
    pub fn words(self) -> impl Iterator<Item = Cow<'static, str>> {
        words(self.bits(), INCOMPAT, 'I')
    }
}

/// Prints the [words](Self::words), separated by spaces.
impl fmt::Display for IncompatFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.words())
    }
}

impl RoCompatFeatures {
    /// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A bit
    /// without a name is `FEATURE_R` and its number, 0 to 31.
    pub fn words(self) -> impl Iterator<Item = Cow<'static, str>> {
        words(self.bits(), RO_COMPAT, 'R')
    }
}

/// Prints the [words](Self::words), separated by spaces.
impl fmt::Display for RoCompatFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.words())
    }
}

impl IncompatFeatures {
    /// The features that this crate reads. With `ENCRYPT` it reads everything that needs no key,
    /// and rejects reads of the contents of encrypted files.
    pub const SUPPORTED: Self = Self::FILETYPE
        .union(Self::META_BG)
        .union(Self::EXTENTS)
        .union(Self::BITS64)
        .union(Self::MMP)
        .union(Self::FLEX_BG)
        .union(Self::EA_INODE)
        .union(Self::CSUM_SEED)
        .union(Self::LARGEDIR)
        .union(Self::INLINE_DATA)
        .union(Self::ENCRYPT)
        .union(Self::CASEFOLD);

    /// Returns the error message that rejects these features.
    pub(crate) fn refusal(self) -> String {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (bit, name) in named(self.bits(), INCOMPAT) {
            match name {
                Some(name) => known.push(name.to_owned()),
                None => unknown.push(format!("{bit:#x}")),
            }
        }
        let plural = |list: &[String]| if list.len() == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        if !known.is_empty() {
            let s = plural(&known);
            parts.push(format!("unsupported incompat feature{s}: {}", known.join(", ")));
        }
        if !unknown.is_empty() {
            let s = plural(&unknown);
            parts.push(format!("unknown incompat feature bit{s} {}", unknown.join(", ")));
        }
        parts.join("; ")
    }
}

impl RoCompatFeatures {
    /// The features of filesystems whose files may be overwritten. Excluded are `READONLY`, which
    /// forbids writes; `SHARED_BLOCKS`, where a block may belong to several files;
    /// `ORPHAN_PRESENT`, where truncations are pending; and the features that no kernel supports.
    pub const OVERWRITABLE: Self = Self::SPARSE_SUPER
        .union(Self::LARGE_FILE)
        .union(Self::BTREE_DIR)
        .union(Self::HUGE_FILE)
        .union(Self::GDT_CSUM)
        .union(Self::DIR_NLINK)
        .union(Self::EXTRA_ISIZE)
        .union(Self::QUOTA)
        .union(Self::BIGALLOC)
        .union(Self::METADATA_CSUM)
        .union(Self::PROJECT)
        .union(Self::VERITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_features() {
        let refusal = |bits| IncompatFeatures::from_bits_retain(bits).refusal();
        assert_eq!(refusal(0x1), "unsupported incompat feature: compression");
        assert_eq!(refusal(0x1008), "unsupported incompat features: journal_dev, dirdata");
        assert_eq!(refusal(0x10_0000), "unknown incompat feature bit 0x100000");
        assert_eq!(
            refusal(0x8030_0000 | 0x1000),
            "unsupported incompat feature: dirdata; \
             unknown incompat feature bits 0x100000, 0x200000, 0x80000000"
        );
    }

    #[test]
    fn every_flag_has_its_name() {
        // Some features that were never used have no name in e2fsprogs.
        let unnamed = [
            CompatFeatures::EXCLUDE_INODE.bits(),
            0,
            (RoCompatFeatures::BTREE_DIR | RoCompatFeatures::HAS_SNAPSHOT).bits(),
        ];
        let all = |bits: u32, table: &[(u32, &str)], unnamed: u32| {
            assert_eq!(table.iter().fold(0, |all, entry| all | entry.0) | unnamed, bits);
        };
        let bits = |names: &mut dyn Iterator<Item = u32>| names.fold(0, |all, bit| all | bit);
        all(
            bits(&mut CompatFeatures::all().iter_names().map(|(_, f)| f.bits())),
            COMPAT,
            unnamed[0],
        );
        all(
            bits(&mut IncompatFeatures::all().iter_names().map(|(_, f)| f.bits())),
            INCOMPAT,
            unnamed[1],
        );
        all(
            bits(&mut RoCompatFeatures::all().iter_names().map(|(_, f)| f.bits())),
            RO_COMPAT,
            unnamed[2],
        );
    }

    #[test]
    fn lists_look_like_dumpe2fs() {
        let features = IncompatFeatures::from_bits_retain(0x10_02c2);
        assert_eq!(features.to_string(), "filetype extent 64bit flex_bg FEATURE_I20");
    }
}
