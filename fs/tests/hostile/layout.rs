//! The places of the structures in a valid image, found by a parser of the tests' own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::{crc32c, get};
use super::fields::{self, Field, fields};
use super::journal;
use super::seal::{Seal, inode_seed};

/// Maximum number of places of one kind in an image. More would only take time.
const MOST_OF_A_KIND: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    None,
    /// Checksums of group descriptors only.
    Crc16,
    Crc32c,
}

/// A structure in an image.
#[derive(Clone, Debug)]
pub struct Place {
    pub kind: &'static str,
    /// Byte offset in the image.
    pub start: usize,
    pub length: usize,
    pub fields: Vec<Field>,
    pub seal: Seal,
}

/// An image, and the places of its structures.
pub struct Layout {
    pub image: Arc<[u8]>,
    pub block_size: usize,
    pub checksums: Checksums,
    /// Seed of the metadata checksums.
    pub seed: u32,
    pub uuid: [u8; 16],
    /// True with `64bit`: descriptors and block numbers are wide.
    pub wide: bool,
    pub places: Vec<Place>,
    inode_size: usize,
    inodes_per_group: u64,
    tables: Vec<u64>,
}

/// A run of blocks: logical, physical, count.
pub type Run = (u64, u64, u64);

impl Layout {
    pub fn new(image: Arc<[u8]>) -> Self {
        let superblock = &image[1024..2048];
        let number = |at, width| get(superblock, at, width);
        let (incompat, ro_compat) = (number(0x60, 4), number(0x64, 4));
        let uuid: [u8; 16] = superblock[0x68..0x78].try_into().unwrap();
        let has_seed = incompat & 0x2000 != 0;
        let seed = if has_seed { number(0x270, 4) as u32 } else { crc32c(!0, &uuid) };
        let checksums = match ro_compat {
            bits if bits & 0x400 != 0 => Checksums::Crc32c,
            bits if bits & 0x10 != 0 => Checksums::Crc16,
            _ => Checksums::None,
        };
        let mut layout = Self {
            block_size: 1024 << number(0x18, 4),
            checksums,
            seed,
            uuid,
            wide: incompat & 0x80 != 0,
            places: Vec::new(),
            inode_size: if number(0x4c, 4) == 0 { 128 } else { number(0x58, 2) as usize },
            inodes_per_group: number(0x28, 4),
            tables: Vec::new(),
            image: Arc::clone(&image),
        };
        layout.add("superblock", 1024, 1024, fields(fields::SUPERBLOCK, 0), Seal::Superblock);
        layout.descriptors();
        layout.inodes();
        if incompat & 0x100 != 0 {
            let start = number(0x168, 8) as usize * layout.block_size;
            layout.add("mmp", start, layout.block_size, fields(fields::MMP, 0), Seal::Mmp);
        }
        layout.thin_out();
        layout
    }

    pub fn get(&self, at: usize, width: usize) -> u64 {
        get(&self.image, at, width)
    }

    pub fn superblock(&self, at: usize, width: usize) -> u64 {
        self.get(1024 + at, width)
    }

    pub fn add(
        &mut self,
        kind: &'static str,
        start: usize,
        length: usize,
        fields: impl IntoIterator<Item = Field>,
        seal: Seal,
    ) {
        let fields = fields.into_iter().filter(|field| field.at + field.width <= length);
        let fields = fields.collect();
        self.places.push(Place { kind, start, length, fields, seal });
    }

    pub fn add_block(
        &mut self,
        kind: &'static str,
        block: u64,
        fields: impl IntoIterator<Item = Field>,
        seal: Seal,
    ) {
        self.add(kind, block as usize * self.block_size, self.block_size, fields, seal);
    }

