//! Partition tables, intact, unusual and damaged, with partx and sfdisk as the oracles.

mod gpt;
mod make;
mod mbr;
mod other_size;
mod partx;
mod sfdisk;

use super::table::Exact;
use super::*;
use crate::image::ImagePart;

fn source(image: &[u8]) -> ImagePart {
    ImagePart::from_bytes(image.into())
}

fn look(image: &[u8], number: u32, block_size: u32) -> Result<Range, Error> {
    find(&source(image), number, block_size)
}

fn read(image: &[u8], block_size: u32) -> Result<PartitionTable, Error> {
    super::read(&source(image), block_size)
}

fn list(image: &[u8], block_size: u32) -> Result<PartitionTable, Error> {
    super::list(&source(image), block_size)
}

/// Number, first byte and length of each partition but the extended ones.
fn listed(image: &[u8], block_size: u32) -> Vec<(u32, u64, u64)> {
    let table = read(image, block_size).unwrap();
    let data = table.partitions.iter().filter(|partition| !partition.kind.is_extended());
    data.map(|partition| (partition.number, partition.start, partition.size)).collect()
}

#[test]
fn devices_without_a_table() {
    for image in [vec![0; 1 << 20], vec![0xff; 1 << 20], Vec::new(), vec![0; 100]] {
        assert!(matches!(look(&image, 1, 512), Err(Error::NoTable { .. })));
        assert!(matches!(list(&image, 512), Err(Error::NoTable { .. })));
    }
}

#[test]
fn the_one_line_form_has_a_limit() {
    let content = recognise::at(&source(&make::ext4_superblock()), 0, 4096);
    let partition = |number| Partition {
        number,
        start: 1 << 20,
        size: 1536,
        table_size: 1536,
        kind: PartitionKind::Mbr(0x83),
        name: if number == 2 { "a\n".to_owned() } else { String::new() },
        content,
    };
    let mut table = PartitionTable {
        scheme: Scheme::Mbr,
        block_size: 512,
        device_block_size: 512,
        partitions: vec![partition(1), partition(2)],
        warnings: Vec::new(),
    };
    assert_eq!(
        table.to_string(),
        "1 (1536 at 1M, Linux, ext4), 2 (1536 at 1M, Linux, \"a\\n\", ext4)"
    );
    table.partitions = (1..=100).map(partition).collect();
    assert!(table.to_string().ends_with(", ext4) and 84 more"));
    table.partitions.clear();
    assert_eq!(table.to_string(), "none");
    assert_eq!([0, 1023, 3 << 40].map(|size| Exact(size).to_string()), ["0", "1023", "3T"]);
}
