//! The options of `nvio emulate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use nvio_driver::spec::{GuardFormat, InformationFormat};
use nvio_emulator::{Quirk, Rule};

use super::fault::{Rate, rate, rule};
use crate::args::{identify_text, lba_size, names};
use crate::units::{size, time};

/// The controller that is served.
#[derive(Clone, Debug, Args)]
pub struct EmulateArgs {
    /// The backing of each namespace: an image file or block device, memory:SIZE, or null:SIZE,
    /// which moves no data. Without --nsid the first is namespace 1, the next 2, and so on.
    #[arg(required = true, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(source))]
    pub images: Vec<Source>,
    /// Path of the socket. A socket left by a process that has ended is replaced.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Let clients write to the images. Without it the namespaces are write protected.
    #[arg(long)]
    pub writable: bool,
    /// Seed of jitter, fault rates and power cuts. Equal seeds repeat a run.
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

/// Options of namespaces: one value for all, or one for each, separated by commas.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Namespaces (one value for all, or one,for,each)")]
pub struct NamespaceArgs {
    /// Size of a logical block in bytes.
    #[arg(long, value_parser = lba_size, value_delimiter = ',', default_value = "512", value_name = "512|4096")]
    pub lba_size: Vec<u32>,
    /// Namespace identifiers, one for each image.
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=nvio_emulator::NSID_MAX as i64))]
    pub nsid: Vec<u32>,
    /// Optimal I/O boundary in blocks; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "BLOCKS")]
    pub noiob: Vec<u16>,
    /// Size of the metadata of each block, a multiple of 4 up to 128; 0 is none. The metadata of an
    /// image is kept in the file IMAGE.meta.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "SIZE", value_parser = size::<u16>)]
    pub metadata: Vec<u16>,
    /// Transfer metadata at the end of each block, not in a separate buffer.
    #[arg(long)]
    pub extended: bool,
    /// Type of the protection information in the metadata, 1 to 3; 0 is none.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "0..3", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub protection: Vec<u8>,
    /// Bits of the guard in the protection information. With 32, the reference tag has 64 bits and a
    /// storage tag 16.
    #[arg(long, value_delimiter = ',', default_value = "16", value_name = "16|32|64", value_parser = information)]
    pub guard: Vec<InformationFormat>,
    /// Store protection information in the first bytes of the metadata, not in the last.
    #[arg(long)]
    pub protection_first: bool,
}

/// Features of the controller.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Controller")]
pub struct FeatureArgs {
    /// Largest transfer of a command (MDTS): the smallest page times two to this power; 0 is no
    /// limit.
    #[arg(long, value_name = "POWER", default_value_t = 5, value_parser = clap::value_parser!(u8).range(..=15))]
    pub mdts: u8,
    /// Number of I/O queue pairs.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=65_534))]
    pub queues: u16,
    /// Maximum number of entries of an I/O queue.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub queue_entries: u32,
    /// Smallest host page, a power of two from 4K to 128M.
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = size::<u32>)]
    pub min_page_size: u32,
    /// Largest host page, a power of two from the smallest to 128M.
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = size::<u32>)]
    pub max_page_size: u32,
    /// Bytes from one doorbell to the next, a power of two from 4 to 128K.
    #[arg(long, value_name = "SIZE", default_value = "4", value_parser = size::<u32>)]
    pub doorbell_stride: u32,
    /// Offer shadow doorbells in host memory (Doorbell Buffer Config).
    #[arg(long)]
    pub shadow_doorbells: bool,
    /// Offer scatter gather lists for I/O commands.
    #[arg(long)]
    pub sgl: bool,
    /// Offer a Controller Memory Buffer for submission queues, of up to 1G.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub cmb: Option<u64>,
    /// Announce the Controller Memory Buffer as controllers before NVMe 1.4 do.
    #[arg(long, requires = "cmb")]
    pub legacy_cmb: bool,
    /// Size of the volatile write cache of each writable namespace, 64K to 1G. SIGUSR1 then cuts
    /// the power: each block in the cache is stored or lost, and the controller is reset.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub write_cache: Option<u64>,
    /// Blocks of the largest atomic write.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1)]
    pub atomic: u32,
    /// Blocks of the largest write that is atomic when the power fails.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1)]
    pub atomic_power_fail: u32,
    /// Offer Format NVM.
    #[arg(long)]
    pub format_nvm: bool,
    /// Offer namespace management, with this much memory for new namespaces.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub unallocated: Option<u64>,
    /// Require working interrupts, as SPDK's target does: until the client sets Interrupt Disable
    /// in the PCI Command register or connects an eventfd, the first completion sets CSTS.CFS.
    #[arg(long)]
    pub intx: bool,
    /// Play an old or unusual controller. May be repeated.
    #[arg(long = "quirk", value_name = "NAME", value_parser = names::<Quirk>(Quirk::ALL.map(|quirk| (quirk.name(), quirk.about()))))]
    pub quirks: Vec<Quirk>,
    /// PCI vendor and device ID in hexadecimal, by which drivers know the quirks of a controller.
    #[arg(long, value_name = "VENDOR:DEVICE", value_parser = pci_id)]
    pub pci_id: Option<(u16, u16)>,
    /// Serial number: up to 20 characters of printable ASCII.
    #[arg(long, value_parser = identify_text::<20>)]
    pub serial: Option<String>,
    /// Model number: up to 40 characters of printable ASCII.
    #[arg(long, value_parser = identify_text::<40>)]
    pub model: Option<String>,
}

