//! Fast commits: the changed inodes of the running transaction, in blocks after the log.
//!
//! A fast commit makes an inode durable by one write. It adds to the last complete transaction, so that
//! the running transaction still has all changes, and the fast commits are void when it is complete.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::format::checksum::crc32c;
use crate::journal::changes::NewName;
use crate::number::InodeNumber;
use crate::recovery::fast_commit::tag;

/// Maximum number of changed ranges of maps. A transaction with more of them is committed in full.
const RANGES_MAX: usize = 1024;
/// Maximum number of added names. A transaction with more of them is committed in full.
const NAMES_MAX: usize = 512;
/// Size of the unit in which a device writes at least, bytes.
const SECTOR: usize = 512;

/// Changes of inodes that are in no fast commit yet: for each inode the ranges of its map.
#[derive(Default)]
pub(crate) struct Pending {
    inodes: BTreeMap<InodeNumber, Vec<Range<u64>>>,
    /// Names that were added, in the order of the changes.
    names: Vec<NewName>,
    /// Number of ranges that were added.
    ranges: usize,
}

impl Pending {
    /// Adds an inode whose attributes have changed.
    pub(crate) fn add_inode(&mut self, inode: InodeNumber) {
        self.inodes.entry(inode).or_default();
    }

    /// Adds a range of blocks of a file whose map has changed.
    pub(crate) fn add_range(&mut self, inode: InodeNumber, range: Range<u64>) {
        self.ranges = self.ranges.saturating_add(1);
        let ranges = self.inodes.entry(inode).or_default();
        let first = ranges.partition_point(|other| other.end < range.start);
        let last = ranges.partition_point(|other| other.start <= range.end);
        let mut all = range;
        for other in ranges.get(first..last).unwrap_or_default() {
            all = all.start.min(other.start)..all.end.max(other.end);
        }
        ranges.splice(first..last, [all]);
    }

    /// Adds a name.
    pub(crate) fn add_name(&mut self, name: NewName) {
        self.names.push(name);
    }

    /// Returns true if there are more ranges or names than a fast commit should have.
    pub(crate) fn is_too_large(&self) -> bool {
        self.ranges > RANGES_MAX || self.names.len() > NAMES_MAX
    }

    /// Returns the added names, in the order of the changes.
    pub(crate) fn names(&self) -> &[NewName] {
        &self.names
    }

    /// Returns the inodes in order, with the changed ranges of their maps.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = (InodeNumber, &[Range<u64>])> {
        self.inodes.iter().map(|(&number, ranges)| (number, &**ranges))
    }
}

/// Encodes a fast commit of transaction `tid` in blocks of `size` bytes. The first one after a full
/// commit begins with a head. Returns `None` if a tag is larger than a block.
///
/// The kernel rejects a filesystem whose first fast commit is torn. If it is longer than a sector, an
/// empty one precedes it.
pub(crate) fn encode(tags: &[Vec<u8>], tid: u32, is_first: bool, size: usize) -> Option<Vec<u8>> {
    let mut blocks = Blocks { size, bytes: Vec::new(), start: 0 };
    if is_first {
        let head = tag::head(tid);
        let length = tags.iter().map(Vec::len).sum::<usize>().saturating_add(head.len());
        blocks.push(&head)?;
        if length.saturating_add(tag::TAIL) > SECTOR {
            blocks.end(tid);
        }
    }
    for tag in tags {
        blocks.push(tag)?;
    }
    blocks.end(tid);
    Some(blocks.bytes)
}

/// Blocks that are filled with tags.
struct Blocks {
    /// Size of a block, bytes.
    size: usize,
    bytes: Vec<u8>,
    /// Byte at which the current fast commit begins.
    start: usize,
}

