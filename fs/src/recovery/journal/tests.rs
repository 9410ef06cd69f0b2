//! Tests of recovery with synthetic logs.

use nvio_iomap::{Mapper, MappingKind, Op};

use super::testing::*;
use super::*;
use crate::blocks::metadata::read_superblock;
use crate::format::superblock::tests::seal;
use crate::mount::options::{Options, Recovery};
use crate::testing::{BLOCK, extent, node};

/// All formats of tags and checksums.
const FORMATS: [u32; 10] =
    [0, BITS64, V1, V1 | BITS64, V2, V2 | BITS64, V3, V3 | BITS64, V1 | ASYNC, V3 | BITS64 | ASYNC];

#[test]
fn every_format() {
    for features in FORMATS {
        let mut log = HandMade::new(features);
        log.fill(&[(A, 1), (B, 2)]).fill(&[(C, 3)]).commit();
        log.fill(&[(A, 4)]).commit();
        log.check(&[(A, 4), (B, 2), (C, 3), (213, 0)]);
        let summary = log.open().unwrap().recovered().unwrap();
        let expected = JournalReplay { transactions: 2, blocks: 3, ..JournalReplay::default() };
        assert_eq!(summary, expected, "{features:#x}");
    }
}

#[test]
fn descriptors_that_are_full() {
    for features in FORMATS {
        let mut log = HandMade::starting(features, 1024, 1, 7);
        let size = match features & (V2 | V3 | BITS64) {
            features if features & V3 != 0 => 16,
            features => 8 + (features & V2) as usize / 4 + (features & BITS64) as usize * 2,
        };
        let tail = if features & (V2 | V3) != 0 { 4 } else { 0 };
        let fit = (BLOCK - 12 - 16 - tail) / size;
        let blocks: Vec<_> = (0..fit as u64).map(|index| (4000 + index, index as u8 | 1)).collect();
        log.fill(&blocks);
        // A full block ends the tags even if the last one has no flag.
        let last = 1;
        let at = 12 + 16 + fit * size - size + 6;
        let number = u16::from_be_bytes([log.block(last)[at], log.block(last)[at + 1]]);
        assert_eq!(number & LAST, LAST, "{features:#x}");
        if features & (V1 | V2 | V3) == 0 {
            log.block(last)[at + 1] &= !(LAST as u8);
        }
        log.commit();
        log.check(&blocks);
    }
}

#[test]
fn blocks_that_look_like_the_journals() {
    for features in FORMATS {
        let mut log = HandMade::new(features);
        let mut escaped = vec![9; BLOCK];
        escaped[..4].fill(0);
        log.data(&[(A, ESCAPE, escaped.clone()), (B, 0, escaped.clone())]).commit();
        let fs = log.open().unwrap();
        assert_eq!(fs.block(A.into()).unwrap()[..5], [0xc0, 0x3b, 0x39, 0x98, 9], "{features:#x}");
        assert_eq!(fs.block(B.into()).unwrap()[..5], [0, 0, 0, 0, 9]);
    }
}

#[test]
fn revokes_in_all_orders() {
    for features in FORMATS {
        let mut log = HandMade::new(features);
        // Revokes before, after and in the transaction that contains the block, and a block that is
        // journaled again later.
        log.fill(&[(A, 1), (B, 1), (C, 1)]).commit();
        log.revoke(&[A, B]).commit();
        log.fill(&[(B, 2)]).revoke(&[C]).commit();
        log.check(&[(A, 0), (B, 2), (C, 0)]);
        assert_eq!(log.open().unwrap().recovered().unwrap().revoked, 3, "{features:#x}");

        let mut log = HandMade::new(features);
        log.revoke(&[A]).fill(&[(A, 1)]).commit();
        log.fill(&[(B, 1)]).commit();
        log.fill(&[(B, 2)]).revoke(&[B]).commit();
        log.check(&[(A, 0), (B, 0)]);

        // Revokes of an incomplete transaction are ignored.
        let mut log = HandMade::new(features);
        log.fill(&[(A, 1)]).commit();
        log.revoke(&[A]);
        log.check(&[(A, 1)]);
    }
}

#[test]
fn revokes_of_large_blocks() {
    let mut log = HandMade::new(BITS64);
    log.fill(&[(A, 1)]).commit();
    log.revoke(&[A | 1 << 32]).commit();
    log.check(&[(A, 1)]);
    log.revoke(&[A | 1 << 32, A]).commit();
    log.check(&[(A, 0)]);
}

