//! `nvio perf`: devices and files under load.
//!
//! [`rows`] opens the devices, [`threads`] runs the engine of `nvio-perf` on each, [`session`] runs one
//! load after the other, [`sweep`] several by turns, [`environment`] describes the machine, and
//! [`report`] prints the result.

pub mod baseline;
pub mod change;
pub mod environment;
pub mod live;
pub mod measurement;
pub mod report;
pub mod rows;
pub mod session;
pub mod settings;
pub mod sweep;
pub mod threads;
