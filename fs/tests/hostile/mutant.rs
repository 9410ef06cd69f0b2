//! Mutants: all changes to the structures of an image.

use std::fmt;

use nvio_testkit::random::Rng;

use super::bytes::{get, get_be, put, put_be};
use super::fields::Field;
use super::layout::{Checksums, Layout, Place};
use super::seal::{Patch, Seal};

/// Number of changes to a byte.
const BYTE_WAYS: u64 = 12;
/// Number of values that are independent of the field's meaning.
const PLAIN_VALUES: u64 = 14;
/// Number of following fields whose values a field is set to or swapped with.
const NEIGHBOURS: u64 = 4;

/// Identifies a mutant of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A change of one byte: the place, and the number of the byte and the change.
    Byte { place: usize, variant: u64, sealed: bool },
    /// A change of one field: the place, and the number of the field and the value.
    Field { place: usize, variant: u64, sealed: bool },
    /// Two to four changes of the other types.
    Several { seed: u64 },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |sealed| if sealed { "sealed" } else { "plain" };
        match *self {
            Self::Byte { place, variant, sealed } => {
                write!(f, "byte:{place}:{variant}:{}", sum(sealed))
            }
            Self::Field { place, variant, sealed } => {
                write!(f, "field:{place}:{variant}:{}", sum(sealed))
            }
            Self::Several { seed } => write!(f, "several:{seed}"),
        }
    }
}

impl Choice {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let class = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        if class == "several" {
            return Some(Self::Several { seed: number()? });
        }
        let (place, variant) = (number()? as usize, number()?);
        let sealed = parts.next()? == "sealed";
        match class {
            "byte" => Some(Self::Byte { place, variant, sealed }),
            "field" => Some(Self::Field { place, variant, sealed }),
            _ => None,
        }
    }
}

/// A changed image.
pub struct Mutant {
    pub patches: Vec<Patch>,
    /// Description of the changes.
    pub what: String,
    /// True if checksums reveal every change.
    pub is_told: bool,
}

impl Layout {
    /// Returns the number of byte changes in a place.
    pub fn bytes_of(&self, place: &Place) -> u64 {
        place.length as u64 * BYTE_WAYS
    }

    /// Returns the number of field changes in a place.
    pub fn fields_of(&self, place: &Place) -> u64 {
        place.fields.len() as u64 * self.values()
    }

    fn values(&self) -> u64 {
        PLAIN_VALUES + self.numbers().len() as u64 + 2 * NEIGHBOURS
    }

    /// Returns the mutant for this choice; `None` if nothing would change.
    pub fn mutant(&self, choice: Choice) -> Option<Mutant> {
        let mut mutant = Mutant { patches: Vec::new(), what: String::new(), is_told: true };
        match choice {
            Choice::Byte { .. } | Choice::Field { .. } => self.change(choice, &mut mutant)?,
            Choice::Several { seed } => {
                let mut random = Rng::new(seed);
                for _ in 0..2 + random.below(3) {
                    let choice = self.random(&mut random);
                    // Changes without an effect are ignored.
                    let _ = self.change(choice, &mut mutant);
                }
                if mutant.patches.is_empty() {
                    return None;
                }
            }
        }
        Some(mutant)
    }

    fn random(&self, random: &mut Rng) -> Choice {
        let place = random.below(self.places.len() as u64) as usize;
        let (bytes, fields) =
            (self.bytes_of(&self.places[place]), self.fields_of(&self.places[place]));
        let sealed = random.below(2) == 0;
        if fields > 0 && random.below(2) == 0 {
            Choice::Field { place, variant: random.below(fields), sealed }
        } else {
            Choice::Byte { place, variant: random.below(bytes), sealed }
        }
    }

    fn change(&self, choice: Choice, mutant: &mut Mutant) -> Option<()> {
        let (Choice::Byte { place, variant, sealed } | Choice::Field { place, variant, sealed }) =
            choice
        else {
            return None;
        };
        let place = self.places.get(place)?;
        if sealed && place.seal == Seal::Nothing {
            return None;
        }
        let sound = &self.image[place.start..place.start + place.length];
        let mut bytes = sound.to_vec();
        // A second change of the same place is applied to the result of the first.
        for (at, patch) in &mutant.patches {
            if *at == place.start && patch.len() == bytes.len() {
                bytes.copy_from_slice(patch);
            }
        }
        let what = match choice {
            Choice::Byte { .. } => change_byte(&mut bytes, variant)?,
            _ => self.change_field(place, &mut bytes, variant)?,
        };
        if bytes == *sound {
            return None;
        }
        let mut more = Vec::new();
        if sealed {
            more = place.seal.apply(self, &mut bytes);
        }
        let sum = if sealed { ", checksum made right" } else { "" };
        mutant.what += &format!("{} at byte {:#x}: {what}{sum}; ", place.kind, place.start);
        mutant.is_told &= !sealed && self.tells(place, &bytes);
        mutant.patches.push((place.start, bytes));
        mutant.patches.extend(more);
        Some(())
    }

