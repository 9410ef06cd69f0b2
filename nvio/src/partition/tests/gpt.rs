//! GUID partition tables.

use super::make::Gpt;
use super::*;

#[test]
fn both_block_sizes() {
    for block_size in [512u32, 4096] {
        let size = u64::from(block_size);
        let image = Gpt { block_size: block_size as usize, ..Gpt::default() }.make();
        let range =
            |first, last: u64| Range { offset: first * size, length: (last - first + 1) * size };
        assert_eq!(look(&image, 1, block_size).unwrap(), range(40, 99));
        assert_eq!(look(&image, 3, block_size).unwrap(), range(100, 1000));
        let error = look(&image, 2, block_size).unwrap_err().to_string();
        assert!(error.starts_with("there is no partition 2; the GPT has 1 ("), "{error}");
        assert!(error.contains("\"x\"") && error.contains("Linux filesystem"), "{error}");
    }
}

#[test]
fn headers_of_any_legal_size() {
    for (block_size, sizes) in [(512, &[92, 96, 100, 511, 512][..]), (4096, &[92, 512, 513, 4096])]
    {
        for &header_bytes in sizes {
            let image = Gpt { block_size, header_bytes, ..Gpt::default() }.make();
            let block = u32::try_from(block_size).unwrap();
            assert!(read(&image, block).unwrap().warnings.is_empty());
            assert_eq!(listed(&image, block).len(), 2, "{header_bytes}");
        }
    }
}

#[test]
fn entries_of_any_legal_size() {
    for (entry_bytes, count) in [(128, 1), (128, 500), (256, 128), (1024, 64), (4096, 8)] {
        let entries = vec![(1, 2100, 2200, "one")];
        let image = Gpt { entry_bytes, count, entries, ..Gpt::default() }.make();
        assert_eq!(listed(&image, 512), [(1, 2100 * 512, 101 * 512)], "{entry_bytes}");
    }
    // The last number that is looked at, and the one after it.
    for (number, found) in [(1024, true), (1025, false)] {
        let entries = vec![(number, 4000, 4001, "")];
        let image = Gpt { count: 2000, entries, ..Gpt::default() }.make();
        assert_eq!(!listed(&image, 512).is_empty(), found);
    }
}

#[test]
fn the_backup_serves_when_the_primary_is_damaged() {
    let intact = Gpt::default().make();
    // In the header, in the entries, and the signature.
    for damage in [512 + 40, 1024 + 33, 512] {
        let mut image = intact.clone();
        image[damage] ^= 1;
        let table = read(&image, 512).unwrap();
        assert_eq!((table.partitions.len(), table.warnings.len()), (2, 1));
        assert!(table.warnings[0].contains("its backup is used"), "{:?}", table.warnings);
        // A larger device. Only the primary header says where the backup is.
        let mut grown = image.clone();
        grown.resize(image.len() + 512 * 100, 0);
        assert_eq!(read(&grown, 512).is_ok(), damage == 1024 + 33, "{damage}");
        let backup = image.len() - 512 + 40;
        image[backup] ^= 1;
        let error = look(&image, 1, 512).unwrap_err().to_string();
        assert!(
            error.starts_with("the GPT is damaged:") && error.contains("its backup"),
            "{error}"
        );
    }
}

#[test]
fn the_protective_record_may_be_anywhere_and_may_be_lost() {
    for protective in 0..4 {
        let image = Gpt { protective, ..Gpt::default() }.make();
        assert_eq!(listed(&image, 512).len(), 2);
    }
    let mut image = Gpt::default().make();
    image[..512].fill(0);
    let table = read(&image, 512).unwrap();
    assert_eq!((table.partitions.len(), table.warnings.len()), (2, 1));
    // A filesystem that was made over a GPT.
    image[..1024].fill(0);
    image[1024..4096].copy_from_slice(&make::ext4_superblock()[1024..]);
    assert!(matches!(read(&image, 512), Err(Error::NoTable { .. })));
    // A hybrid MBR: the GPT is the table.
    let mut hybrid = Gpt::default().make();
    hybrid[..512].copy_from_slice(&make::record(&[(0x83, 40, 60), (0xee, 1, 39)]));
    assert_eq!(listed(&hybrid, 512).len(), 2);
}

fn set<const N: usize>(header: &mut [u8], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

#[test]
fn headers_with_right_checksums_and_hostile_numbers() {
    type Change = fn(&mut [u8]);
    let hostile: [(&str, Change); 11] = [
        ("the number of entries is 4294967295", |h| set(h, 80, u32::MAX.to_le_bytes())),
        ("the number of entries is 0", |h| set(h, 80, 0u32.to_le_bytes())),
        ("the size of an entry is 4294967295", |h| set(h, 84, u32::MAX.to_le_bytes())),
        ("the size of an entry is 0", |h| set(h, 84, 0u32.to_le_bytes())),
        ("the size of an entry is 192", |h| set(h, 84, 192u32.to_le_bytes())),
        ("the entries is 18446744073709551615", |h| set(h, 72, u64::MAX.to_le_bytes())),
        ("the entries is 0", |h| set(h, 72, 0u64.to_le_bytes())),
        ("its own block is 7", |h| set(h, 24, 7u64.to_le_bytes())),
        ("its size is 91", |h| set(h, 12, 91u32.to_le_bytes())),
        ("its size is 513", |h| set(h, 12, 513u32.to_le_bytes())),
        ("the first usable block is 9999", |h| set(h, 40, 9999u64.to_le_bytes())),
    ];
    for (part, change) in hostile {
        let image = Gpt { change, ..Gpt::default() }.make();
        let error = look(&image, 1, 512).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn entries_that_make_no_sense() {
    let entries = vec![
        (1, 50, 49, "ends early"),
        (2, u64::MAX, 3, "wraps"),
        (3, 0, u64::MAX, "everything"),
        (4, u64::MAX, u64::MAX, "far"),
        (5, 60, 60, "one block"),
    ];
    let image = Gpt { entries, ..Gpt::default() }.make();
    let size = image.len() as u64;
    // Entry 3 has more blocks than fit into 64 bits.
    assert_eq!(listed(&image, 512), [(4, u64::MAX, 0), (5, 60 * 512, 512)]);
    let error = look(&image, 4, 512).unwrap_err();
    assert!(matches!(error, Error::Outside { number: 4, device, .. } if device == size), "{error}");
}

#[test]
fn a_device_that_was_cut_off() {
    let image = Gpt::default().make();
    // The device ends in the middle of partition 3.
    let cut = &image[..500 * 512];
    assert_eq!(listed(cut, 512), [(1, 40 * 512, 60 * 512), (3, 100 * 512, 400 * 512)]);
    let table = read(cut, 512).unwrap();
    assert_eq!(table.warnings.len(), 2, "{:?}", table.warnings);
    assert_eq!(table.partitions[1].table_size, 901 * 512);
    let error = look(&image[..90 * 512], 3, 512).unwrap_err();
    assert!(matches!(error, Error::Outside { number: 3, device: 46_080, .. }), "{error}");
}
