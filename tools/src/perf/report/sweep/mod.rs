//! The forms of the result of a sweep.

pub mod csv;
pub mod json;
pub mod svg;
pub mod table;