/// Speed of the controller.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Speed of I/O commands (default: as fast as this machine)")]
pub struct SpeedArgs {
    /// Minimum latency of a command, such as 80us.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub latency: Duration,
    /// Additional latency, evenly distributed from 0 to this time.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub jitter: Duration,
    /// Maximum number of commands per second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub iops: Option<u64>,
    /// Maximum bandwidth in bytes per second, such as 7GB.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub bandwidth: Option<u64>,
}

/// Faults to inject.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Faults")]
pub struct FaultArgs {
    /// Inject a fault into the commands that match. May be repeated.
    ///
    /// The form is `FAULT[,CONDITION]...`, such as
    /// `status=unrecovered-read-error,op=read,lba=8-15`.
    ///
    /// FAULT is one of status=NAME or status=TYPE/CODE (the command is not executed), late=TIME,
    /// lost (no completion), not-abortable, duplicate, stale-id, unknown-id=N (wrong
    /// completions), old-version (the next read of the first block of a write returns the block before
    /// it), fatal (CSTS.CFS), stuck-ready=TIME and stuck-not-ready=TIME (CSTS.RDY, at the
    /// next reset and enabling), removed, event=TYPE/INFORMATION/LOG.
    ///
    /// CONDITION is one of op=NAME or op=N (read, write, flush, compare, write-zeroes,
    /// deallocate, verify, copy, identify, ...), admin (admin commands, if op is a number), nsid=N,
    /// lba=N or lba=FIRST-LAST, nth=N (only the Nth match), from=N (from the Nth match on), times=N
    /// (at most N times).
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub fault: Vec<Rule>,
    /// Rate of a FAULT per million I/O commands, such as lost=100,late=5000.
    #[arg(long, value_name = "FAULT=PPM", value_delimiter = ',', value_parser = rate)]
    pub fault_rate: Vec<Rate>,
    /// Longest delay of commands that --fault-rate makes late.
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = time)]
    pub late_up_to: Duration,
    /// Longest time that --fault-rate keeps CSTS.RDY stuck.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time)]
    pub stuck_up_to: Duration,
}

/// The backing of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image file or a block device.
    Image(PathBuf),
    /// Memory of this many bytes.
    Memory(u64),
    /// No data, with a size of this many bytes.
    Null(u64),
}

/// Parses memory:SIZE and null:SIZE; all other text is a path, such as `./memory:1`.
fn source(text: OsString) -> Result<Source, String> {
    let sized = |prefix| text.to_str().and_then(|text| text.strip_prefix(prefix));
    match (sized("memory:"), sized("null:")) {
        (Some(bytes), _) => Ok(Source::Memory(size(bytes)?)),
        (_, Some(bytes)) => Ok(Source::Null(size(bytes)?)),
        _ => Ok(Source::Image(text.into())),
    }
}

/// Parses two identifiers in hexadecimal, such as `144d:a821`.
fn pci_id(text: &str) -> Result<(u16, u16), &'static str> {
    let half = |text| u16::from_str_radix(text, 16).ok();
    let ids = text.split_once(':').and_then(|(vendor, device)| half(vendor).zip(half(device)));
    ids.ok_or("expected two hexadecimal numbers, such as 144d:a821")
}

/// Parses the width of a guard.
fn information(text: &str) -> Result<InformationFormat, &'static str> {
    let format = match text {
        "16" => Some(InformationFormat::USUAL),
        "32" => InformationFormat::new(GuardFormat::Bits32, 16),
        "64" => InformationFormat::new(GuardFormat::Bits64, 0),
        _ => None,
    };
    format.ok_or("a guard has 16, 32 or 64 bits")
}
