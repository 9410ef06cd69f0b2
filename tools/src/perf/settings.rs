//! The settings of a run, checked.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use nvio_perf::distribution::Distribution;
use nvio_perf::general::Size;
use nvio_perf::pace::Arrival;
use nvio_perf::plan::Latency;

/// The directions and the order of requests, in fio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rw {
    /// Reads at random positions.
    Randread,
    /// Reads in sequence.
    Read,
    /// Writes at random positions.
    Randwrite,
    /// Writes in sequence.
    Write,
    /// Reads and writes at random positions.
    Randrw,
    /// Reads and writes in sequence.
    #[value(alias = "rw")]
    Readwrite,
}

impl Rw {
    /// Returns the word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Randread => "randread",
            Self::Read => "read",
            Self::Randwrite => "randwrite",
            Self::Write => "write",
            Self::Randrw => "randrw",
            Self::Readwrite => "readwrite",
        }
    }

    /// Returns true if the load writes.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Randread | Self::Read)
    }

    /// Returns true if positions follow each other.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Readwrite)
    }

    /// Returns the percentage of reads; `mix` is that of a mixture.
    pub fn read_percent(self, mix: u64) -> u64 {
        match self {
            Self::Randread | Self::Read => 100,
            Self::Randwrite | Self::Write => 0,
            Self::Randrw | Self::Readwrite => mix,
        }
    }
}

/// The way of requests to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// Past files: to the namespace, or to a device or file of the kernel.
    #[value(skip)]
    Raw,
    /// The simple path, where it serves the request: reads of a block without a copy.
    Simple,
    /// The generic path, without a copy.
    Generic,
    /// With a copy through memory of the driver.
    Bounce,
    /// Through nvio's page cache.
    Buffered,
    /// Through nvio's page cache; writes are on their way to the device when they return.
    Writethrough,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::Simple, Self::Generic, Self::Bounce, Self::Buffered, Self::Writethrough];

    /// Returns the word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Simple => "simple",
            Self::Generic => "generic",
            Self::Bounce => "bounce",
            Self::Buffered => "buffered",
            Self::Writethrough => "writethrough",
        }
    }

    /// Returns true if requests go through the page cache.
    pub fn is_cached(self) -> bool {
        matches!(self, Self::Buffered | Self::Writethrough)
    }
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directions and order.
    pub rw: Rw,
    /// Percentage of reads in a mixture.
    pub mix: u64,
    /// Sizes of requests.
    pub sizes: Vec<Size>,
    /// Requests in flight of each thread.
    pub depth: u16,
    /// Threads of each row.
    pub threads: usize,
    /// Processors of the threads. Empty for all that the process may use.
    pub cpus: Vec<usize>,
    /// Duration of the measurement.
    pub time: Option<Duration>,
    /// Duration of the load before it.
    pub ramp: Duration,
    /// Requests of each row.
    pub count: Option<u64>,
    /// Bytes of the device or file, from the start, that requests go to.
    pub size: Option<u64>,
    /// Way of requests.
    pub way: Way,
    /// Distribution of positions.
    pub distribution: Distribution,
    /// Requests a second of each row.
    pub rate: Option<f64>,
    /// Arrival of requests with a rate.
    pub arrival: Arrival,
    /// Most requests for one doorbell.
    pub batch_submit: Option<usize>,
    /// Results to gather before the next submission.
    pub batch_complete: usize,
    /// Sleep until an interrupt when there is no result.
    pub interrupt: bool,
    /// Check the data of reads.
    pub verify: bool,
    /// Write the whole range first.
    pub prepare: bool,
    /// An earlier run has written the range.
    pub is_prepared: bool,
    /// Count errors and continue.
    pub go_on: bool,
    /// Seed of positions and patterns.
    pub seed: u64,
    /// Readings of the clock.
    pub latency: Latency,
    /// The command line, by which the run is repeated.
    pub command: Vec<OsString>,
}

/// Reads of 4 KiB at random positions of a device, one at a time, without an end.
impl Default for Settings {
    fn default() -> Self {
        Self {
            rw: Rw::Randread,
            mix: 0,
            sizes: vec![Size { bytes: 4096, weight: 1 }],
            depth: 1,
            threads: 1,
            cpus: Vec::new(),
            time: None,
            ramp: Duration::ZERO,
            count: None,
            size: None,
            way: Way::Raw,
            distribution: Distribution::Random,
            rate: None,
            arrival: Arrival::Poisson,
            batch_submit: None,
            batch_complete: 1,
            interrupt: false,
            verify: false,
            prepare: false,
            is_prepared: false,
            go_on: false,
            seed: 1,
            latency: Latency::Batch,
            command: Vec::new(),
        }
    }
}

impl Settings {
    /// Returns the command line as text.
    pub fn words(&self) -> Vec<String> {
        self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Largest request in bytes.
    pub fn bytes_max(&self) -> usize {
        self.sizes.iter().map(|size| size.bytes).max().unwrap_or(0)
    }

    /// Largest unit that all requests consist of, in bytes.
    pub fn unit(&self) -> u64 {
        self.sizes.iter().fold(0, |unit, size| gcd(unit, size.bytes as u64))
    }

    /// Returns true if data is written, to prepare or by the load.
    pub fn writes(&self) -> bool {
        self.rw.writes() || self.prepare
    }

    /// Returns true if each thread has a part of the range: for sequences, which would read each block
    /// once for each thread, and for verification, because no thread knows what another one writes.
    pub fn has_parts(&self) -> bool {
        self.verify || self.prepare || self.distribution == Distribution::Sequential
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Sizes with their weights, in the syntax of --bs.
pub struct Sizes<'s>(pub &'s [Size]);

impl fmt::Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, size) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}", short(size.bytes as u64))?;
            if self.0.len() > 1 {
                write!(f, ":{}", size.weight)?;
            }
        }
        Ok(())
    }
}

/// Formats a size that is a multiple of 1024 with a unit.
fn short(bytes: u64) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        _ => bytes.to_string(),
    }
}