impl Blocks {
    /// Appends a tag, in a new block if the current one has no room for it and for a padding.
    fn push(&mut self, tag: &[u8]) -> Option<()> {
        let needed = tag.len().saturating_add(tag::HEADER);
        let left = self.left();
        if needed > left {
            self.bytes.extend(tag::pad(left));
        }
        self.bytes.extend(tag);
        (needed <= self.size).then_some(())
    }

    /// Returns the number of bytes that are left of the current block.
    fn left(&self) -> usize {
        let used = self.bytes.len().checked_rem(self.size).unwrap_or(0);
        self.size.saturating_sub(used)
    }

    /// Appends a tail, which fills the block.
    fn end(&mut self, tid: u32) {
        if tag::TAIL > self.left() {
            let left = self.left();
            self.bytes.extend(tag::pad(left));
        }
        let left = self.left();
        self.bytes.extend(tag::tail(left, tid));
        let covered = self.bytes.get(self.start..).unwrap_or_default();
        let checksum = crc32c(0, covered);
        self.bytes.extend(checksum.to_le_bytes());
        let blocks = self.bytes.len().div_ceil(self.size.max(1));
        self.bytes.resize(blocks.saturating_mul(self.size), 0);
        self.start = self.bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fast_commit::scan::Scan;

    fn tag_of(length: usize) -> Vec<u8> {
        tag::inode(12.into(), &vec![7; length])
    }

    /// Returns the number of tags in complete fast commits.
    fn scan(bytes: &[u8], tid: u32, size: usize) -> u64 {
        let mut scan = Scan::new(tid, 1024);
        for (index, block) in (0..).zip(bytes.chunks(size)) {
            if !scan.block(index, block).unwrap() {
                break;
            }
        }
        scan.valid()
    }

    #[test]
    fn tags_of_all_lengths_are_read() {
        for length in 128..1016 {
            for count in 1..8 {
                let tags = vec![tag_of(length); count];
                for is_first in [true, false] {
                    let bytes = encode(&tags, 7, is_first, 1024);
                    let Some(mut bytes) = bytes else {
                        assert!(length > 1012, "{length}");
                        continue;
                    };
                    if !is_first {
                        bytes.splice(0..0, encode(&[], 7, true, 1024).unwrap());
                    }
                    assert_eq!(bytes.len() % 1024, 0);
                    // Without the paddings, of which each block has at most one.
                    let found = scan(&bytes, 7, 1024) as usize;
                    let least = count + 2;
                    let most = least + 2 + bytes.len() / 1024;
                    assert!((least..most).contains(&found), "{length}, {count}: {found}");
                    assert_eq!(scan(&bytes, 8, 1024), 0);
                }
            }
        }
    }

    #[test]
    fn the_first_fast_commit_is_in_one_sector() {
        let short = encode(&[tag_of(160)], 7, true, 4096).unwrap();
        assert_eq!(short.len(), 4096);
        assert!(short[SECTOR..].iter().all(|&byte| byte == 0));
        let long = encode(&vec![tag_of(160); 3], 7, true, 4096).unwrap();
        assert_eq!(long.len(), 2 * 4096);
        assert!(long[SECTOR..4096].iter().all(|&byte| byte == 0));
        assert_eq!((scan(&long[..4096], 7, 4096), scan(&short, 7, 4096)), (2, 3));
    }

    #[test]
    fn ranges_are_joined() {
        let mut random = 3u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        for _ in 0..300 {
            let (mut pending, mut model) = (Pending::default(), [false; 100]);
            for _ in 0..below(12) {
                let start = below(90);
                let end = start + 1 + below(10);
                pending.add_range(5.into(), start..end);
                model[start as usize..end as usize].fill(true);
            }
            pending.add_inode(5.into());
            let (_, ranges) = pending.inodes().next().unwrap();
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            let found: Vec<u64> = ranges.iter().cloned().flatten().collect();
            let expected: Vec<u64> = (0..100).filter(|&at| model[at as usize]).collect();
            assert_eq!(found, expected);
        }
    }
}
