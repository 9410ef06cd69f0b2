//! Master boot records and chains of extended boot records.

use super::make::{mbr, record};
use super::*;

/// Number, first block and blocks of each partition but the extended ones.
fn blocks(image: &[u8]) -> Vec<(u32, u64, u64)> {
    listed(image, 512).into_iter().map(|(n, start, size)| (n, start / 512, size / 512)).collect()
}

#[test]
fn primary_and_logical() {
    let image = mbr(&[
        (0, record(&[(0x83, 8, 16), (0, 0, 0), (0x0f, 100, 900)])),
        (100, record(&[(0x83, 2, 10), (0x05, 50, 60)])),
        (150, record(&[(0x83, 4, 20)])),
    ]);
    assert_eq!(blocks(&image), [(1, 8, 16), (5, 102, 10), (6, 154, 20)]);
    let error = look(&image, 3, 512).unwrap_err();
    assert!(matches!(error, Error::Extended { number: 3, .. }), "{error}");
    let error = look(&image, 7, 512).unwrap_err().to_string();
    assert!(error.starts_with("there is no partition 7; the MBR has 1 (8K at 4K, Linux), 3 ("));
    // Blocks of another size.
    let large = [(1, 8 * 1024, 16 * 1024)];
    assert_eq!(listed(&mbr(&[(0, record(&[(0x83, 8, 16)]))]), 1024), large);
}

#[test]
fn several_extended_partitions_of_each_type() {
    let image = mbr(&[
        (0, record(&[(0x85, 100, 100), (0x83, 8, 16), (0x05, 300, 100), (0x0f, 500, 100)])),
        (100, record(&[(0x83, 2, 10), (0x85, 50, 50)])),
        (150, record(&[(0x83, 2, 10)])),
        (300, record(&[(0x82, 2, 10)])),
        (500, record(&[(0x83, 2, 10)])),
    ]);
    let expected = [(2, 8, 16), (5, 102, 10), (6, 152, 10), (7, 302, 10), (8, 502, 10)];
    assert_eq!(blocks(&image), expected);
}

#[test]
fn empty_boot_records_and_links_in_any_slot() {
    // DR-DOS has the link in the first slot, and boot records without a partition.
    let image = mbr(&[
        (0, record(&[(0x05, 100, 900)])),
        (100, record(&[(0x05, 50, 50)])),
        (150, record(&[(0, 0, 0), (0, 0, 0), (0, 0, 0), (0x05, 100, 50)])),
        (200, record(&[(0, 0, 0), (0x83, 5, 6), (0x0f, 150, 50)])),
        (250, record(&[(0x05, 200, 50), (0x83, 7, 8)])),
        (300, record(&[(0x83, 9, 10)])),
    ]);
    assert_eq!(blocks(&image), [(5, 205, 6), (6, 257, 8), (7, 309, 10)]);
}

#[test]
fn third_and_fourth_slot_are_used_if_they_fit() {
    let image = mbr(&[
        (0, record(&[(0x05, 100, 900)])),
        (100, record(&[(0x83, 2, 10), (0x05, 500, 50), (0x83, 20, 10), (0x83, 30, 1000)])),
        // The link says that this record has 50 blocks.
        (600, record(&[(0x83, 1, 2), (0x83, 3, 90), (0x83, 40, 11), (0x83, 40, 10)])),
    ]);
    assert_eq!(
        blocks(&image),
        [(5, 102, 10), (6, 120, 10), (7, 601, 2), (8, 603, 90), (9, 640, 10)]
    );
}

#[test]
fn type_0_with_a_size_is_a_partition() {
    let image = mbr(&[
        (0, record(&[(0, 8, 16), (0x83, 30, 0), (0x05, 100, 900)])),
        (100, record(&[(0, 2, 10), (0x05, 50, 60)])),
        (150, record(&[(0, 4, 20), (0x05, 0, 0)])),
    ]);
    assert_eq!(blocks(&image), [(1, 8, 16), (5, 102, 10), (6, 154, 20)]);
}

