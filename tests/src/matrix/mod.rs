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

pub use make::{Made, Oracle, Row, Step};
