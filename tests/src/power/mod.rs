//! Power cuts: a workload of buffered, writethrough and direct writes is recorded command by command
//! ([`record`]), and the power is cut at each event of the record ([`check`]).
//!
//! At a cut, writes that were not flushed are lost or not, each on its own, whole or by logical block.
//! Data that the workload was told is durable must be there; any other block has one of the values that
//! it had since.

pub mod check;
pub mod record;
pub mod workload;
