//! Partition tables made by the crates and by sfdisk, intact and damaged.

use std::process::{Command, Stdio};

use super::*;

const BLOCKS: u64 = 8192;

fn entry(first: u64, last: u64) -> GPTPartitionEntry {
    GPTPartitionEntry {
        partition_type_guid: [7; 16],
        unique_partition_guid: [u8::try_from(first % 251).unwrap(); 16],
        starting_lba: first,
        ending_lba: last,
        attribute_bits: 0,
        partition_name: "x".into(),
    }
}

fn gpt_image(block_size: u64, blocks: u64) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; usize::try_from(blocks * block_size).unwrap()]);
    gptman::GPT::write_protective_mbr_into(&mut disk, block_size).unwrap();
    let mut gpt = gptman::GPT::new_from(&mut disk, block_size, [9; 16]).unwrap();
    gpt[1] = entry(40, 99);
    gpt[3] = entry(100, 1000);
    gpt.write_into(&mut disk).unwrap();
    disk.into_inner()
}

fn look(image: &[u8], number: u32, block_size: u32) -> Result<Range, Error> {
    find(&mut Cursor::new(image), number, block_size, image.len() as u64)
}

#[test]
fn gpt_with_both_block_sizes() {
    for block_size in [512u32, 4096] {
        let size = u64::from(block_size);
        let image = gpt_image(size, BLOCKS);
        let range =
            |first, last: u64| Range { offset: first * size, length: (last - first + 1) * size };
        assert_eq!(look(&image, 1, block_size).unwrap(), range(40, 99));
        assert_eq!(look(&image, 3, block_size).unwrap(), range(100, 1000));
        let error = look(&image, 2, block_size).unwrap_err();
        assert_eq!(error.to_string(), "there is no partition 2; the GPT has 1, 3");
        // With another block size the header is not found.
        assert!(matches!(look(&image, 1, 4608 - block_size), Err(Error::NoTable { .. })));
    }
}

#[test]
fn the_backup_serves_when_the_primary_is_damaged() {
    let mut image = gpt_image(512, BLOCKS);
    image[512 + 40] ^= 1;
    assert_eq!(look(&image, 1, 512).unwrap().offset, 40 * 512);
    let backup = image.len() - 512 + 40;
    image[backup] ^= 1;
    let error = look(&image, 1, 512).unwrap_err().to_string();
    assert!(error.contains("CRC32") && error.contains("backup"), "{error}");
}

/// Changes a header in both copies and updates its checksum.
fn with_header(change: impl Fn(&mut GPTHeader)) -> Vec<u8> {
    let mut image = gpt_image(512, BLOCKS);
    for at in [512, image.len() - 512] {
        let mut disk = Cursor::new(&mut image[at..at + 512]);
        let mut header = GPTHeader::read_from(&mut disk).unwrap();
        change(&mut header);
        header.update_crc32_checksum();
        // The fields in the order of UEFI 5.3.2.
        let mut bytes = header.signature.to_vec();
        bytes.extend(header.revision);
        bytes.extend(header.header_size.to_le_bytes());
        bytes.extend(header.crc32_checksum.to_le_bytes());
        bytes.extend(header.reserved);
        for lba in [header.primary_lba, header.backup_lba, header.first_usable_lba] {
            bytes.extend(lba.to_le_bytes());
        }
        bytes.extend(header.last_usable_lba.to_le_bytes());
        bytes.extend(header.disk_guid);
        bytes.extend(header.partition_entry_lba.to_le_bytes());
        for value in [
            header.number_of_partition_entries,
            header.size_of_partition_entry,
            header.partition_entry_array_crc32,
        ] {
            bytes.extend(value.to_le_bytes());
        }
        assert_eq!(bytes.len(), 92);
        image[at..at + 92].copy_from_slice(&bytes);
    }
    image
}

