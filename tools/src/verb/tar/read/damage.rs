//! Errors of an archive that is read.

use std::io;

/// Maximum size of an extended header in bytes.
pub const RECORDS_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of segments of a member with holes.
pub const SEGMENTS_MAX: usize = 1 << 20;

/// Damage of an archive after which no member can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The input ends.
    #[error("the archive ends without its end mark")]
    Truncated,
    /// The input is not an archive, but the output of a compressor.
    #[error("the archive is compressed by {program}")]
    Compressed {
        /// The program.
        program: &'static str,
    },
    /// The sum of the bytes of a header is not the stored one.
    #[error("the block is not a header of a member, by its checksum")]
    Checksum,
    /// A zero block is followed by another one.
    #[error("a block of zeroes, which is half of an end mark, is in the middle of the archive")]
    LoneZeroBlock,
    /// A field of a header cannot be decoded.
    #[error("the header has no valid {0}")]
    Field(&'static str),
    /// A record of an extended header is malformed.
    #[error("the extended header has a malformed record")]
    Record,
    /// The value of a record of an extended header cannot be decoded.
    #[error("the extended header has an invalid value of {0}")]
    Value(&'static str),
    /// An extended header is too large.
    #[error("the {what} has {bytes} bytes, more than {RECORDS_BYTES_MAX}")]
    TooLong {
        /// The kind of header.
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A member has two extended headers of one kind.
    #[error("the member has a second {0}")]
    Twice(&'static str),
    /// The archive ends after an extended header.
    #[error("the archive ends after an extended header, whose member is missing")]
    NoMember,
    /// A sparse member has too many segments.
    #[error("the member has more than {SEGMENTS_MAX} segments of data")]
    Segments,
    /// The map of a sparse member cannot be one of its data.
    #[error("the map of a member with holes is wrong: {0}")]
    Map(&'static str),
}

impl Damage {
    /// Returns the next step for the user.
    pub fn advice(self) -> String {
        match self {
            Self::Compressed { program } => format!("pipe it through `{program} -dc`"),
            _ => "copy the archive again in full".to_owned(),
        }
    }
}

/// A failure to read an archive.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The input cannot be read.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// The archive is damaged.
    #[error(transparent)]
    Damage(#[from] Damage),
}
