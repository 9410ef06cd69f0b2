//! The table of images, by area.

mod attributes;
mod directories;
mod features;
mod journal;
mod layout;
mod maps;

use super::contents::{folder, pointers, standard};
use super::{Oracle, Row, Step};

/// All of them.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    [layout::ROWS, maps::ROWS, directories::ROWS, attributes::ROWS, journal::ROWS, features::ROWS]
        .into_iter()
        .flatten()
}

/// The row `name`.
pub fn row(name: &str) -> &'static Row {
    rows().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
}

impl Row {
    /// A row that the kernel mounts as it is.
    const fn new(name: &'static str, mib: u64, mkfs: &'static str, steps: &'static [Step]) -> Self {
        Self { name, mib, mkfs, steps, oracle: Oracle::Kernel }
    }

    /// A way to make a filesystem, with the standard tree.
    const fn standard(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self::new(name, mib, mkfs, &[Step::Mounted("", standard)])
    }

    /// A filesystem whose files are mapped by block pointers.
    const fn pointers(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self::new(name, mib, mkfs, &[Step::Mounted("", pointers)])
    }

    /// One that this kernel cannot mount, made of a folder.
    const fn folder(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self { oracle: Oracle::Offline, ..Self::new(name, mib, mkfs, &[Step::Folder(folder)]) }
    }

    /// One that was copied while it was mounted.
    const fn dirty(
        name: &'static str,
        mib: u64,
        mkfs: &'static str,
        steps: &'static [Step],
    ) -> Self {
        Self { oracle: Oracle::Recovered, ..Self::new(name, mib, mkfs, steps) }
    }

    /// One that is refused, in a line with these words.
    const fn refused(
        name: &'static str,
        mkfs: &'static str,
        steps: &'static [Step],
        words: &'static [&'static str],
    ) -> Self {
        Self { oracle: Oracle::Refused(words), ..Self::new(name, 16, mkfs, steps) }
    }
}
