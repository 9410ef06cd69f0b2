//! Damaged and hostile filesystems: the common part of the suite `damage`, the fuzz targets, and
//! the tests that replay their corpora.
//!
//! Images are created by e2fsprogs. The places of their structures and their checksums are computed
//! by code that shares nothing with the library.

pub mod base;
pub mod bytes;
pub mod campaign;
pub mod contents;
pub mod fields;
pub mod fuzz;
pub mod journal;
pub mod layout;
pub mod maps;
pub mod memory;
pub mod mutant;
pub mod seal;
pub mod source;
pub mod view;