#[test]
fn logs_and_sequence_numbers_wrap() {
    for features in FORMATS {
        for start in BLOCKS - 8..BLOCKS {
            let mut log = HandMade::starting(features, BLOCKS, start, u32::MAX - 1);
            log.fill(&[(A, 1), (B, 1)]).commit();
            log.fill(&[(A, 2), (C, 2)]).revoke(&[B]).commit();
            log.fill(&[(A, 3)]).commit();
            log.check(&[(A, 3), (B, 0), (C, 2)]);
        }
    }
    // A full log of 63 blocks, whose end continues at its beginning.
    let mut log = HandMade::new(V3);
    for round in 0..21 {
        log.fill(&[(A, round)]).commit();
    }
    log.check(&[(A, 20)]);
}

#[test]
fn the_last_transaction_is_torn() {
    for features in FORMATS {
        let whole = |log: &mut HandMade| {
            log.fill(&[(A, 1)]).commit();
        };
        // The commit block is missing, belongs to an older transaction, or is another kind of
        // block.
        let mut log = HandMade::new(features);
        whole(&mut log);
        log.fill(&[(A, 2)]);
        log.check(&[(A, 1)]);
        log.sequence -= 1;
        log.commit();
        log.check(&[(A, 1)]);
        let mut log = HandMade::new(features);
        whole(&mut log);
        log.fill(&[(A, 2)]);
        let at = log.at;
        log.commit().block(at)[7] = 9;
        log.check(&[(A, 1)]);
    }
    // The first transaction is incomplete.
    let mut log = HandMade::new(V3);
    log.fill(&[(A, 1)]);
    log.check(&[(A, 0)]);
    assert_eq!(log.open().unwrap().recovered().unwrap(), JournalReplay::default());
}

/// Builds a log of two transactions and flips a bit of block `number`.
fn changed(features: u32, number: u32, at: usize) -> HandMade {
    let mut log = HandMade::new(features);
    log.fill(&[(A, 1)]).revoke(&[B]).commit();
    log.fill(&[(A, 2)]).revoke(&[C]).commit();
    log.check(&[(A, 2)]);
    log.block(number)[at] ^= 0x10;
    log
}

#[test]
fn checksums_are_verified() {
    for features in [V2, V2 | BITS64, V3, V3 | BITS64, V3 | ASYNC] {
        // The superblock; the descriptor, data and revoke block of the second transaction.
        for (number, at, name) in [
            (0, 0xf0, "superblock of the journal"),
            (5, 3000, "journal, block 5 of the log"),
            (6, 2, "journal, block 6 of the log"),
            (7, 2000, "journal, block 7 of the log"),
        ] {
            let error = changed(features, number, at).error();
            let expected = format!("corrupt {name}: its checksum is ");
            assert!(error.starts_with(&expected), "{features:#x}: {error}");
        }
    }
    // A damaged commit block ends the log only with asynchronous commits.
    assert!(changed(V3, 8, 0x38).error().contains("block 8 of the log: its checksum"));
    assert!(changed(V1, 6, 0).error().contains("block 8 of the log: its checksum"));
    assert!(changed(V1, 5, 3000).error().contains("block 8 of the log: its checksum"));
    changed(V3 | ASYNC, 8, 0x38).check(&[(A, 1)]);
    changed(V1 | ASYNC, 6, 0).check(&[(A, 1)]);
    // The first transaction may be incomplete, too, but then the second must not be complete.
    assert!(changed(V3, 4, 0x38).error().contains("block 4 of the log: its checksum"));
    assert!(changed(V1 | ASYNC, 2, 0).error().contains("block 8 of the log: its checksum"));
    let mut log = changed(V3 | ASYNC, 4, 0x38);
    log.check(&[(A, 0)]);
    log.block(8)[0x38] ^= 1;
    assert!(log.error().contains("block 8 of the log: its checksum"));
}

#[test]
fn transactions_without_their_checksum() {
    // Some kernels with the feature do not fill in the checksum.
    let mut log = HandMade::new(V1);
    log.fill(&[(A, 1)]);
    let at = log.at;
    log.commit().block(at)[0xc..0x14].fill(0);
    log.check(&[(A, 1)]);
    log.block(at)[0x10] = 1;
    assert!(log.error().contains("block 3 of the log: its checksum"));
}

