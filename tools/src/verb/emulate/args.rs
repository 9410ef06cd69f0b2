//! The options of `nvio emulate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use nvio_emulator::Rule;

use super::fault::{Rate, rate, rule};
use super::units::{size, time};
use crate::cli::{identify_text, lba_size};

/// A controller to be served.
#[derive(Clone, Debug, Args)]
pub struct EmulateArgs {
    /// What is behind the namespaces: image files or block devices, memory:SIZE, or null:SIZE,
    /// which moves no data. Without --nsid the first is namespace 1, the next 2, and so on.
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(source))]
    pub images: Vec<Source>,
    /// Where to listen. A socket that a dead process left there is replaced.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Let clients write to the images. Without it the namespaces are write protected.
    #[arg(long)]
    pub writable: bool,
    /// Seed of jitter, fault rates and power cuts: the same seed, the same lots.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub namespaces: NamespaceArgs,
    #[command(flatten)]
    pub controller: FeatureArgs,
    #[command(flatten)]
    pub speed: SpeedArgs,
    #[command(flatten)]
    pub faults: FaultArgs,
}

/// What namespaces are like: one value for all of them, or one for each, with commas between.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Namespaces (one value for all, or one,for,each)")]
pub struct NamespaceArgs {
    /// Size of a logical block.
    #[arg(long, value_parser = lba_size, value_delimiter = ',', default_value = "512", value_name = "512|4096")]
    pub lba_size: Vec<u32>,
    /// Namespace identifiers, one for each.
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=nvio_emulator::MAX_NSID as i64))]
    pub nsid: Vec<u32>,
    /// Optimal I/O boundary in blocks; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "BLOCKS")]
    pub noiob: Vec<u16>,
    /// Metadata for each block, a multiple of 4 up to 128; 0 is none. That of an image is kept in
    /// a file beside it, IMAGE.meta.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "BYTES")]
    pub metadata: Vec<u16>,
    /// Transfer metadata at the end of each block, not in a buffer of its own.
    #[arg(long)]
    pub extended: bool,
    /// Protection information of this type in the metadata; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "0..3", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub protection: Vec<u8>,
    /// Protection information is in the first eight bytes of the metadata, not in the last.
    #[arg(long)]
    pub protection_first: bool,
}

/// What the controller offers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Controller")]
pub struct FeatureArgs {
    /// Largest transfer of one command: the smallest page times two to this power; 0 is no limit.
    #[arg(long, value_name = "POWER", default_value_t = 5, value_parser = clap::value_parser!(u8).range(..=15))]
    pub mdts: u8,
    /// I/O queue pairs.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=65_534))]
    pub queues: u16,
    /// Most entries of an I/O queue.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub queue_entries: u32,
    /// Smallest host page, a power of two from 4K to 128M.
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = page_size)]
    pub min_page_size: u32,
    /// Largest host page, a power of two from the smallest to 128M.
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = page_size)]
    pub max_page_size: u32,
    /// Bytes from one doorbell to the next, a power of two from 4 to 128K.
    #[arg(long, value_name = "SIZE", default_value = "4", value_parser = page_size)]
    pub doorbell_stride: u32,
    /// Let the host lend memory for doorbells (Doorbell Buffer Config).
    #[arg(long)]
    pub shadow_doorbells: bool,
    /// Let I/O commands use scatter gather lists.
    #[arg(long)]
    pub sgl: bool,
    /// Offer a Controller Memory Buffer for submission queues, of up to 1G.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cmb: Option<u64>,
    /// The Controller Memory Buffer is one as before NVMe 1.4.
    #[arg(long, requires = "cmb")]
    pub legacy_cmb: bool,
    /// Give each writable namespace a volatile write cache, of 64K to 1G. SIGUSR1 then cuts the
    /// power: what is in it is stored or lost block by block, and the controller is reset.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub write_cache: Option<u64>,
    /// Blocks of the largest write that is atomic.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1)]
    pub atomic: u32,
    /// Blocks of the largest write that is atomic when the power fails.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1)]
    pub atomic_power_fail: u32,
    /// Offer Format NVM.
    #[arg(long)]
    pub format_nvm: bool,
    /// Offer namespace management, and so much memory to create namespaces of.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub unallocated: Option<u64>,
    /// Serial number: up to 20 characters of printable ASCII.
    #[arg(long, value_parser = identify_text::<20>)]
    pub serial: Option<String>,
    /// Model number: up to 40 characters of printable ASCII.
    #[arg(long, value_parser = identify_text::<40>)]
    pub model: Option<String>,
}

/// How fast it is.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Speed (of I/O commands; as fast as this machine without)")]
pub struct SpeedArgs {
    /// Least time from a command's start to its end, such as 80us.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub latency: Duration,
    /// Up to this much more, evenly spread.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub jitter: Duration,
    /// Commands a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub iops: Option<u64>,
    /// Bytes a second at most, such as 7GB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bandwidth: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Faults")]
pub struct FaultArgs {
    /// Make something go wrong with the commands that match; may be given more than once.
    ///
    /// The form is `FAULT[,CONDITION]...`, such as `status=unrecovered-read-error,op=read,lba=8-15`.
    ///
    /// FAULT is one of status=NAME or status=TYPE/CODE (the command is not executed), late=TIME,
    /// lost (no completion), not-abortable, duplicate, stale-id, unknown-id=N (completions that
    /// are wrong), fatal (CSTS.CFS), stuck-ready=TIME and stuck-not-ready=TIME (CSTS.RDY, at the
    /// next reset and enabling), removed, event=TYPE/INFORMATION/LOG.
    ///
    /// CONDITION is one of op=NAME or op=N (read, write, flush, compare, write-zeroes,
    /// deallocate, verify, copy, identify, ...), admin (admin commands, where op does not say so),
    /// nsid=N, lba=N or lba=FIRST-LAST, nth=N (only the Nth that matches), from=N (from the Nth
    /// on), times=N (so many times).
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub fault: Vec<Rule>,
    /// Make a FAULT happen to so many of a million I/O commands, such as lost=100,late=5000.
    #[arg(long, value_name = "FAULT=PPM", value_delimiter = ',', value_parser = rate)]
    pub fault_rate: Vec<Rate>,
    /// The longest delay of commands that are late by --fault-rate.
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = time)]
    pub late_up_to: Duration,
    /// The longest time that CSTS.RDY is stuck by --fault-rate.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time)]
    pub stuck_up_to: Duration,
}

/// What is behind a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image file or a block device.
    Image(PathBuf),
    /// Memory of this many bytes.
    Memory(u64),
    /// Nothing, of this many bytes.
    Null(u64),
}

/// A path, unless it says otherwise; `./memory:1` is a path.
fn source(text: OsString) -> Result<Source, String> {
    let sized = |prefix| text.to_str().and_then(|text| text.strip_prefix(prefix));
    match (sized("memory:"), sized("null:")) {
        (Some(bytes), _) => Ok(Source::Memory(size(bytes)?)),
        (_, Some(bytes)) => Ok(Source::Null(size(bytes)?)),
        _ => Ok(Source::Image(text.into())),
    }
}

fn page_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes).map_err(|_| "it is more than 32 bits hold".to_owned())
}
