//! The places of the structures in a journal's log.

use super::bytes::{crc32c, get_be};
use super::fields::{self, Field, big_fields};
use super::layout::Layout;
use super::seal::{Seal, Tag};

const MAGIC: u64 = 0xc03b_3998;
const WIDE: u64 = 0x2;
const CHECKSUM_V2: u64 = 0x8;
const CHECKSUM_V3: u64 = 0x10;
const FAST_COMMIT: u64 = 0x20;

/// The state of a scan of the log.
struct Log {
    /// The blocks of the journal, from its superblock on.
    blocks: Vec<u64>,
    incompat: u64,
    seed: u32,
    first: u64,
    end: u64,
}

impl Log {
    fn has(&self, feature: u64) -> bool {
        self.incompat & feature != 0
    }

    fn has_checksums(&self) -> bool {
        self.has(CHECKSUM_V2 | CHECKSUM_V3)
    }

    fn next(&self, at: u64) -> u64 {
        if at + 1 >= self.end { self.first } else { at + 1 }
    }
}

fn number(layout: &Layout, at: usize, width: usize) -> u64 {
    get_be(&layout.image, at, width)
}

/// Returns the block of the image that holds block `index` of the journal.
pub fn block(layout: &Layout, index: u64) -> u64 {
    let mut runs = Vec::new();
    let mut places = Layout::new(layout.image.clone());
    places.extents(layout.inode(8) + 0x28, 0, &mut runs);
    let run = runs.iter().find(|&&(start, _, count)| (start..start + count).contains(&index));
    run.map(|&(start, physical, _)| physical + index - start).unwrap()
}

/// Adds the places in the journal with these blocks.
pub fn locate(layout: &mut Layout, blocks: Vec<u64>) {
    let start = blocks[0] as usize * layout.block_size;
    let superblock = |at, width| number(layout, start + at, width);
    let incompat = superblock(40, 4);
    let fast = match superblock(84, 4) {
        0 => 256,
        count => count,
    };
    let fast = if incompat & FAST_COMMIT != 0 { fast } else { 0 };
    let log = Log {
        incompat,
        seed: crc32c(!0, &layout.image[start + 48..start + 64]),
        first: superblock(20, 4),
        end: superblock(16, 4) - fast,
        blocks,
    };
    let (at, sequence) = (superblock(28, 4), superblock(24, 4));
    let all = header().chain(big_fields(fields::JOURNAL_SUPERBLOCK, 0));
    layout.add("journal superblock", start, 1024, all, Seal::JournalSuperblock);
    if at != 0 {
        transactions(layout, &log, at, sequence);
    }
    // One unused block separates the log from the fast-commit area.
    for index in 0..fast.min(2) {
        let start = log.blocks[(log.end + 1 + index) as usize] as usize * layout.block_size;
        layout.add(
            "fast commit",
            start,
            layout.block_size,
            fast_commit_fields(layout, start),
            Seal::FastCommit,
        );
    }
}

fn header() -> impl Iterator<Item = Field> {
    big_fields(fields::JOURNAL_HEADER, 0)
}

fn big(name: &'static str, at: usize, width: usize) -> Field {
    Field { name, at, width, big: true }
}

fn transactions(layout: &mut Layout, log: &Log, mut at: u64, mut sequence: u64) {
    for _ in 0..log.end {
        let start = log.blocks[at as usize] as usize * layout.block_size;
        let (magic, kind) = (number(layout, start, 4), number(layout, start + 4, 4));
        if magic != MAGIC || number(layout, start + 8, 4) != sequence {
            return;
        }
        at = log.next(at);
        let size = layout.block_size;
        let seal = |with: fn(u32) -> Seal| {
            if log.has_checksums() { with(log.seed) } else { Seal::Nothing }
        };
        match kind {
            1 => {
                let tags = tags(layout, log, start);
                let mut all: Vec<Field> = header().collect();
                for &(tag, _) in tags.iter().take(6) {
                    all.extend(tag_fields(log, tag - start));
                }
                layout.add("journal descriptor", start, size, all, seal(Seal::JournalTail));
                for (tag, _) in tags {
                    let data = log.blocks[at as usize] as usize * size;
                    at = log.next(at);
                    let seal = tag_seal(log, start, tag - start, sequence as u32);
                    layout.add("logged block", data, size, [], seal);
                }
            }
            2 => {
                let all = header().chain(big_fields(fields::COMMIT, 0));
                layout.add("journal commit", start, size, all, seal(Seal::Commit));
                sequence += 1;
            }
            5 => {
                let width = if log.has(WIDE) { 8 } else { 4 };
                let entries = (0..4).map(|entry| big("revoked", 16 + entry * width, width));
                let all = header().chain([big("count", 12, 4)]).chain(entries);
                layout.add("journal revoke", start, size, all, seal(Seal::JournalTail));
            }
            _ => return,
        }
    }
}

/// Returns the byte offsets in the image of a descriptor's tags, with their flags.
fn tags(layout: &Layout, log: &Log, start: usize) -> Vec<(usize, u64)> {
    let wide = if log.has(WIDE) { 4 } else { 0 };
    // Tags of version 2 have two unused bytes.
    let more = if log.has(CHECKSUM_V2) { 2 } else { 0 };
    let size = if log.has(CHECKSUM_V3) { 16 } else { 8 + wide + more };
    let end = layout.block_size - if log.has_checksums() { 4 } else { 0 };
    let (mut tags, mut at) = (Vec::new(), 12);
    while at + size <= end {
        let flags = match log.has(CHECKSUM_V3) {
            true => number(layout, start + at + 4, 4),
            false => number(layout, start + at + 6, 2),
        };
        tags.push((start + at, flags));
        at += size + if flags & 0x2 == 0 { 16 } else { 0 };
        if flags & 0x8 != 0 {
            break;
        }
    }
    tags
}

fn tag_fields(log: &Log, at: usize) -> Vec<Field> {
    if log.has(CHECKSUM_V3) {
        return vec![
            big("tag block", at, 4),
            big("tag flags", at + 4, 4),
            big("tag block_hi", at + 8, 4),
            big("tag checksum", at + 12, 4),
        ];
    }
    let mut all =
        vec![big("tag block", at, 4), big("tag checksum", at + 4, 2), big("tag flags", at + 6, 2)];
    if log.has(WIDE) {
        all.push(big("tag block_hi", at + 8, 4));
    }
    all
}

fn tag_seal(log: &Log, descriptor: usize, tag: usize, sequence: u32) -> Seal {
    let seed = log.seed;
    if log.has(CHECKSUM_V3) {
        Seal::Logged(Tag { descriptor, at: tag + 12, width: 4, seed, sequence })
    } else if log.has(CHECKSUM_V2) {
        Seal::Logged(Tag { descriptor, at: tag + 4, width: 2, seed, sequence })
    } else {
        Seal::Nothing
    }
}

/// Returns the fields of fast-commit tags. A tag is little-endian: two bytes of type, two bytes of
/// length, and the contents.
fn fast_commit_fields(layout: &Layout, start: usize) -> Vec<Field> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at + 4 <= layout.block_size {
        let (tag, length) = (layout.get(start + at, 2), layout.get(start + at + 2, 2) as usize);
        if !(1..=10).contains(&tag) || at + 4 + length > layout.block_size {
            break;
        }
        let contents = (0..(length / 4).min(4)).map(|word| ("word", at + 4 + word * 4, 4));
        let both = [("tag", at, 2), ("length", at + 2, 2)].into_iter().chain(contents);
        all.extend(both.map(|(name, at, width)| Field { name, at, width, big: false }));
        at += 4 + length;
    }
    all
}