#[test]
fn a_first_sector_of_a_commit_block_is_enough() {
    let mut log = HandMade::new(V3);
    log.fill(&[(A, 1)]);
    let at = log.at;
    log.commit().block(at)[512..].fill(0xaa);
    log.check(&[(A, 1)]);
    log.block(at)[40] = 1;
    assert!(log.error().contains("block 3 of the log: its checksum"));
}

#[test]
fn blocks_of_an_older_journal_are_ignored() {
    // A stale transaction with the expected number, whose commit block is older than the one
    // before.
    for number in [5, 7, 8] {
        let mut log = HandMade::new(V3);
        log.fill(&[(A, 1)]).revoke(&[B]).commit();
        log.seconds -= 100;
        log.fill(&[(A, 2)]).revoke(&[C]).commit();
        log.block(number)[0x38] ^= 1;
        log.check(&[(A, 1)]);
    }
}

#[test]
fn impossible_superblocks() {
    let field = |features: u32, at: usize, value: u32| {
        let mut log = HandMade::new(features);
        log.fill(&[(A, 1)]).commit();
        (log.at, log.sequence) = (1, 7);
        log.superblock(|bytes| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes()));
        log.error()
    };
    for (features, at, value, part) in [
        (V3, 0, 1, "its magic number is 0x1, not 0xc03b3998"),
        (V3, 4, 1, "type is 1: must be that of a superblock"),
        (V3, 0xc, 1024, "block size is 1024, not 4096"),
        (V3, 0x10, BLOCKS + 1, "blocks is 65, the maximum is 64"),
        (V3, 0x14, 0, "first block of the log is 0"),
        (V3, 0x14, BLOCKS, "first block of the log is 64"),
        (V3, 0x1c, BLOCKS, "start is 64: must be a block of the log"),
        (V3, 0x24, 1, "must have at most one kind of checksums"),
        (V3, 0x28, V2 | V3, "at most one kind of checksums"),
        (V3, 0x50, 1 << 24, "checksum type is 1: must be 4"),
        (0, 0x28, FAST, "fast-commit blocks is 256: must leave 1024 blocks to the log"),
    ] {
        let error = field(features, at, value);
        assert!(error.starts_with("corrupt superblock of the journal: "), "{error}");
        assert!(error.contains(part), "{error}, not {part}");
    }
    let unsupported = "the journal uses features that are not supported ";
    let error = field(0, 0x28, 0x4000_0001);
    assert_eq!(error, format!("{unsupported}(incompat 0x40000000, ro_compat 0x0)"));
    assert_eq!(field(0, 0x2c, 5), format!("{unsupported}(incompat 0x0, ro_compat 0x5)"));
}

#[test]
fn superblocks_without_features() {
    let mut log = HandMade::new(0);
    log.superblock(|bytes| {
        bytes[7] = 3;
        // Bytes after the fields of version 1 must be ignored.
        bytes[0x24..0x100].fill(0xff);
    });
    log.fill(&[(A, 1)]).commit();
    log.check(&[(A, 1)]);
}

#[test]
fn logs_without_an_end() {
    // A descriptor block whose data blocks wrap around the log to the descriptor itself.
    for features in [0, BITS64] {
        let mut log = HandMade::new(features);
        let blocks: Vec<_> = (0..62).map(|index| (4000 + index, 1)).collect();
        log.fill(&blocks);
        assert_eq!(log.at, 1);
        let error = "corrupt journal: its transactions need more blocks than the log has (63); run \
                     e2fsck";
        assert_eq!(log.error(), error);
    }
    // More tags than blocks in the log.
    let mut log = HandMade::new(0);
    log.fill(&[(A, 1)]);
    let tags = log.block(1);
    tags[12..].fill(0);
    tags[12..].chunks_exact_mut(8).for_each(|tag| tag[7] = SAME_UUID as u8);
    assert!(log.error().contains("more blocks than the log has (63)"));
}

#[test]
fn tags_and_revokes_that_lead_nowhere() {
    let mut log = HandMade::new(BITS64);
    log.fill(&[(8191, 1)]).commit();
    log.check(&[(8191, 1)]);
    for block in [8192, u64::MAX, 1 << 32] {
        let mut log = HandMade::new(BITS64);
        log.fill(&[(A, 1), (block, 1)]).commit();
        let error = log.error();
        let expected =
            format!("corrupt journal, block 1 of the log: 1 block(s) from block {block}");
        assert!(error.starts_with(&expected), "{error}");
    }
    // Only 32 bits of the block number are used.
    let mut log = HandMade::new(V3);
    log.fill(&[(A | 5 << 32, 1)]).commit();
    log.check(&[(A, 1)]);
    let mut log = HandMade::new(0);
    log.revoke(&[A]).commit();
    log.block(1)[12..16].copy_from_slice(&4097u32.to_be_bytes());
    assert!(log.error().contains("block 1 of the log: bytes in use is 4097, the maximum is 4096"));
    log.block(1)[12..16].copy_from_slice(&3u32.to_be_bytes());
    log.check(&[(A, 0)]);
}