    fn descriptors(&mut self) {
        let (first, count) = (self.superblock(0x14, 4), self.superblock(0x4, 4));
        let groups = (count - first).div_ceil(self.superblock(0x20, 4));
        let size = if self.wide { self.superblock(0xfe, 2) as usize } else { 32 };
        // With meta_bg the first block of descriptors is in this place, too.
        let start = (1024 / self.block_size + 1) * self.block_size;
        assert!(groups as usize * size <= self.block_size || self.superblock(0x60, 4) & 0x10 == 0);
        for group in 0..groups {
            let start = start + group as usize * size;
            let high = if self.wide { self.get(start + 0x28, 4) << 32 } else { 0 };
            self.tables.push(self.get(start + 8, 4) | high);
            let high = if self.wide { fields::DESCRIPTOR_HIGH } else { &[] };
            let all = fields(fields::DESCRIPTOR, 0).chain(fields(high, 0));
            self.add("group descriptor", start, size, all, Seal::Descriptor(group as u32));
        }
    }

    /// Returns the byte offset of an inode in the image.
    pub fn inode(&self, number: u32) -> usize {
        let index = u64::from(number) - 1;
        let table = self.tables[(index / self.inodes_per_group) as usize] as usize;
        let in_group = (index % self.inodes_per_group) as usize;
        table * self.block_size + in_group * self.inode_size
    }

    fn inodes(&mut self) {
        let count = self.inodes_per_group * self.tables.len() as u64;
        for number in 1..=count as u32 {
            let start = self.inode(number);
            let links = self.get(start + 0x1a, 2);
            if self.get(start, 2) == 0 || (links == 0 && self.get(start + 0x14, 4) == 0) {
                continue;
            }
            self.add_inode(number, start);
        }
    }

    fn add_inode(&mut self, number: u32, start: usize) {
        let (mode, flags) = (self.get(start, 2), self.get(start + 0x20, 4));
        let has_extents = flags & 0x8_0000 != 0;
        let is_inline = flags & 0x1000_0000 != 0;
        let size = self.get(start + 4, 4);
        let is_fast = mode & 0xf000 == 0xa000 && size < 60;
        let kind = match mode & 0xf000 {
            _ if number == 8 => "inode of the journal",
            _ if number != 2 && number < 11 => "reserved inode",
            _ if flags & 0x20_0000 != 0 => "inode of an attribute",
            0x4000 if is_inline => "inode of an inline directory",
            0x4000 => "inode of a directory",
            0x8000 if is_inline => "inode of an inline file",
            0x8000 => "inode of a file",
            0xa000 if is_fast => "inode of a short link",
            0xa000 => "inode of a long link",
            _ => "inode of a device",
        };
        let seed = inode_seed(self.seed, number, &self.image[start..start + self.inode_size]);
        let mut all: Vec<Field> = fields(fields::INODE, 0).collect();
        if self.inode_size > 128 {
            all.extend(fields(fields::INODE_EXTRA, 0));
            let attributes = 0x80 + self.get(start + 0x80, 2) as usize;
            self.attributes(start, attributes + 4, self.inode_size, &mut all);
        }
        let mapped = matches!(mode & 0xf000, 0x4000 | 0x8000 | 0xa000) && !is_inline && !is_fast;
        if mapped && has_extents {
            all.extend(self.node_fields(start + 0x28, 0x28));
        } else {
            all.extend((0..15).map(|at| field("i_block", 0x28 + at * 4, 4)));
        }
        if is_inline && mode & 0xf000 == 0x4000 {
            // After the number of the parent.
            all.extend(fields(fields::DIR_ENTRY, 0x2c));
        }
        self.add(kind, start, self.inode_size, all, Seal::Inode(number));

        let acl = self.get(start + 0x68, 4);
        if acl != 0 {
            let at = acl as usize * self.block_size;
            let mut all: Vec<Field> = fields(fields::XATTR_HEADER, 0).collect();
            self.attributes(at, 32, self.block_size, &mut all);
            self.add_block("xattr block", acl, all, Seal::XattrBlock(acl));
        }
        if !mapped {
            return;
        }
        let mut runs = Vec::new();
        if has_extents {
            self.extents(start + 0x28, seed, &mut runs);
        } else {
            self.pointers(start + 0x28, &mut runs);
        }
        if mode & 0xf000 == 0x4000 {
            self.directory(&runs, flags & 0x1000 != 0, seed);
        }
        if number == 8 {
            let blocks = runs.iter().flat_map(|&(_, at, count)| at..at + count).collect();
            journal::locate(self, blocks);
        }
        if u64::from(number) == self.superblock(0x280, 4) && self.superblock(0x5c, 4) & 0x1000 != 0
        {
            for block in runs.iter().flat_map(|&(_, at, count)| at..at + count) {
                let tail = self.block_size - 8;
                let all = [field("magic", tail, 4), field("checksum", tail + 4, 4)];
                let entries = (0..4).map(|at| field("orphan", at * 4, 4));
                self.add_block(
                    "orphan block",
                    block,
                    all.into_iter().chain(entries),
                    Seal::Orphans(seed, block),
                );
            }
        }
    }

