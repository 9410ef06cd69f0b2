//! The data that writes leave and reads check.
//!
//! Each 512 bytes have a header: the position, the file, the version, and a check word of all of them
//! and the seed. The rest follows from the check word.

use crate::random::mix;

/// The unit of the pattern in bytes.
pub const SECTOR: usize = 512;
const WORD: usize = size_of::<u64>();
const HEADER_WORDS: usize = 3;

/// The origin of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the file: its inode number, or 0 for a namespace.
    pub file: u32,
}

/// The contents of a sector that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The data of a position and a version.
    Data {
        /// Position of the sector in the file.
        pos: u64,
        /// The file.
        file: u32,
        /// The version.
        version: u32,
    },
    /// No data of this seed.
    Foreign,
    /// The header is that of the position and the version, and the bytes after it are wrong.
    Damaged {
        /// First wrong byte of the sector.
        at: usize,
    },
}

impl Origin {
    fn header(&self, pos: u64, version: u32) -> [u64; HEADER_WORDS] {
        let what = u64::from(version) << 32 | u64::from(self.file);
        [pos, what, check(self.seed, pos, what)]
    }

    /// Fills `bytes`, which begin at `pos`, with the data of a version.
    pub fn fill(&self, pos: u64, version: u32, bytes: &mut [u8]) {
        for (index, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            let header = self.header(pos + (index * SECTOR) as u64, version);
            let mut words = words(header);
            for place in sector.chunks_exact_mut(WORD) {
                place.copy_from_slice(&words.next().unwrap_or(0).to_le_bytes());
            }
        }
    }

    /// Checks that a sector, which begins at `pos`, has the data of a version.
    ///
    /// # Errors
    /// The contents of the sector.
    pub fn check(&self, pos: u64, version: u32, sector: &[u8]) -> Result<(), Found> {
        let header = self.header(pos, version);
        let wrong = wrong(header, sector);
        match (wrong, self.read(sector)) {
            (None, _) => Ok(()),
            (Some(at), Found::Data { pos: read, file, version: old })
                if (read, file, old) == (pos, self.file, version) =>
            {
                Err(Found::Damaged { at })
            }
            (Some(_), found) => Err(found),
        }
    }

    /// Reads the header of a sector.
    pub fn read(&self, sector: &[u8]) -> Found {
        let mut header = sector.chunks_exact(WORD).take(HEADER_WORDS).map(word);
        let (Some(pos), Some(what), Some(sum)) = (header.next(), header.next(), header.next())
        else {
            return Found::Foreign;
        };
        if sum != check(self.seed, pos, what) {
            return Found::Foreign;
        }
        let [file, version] = [what & 0xffff_ffff, what >> 32].map(u32::try_from);
        match (file, version) {
            (Ok(file), Ok(version)) => Found::Data { pos, file, version },
            _ => Found::Foreign,
        }
    }
}

fn check(seed: u64, pos: u64, what: u64) -> u64 {
    mix(mix(seed ^ 0x6e76_696f_7065_7266) ^ mix(pos ^ mix(what)))
}

/// Returns the words of a sector.
fn words(header: [u64; HEADER_WORDS]) -> impl Iterator<Item = u64> {
    let mut state = header[HEADER_WORDS - 1];
    let rest = std::iter::from_fn(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some(mix(state))
    });
    header.into_iter().chain(rest)
}

/// Returns the first byte of the first wrong word.
fn wrong(header: [u64; HEADER_WORDS], sector: &[u8]) -> Option<usize> {
    let found = sector.chunks_exact(WORD).map(word);
    let wrong = found.zip(words(header)).position(|(found, expected)| found != expected);
    wrong.map(|index| index * WORD)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { seed: 9, file: 12 };

    #[test]
    fn each_kind_of_wrong_data_is_told_apart() {
        let mut bytes = [0; 2 * SECTOR];
        ORIGIN.fill(4096, 3, &mut bytes);
        let second = &bytes[SECTOR..];
        assert_eq!(ORIGIN.check(4096, 3, &bytes[..SECTOR]), Ok(()));
        assert_eq!(ORIGIN.check(4608, 3, second), Ok(()));
        let data = Found::Data { pos: 4608, file: 12, version: 3 };
        assert_eq!(ORIGIN.check(4608, 4, second), Err(data), "an old version");
        assert_eq!(ORIGIN.check(4096, 3, second), Err(data), "another position");
        let other = Origin { file: 13, ..ORIGIN };
        assert_eq!(other.check(4608, 3, second), Err(data), "another file");
        assert_eq!(Origin { seed: 8, ..ORIGIN }.check(4608, 3, second), Err(Found::Foreign));
        assert_eq!(ORIGIN.check(4608, 3, &[0; SECTOR]), Err(Found::Foreign));
        bytes[SECTOR + 511] ^= 1;
        assert_eq!(ORIGIN.check(4608, 3, &bytes[SECTOR..]), Err(Found::Damaged { at: 504 }));
    }
}