#[test]
fn headers_with_right_checksums_and_hostile_numbers() {
    assert!(look(&with_header(|_| ()), 1, 512).is_ok());
    type Change = fn(&mut GPTHeader);
    let hostile: [(&str, Change); 6] = [
        ("the number of entries is 4294967295", |h| h.number_of_partition_entries = u32::MAX),
        ("the number of entries is 0", |h| h.number_of_partition_entries = 0),
        ("the size of an entry is 4294967295", |h| h.size_of_partition_entry = u32::MAX),
        ("the size of an entry is 0", |h| h.size_of_partition_entry = 0),
        ("the entries is 18446744073709551615", |h| h.partition_entry_lba = u64::MAX),
        ("the entries is 0", |h| h.partition_entry_lba = 0),
    ];
    for (part, change) in hostile {
        let error = look(&with_header(change), 1, 512).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_partition_must_be_on_the_device() {
    let image = gpt_image(512, BLOCKS);
    // The device ends in the middle of partition 3.
    let cut = &image[..500 * 512];
    assert!(look(cut, 1, 512).is_ok());
    let error = look(cut, 3, 512).unwrap_err();
    assert!(matches!(error, Error::Outside { number: 3, device: 256_000, .. }), "{error}");
}

fn record(entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (index, (kind, first, count)) in entries.iter().enumerate() {
        let at = 446 + 16 * index;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn mbr_image(records: &[(usize, [u8; 512])]) -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    for (block, sector) in records {
        image[block * 512..block * 512 + 512].copy_from_slice(sector);
    }
    image
}

#[test]
fn mbr_primary_and_logical() {
    let image = mbr_image(&[
        (0, record(&[(0x83, 8, 16), (0, 0, 0), (0x0f, 100, 900)])),
        (100, record(&[(0x83, 2, 10), (0x05, 50, 60)])),
        (150, record(&[(0x83, 4, 20)])),
    ]);
    let at = |number| look(&image, number, 512).map(|r| (r.offset / 512, r.length / 512)).ok();
    assert_eq!(at(1), Some((8, 16)));
    assert_eq!(at(3), None, "the extended partition itself holds no filesystem");
    assert_eq!(at(5), Some((102, 10)));
    assert_eq!(at(6), Some((154, 20)));
    assert_eq!(
        look(&image, 7, 512).unwrap_err().to_string(),
        "there is no partition 7; the MBR has 1, 5, 6"
    );
}

#[test]
fn damaged_chains_end() {
    let mbr = record(&[(0x05, 100, 900)]);
    let circle = [
        (0, mbr),
        (100, record(&[(0x83, 1, 1), (0x05, 10, 1)])),
        (110, record(&[(0x83, 1, 1), (0x05, 10, 1)])),
    ];
    assert!(matches!(look(&mbr_image(&circle), 5, 512), Err(Error::Damaged { .. })));
    let beyond = [(0, mbr), (100, record(&[(0x83, 1, 1), (0x05, u32::MAX, 1)]))];
    assert!(matches!(look(&mbr_image(&beyond), 5, 512), Err(Error::Mbr { .. })));
    let outside = [(0, mbr), (100, record(&[(0x83, u32::MAX, u32::MAX)]))];
    assert!(matches!(look(&mbr_image(&outside), 5, 512), Err(Error::Outside { .. })));
    let empty = [(0, record(&[(0x05, u32::MAX, 1)]))];
    assert!(matches!(look(&mbr_image(&empty), 5, 512), Err(Error::NoTable { .. })));
}

#[test]
fn devices_without_a_table() {
    for image in [vec![0; 1 << 20], vec![0xff; 1 << 20], Vec::new(), vec![0; 100]] {
        assert!(matches!(look(&image, 1, 512), Err(Error::NoTable { .. })));
        assert!(!is_partitioned(&mut Cursor::new(&image), 512, image.len() as u64));
    }
    let image = gpt_image(512, BLOCKS);
    assert!(is_partitioned(&mut Cursor::new(&image), 512, image.len() as u64));
}

/// Reads the tables of another program.
#[test]
fn sfdisk_agrees() {
    for (label, script, expected) in [
        ("gpt", "start=2048,size=4096\nstart=8192,size=100\n", [(1, 2048, 4096), (2, 8192, 100)]),
        (
            "dos",
            "start=2048,size=4096\nstart=8192,type=5\nstart=10240,size=300\n",
            [(1, 2048, 4096), (5, 10240, 300)],
        ),
    ] {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(16 << 20).unwrap();
        let child = Command::new("sfdisk")
            .args(["--quiet", "--label", label])
            .arg(image.path())
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("not run: there is no sfdisk");
            return;
        };
        io::Write::write_all(child.stdin.as_mut().unwrap(), script.as_bytes()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        let bytes = std::fs::read(image.path()).unwrap();
        for (number, first, count) in expected {
            let range = look(&bytes, number, 512).unwrap();
            assert_eq!(
                (range.offset, range.length),
                (first * 512, count * 512),
                "{label} {number}"
            );
        }
    }
}