    /// Returns true if a checksum reveals that a place was changed to `bytes`.
    fn tells(&self, place: &Place, bytes: &[u8]) -> bool {
        if self.checksums != Checksums::Crc32c || place.seal == Seal::Nothing {
            return false;
        }
        // Changes whose checksum is right by chance cannot be detected. Most checksums have only 16
        // bits.
        let mut right = bytes.to_vec();
        let more = place.seal.apply(self, &mut right);
        let same = more.iter().all(|(at, new)| self.image[*at..at + new.len()] == new[..]);
        let by_chance = right == bytes && same;
        // Without the feature no checksum is verified.
        let off = place.seal == Seal::Superblock && get(bytes, 0x64, 4) & 0x400 == 0;
        !by_chance && !off
    }

    fn change_field(&self, place: &Place, bytes: &mut [u8], variant: u64) -> Option<String> {
        let (index, way) = ((variant / self.values()) as usize, variant % self.values());
        let field = *place.fields.get(index)?;
        let neighbour = |by: u64| place.fields.get((index + by as usize + 1) % place.fields.len());
        let old = value(bytes, field);
        let numbers = self.numbers();
        let listed = PLAIN_VALUES + numbers.len() as u64;
        let new = if way < PLAIN_VALUES {
            plain_value(way, old, field.width as u32 * 8)
        } else if way < listed {
            // 0 stands for the block of the structure itself.
            match numbers[(way - PLAIN_VALUES) as usize] {
                0 => (place.start / self.block_size) as u64,
                number => number,
            }
        } else if way < listed + NEIGHBOURS {
            value(bytes, *neighbour(way - listed)?)
        } else {
            let other = *neighbour(way - listed - NEIGHBOURS)?;
            let new = value(bytes, other);
            set(bytes, other, old);
            new
        };
        set(bytes, field, new);
        let new = value(bytes, field);
        Some(format!("{} (byte {:#x}) from {old:#x} to {new:#x}", field.name, field.at))
    }

    /// Returns numbers with a meaning on this filesystem. 0 stands for the block of the changed
    /// structure.
    fn numbers(&self) -> [u64; 18] {
        let block = |at: u64| {
            let place = &self.places[(self.places.len() as u64 * at / 6) as usize];
            (place.start / self.block_size) as u64
        };
        let (blocks, inodes) = (self.superblock(4, 4), self.superblock(0, 4));
        [
            0,
            block(0),
            block(1),
            block(2),
            block(3),
            block(4),
            block(5),
            blocks,
            blocks - 1,
            inodes,
            inodes + 1,
            self.block_size as u64,
            self.block_size as u64 - 1,
            self.superblock(0x20, 4),
            2,
            8,
            11,
            12,
        ]
    }
}

fn plain_value(way: u64, old: u64, bits: u32) -> u64 {
    let max = u64::MAX >> (64 - bits);
    let sign = 1 << (bits - 1);
    match way {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max - 1,
        4 => sign,
        5 => sign - 1,
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        8 => old.wrapping_mul(2),
        9 => old / 2,
        10 => !old,
        11 => old ^ sign,
        12 => old.wrapping_add(4),
        _ => old.wrapping_sub(4),
    }
}

fn change_byte(bytes: &mut [u8], variant: u64) -> Option<String> {
    let (at, way) = ((variant / BYTE_WAYS) as usize, variant % BYTE_WAYS);
    let byte = bytes.get_mut(at)?;
    let old = *byte;
    *byte = match way {
        0..8 => old ^ 1 << way,
        8 => 0,
        9 => 0xff,
        10 => old.wrapping_add(1),
        _ => old.wrapping_sub(1),
    };
    Some(format!("byte {at:#x} from {old:#x} to {byte:#x}"))
}

fn value(bytes: &[u8], field: Field) -> u64 {
    let get = if field.big { get_be } else { get };
    get(bytes, field.at, field.width)
}

fn set(bytes: &mut [u8], field: Field, value: u64) {
    let put = if field.big { put_be } else { put };
    put(bytes, field.at, field.width, value);
}
