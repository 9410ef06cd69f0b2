//! The matrix: images of every kind of ext4, each described by a [`Row`], and the comparison of the
//! kernel's view of each with that of `nvio`.
//!
//! An image is created by mke2fs and then by [`Step`]s: trees created through a loop mount, copies
//! made while it is mounted, debugfs, and changed bytes. It is then read by an [`Oracle`], by the
//! library, by the library on the embedded controller, and by the command. The first two yield a
//! [`Tree`](node::Tree), and the differences are listed.

pub mod check;
mod command;
pub mod contents;
mod controller;
mod kernel;
mod library;
pub mod make;
pub mod node;
mod offline;
pub mod rows;

pub use make::{Made, Step};

/// One image of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name of the image, of its test, and in `ext4-rows.md`.
    pub name: &'static str,
    /// Size in MiB.
    pub mib: u64,
    /// Options of mke2fs.
    pub mkfs: &'static str,
    /// Steps after mke2fs, in order.
    pub steps: &'static [Step],
    /// Source of the expected tree.
    pub oracle: Oracle,
}

/// The source of the expected tree.
#[derive(Debug, Clone, Copy)]
pub enum Oracle {
    /// The kernel, through a read-only mount of the image itself.
    Kernel,
    /// The kernel, through a mount of a copy that it may recover. `nvio` reads the original image.
    Recovered,
    /// debugfs, and the folder that the image was created from, for images that this kernel cannot
    /// mount.
    Offline,
    /// None: the image is rejected with a line that contains all of these words.
    Refused(&'static [&'static str]),
}
