//! Members of an archive that is read: ustar, the formats of GNU tar, and the POSIX format (pax).
//!
//! The crate `tar` has the layout of headers. Its reader is not used, because it reads long names of any
//! length into memory, and ends a record at its first newline, which values may contain.

pub mod damage;
pub mod member;
mod number;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read};

use tar::Header;

use self::damage::{Damage, Failure, RECORDS_BYTES_MAX};
use self::member::{Member, size, until_zero};
use self::number::field;
use self::pax::Records;
use self::sparse::BLOCK;

/// Maximum size of the values that hold for all members, in bytes.
const DEFAULTS_BYTES_MAX: usize = 1 << 16;
/// Maximum number of bytes that are read after the end mark, so that the writer of a pipe can end.
const PADDING_BYTES_MAX: u64 = 1 << 20;

/// Begins of the output of compressors, and the programs.
const COMPRESSORS: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

/// An archive that is being read.
pub struct Reader<R> {
    input: BufReader<R>,
    /// Number of bytes that were read.
    at: u64,
    /// Position of the last header.
    header_at: u64,
    /// Number of bytes of data and of padding of the member that are not read yet.
    left: (u64, u64),
    /// The data of a member is not read to its end.
    is_in_member: bool,
    /// Values that hold for all members.
    defaults: Records,
}

