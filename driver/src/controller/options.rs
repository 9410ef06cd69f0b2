//! The options with which a controller is opened.

use std::time::Duration;

use crate::quirks::Quirks;

/// The options of [`Controller::open_with`](crate::Controller::open_with).
///
/// ```
/// use std::time::Duration;
///
/// use nvio_driver::Options;
///
/// let options = Options { writable: true, io_timeout: Duration::from_secs(5), ..Options::default() };
/// assert_eq!(options.arena_bytes, 64 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the DMA arena, from which queues and buffers are allocated. It is locked in memory.
    pub arena_bytes: usize,
    /// Number of I/O queue pairs to request, 1 to 65,535. The controller may grant fewer.
    pub queues: u16,
    /// Longest time of an admin command. The controller is reset when it has passed.
    ///
    /// The smaller of this and [`io_timeout`](Self::io_timeout), but at least 1 s, is also the
    /// longest wait for a reply of a vfio-user server.
    pub admin_timeout: Duration,
    /// Longest time of an I/O command, for each attempt; more than 9 hours count as 9 hours. A
    /// command that takes longer is aborted. The controller is reset if the aborted command does
    /// not complete within the smaller of this time and [`admin_timeout`](Self::admin_timeout).
    pub io_timeout: Duration,
    /// Number of times that a command is submitted again after an error, before its submitter sees
    /// the error: after a status without Do Not Retry, after
    /// [`io_timeout`](Self::io_timeout), and after a reset of the controller that was not requested.
    /// 0 by default.
    ///
    /// Read, Verify, Write and Write Zeroes are repeated, whose second execution has the effect of
    /// the first. Compare, Copy, Dataset Management, Flush and all others are not. The first
    /// repetition follows at once, further ones after 100 ms, or after the controller's Command
    /// Retry Delay (Base figure 93); a delay of `io_timeout` or more is not waited for. Attempts are
    /// counted in [`Counters::retries`](crate::Counters::retries).
    pub retries: u8,
    /// Most bytes of one command; the controller's own limit (MDTS) may be lower. Above 2 MiB, the
    /// PRP lists of each command of a queue need more than a page of the arena.
    pub max_transfer: usize,
    /// Allows commands that change stored data; see
    /// [`Controller::writable`](crate::Controller::writable).
    pub writable: bool,
    /// Uses shadow doorbells in host memory if the controller supports them (Base 5.8). They help
    /// with virtual controllers, where a write to a doorbell register is a VM exit.
    pub shadow_doorbells: bool,
    /// Places submission queues in the Controller Memory Buffer (Base 8.5), if there is one with
    /// room for them. The controller then does not fetch commands from the host, but storing a
    /// command takes longer.
    pub controller_memory_queues: bool,
    /// The way in which [`QueuePair::wait`](crate::QueuePair::wait) waits.
    pub wait: Wait,
    /// Workarounds, besides those that are known of the PCI function ([`Quirks::of`]).
    pub quirks: Quirks,
}

/// The way to wait for completions; see [`Options::wait`].
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use nvio_driver::{Options, Wait};
///
/// // Poll for 20 microseconds before each sleep.
/// let wait = Wait::Interrupt { spin: Duration::from_micros(20) };
/// let options = Options { wait, ..Options::default() };
/// assert_eq!(Options::default().wait, Wait::Poll);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Polling: the lowest latency, at the cost of a whole processor.
    #[default]
    Poll,
    /// Polling for a while, then sleeping until an interrupt (PCIe 3.5). Queue pairs without a
    /// vector of MSI-X or MSI are polled.
    Interrupt {
        /// Time of polling before each sleep. A sleep costs two system calls and the wake-up.
        spin: Duration,
    },
}

impl Default for Options {
    /// Returns the defaults: an arena of 64 MiB, 64 queue pairs, 10 s for admin commands, 60 s for
    /// I/O, because network volumes may stall for longer than 30 s, no repetitions of commands,
    /// transfers of at most 2 MiB, read-only, shadow doorbells, queues in host memory,
    /// polling, no quirks besides the known ones.
    fn default() -> Self {
        Self {
            arena_bytes: 64 << 20,
            queues: 64,
            admin_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(60),
            retries: 0,
            max_transfer: 2 << 20,
            writable: false,
            shadow_doorbells: true,
            controller_memory_queues: false,
            wait: Wait::Poll,
            quirks: Quirks::NONE,
        }
    }
}
