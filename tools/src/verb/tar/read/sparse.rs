//! Maps of files with holes.

use std::ops::Range;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::damage::{Damage, Failure, SEGMENTS_MAX};
use super::number::{decimal, field};
use crate::verb::tar::segments::Segments;

/// Size of a block of the archive in bytes.
pub const BLOCK: usize = 512;

/// Maximum length of a line of a map, with its newline.
const LINE_BYTES_MAX: usize = 21;

/// Reads the map of a member of GNU tar's old format: some entries are in the header, others in blocks
/// after it.
///
/// # Errors
/// If an entry is not a number, or the error of `next`.
pub fn old(
    header: &GnuHeader,
    data: u64,
    mut next: impl FnMut() -> Result<[u8; BLOCK], Failure>,
) -> Result<Segments, Failure> {
    let size = number(&header.realsize)?;
    let mut ranges = entries(&header.sparse)?;
    let mut is_extended = header.isextended[0] != 0;
    while is_extended {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&next()?);
        ranges.extend(entries(&block.sparse)?);
        if ranges.len() > SEGMENTS_MAX {
            return Err(Damage::Segments.into());
        }
        is_extended = block.isextended[0] != 0;
    }
    Ok(verified(ranges, size, data)?)
}

/// Returns the ranges of entries. Those after an empty one are not used.
fn entries(entries: &[GnuSparseHeader]) -> Result<Vec<Range<u64>>, Damage> {
    let used = entries.iter().take_while(|entry| entry.numbytes[0] != 0);
    used.map(|entry| range(number(&entry.offset)?, number(&entry.numbytes)?)).collect()
}

fn number(bytes: &[u8]) -> Result<u64, Damage> {
    let number = field(bytes).and_then(|number| u64::try_from(number).ok());
    number.ok_or(Damage::Field("map of holes"))
}

/// Returns the map in the records of an extended header, in versions 0.0 and 0.1 of the POSIX format of GNU
/// tar.
///
/// # Errors
/// If it is not one of a file of `size` bytes with `data` bytes of data.
pub fn of_records(numbers: &[u64], size: u64, data: u64) -> Result<Segments, Damage> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Damage::Map("an offset has no length"));
    }
    let ranges = pairs.iter().map(|&[offset, length]| range(offset, length));
    verified(ranges.collect::<Result<_, _>>()?, size, data)
}

/// Reads the map at the begin of the data of a member, in version 1.0 of the POSIX format of GNU tar:
/// decimal numbers in lines, padded to blocks. `data` is the number of bytes of the member.
///
/// # Errors
/// If it is not one of a file of `size` bytes, or the error of `next`.
pub fn of_data(
    size: u64,
    data: u64,
    mut next: impl FnMut() -> Result<[u8; BLOCK], Failure>,
) -> Result<Segments, Failure> {
    let mut lines = Lines { bytes: Vec::new(), blocks: 0 };
    let count = lines.number(&mut next)?;
    let count = usize::try_from(count).ok().filter(|&count| count <= SEGMENTS_MAX);
    let mut ranges = Vec::new();
    for _ in 0..count.ok_or(Damage::Segments)? {
        let (offset, length) = (lines.number(&mut next)?, lines.number(&mut next)?);
        ranges.push(range(offset, length)?);
    }
    let map = lines.blocks * BLOCK as u64;
    Ok(verified(ranges, size, data.saturating_sub(map))?)
}

/// The lines of a map.
struct Lines {
    /// The bytes of the last block that are not used yet.
    bytes: Vec<u8>,
    blocks: u64,
}

impl Lines {
    fn number(
        &mut self,
        next: &mut impl FnMut() -> Result<[u8; BLOCK], Failure>,
    ) -> Result<u64, Failure> {
        loop {
            let line = self.bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n');
            if let Some(end) = line {
                let number = self.bytes.get(..end).and_then(decimal);
                self.bytes.drain(..=end);
                return Ok(number.ok_or(Damage::Map("a line is not a number"))?);
            }
            if self.bytes.len() >= LINE_BYTES_MAX {
                return Err(Damage::Map("a line is too long").into());
            }
            self.bytes.extend_from_slice(&next()?);
            self.blocks += 1;
        }
    }
}