impl<R: Read> Reader<R> {
    /// Begins at the first member.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(1 << 16, input);
        Self {
            input,
            at: 0,
            header_at: 0,
            left: (0, 0),
            is_in_member: false,
            defaults: Records::default(),
        }
    }

    /// Returns the position in the archive in bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns true if the data of a member is not read to its end.
    pub fn is_in_member(&self) -> bool {
        self.is_in_member
    }

    /// Returns the position of the damage, or of the end.
    pub fn position_of(&self, damage: Damage) -> u64 {
        if damage == Damage::Truncated { self.at } else { self.header_at }
    }

    /// Reads the next member, whose data comes next. Returns `None` at the end mark. After a failure there
    /// are no more members.
    ///
    /// # Errors
    /// If the input ends, is damaged, or cannot be read.
    pub fn next_member(&mut self) -> Result<Option<Member>, Failure> {
        self.skip_data()?;
        self.is_in_member = false;
        let (mut name, mut link, mut records) = (None, None, None);
        loop {
            let Some(header) = self.header()? else {
                return match (name, link, records) {
                    (None, None, None) => self.end().map(|()| None),
                    _ => Err(Damage::NoMember.into()),
                };
            };
            match header.as_old().linkflag[0] {
                b'x' | b'X' => {
                    let bytes = self.extended(&header, "extended header")?;
                    once(&mut records, bytes, "extended header")?;
                }
                b'L' => {
                    let bytes = self.extended(&header, "long name")?;
                    once(&mut name, until_zero(&bytes).to_vec(), "long name")?;
                }
                b'K' => {
                    let bytes = self.extended(&header, "long name of a link")?;
                    once(&mut link, until_zero(&bytes).to_vec(), "long name of a link")?;
                }
                b'g' => {
                    let bytes = self.extended(&header, "extended header of all members")?;
                    self.defaults.add(&bytes)?;
                    let bytes = self.defaults.kept_bytes();
                    if bytes > DEFAULTS_BYTES_MAX {
                        let what = "extended header of all members";
                        return Err(Damage::TooLong { what, bytes: bytes as u64 }.into());
                    }
                }
                // The label of the archive.
                b'V' => {
                    self.begin_data(size(&header)?)?;
                    self.skip_data()?;
                }
                _ => {
                    let mut all = self.defaults.clone();
                    all.add(&records.unwrap_or_default())?;
                    return self.member(&header, name, link, all).map(Some);
                }
            }
        }
    }

    /// Reads data of the member. Fills the buffer, if the data does not end before.
    ///
    /// # Errors
    /// If the input ends, or cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let most = usize::try_from(self.left.0).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        self.fill(buffer)?;
        self.left.0 -= most as u64;
        Ok(most)
    }

    fn member(
        &mut self,
        header: &Header,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
        records: Records,
    ) -> Result<Member, Failure> {
        let mut member = Member::new(header, name, link, records)?;
        let data = member.data(header)?;
        let gnu = header.as_gnu().filter(|gnu| gnu.typeflag[0] == b'S');
        member.segments = if let Some(gnu) = gnu {
            let segments =
                sparse::old(gnu, data, || self.block()?.ok_or(Damage::Truncated.into()))?;
            self.begin_data(data)?;
            segments
        } else {
            self.begin_data(data)?;
            match member.sparse() {
                Some(records) => self.segments(records, data)?,
                None => whole(data),
            }
        };
        self.is_in_member = true;
        Ok(member)
    }

    /// Returns the segments of a member with holes in the POSIX format.
    fn segments(&mut self, records: &pax::Sparse, data: u64) -> Result<super::Segments, Failure> {
        let size = records.size.ok_or(Damage::Value("GNU.sparse.size"))?;
        match records.version {
            (None | Some(0), _) => Ok(sparse::of_records(&records.map, size, data)?),
            (Some(1), None | Some(0)) => sparse::of_data(size, data, || {
                let mut block = [0; BLOCK];
                match self.read(&mut block)? {
                    BLOCK => Ok(block),
                    _ => Err(Damage::Map("it does not end").into()),
                }
            }),
            _ => Err(Damage::Value("GNU.sparse.major").into()),
        }
    }

    /// Reads a header. Returns `None` at the end mark.
    fn header(&mut self) -> Result<Option<Header>, Failure> {
        self.header_at = self.at;
        // A failure comes again with the read below.
        let begin = if self.at == 0 { self.input.fill_buf().ok() } else { None };
        let compressor = begin.and_then(compressor);
        let damaged = |damage| compressor.map_or(damage, |program| Damage::Compressed { program });
        let block = match self.block() {
            Ok(Some(block)) => block,
            Ok(None) | Err(Failure::Damage(_)) => return Err(damaged(Damage::Truncated).into()),
            Err(error) => return Err(error),
        };
        if block == [0; BLOCK] {
            return match self.block()? {
                None => Ok(None),
                Some(block) if block == [0; BLOCK] => Ok(None),
                Some(_) => Err(Damage::LoneZeroBlock.into()),
            };
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        match has_checksum(&header) {
            true => Ok(Some(header)),
            false => Err(damaged(Damage::Checksum).into()),
        }
    }

    /// Reads the data of an extended header.
    fn extended(&mut self, header: &Header, what: &'static str) -> Result<Vec<u8>, Failure> {
        let bytes = size(header)?;
        let length = usize::try_from(bytes).ok().filter(|_| bytes <= RECORDS_BYTES_MAX);
        let length = length.ok_or(Damage::TooLong { what, bytes })?;
        self.begin_data(bytes)?;
        let mut data = vec![0; length];
        self.read(&mut data)?;
        self.skip_data()?;
        Ok(data)
    }

    fn begin_data(&mut self, bytes: u64) -> Result<(), Damage> {
        let padded = bytes.checked_next_multiple_of(BLOCK as u64).ok_or(Damage::Field("size"))?;
        self.left = (bytes, padded - bytes);
        Ok(())
    }

    /// Skips the rest of the data of the member.
    fn skip_data(&mut self) -> Result<(), Failure> {
        let (data, padding) = std::mem::take(&mut self.left);
        let mut left = data.checked_add(padding).ok_or(Damage::Field("size"))?;
        let mut buffer = [0; 16 * BLOCK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(buffer.get_mut(..most).unwrap_or_default())?;
            left -= most as u64;
        }
        Ok(())
    }

    /// Reads the padding after the end mark.
    fn end(&mut self) -> Result<(), Failure> {
        let mut padding = (&mut self.input).take(PADDING_BYTES_MAX);
        self.at += io::copy(&mut padding, &mut io::sink())?;
        Ok(())
    }

    /// Reads a block. Returns `None` if the input has ended before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Failure> {
        let begin = self.at;
        let mut block = [0; BLOCK];
        match self.fill(&mut block) {
            Err(Failure::Damage(Damage::Truncated)) if self.at == begin => Ok(None),
            filled => filled.map(|()| Some(block)),
        }
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), Failure> {
        while !buffer.is_empty() {
            match self.input.read(buffer) {
                Ok(0) => return Err(Damage::Truncated.into()),
                Ok(length) => {
                    self.at += length as u64;
                    buffer = buffer.get_mut(length..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Returns the program whose output begins so.
fn compressor(begin: &[u8]) -> Option<&'static str> {
    COMPRESSORS.iter().find(|(magic, _)| begin.starts_with(magic)).map(|(_, program)| *program)
}

/// Sets what a member can have once.
fn once(slot: &mut Option<Vec<u8>>, value: Vec<u8>, what: &'static str) -> Result<(), Damage> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Damage::Twice(what)),
    }
}

/// Returns the segments of a file without holes.
fn whole(size: u64) -> super::Segments {
    let all = 0..size;
    super::Segments { ranges: Vec::from([all]), size }
}

/// Verifies the checksum: the sum of the bytes, with spaces instead of the checksum. Old programs add signed
/// bytes.
fn has_checksum(header: &Header) -> bool {
    let cksum = &header.as_old().cksum;
    let sum = |value: fn(u8) -> i128| -> i128 {
        let all: i128 = header.as_bytes().iter().map(|&byte| value(byte)).sum();
        let stored: i128 = cksum.iter().map(|&byte| value(byte)).sum();
        all - stored + 8 * i128::from(b' ')
    };
    let stored = field(cksum);
    stored == Some(sum(i128::from)) || stored == Some(sum(|byte| byte.cast_signed().into()))
}

#[cfg(test)]
mod tests;
