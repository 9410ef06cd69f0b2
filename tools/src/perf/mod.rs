//! `nvio perf`: devices and files under load.
//!
//! [`rows`] opens the devices, [`threads`] runs the engine of `nvio-perf` on each, [`environment`]
//! describes the machine, and [`report`] prints the result.

pub mod environment;
pub mod live;
pub mod measurement;
pub mod report;
pub mod rows;
pub mod settings;
pub mod threads;
