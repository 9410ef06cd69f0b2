//! Random tables, compared with partx.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use nvio_testkit::random::Rng;

use super::make::{Gpt, record};
use super::*;

const SEEDS: u64 = 60;
/// Blocks of each device.
const BLOCKS: u64 = 4096;

/// The partitions of an image as partx lists them, or as this module does: number, start and size
/// in sectors of 512 bytes, type, name.
fn by_partx(image: &[u8], block_size: u32) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    let columns = ["--pairs", "--output", "NR,START,SECTORS,TYPE,NAME", "--sector-size"];
    let output = Command::new("partx")
        .env("LC_ALL", "C.UTF-8")
        .args(columns)
        .arg(block_size.to_string())
        .arg(file.path())
        .output();
    let output = output.expect("partx of util-linux");
    let text = String::from_utf8(output.stdout).unwrap();
    let fields = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in text.lines().map(fields) {
        let row: Vec<String> = row;
        rows.insert(row[0].parse().unwrap(), row);
    }
    rows.values().fold(String::new(), |text, row| text + &row.join(" ") + "\n")
}

fn by_nvio(image: &[u8], block_size: u32) -> String {
    let Ok(table) = read(image, block_size) else { return String::new() };
    let mut text = String::new();
    for Partition { number, start, table_size, kind, name, .. } in &table.partitions {
        // Bytes outside of ASCII are escaped, as in the output of partx.
        let name = name.as_bytes().escape_ascii();
        let (first, sectors) = (start / 512, table_size / 512);
        writeln!(text, "{number} {first} {sectors} {} {name}", kind.code()).unwrap();
    }
    text
}

/// Compares `SEEDS` images. At least half of them must have partitions.
fn compare(make: impl Fn(&mut Rng, u32) -> Vec<u8>) {
    let mut with_partitions = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let block_size = *rng.pick(&[512, 512, 4096]);
        let image = make(&mut rng, block_size);
        let (expected, found) = (by_partx(&image, block_size), by_nvio(&image, block_size));
        assert_eq!(found, expected, "seed {seed}, {block_size}-byte blocks");
        with_partitions += u64::from(!found.is_empty());
    }
    assert!(with_partitions > SEEDS / 2, "{with_partitions} of {SEEDS} have partitions");
}

/// A type. partx rejects a table if a partition of type 82h, which may be Solaris, is outside.
fn kind(rng: &mut Rng) -> u8 {
    *rng.pick(&[0, 0x83, 0x83, 0xda, 0x0c, 0x07, 0x8e])
}

/// Puts a boot record in a random slot order, with the other slots empty.
fn shuffled(rng: &mut Rng, entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut slots = [(0, 0, 0); 4];
    for &entry in entries {
        loop {
            let slot = usize::try_from(rng.below(4)).unwrap();
            if slots[slot] == (0, 0, 0) {
                slots[slot] = entry;
                break;
            }
        }
    }
    record(&slots)
}

fn number(rng: &mut Rng, low: u64, high: u64) -> u32 {
    u32::try_from(rng.range(low, high)).unwrap()
}

/// Up to two extended partitions with chains in any order, links in any slot, empty and damaged
/// boot records, cycles, and partitions that begin or end outside.
fn mbr(rng: &mut Rng, block_size: u32) -> Vec<u8> {
    let block = block_size as usize;
    let mut image = vec![0; usize::try_from(BLOCKS).unwrap() * block];
    let mut primary = Vec::new();
    for region in 0..2u32 {
        if rng.below(4) == 0 {
            continue;
        }
        let first = 100 + region * 2000;
        primary.push((*rng.pick(&[0x05, 0x0f, 0x85]), first, 1900));
        // Boot records at 19 places, 100 blocks apart.
        let mut places: Vec<u32> = (1..19).map(|index| index * 100).collect();
        for index in 0..places.len() {
            let other = usize::try_from(rng.below(places.len() as u64)).unwrap();
            places.swap(index, other);
        }
        places.truncate(usize::try_from(rng.below(8)).unwrap());
        let mut at = 0;
        for next in places.iter().map(|&place| Some(place)).chain([None]) {
            let mut entries = Vec::new();
            if rng.below(5) > 0 {
                entries.push((kind(rng), number(rng, 1, 50), number(rng, 0, 50)));
            }
            if rng.below(3) == 0 {
                entries.push((kind(rng), number(rng, 50, 99), number(rng, 1, 5000)));
            }
            let back = number(rng, 0, 2) * 100;
            match next {
                Some(next) => entries.push((*rng.pick(&[0x05, 0x0f]), next, number(rng, 50, 200))),
                None if rng.below(4) == 0 => entries.push((0x05, back, 100)),
                None => {}
            }
            let mut sector = shuffled(rng, &entries);
            if rng.below(20) == 0 {
                sector[511] = 0;
            }
            let place = (first + at) as usize * block;
            image[place..place + 512].copy_from_slice(&sector);
            at = next.unwrap_or(0);
        }
    }
    for _ in 0..rng.below(3) {
        primary.push((kind(rng), number(rng, 1, 5000), number(rng, 0, 5000)));
    }
    image[..512].copy_from_slice(&shuffled(rng, &primary));
    image
}

#[test]
fn random_mbrs_and_chains() {
    compare(mbr);
}

#[test]
fn random_gpts() {
    compare(|rng, block_size| {
        let block = block_size as usize;
        let count = usize::try_from(rng.range(1, 200)).unwrap();
        let mut entries = Vec::new();
        let mut at = 200;
        for number in 1..=count {
            if rng.below(3) > 0 || at > 3500 {
                continue;
            }
            let (first, blocks) = (at + rng.below(20), rng.range(1, 60));
            let name = *rng.pick(&[
                "",
                "root",
                "EFI system partition",
                "Дом",
                "123456789012345678901234567890123456",
            ]);
            entries.push((number, first, first + blocks - 1, name));
            at = first + blocks;
        }
        let header_bytes = usize::try_from(rng.range(92, block_size as u64 + 1)).unwrap();
        let protective = usize::try_from(rng.below(4)).unwrap();
        let gpt = Gpt {
            block_size: block,
            blocks: BLOCKS,
            header_bytes,
            count,
            entries,
            protective,
            ..Gpt::default()
        };
        let mut image = gpt.make();
        let end = image.len();
        // A byte of the primary or the backup: header or entries.
        match rng.below(4) {
            0 => image[block + usize::try_from(rng.below(92)).unwrap()] ^= 0x10,
            1 => image[2 * block + usize::try_from(rng.below(128)).unwrap()] ^= 1,
            2 => image[end - block + usize::try_from(rng.below(92)).unwrap()] ^= 1,
            _ => {}
        }
        image
    });
}
