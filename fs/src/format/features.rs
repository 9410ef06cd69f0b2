//! Feature bits of the superblock.

use std::fmt;

use bitflags::{Flag, Flags, bitflags};

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

/// Flags whose names in e2fsprogs differ from the names of their constants.
const NAMES: &[(&str, &str)] = &[
    ("EXCLUDE_BITMAP", "snapshot_bitmap"),
    ("RECOVER", "needs_recovery"),
    ("EXTENTS", "extent"),
    ("BITS64", "64bit"),
    ("CSUM_SEED", "metadata_csum_seed"),
    ("LARGEDIR", "large_dir"),
    ("GDT_CSUM", "uninit_bg"),
    ("READONLY", "read-only"),
];
/// Flags that e2fsprogs has no name for, because they were never used.
const UNNAMED: &[&str] = &["EXCLUDE_INODE", "BTREE_DIR", "HAS_SNAPSHOT"];

/// Returns the set bits from the lowest, each with its name in e2fsprogs if it has one.
fn named<F: Flags<Bits = u32>>(features: F) -> impl Iterator<Item = (u32, Option<String>)> {
    let bits = features.bits();
    let set = (0..u32::BITS).filter_map(|shift| 1u32.checked_shl(shift));
    set.filter(move |bit| bits & bit != 0).map(|bit| {
        let flag = F::FLAGS.iter().find(|flag| flag.value().bits() == bit).map(Flag::name);
        let flag = flag.filter(|name| !UNNAMED.contains(name));
        let name = |flag: &str| {
            let renamed = NAMES.iter().find(|(constant, _)| *constant == flag);
            renamed.map_or_else(|| flag.to_lowercase(), |&(_, name)| name.to_owned())
        };
        (bit, flag.map(name))
    })
}

/// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A bit without a
/// name is `FEATURE_`, `kind` and its number.
fn words<F: Flags<Bits = u32>>(features: F, kind: char) -> impl Iterator<Item = String> {
    named(features).map(move |(bit, name)| {
        name.unwrap_or_else(|| format!("FEATURE_{kind}{}", bit.trailing_zeros()))
    })
}

/// Implements `words` and `Display` for a set of features.
macro_rules! print_words {
    ($features:ty, $kind:literal) => {
        impl $features {
            /// Returns the names of the set bits as dumpe2fs prints them, from the lowest bit. A
            /// bit without a name is
            #[doc = concat!("`FEATURE_", $kind, "`")]
            /// and its number, 0 to 31.
            pub fn words(self) -> impl Iterator<Item = String> {
                words(self, $kind)
            }
        }

        /// Prints the [words](Self::words), separated by spaces.
        impl fmt::Display for $features {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.words().collect::<Vec<_>>().join(" "))
            }
        }
    };
}

print_words!(CompatFeatures, 'C');
print_words!(IncompatFeatures, 'I');
print_words!(RoCompatFeatures, 'R');

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
        for (bit, name) in named(self) {
            match name {
                Some(name) => known.push(name),
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
        assert_eq!(
            CompatFeatures::from_bits_retain(0x1fff).to_string(),
            "dir_prealloc imagic_inodes has_journal ext_attr resize_inode dir_index lazy_bg \
             FEATURE_C7 snapshot_bitmap sparse_super2 fast_commit stable_inodes orphan_file"
        );
        assert_eq!(
            IncompatFeatures::from_bits_retain(0x3_f7df).to_string(),
            "compression filetype needs_recovery journal_dev meta_bg extent 64bit mmp flex_bg \
             ea_inode dirdata metadata_csum_seed large_dir inline_data encrypt casefold"
        );
        assert_eq!(
            RoCompatFeatures::from_bits_retain(0x1_ffff).to_string(),
            "sparse_super large_file FEATURE_R2 huge_file uninit_bg dir_nlink extra_isize FEATURE_R7 \
             quota bigalloc metadata_csum replica read-only project shared_blocks verity orphan_present"
        );
    }

    #[test]
    fn lists_look_like_dumpe2fs() {
        let features = IncompatFeatures::from_bits_retain(0x10_02c2);
        assert_eq!(features.to_string(), "filetype extent 64bit flex_bg FEATURE_I20");
    }
}
