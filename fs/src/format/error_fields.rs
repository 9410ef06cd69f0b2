//! The fields of the superblock that record errors.

use zerocopy::little_endian::{U32, U64};

use crate::format::corrupt::Corrupt;
use crate::format::raw_superblock::RawSuperblock;
use crate::format::time::Timestamp;
use crate::number::{InodeNumber, PhysicalBlock};

/// `EXT4_ERROR_FS`, a bit of `s_state`: e2fsck must check the filesystem.
const STATE_ERROR: u16 = 0x2;

/// `EXT4_ERR_EIO`.
const CODE_IO: u8 = 2;
/// `EXT4_ERR_EFSBADCRC`.
const CODE_CHECKSUM: u8 = 4;
/// `EXT4_ERR_EFSCORRUPTED`.
const CODE_CORRUPT: u8 = 5;

/// An error, as the superblock records it.
pub(crate) struct ErrorFields {
    time: Timestamp,
    inode: InodeNumber,
    block: PhysicalBlock,
    /// Name of the place that found it.
    function: String,
    code: u8,
}

impl ErrorFields {
    /// Returns the fields for damage.
    pub(crate) fn of_damage(damage: &Corrupt, time: Timestamp) -> Self {
        Self {
            time,
            inode: damage.inode().unwrap_or_default(),
            block: damage.block().unwrap_or_default(),
            function: format!("nvio:{:?}", damage.structure()),
            code: if damage.is_checksum() { CODE_CHECKSUM } else { CODE_CORRUPT },
        }
    }

    /// Returns the fields for a write to the log that failed.
    pub(crate) fn of_log(time: Timestamp) -> Self {
        let (inode, block) = (InodeNumber::default(), PhysicalBlock::default());
        Self { time, inode, block, function: "nvio:journal".to_owned(), code: CODE_IO }
    }

    /// Stores the fields of the first sector: all except for the code and the upper byte of the time.
    pub(crate) fn store(&self, raw: &mut RawSuperblock) {
        let [a, b, c, d, ..] = self.time.seconds.to_le_bytes();
        let time = U32::from_bytes([a, b, c, d]);
        let (inode, block) = (U32::new(self.inode.get()), U64::new(self.block.get()));
        let mut function = [0; 32];
        function.iter_mut().zip(self.function.bytes()).for_each(|(to, from)| *to = from);
        raw.state = (raw.state.get() | STATE_ERROR).into();
        raw.error_count = raw.error_count.get().saturating_add(1).into();
        if raw.first_error_time == 0 {
            (raw.first_error_time, raw.first_error_line) = (time, 0.into());
            (raw.first_error_inode, raw.first_error_block) = (inode, block);
            raw.first_error_function = function;
        }
        (raw.last_error_time, raw.last_error_line) = (time, 0.into());
        (raw.last_error_inode, raw.last_error_block) = (inode, block);
        raw.last_error_function = function;
    }

    /// Stores the fields of the second sector, after those of the first.
    pub(crate) fn store_code(&self, raw: &mut RawSuperblock) {
        let [.., high, _, _, _] = self.time.seconds.to_le_bytes();
        let is_first = raw.error_count == 1;
        let [first_hi, last_hi] = &mut raw.error_times_hi;
        let [first_code, last_code] = &mut raw.error_codes;
        if is_first {
            (*first_hi, *first_code) = (high, self.code);
        }
        (*last_hi, *last_code) = (high, self.code);
    }
}

/// Copies the errors that a superblock has recorded to one that replaces it.
pub(crate) fn keep(old: &RawSuperblock, new: &mut RawSuperblock) {
    new.state = (new.state.get() | old.state.get() & STATE_ERROR).into();
    new.error_count = old.error_count;
    (new.first_error_time, new.first_error_line) = (old.first_error_time, old.first_error_line);
    (new.first_error_inode, new.first_error_block) = (old.first_error_inode, old.first_error_block);
    new.first_error_function = old.first_error_function;
    (new.last_error_time, new.last_error_line) = (old.last_error_time, old.last_error_line);
    (new.last_error_inode, new.last_error_block) = (old.last_error_inode, old.last_error_block);
    new.last_error_function = old.last_error_function;
    (new.error_times_hi, new.error_codes) = (old.error_times_hi, old.error_codes);
}