#[test]
fn damaged_chains_end() {
    let first = record(&[(0x05, 100, 900), (0x0f, 1500, 100)]);
    let second = (1500, record(&[(0x83, 3, 4)]));
    let with = |records: &[(usize, [u8; 512])]| {
        let table = mbr(&[&[(0, first), second], records].concat());
        let warnings = read(&table, 512).unwrap().warnings;
        (blocks(&table), warnings.join("; "))
    };
    let (cycle, warning) = with(&[
        (100, record(&[(0x83, 1, 1), (0x05, 10, 1)])),
        (110, record(&[(0x83, 1, 1), (0x05, 10, 1)])),
    ]);
    // The partitions of the second extended partition are not lost.
    assert_eq!(cycle, [(5, 101, 1), (6, 111, 1), (7, 1503, 4)]);
    assert!(warning.contains("of block 100 has 100 records without a new"), "{warning}");
    let (empty, _) = with(&[(100, record(&[(0x05, 0, 1)]))]);
    assert_eq!(empty, [(5, 1503, 4)]);
    let (beyond, warning) = with(&[(100, record(&[(0x83, 1, 1), (0x05, u32::MAX, 1)]))]);
    assert_eq!(beyond, [(5, 101, 1), (6, 1503, 4)]);
    assert!(warning.contains("block 4294967395 is missing"), "{warning}");
    let (outside, _) = with(&[(100, record(&[(0x83, u32::MAX, u32::MAX)]))]);
    assert_eq!(outside[0], (5, 4_294_967_395, 0));
    assert_eq!(outside[1], (6, 1503, 4));
    let far = mbr(&[(0, record(&[(0x05, u32::MAX, 1)]))]);
    assert!(matches!(look(&far, 5, 512), Err(Error::NoPartition { .. })));
}

/// A chain of empty records, and one of more partitions than Linux has numbers for.
#[test]
fn long_chains_are_bounded() {
    let chain = |count: u32, partition: u32| {
        let mut records = vec![(0, record(&[(0x05, 100, 1900)]))];
        for index in 0..count {
            let link = (0x05, index + 1, 1);
            let entries = [(0x83, 1000, partition), link];
            records.push((100 + index as usize, record(&entries)));
        }
        records.push((100 + count as usize, record(&[(0x83, 1500, 1)])));
        blocks(&mbr(&records))
    };
    assert_eq!(chain(99, 0).len(), 1);
    assert_eq!(chain(100, 0).len(), 0);
    assert_eq!(chain(200, 1).len(), 201);
    let last = chain(400, 1);
    assert_eq!((last.len(), last[250].0), (251, 255));
}

#[test]
fn partitions_end_with_the_device() {
    let mut image = mbr(&[(0, record(&[(0x83, 8, 60_000), (0x0b, 2047, 2), (0x83, 2048, 8)]))]);
    let table = read(&image, 512).unwrap();
    assert_eq!(blocks(&image), [(1, 8, 2040), (2, 2047, 1), (3, 2048, 0)]);
    assert_eq!(table.partitions[0].table_size, 60_000 * 512);
    assert_eq!(table.warnings.len(), 3);
    let error = look(&image, 3, 512).unwrap_err();
    assert!(matches!(error, Error::Outside { number: 3, device: 1_048_576, .. }), "{error}");
    image.extend([0; 700]);
    assert_eq!(listed(&image, 512)[2], (3, 1 << 20, 700));
}

/// Boot sectors of filesystems end with the signature, too.
#[test]
fn a_boot_sector_with_code_is_no_table() {
    let mut image = mbr(&[(0, record(&[(0x83, 8, 16)]))]);
    image[446] = 0x80;
    assert_eq!(blocks(&image).len(), 1);
    image[446 + 32] = 0x6e;
    assert!(matches!(look(&image, 1, 512), Err(Error::NoTable { .. })));
}
