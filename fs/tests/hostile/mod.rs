//! Damaged and hostile filesystems: what the suite `damage`, the fuzz targets, and the tests that
//! replay their corpora have in common.
//!
//! Images are made by e2fsprogs. Where their structures are, and what their checksums must be, is
//! computed here, by code that shares nothing with the library.

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