fn range(offset: u64, length: u64) -> Result<Range<u64>, Damage> {
    let end = offset.checked_add(length).ok_or(Damage::Map("a segment ends after 2^64 bytes"))?;
    Ok(offset..end)
}

/// Verifies that the segments are in order and inside of the file, and that the archive has their data:
/// all but the last in whole blocks, because programs differ in the padding of others.
fn verified(ranges: Vec<Range<u64>>, size: u64, data: u64) -> Result<Segments, Damage> {
    let (mut end, mut sum) = (0, 0u64);
    for range in &ranges {
        if range.start < end {
            return Err(Damage::Map("segments overlap"));
        }
        if range.end > size {
            return Err(Damage::Map("a segment ends after the file"));
        }
        if !range.is_empty() && !sum.is_multiple_of(BLOCK as u64) {
            return Err(Damage::Map("a segment inside of the file is a part of a block"));
        }
        // No overflow, because the segments do not overlap.
        sum += range.end - range.start;
        end = range.end;
    }
    if sum != data {
        return Err(Damage::Map("the segments have another length than the data"));
    }
    let ranges = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    Ok(Segments { ranges, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the blocks of a text, one a call.
    fn blocks(text: &str) -> impl FnMut() -> Result<[u8; BLOCK], Failure> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let blocks: Vec<[u8; BLOCK]> =
            bytes.chunks(BLOCK).map(|block| block.try_into().unwrap()).collect();
        let mut blocks = blocks.into_iter();
        move || blocks.next().ok_or_else(|| Damage::Truncated.into())
    }

    fn damage<T>(result: Result<T, Failure>) -> Damage {
        match result {
            Err(Failure::Damage(damage)) => damage,
            _ => panic!("no damage"),
        }
    }

    #[test]
    fn a_written_map_is_read() {
        for (ranges, size) in [
            (vec![0..512, 4096..8192, 9000..9001], 9001),
            (vec![], 99),
            (vec![1024..2048, 4096..5000], 70_000),
        ] {
            let written = Segments { ranges: ranges.clone(), size };
            let map = written.map();
            let text = String::from_utf8(map.clone()).unwrap();
            let data = map.len() as u64 + written.data();
            let read = of_data(size, data, blocks(&text)).unwrap();
            assert_eq!((read.ranges, read.size), (ranges, size));
        }
        // More than a block of lines.
        let many: Vec<Range<u64>> = (0..1000).map(|at| at * 8192..at * 8192 + 4096).collect();
        let written = Segments { ranges: many.clone(), size: 8_192_000 };
        let text = String::from_utf8(written.map()).unwrap();
        let data = text.len() as u64 + written.data();
        assert_eq!(of_data(8_192_000, data, blocks(&text)).unwrap().ranges, many);
        let cut = blocks(&text[..1024]);
        assert_eq!(damage(of_data(8_192_000, data, cut)), Damage::Truncated);
    }

    #[test]
    fn maps_that_cannot_be() {
        for (map, size, data) in [
            (&[0, 512, 256, 512][..], 4096, 1024),
            (&[512, 512, 0, 512], 4096, 1024),
            (&[0, 512], 511, 512),
            (&[0, 100, 512, 512], 4096, 612),
            (&[0, 512], 4096, 511),
            (&[0, 512], 4096, 1024),
            (&[u64::MAX, 1], u64::MAX, 1),
            (&[4097, 0], 4096, 0),
            (&[0, 512, 4096], 4096, 512),
        ] {
            let damage = of_records(map, size, data).err();
            assert!(matches!(damage, Some(Damage::Map(_))), "{map:?}");
        }
        let map = of_records(&[512, 512, 1024, 0, 1024, 7, 9999, 0], 9999, 519).unwrap();
        assert_eq!(map.ranges, [512..1024, 1024..1031]);
        for (text, expected) in [
            ("1048577\n0\n", Damage::Segments),
            ("99999999999999999999\n", Damage::Map("a line is not a number")),
            ("1\n-1\n5\n", Damage::Map("a line is not a number")),
            ("\n", Damage::Map("a line is not a number")),
            ("1\n0\n5", Damage::Map("a line is too long")),
            ("1048576\n", Damage::Map("a line is too long")),
        ] {
            assert_eq!(damage(of_data(1 << 40, 1 << 30, blocks(text))), expected, "{text:?}");
        }
    }
}
