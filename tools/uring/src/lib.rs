//! The kernel's direct I/O, with which `nvio perf --kernel` compares.
//!
//! [`open`](place::Place::open) opens a block device, a file or a generic NVMe device. A
//! [`Kernel`](queue::Kernel) is a queue to it by io_uring, with registered buffers and a registered
//! file, as fast programs use the kernel: completions are polled if the kernel's driver has poll
//! queues. Requests to a generic NVMe device are NVMe commands (passthrough), other requests are reads
//! and writes with O_DIRECT.
#![deny(clippy::undocumented_unsafe_blocks)]

mod memory;
mod passthrough;
pub mod place;
pub mod queue;
