//! Random changes of files, made by this crate, by the kernel, and on a model of the contents.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio_ext4::JournaledFilesystem;
use nvio_testkit::random::Rng;
use rustix::fs::{FallocateFlags, fallocate};

/// A change of a file.
pub enum Change {
    Write {
        pos: u64,
        data: Vec<u8>,
    },
    Truncate {
        size: u64,
    },
    Punch {
        pos: u64,
        length: u64,
    },
    Allocate {
        pos: u64,
        length: u64,
        keep_size: bool,
    },
    /// Replaces the range by unwritten blocks: `FALLOC_FL_ZERO_RANGE`.
    Zero {
        pos: u64,
        length: u64,
        keep_size: bool,
    },
    /// Takes a range out of the file: `FALLOC_FL_COLLAPSE_RANGE`.
    Collapse {
        pos: u64,
        length: u64,
    },
    /// Puts a hole into the file: `FALLOC_FL_INSERT_RANGE`.
    Insert {
        pos: u64,
        length: u64,
    },
}

/// A multiple of all block sizes.
const BLOCK: u64 = 4096;

/// Formats the change without its data.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { pos, data } => write!(f, "write {pos}+{}", data.len()),
            Self::Truncate { size } => write!(f, "truncate {size}"),
            Self::Punch { pos, length } => write!(f, "punch {pos}+{length}"),
            Self::Allocate { pos, length, keep_size: true } => write!(f, "keep {pos}+{length}"),
            Self::Allocate { pos, length, .. } => write!(f, "allocate {pos}+{length}"),
            Self::Zero { pos, length, keep_size } => {
                write!(f, "zero {pos}+{length}, keep {keep_size}")
            }
            Self::Collapse { pos, length } => write!(f, "collapse {pos}+{length}"),
            Self::Insert { pos, length } => write!(f, "insert {pos}+{length}"),
        }
    }
}

impl Change {
    /// Draws a change of a file of `size` bytes.
    pub fn draw(random: &mut Rng, size: u64) -> Self {
        let (pos, length) = (random.below(size + 60_000), 1 + random.below(80_000));
        let moved = length.next_multiple_of(BLOCK);
        let inside = random.below(size.max(1)) / BLOCK * BLOCK;
        match random.below(10) {
            0 => Self::Truncate { size: pos },
            1 => Self::Truncate { size: random.below(pos + 1) },
            2 => Self::Punch { pos, length },
            3 => Self::Allocate { pos, length, keep_size: random.below(2) == 0 },
            4 => Self::Zero { pos, length, keep_size: random.below(2) == 0 },
            5 if size > inside => Self::Insert { pos: inside, length: moved },
            6 if size > inside + BLOCK => {
                let most = (size - inside - 1) / BLOCK * BLOCK;
                Self::Collapse { pos: inside, length: moved.min(most) }
            }
            7 => Self::Write { pos: size, data: random.bytes(length) },
            _ => Self::Write { pos, data: random.bytes(length) },
        }
    }

    pub fn apply_to(&self, model: &mut Vec<u8>) {
        match self {
            Self::Write { pos, data } => {
                let (pos, end) = (*pos as usize, *pos as usize + data.len());
                model.resize(model.len().max(end), 0);
                model[pos..end].copy_from_slice(data);
            }
            Self::Truncate { size } => model.resize(*size as usize, 0),
            Self::Punch { pos, length } => {
                let end = (pos + length).min(model.len() as u64) as usize;
                model.get_mut(*pos as usize..end).unwrap_or_default().fill(0);
            }
            Self::Allocate { keep_size: true, .. } => (),
            Self::Allocate { pos, length, .. } => {
                model.resize(model.len().max((pos + length) as usize), 0);
            }
            Self::Zero { pos, length, keep_size } => {
                let end = (pos + length) as usize;
                if !keep_size {
                    model.resize(model.len().max(end), 0);
                }
                let end = end.min(model.len());
                model.get_mut(*pos as usize..end).unwrap_or_default().fill(0);
            }
            Self::Collapse { pos, length } => {
                model.drain(*pos as usize..(pos + length) as usize);
            }
            Self::Insert { pos, length } => {
                let pos = *pos as usize;
                model.splice(pos..pos, std::iter::repeat_n(0, *length as usize));
            }
        }
    }

    /// Makes the change by this crate.
    pub fn here(&self, fs: &JournaledFilesystem, name: &str) {
        let number = fs.lookup(format!("/{name}")).unwrap().number();
        match self {
            Self::Write { pos, data } => fs.write_at(number, *pos, data),
            Self::Truncate { size } => fs.truncate(number, *size),
            Self::Punch { pos, length } => fs.punch_hole(number, *pos, *length),
            Self::Allocate { pos, length, keep_size } => {
                fs.allocate(number, *pos, *length, *keep_size)
            }
            Self::Zero { pos, length, keep_size } => {
                fs.zero_range(number, *pos, *length, *keep_size)
            }
            Self::Collapse { pos, length } => fs.collapse_range(number, *pos, *length),
            Self::Insert { pos, length } => fs.insert_range(number, *pos, *length),
        }
        .unwrap();
    }

    /// Makes the change by the kernel.
    pub fn by_kernel(&self, mount: &Path, name: &str) {
        let file = File::options().write(true).open(mount.join(name)).unwrap();
        let (flags, pos, length) = match self {
            Self::Write { pos, data } => return file.write_all_at(data, *pos).unwrap(),
            Self::Truncate { size } => return file.set_len(*size).unwrap(),
            Self::Punch { pos, length } => {
                (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, pos, length)
            }
            Self::Allocate { pos, length, keep_size: true } => {
                (FallocateFlags::KEEP_SIZE, pos, length)
            }
            Self::Allocate { pos, length, .. } => (FallocateFlags::empty(), pos, length),
            Self::Zero { pos, length, keep_size: true } => {
                (FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, pos, length)
            }
            Self::Zero { pos, length, .. } => (FallocateFlags::ZERO_RANGE, pos, length),
            Self::Collapse { pos, length } => (FallocateFlags::COLLAPSE_RANGE, pos, length),
            Self::Insert { pos, length } => (FallocateFlags::INSERT_RANGE, pos, length),
        };
        fallocate(file, flags, *pos, *length).unwrap();
    }
}
