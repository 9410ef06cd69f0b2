//! The load of `nvio perf`: requests in flight, their positions, the clock and the latencies.
//!
//! [`engine::run`] keeps requests in flight on a [`Target`](target::Target), which is a namespace
//! ([`raw`], or [`split_raw`] for requests of several commands), a file past the cache ([`mod@file`]) or a file through the cache ([`cached`]). A
//! [`Workload`](workload::Workload) chooses the requests. The [`Clock`](clock::Clock) is a parameter,
//! so that tests count latencies on a clock of their own.
//!
//! The loop of the engine has no allocation, no `dyn`, no division and no system call for each I/O.
#![forbid(unsafe_code)]

pub mod cached;
pub mod clock;
pub mod distribution;
pub mod engine;
pub mod file;
pub mod general;
pub mod latency;
pub mod outcome;
pub mod pace;
pub mod pattern;
pub mod plan;
pub mod random;
pub mod raw;
mod sleep;
mod slots;
pub mod split_raw;
pub mod target;
pub mod uniform;
pub mod verify;
pub mod workload;
