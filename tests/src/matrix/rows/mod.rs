//! The table of images, by topic.

mod attributes;
mod directories;
mod features;
mod journal;
mod layout;
mod maps;

use super::contents::{folder, pointers, standard};
use super::{Oracle, Row, Step};

/// Returns all rows.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    [layout::ROWS, maps::ROWS, directories::ROWS, attributes::ROWS, journal::ROWS, features::ROWS]
        .into_iter()
        .flatten()
}

/// Returns the row `name`.
pub fn row(name: &str) -> &'static Row {
    rows().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
}

impl Row {
    /// Creates a row that the kernel mounts as it is.
    const fn new(name: &'static str, mib: u64, mkfs: &'static str, steps: &'static [Step]) -> Self {
        Self { name, mib, mkfs, steps, oracle: Oracle::Kernel }
    }

    /// Creates a row with the standard tree and these options of mke2fs.
    const fn standard(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self::new(name, mib, mkfs, &[Step::Mounted("", standard)])
    }

    /// Creates a row of a filesystem with block pointers.
    const fn pointers(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self::new(name, mib, mkfs, &[Step::Mounted("", pointers)])
    }

    /// Creates a row that this kernel cannot mount. The image is created from a folder.
    const fn folder(name: &'static str, mib: u64, mkfs: &'static str) -> Self {
        Self { oracle: Oracle::Offline, ..Self::new(name, mib, mkfs, &[Step::Folder(folder)]) }
    }

    /// Creates a row of an image that is copied while it is mounted.
    const fn dirty(
        name: &'static str,
        mib: u64,
        mkfs: &'static str,
        steps: &'static [Step],
    ) -> Self {
        Self { oracle: Oracle::Recovered, ..Self::new(name, mib, mkfs, steps) }
    }

    /// Creates a row that is rejected with a line that contains these words.
    const fn refused(
        name: &'static str,
        mkfs: &'static str,
        steps: &'static [Step],
        words: &'static [&'static str],
    ) -> Self {
        Self { oracle: Oracle::Refused(words), ..Self::new(name, 16, mkfs, steps) }
    }
}
