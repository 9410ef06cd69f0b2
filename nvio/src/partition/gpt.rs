//! The GUID partition table (UEFI 5.3).

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use nvio_ext4::BlockSource;

use super::error::Error;
use super::kind::PartitionKind;
use super::table::{Entries, Entry};

/// Smallest and usual size of a header in bytes. The largest is a block (UEFI 5.3.2).
const HEADER_BYTES: usize = 92;
/// Largest block in bytes of which a header is read.
const BLOCK_BYTES_MAX: u32 = 64 << 10;
/// Smallest size of an entry in bytes. Others are a power of two times as large (UEFI 5.3.2).
const ENTRY_BYTES: u32 = 128;
/// Largest array of entries in bytes, as in Linux. It usually has 16 KiB.
const ARRAY_BYTES_MAX: u64 = 4 << 20;
/// Highest number of a partition.
const NUMBER_MAX: u32 = 1024;
/// Bytes that are read at a time.
const READ_BYTES_MAX: usize = 256 << 10;
/// Position and bytes of the name of an entry, in UTF-16.
const NAME: std::ops::Range<usize> = 56..128;

/// The fields of a header that are used.
struct Header {
    alternate: u64,
    last_usable: u64,
    entries: u64,
    count: u32,
    entry_bytes: u32,
    crc: u32,
}

/// Reads the primary table, or its backup if the primary is damaged.
///
/// # Errors
/// [`Error::Gpt`] if both are damaged.
pub(super) fn read(source: &dyn BlockSource, block_size: u32) -> Result<Entries, Error> {
    let disk = Disk {
        source,
        block_size,
        last: (source.size() / u64::from(block_size)).saturating_sub(1),
    };
    let header = disk.header(1);
    // The backup is at the last block, unless the device has grown.
    let alternate = header.as_ref().map_or(disk.last, |header| header.alternate);
    let primary = match header.and_then(|header| disk.entries(&header)) {
        Ok(entries) => return Ok(entries),
        Err(primary) => primary,
    };
    let copy = |lba| disk.header(lba).and_then(|header| disk.entries(&header));
    match copy(alternate).or_else(|_| copy(disk.last)) {
        Ok(mut entries) => {
            let warning = format!("the primary GPT is damaged ({primary}): its backup is used");
            entries.warnings.push(warning);
            Ok(entries)
        }
        Err(backup) => Err(Error::Gpt { primary: Box::new(primary), backup: Box::new(backup) }),
    }
}

/// A device of blocks.
struct Disk<'s> {
    source: &'s dyn BlockSource,
    block_size: u32,
    /// The last block.
    last: u64,
}

impl Disk<'_> {
    /// Reads and checks the header at block `lba`.
    fn header(&self, lba: u64) -> Result<Header, Error> {
        let damaged = |field, value| Error::Damaged { structure: "GPT header", field, value };
        let mut block = vec![0; self.block_size.min(BLOCK_BYTES_MAX) as usize];
        self.fill(lba, &mut block)?;
        let word = |at: usize| u32::from_le_bytes(chunk(&block, at));
        let long = |at: usize| u64::from_le_bytes(chunk(&block, at));
        if !block.starts_with(b"EFI PART") {
            return Err(damaged("its signature", long(0)));
        }
        let size = word(12) as usize;
        if !(HEADER_BYTES..=block.len()).contains(&size) {
            return Err(damaged("its size", size as u64));
        }
        let stored = word(16);
        let mut covered = block.get(..size).unwrap_or_default().to_vec();
        covered.get_mut(16..20).unwrap_or_default().fill(0);
        if crc_fast::checksum(Crc32IsoHdlc, &covered) != u64::from(stored) {
            return Err(damaged("the CRC32 checksum", stored.into()));
        }
        if long(24) != lba {
            return Err(damaged("its own block", long(24)));
        }
        if long(40) > long(48) {
            return Err(damaged("the first usable block", long(40)));
        }
        Ok(Header {
            alternate: long(32),
            last_usable: long(48),
            entries: long(72),
            count: word(80),
            entry_bytes: word(84),
            crc: word(88),
        })
    }

    /// Reads and checks the entries of a header.
    fn entries(&self, header: &Header) -> Result<Entries, Error> {
        let damaged = |field, value| Error::Damaged { structure: "GPT header", field, value };
        let &Header { count, entry_bytes, entries: first, .. } = header;
        if entry_bytes < ENTRY_BYTES || !entry_bytes.is_power_of_two() {
            return Err(damaged("the size of an entry", entry_bytes.into()));
        }
        let bytes = u64::from(count) * u64::from(entry_bytes);
        if count == 0 || bytes > ARRAY_BYTES_MAX {
            return Err(damaged("the number of entries", count.into()));
        }
        if !(2..=self.last).contains(&first) {
            return Err(damaged("the first block of the entries", first));
        }
        let mut array = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.fill(first, &mut array)?;
        if crc_fast::checksum(Crc32IsoHdlc, &array) != u64::from(header.crc) {
            return Err(damaged("the CRC32 checksum of the entries", header.crc.into()));
        }
        let mut found = Entries::default();
        if header.last_usable > self.last {
            found.warnings.push(format!(
                "the GPT is of a device whose last usable block is {}, but block {} is the last: \
                 the device or image is truncated",
                header.last_usable, self.last
            ));
        }
        let arrays = array.chunks_exact(entry_bytes as usize);
        found.list =
            (1..=NUMBER_MAX).zip(arrays).filter_map(|(n, entry)| parse(n, entry)).collect();
        Ok(found)
    }

    /// Fills `buf` from the start of block `lba`.
    fn fill(&self, lba: u64, buf: &mut [u8]) -> Result<(), Error> {
        let outside = Error::Damaged { structure: "GPT", field: "the block of a copy", value: lba };
        let mut at = lba.saturating_mul(self.block_size.into());
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.source.size()) {
            return Err(outside);
        }
        for part in buf.chunks_mut(READ_BYTES_MAX) {
            self.source.read(at, part).map_err(Error::source_failed)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// Parses an entry. Returns `None` if it is not in use, or ends before it begins.
fn parse(number: u32, entry: &[u8]) -> Option<Entry> {
    let kind: [u8; 16] = chunk(entry, 0);
    let (first, last) =
        (u64::from_le_bytes(chunk(entry, 32)), u64::from_le_bytes(chunk(entry, 40)));
    let blocks = last.checked_sub(first)?.checked_add(1)?;
    let name = entry.get(NAME)?.chunks_exact(2).map(|unit| u16::from_le_bytes(chunk(unit, 0)));
    let name: Vec<u16> = name.take_while(|&unit| unit != 0).collect();
    let name = String::from_utf16_lossy(&name);
    (kind != [0; 16]).then_some(Entry {
        number,
        first,
        blocks,
        kind: PartitionKind::Gpt(kind),
        name,
    })
}

/// The `N` bytes from `at`, or zeroes if there are fewer.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