    /// Collects the fields of the attributes whose entries start at byte `at` of the structure at
    /// `start`.
    fn attributes(&self, start: usize, mut at: usize, length: usize, all: &mut Vec<Field>) {
        if at > 32 && (at > length || self.get(start + at - 4, 4) != 0xea02_0000) {
            return;
        }
        if at > 32 {
            all.push(field("xattr magic", at - 4, 4));
        }
        while at + 16 <= length && self.get(start + at, 4) != 0 {
            all.extend(fields(fields::XATTR_ENTRY, at));
            at += 16 + (self.get(start + at, 1) as usize).next_multiple_of(4);
        }
    }

    fn directory(&mut self, runs: &[Run], is_indexed: bool, seed: u32) {
        for &(logical, physical, count) in runs {
            for index in 0..count {
                self.directory_block(logical + index, physical + index, is_indexed, seed);
            }
        }
    }

    fn directory_block(&mut self, index: u64, block: u64, is_indexed: bool, seed: u32) {
        let start = block as usize * self.block_size;
        let whole = self.get(start + 4, 2) as usize == self.block_size;
        let entries = match index {
            0 if is_indexed => Some((32, "htree root")),
            0 => None,
            _ if is_indexed && whole && self.get(start, 4) == 0 => Some((8, "htree node")),
            _ => None,
        };
        let Some((first, kind)) = entries else {
            let all = self.entries(start);
            return self.add_block("directory block", block, all, Seal::DirLeaf(seed));
        };
        let root: &[_] = if first == 32 { fields::HTREE_ROOT } else { fields::DIR_ENTRY };
        let some = (1..5).flat_map(|at| fields(fields::HTREE_ENTRY, first + at * 8));
        let all = fields(root, 0).chain(fields(fields::HTREE_COUNT, first)).chain(some);
        self.add_block(kind, block, all, Seal::DirNode(seed, first));
    }

    /// Returns the fields of the first entries of a directory block, and of the last one.
    fn entries(&self, start: usize) -> Vec<Field> {
        let mut starts = Vec::new();
        let mut at = 0;
        while at < self.block_size {
            starts.push(at);
            at += (self.get(start + at + 4, 2) as usize).max(12);
        }
        let last = starts.len().saturating_sub(2);
        let some = starts.iter().enumerate().filter(|&(at, _)| at < 4 || at >= last);
        some.flat_map(|(_, &at)| fields(fields::DIR_ENTRY, at)).collect()
    }

    /// Keeps a few places of each kind, from all parts of the image.
    fn thin_out(&mut self) {
        let mut kinds: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for place in self.places.drain(..) {
            kinds.entry(place.kind).or_default().push(place);
        }
        for (_, all) in kinds {
            let count = all.len();
            let step = count.div_ceil(MOST_OF_A_KIND);
            self.places.extend(all.into_iter().step_by(step));
        }
    }
}

pub fn field(name: &'static str, at: usize, width: usize) -> Field {
    Field { name, at, width, big: false }
}
