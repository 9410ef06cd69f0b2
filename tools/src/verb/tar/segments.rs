//! The parts of a file that have data.

use std::ops::Range;

use nvio_ext4::{Error, File};

/// Maximum number of segments of a member. A file with more is stored with its holes as zeroes.
const SEGMENTS_MAX: usize = 1 << 16;

/// The segments of a file.
#[derive(Debug)]
pub struct Segments {
    /// The ranges that have data, in order.
    pub ranges: Vec<Range<u64>>,
    /// Size of the file in bytes.
    pub size: u64,
}

impl Segments {
    /// Number of bytes of data.
    pub fn data(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Returns true if the file has holes.
    pub fn is_sparse(&self) -> bool {
        self.data() < self.size
    }

    /// Returns the map of a sparse member in version 1.0 of the pax format of GNU tar: the number of
    /// segments, then offset and length of each, padded to 512 bytes. A file that ends in a hole has
    /// a last segment of no bytes.
    pub fn map(&self) -> Vec<u8> {
        let mut ranges = self.ranges.clone();
        if ranges.last().is_none_or(|range| range.end < self.size) {
            ranges.push(self.size..self.size);
        }
        let mut map = format!("{}\n", ranges.len());
        for range in ranges {
            map += &format!("{}\n{}\n", range.start, range.end - range.start);
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(512), 0);
        map
    }
}

/// Returns the segments of a file. Holes and unwritten ranges are left out.
pub fn segments(file: &File) -> Result<Segments, Error> {
    let size = file.size();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for extent in file.extents().until(size) {
        let extent = extent?;
        let range = extent.logical..extent.logical.saturating_add(extent.length).min(size);
        if extent.unwritten || range.is_empty() {
            continue;
        }
        if let Some(last) = ranges.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
        } else if ranges.len() < SEGMENTS_MAX {
            ranges.push(range);
        } else {
            let whole = 0..size;
            return Ok(Segments { ranges: Vec::from([whole]), size });
        }
    }
    Ok(Segments { ranges, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_decimal_numbers_in_blocks() {
        let map = |ranges: &[(u64, u64)], size| {
            let ranges = ranges.iter().map(|&(start, end)| start..end).collect();
            let segments = Segments { ranges, size };
            let map = segments.map();
            assert!(map.len().is_multiple_of(512));
            let text = String::from_utf8(map).unwrap();
            (text.trim_end_matches('\0').to_owned(), segments.is_sparse())
        };
        assert_eq!(map(&[(0, 5)], 5), ("1\n0\n5\n".to_owned(), false));
        assert_eq!(map(&[(4096, 8192)], 8192), ("1\n4096\n4096\n".to_owned(), true));
        assert_eq!(map(&[(0, 10)], 99), ("2\n0\n10\n99\n0\n".to_owned(), true));
        assert_eq!(map(&[], 99), ("1\n99\n0\n".to_owned(), true));
    }
}