#[test]
fn logs_that_are_not_there() {
    let mut log = HandMade::new(0);
    log.fill(&[(A, 1)]).commit();
    let root = node(0, 4, &[extent(0, 2, LOG), extent(3, 61, LOG + 3)]);
    let inode = |log: &mut HandMade, mode: u8, size: u32| {
        log.image.inode(8, |bytes| {
            bytes[1] = mode;
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
            bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
        });
    };
    inode(&mut log, 0x81, BLOCKS * BLOCK as u32);
    assert_eq!(log.error(), "corrupt block map of inode 8: logical block 2 is missing; run e2fsck");
    inode(&mut log, 0x81, 4096);
    assert!(log.error().contains("blocks is 64, the maximum is 1"));
    inode(&mut log, 0x41, 4096);
    assert!(log.error().contains("inode 8: mode is"), "{}", log.error());
    inode(&mut log, 0x81, 0);
    assert!(log.error().contains("block is 0, the maximum is 0"), "{}", log.error());
}

#[test]
fn empty_journal_replays_no_block() {
    let mut log = HandMade::new(V3);
    log.fill(&[(A, 1)]).commit();
    log.superblock(|bytes| bytes[0x1c..0x20].fill(0));
    log.check(&[(A, 0)]);
    assert_eq!(log.open().unwrap().recovered(), Some(JournalReplay::default()));
}

#[test]
fn refused_recovery_returns_an_error() {
    let mut log = HandMade::new(V3);
    log.fill(&[(A, 1)]).commit();
    let refuse = Options::default().recovery(Recovery::Refuse);
    let refused = Filesystem::open_with(log.source(), refuse);
    assert!(matches!(refused, Err(Error::NeedsRecovery)));
    let fs = log.open().unwrap();
    assert!(matches!(fs.writable(), Err(Error::NeedsRecovery)));
}

#[test]
fn the_superblock_is_journalled_too() {
    let mut log = HandMade::new(V3);
    let with = |log: &HandMade, change: fn(&mut crate::format::raw_superblock::RawSuperblock)| {
        let bytes: [u8; 1024] = log.image.bytes[1024..2048].try_into().unwrap();
        let mut raw: crate::format::raw_superblock::RawSuperblock = zerocopy::transmute!(bytes);
        change(&mut raw);
        let mut block = vec![0; BLOCK];
        block[1024..2048].copy_from_slice(zerocopy::IntoBytes::as_bytes(&seal(raw)));
        block
    };
    let block = with(&log, |raw| raw.label[..3].copy_from_slice(b"new"));
    log.data(&[(0, 0, block)]).commit();
    let fs = log.open().unwrap();
    assert_eq!(fs.superblock().label, b"newa");
    assert_eq!(read_superblock(&log.image.bytes).unwrap().label, b"data");

    let mut log = HandMade::new(V3);
    let block = with(&log, |raw| raw.incompat = (raw.incompat.get() | 0x1).into());
    log.data(&[(0, 0, block)]).commit();
    assert_eq!(log.error(), "unsupported incompat feature: compression");
    let mut log = HandMade::new(V3);
    let block = with(&log, |raw| (raw.log_block_size, raw.log_cluster_size) = (3.into(), 3.into()));
    log.data(&[(0, 0, block)]).commit();
    assert!(log.error().contains("corrupt superblock: "), "{}", log.error());
}

