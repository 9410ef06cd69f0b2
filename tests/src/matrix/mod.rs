//! The matrix: images of every kind of ext4, each made by a [`Row`] of a table, and what the
//! kernel says of each compared with what `nvio` says.
//!
//! An image is made by mke2fs and then by [`Step`]s: trees made through a loop mount, copies taken
//! while it is mounted, debugfs, bytes written by hand. It is then read by an [`Oracle`], by the
//! library, by the library on the embedded controller, and by the command. The first two give a
//! [`Tree`](node::Tree), and what differs is listed.

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
    /// What is done to it then, in this order.
    pub steps: &'static [Step],
    /// Who says what is right.
    pub oracle: Oracle,
}

/// Who says what is in an image.
#[derive(Debug, Clone, Copy)]
pub enum Oracle {
    /// The kernel, through a read-only mount of the image itself.
    Kernel,
    /// The kernel, through a mount of a copy, which it may recover. `nvio` sees the image only.
    Recovered,
    /// debugfs, and the folder that the image was made of: for what this kernel cannot mount.
    Offline,
    /// Nobody: the image is refused, in a line that has all of these words.
    Refused(&'static [&'static str]),
}
