//! The fuzz targets: the input selects changes to the structures of a valid image.
//!
//! An input begins with a byte of flags: bit 0 updates checksums after changes, and the other bits
//! select the image. Changes follow, each with a structure, a kind of change, and its arguments.

use std::sync::OnceLock;

use super::base::{Base, RECIPES, folder};
use super::bytes::{put, put_be};
use super::layout::Place;
use super::seal::Patch;
use super::source::Changed;
use super::view::explore;

/// Maximum number of changes in one input.
const MOST_CHANGES: usize = 16;

/// A fuzz target: its images, and the kinds of structures that it changes.
pub struct Target {
    images: &'static [&'static str],
    kinds: &'static [&'static str],
    bases: OnceLock<Vec<Base>>,
}

const fn target(images: &'static [&'static str], kinds: &'static [&'static str]) -> Target {
    Target { images, kinds, bases: OnceLock::new() }
}

pub static SUPERBLOCK: Target =
    target(&["features", "none", "ext3"], &["superblock", "group descriptor", "mmp"]);

pub static EXTENTS: Target = target(
    &["ext4", "ext3"],
    &[
        "inode of a file",
        "inode of a directory",
        "inode of a long link",
        "extent index",
        "extent leaf",
        "indirect block",
        "double indirect block",
    ],
);

pub static DIRECTORIES: Target = target(
    &["ext4", "htree", "casefold", "none"],
    &["inode of a directory", "directory block", "htree root", "htree node"],
);

pub static JOURNAL: Target = target(
    &["journal", "journal-plain", "orphans", "fast-commit", "journal-v2"],
    &[
        "superblock",
        "inode of the journal",
        "journal superblock",
        "journal descriptor",
        "journal revoke",
        "journal commit",
        "logged block",
        "fast commit",
        "orphan block",
    ],
);

pub static XATTRS: Target = target(
    &["ext4", "small-inodes"],
    &["inode of a file", "inode of a directory", "xattr block", "inode of an attribute"],
);

pub static INLINE: Target =
    target(&["inline"], &["inode of an inline file", "inode of an inline directory"]);

/// The unread rest of an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        let (bytes, rest) = self.0.split_at_checked(width)?;
        self.0 = rest;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
}

impl Target {
    fn bases(&self) -> &[Base] {
        self.bases.get_or_init(|| {
            let folder = folder();
            let recipe = |name: &&str| RECIPES.iter().find(|recipe| recipe.name == *name).unwrap();
            let recipes = self.images.iter().map(recipe);
            recipes.map(|recipe| Base::make(recipe, folder.path()).unwrap()).collect()
        })
    }

    /// Reads the changed image, and panics if the result is wrong.
    pub fn run(&self, bytes: &[u8]) {
        let mut input = Input(bytes);
        let flags = input.byte().unwrap_or(0);
        let bases = self.bases();
        let base = &bases[usize::from(flags >> 1) % bases.len()];
        let is_sealed = flags & 1 == 1;
        let places = base.layout.places.iter();
        let places: Vec<&Place> = places.filter(|place| self.kinds.contains(&place.kind)).collect();
        let mut patches: Vec<Patch> = Vec::new();
        for _ in 0..MOST_CHANGES {
            let Some(more) = change(base, &places, &patches, is_sealed, &mut input) else { break };
            patches.extend(more);
        }
        let image = Changed::new(&base.layout.image, patches);
        let paths: Vec<&[u8]> = base.paths.iter().map(Vec::as_slice).collect();
        let _ = explore(&image, &paths);
    }
}

/// Makes one change. Returns the new bytes of the structure, and the changes elsewhere that the
/// checksum needs.
fn change(
    base: &Base,
    places: &[&Place],
    before: &[Patch],
    is_sealed: bool,
    input: &mut Input<'_>,
) -> Option<Vec<Patch>> {
    let layout = &base.layout;
    let place = places[usize::from(input.byte()?) % places.len()];
    let mut bytes = vec![0; place.length];
    Changed::new(&layout.image, before.to_vec()).copy(place.start, &mut bytes);
    match input.byte()? % 4 {
        // Set a field.
        0 | 1 if !place.fields.is_empty() => {
            let field = place.fields[usize::from(input.byte()?) % place.fields.len()];
            let value = input.number(field.width)?;
            let put = if field.big { put_be } else { put };
            put(&mut bytes, field.at, field.width, value);
        }
        // Replace bytes at any offset.
        2 => {
            let at = input.number(2)? as usize % place.length;
            let length = usize::from(input.byte()? % 32).min(place.length - at);
            let new = input.0.split_off(..length.min(input.0.len()))?;
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        // Copy bytes from another part of the structure.
        _ => {
            let (from, to) = (input.number(2)? as usize, input.number(2)? as usize);
            let (from, to) = (from % place.length, to % place.length);
            let length = usize::from(input.byte()?);
            let length = length.min(place.length - from).min(place.length - to);
            bytes.copy_within(from..from + length, to);
        }
    }
    let mut patches = Vec::new();
    if is_sealed {
        patches = place.seal.apply(layout, &mut bytes);
    }
    patches.insert(0, (place.start, bytes));
    Some(patches)
}