#[test]
fn data_of_files_comes_from_the_log() {
    let mut log = HandMade::new(V3);
    log.image.inode(12, |bytes| {
        bytes[4..8].copy_from_slice(&(10 * BLOCK as u32).to_le_bytes());
        let root = node(0, 4, &[extent(0, 6, 3000), extent(7, 32768 + 3, 3100)]);
        bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
    });
    log.fill(&[(3000, 1), (3002, 3), (3003, 4), (3005, 6), (3006, 7), (3100, 8)]).commit();
    let fs = log.open().unwrap();
    let mut file = fs.file(&fs.inode(12).unwrap()).unwrap();
    let (inline, mapped) = (MappingKind::Inline, MappingKind::Mapped);
    let expected = [
        (inline, 0, 1, 3000),
        (mapped, 1, 1, 3001),
        (inline, 2, 1, 3002),
        (inline, 3, 1, 3003),
        (mapped, 4, 1, 3004),
        (inline, 5, 1, 3005),
        (MappingKind::Hole, 6, 1, 0),
        (MappingKind::Unwritten, 7, 3, 3100),
    ];
    let size = BLOCK as u64;
    for (kind, start, count, physical) in expected {
        let mapping = file.begin((start + count) * size - 1, 1, Op::empty()).unwrap();
        let place = (mapping.offset / size, mapping.length / size, mapping.addr / size);
        assert_eq!((mapping.kind, place), (kind, (start, count, physical)));
        let mut out = [0xee; 10];
        let read = file.read_inline(&mapping, start * size + 100, &mut out);
        if kind == inline {
            read.unwrap();
            assert_eq!(out, [start as u8 + 1; 10]);
            assert!(file.read_inline(&mapping, (start + 1) * size - 9, &mut out).is_err());
        } else {
            assert!(read.is_err());
        }
    }
    let extents: Vec<_> = file.extents().map(Result::unwrap).collect();
    assert_eq!(extents.len(), 2);
    assert_eq!((extents[0].physical, extents[0].length), (3000 * size, 6 * size));
}

#[test]
fn the_area_for_fast_commits() {
    // 1,040 blocks, 16 of them the area: 1,024 to 1,039. The first of these is unused.
    let mut log = HandMade::starting(V3 | FAST, 1040, 1020, 7);
    log.superblock(|bytes| bytes[0x57] = 16);
    log.fill(&[(A, 1), (B, 1)]).fill(&[(C, 1)]).commit();
    log.check(&[(A, 1), (B, 1), (C, 1)]);
    for index in 0..15 {
        log.block(1025 + index).fill(index as u8);
    }
    let source: Arc<dyn BlockSource> = Arc::new(log.source());
    let fs = log.open().unwrap();
    let found = recover(&fs, find_internal(&fs, source).unwrap()).unwrap();
    assert_eq!((found.next_tid, found.summary.transactions), (8, 1));
    let mut area = found.fast_commit_area.unwrap();
    assert_eq!(area.blocks(), 15);
    for index in 0..15 {
        assert_eq!(area.block(index).unwrap(), [index as u8; BLOCK], "{index}");
    }
    assert!(area.block(15).is_err());
}

#[test]
fn published_check_value() {
    // The published value of CRC-32/MPEG-2.
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Mpeg2);
    digest.update(b"123456789");
    assert_eq!(digest.finalize(), 0x0376_e6e7);
}

/// A generator of small random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

/// Builds a log of three transactions. The last does not contain the newest copy of every block.
fn three(features: u32) -> HandMade {
    let mut log = HandMade::new(features);
    log.fill(&[(A, 1), (B, 1)]).commit();
    log.fill(&[(A, 2), (C, 2)]).revoke(&[B]).commit();
    log.fill(&[(A, 3)]).revoke(&[C]).commit();
    log
}

#[test]
fn whatever_is_changed_there_is_an_end() {
    let mut random = Random(1);
    for features in FORMATS {
        let sound = three(features);
        let used = sound.at as usize * BLOCK;
        let (mut opened, mut refused) = (0, 0);
        for _ in 0..150 {
            let mut source = sound.source();
            for _ in 0..=random.below(3) {
                // Structures are at the beginning of blocks.
                let range = if random.below(2) == 0 { 64 } else { BLOCK };
                let at = random.below(used / BLOCK) * BLOCK + random.below(range);
                let bits = [1 << random.below(8), 0xff, random.below(256) as u8][random.below(3)];
                source.0[LOG as usize * BLOCK + at] ^= bits;
            }
            match Filesystem::open(source) {
                Err(_) => refused += 1,
                Ok(fs) => {
                    opened += 1;
                    let state = [A, B, C].map(|number| fs.block(number.into()).unwrap()[9]);
                    // If all blocks have checksums, the result is the state after one of the
                    // transactions.
                    let whole = [[0, 0, 0], [1, 1, 0], [2, 0, 2], [3, 0, 0]].contains(&state);
                    assert!(whole || features & (V2 | V3) == 0, "{features:#x}: {state:?}");
                }
            }
        }
        assert!(opened > 0 && refused > 0, "{features:#x}: {opened} {refused}");
    }
}
