//! Options that several verbs share.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ColorChoice};
use nvio::driver::Quirk;
use nvio::{DeviceName, OpenOptions};

use crate::error::Error;
use crate::units::{size, time};

/// Text or JSON.
#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Write JSON; sizes and positions are in bytes.
    #[arg(long)]
    pub json: bool,
}

/// Human-readable sizes: `-h`, as in du and df, which therefore is not the help.
#[derive(Clone, Copy, Debug, Args)]
pub struct Human {
    /// Show sizes in K, M, G (powers of 1024).
    #[arg(short = 'h', long = "human-readable")]
    pub human: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Colours of names.
#[derive(Clone, Copy, Debug, Args)]
pub struct ColorArgs {
    /// Colour names as LS_COLORS says. By default on a terminal, unless NO_COLOR is set.
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "auto",
        default_missing_value = "always"
    )]
    pub color: ColorChoice,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ControllerArgs {
    /// PCI address, vfio-user:SOCKET or image.
    #[arg(value_name = "DEVICE")]
    pub device: DeviceName,
    /// Namespace ID. By default the only namespace, or 1 if there are several.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub namespace: Option<u32>,
    /// Logical block of an image in bytes.
    #[arg(long, value_parser = lba_size, default_value = "512", value_name = "512|4096")]
    pub lba_size: u32,
    #[command(flatten)]
    pub driver: DriverArgs,
}

/// Bounds of the commands to a controller, and workarounds for it.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct DriverArgs {
    /// Longest time of an I/O command before it is aborted, such as 90s or 5m.
    #[arg(long, value_parser = bound, default_value = "60s", value_name = "TIME")]
    pub timeout: Duration,
    /// Longest time of an admin command before the controller is reset.
    #[arg(long, value_parser = bound, default_value = "10s", value_name = "TIME")]
    pub admin_timeout: Duration,
    /// Repeat a read or write this many times after an error that may pass.
    #[arg(long, default_value = "5", value_name = "N")]
    pub retries: u8,
    /// Work around a controller that differs from the specification, besides the known ones. May be
    /// repeated.
    #[arg(long = "quirk", value_name = "NAME", value_parser = names::<Quirk>(Quirk::ALL.map(|quirk| (quirk.name(), quirk.about()))))]
    pub quirks: Vec<Quirk>,
}

impl DriverArgs {
    /// Adds the bounds and the workarounds to the options of a device.
    pub fn apply(&self, options: OpenOptions) -> OpenOptions {
        let bounded = options.timeout(self.timeout).admin_timeout(self.admin_timeout);
        let bounded = bounded.retries(self.retries);
        self.quirks.iter().fold(bounded, |options, quirk| options.quirk(*quirk))
    }
}

/// Returns a parser of values that have these names and descriptions.
pub fn names<T: FromStr<Err: std::error::Error + Send + Sync> + Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> impl TypedValueParser<Value = T> {
    let values = names.into_iter().map(|(name, about)| PossibleValue::new(name).help(about));
    PossibleValuesParser::new(values).try_map(|name| name.parse())
}

/// Parses a time of at least a millisecond, the resolution of time-outs.
fn bound(text: &str) -> Result<Duration, &'static str> {
    match time(text)? {
        short if short < Duration::from_millis(1) => Err("expected at least 1ms"),
        time => Ok(time),
    }
}

/// The confirmation of a command that destroys stored data.
#[derive(Clone, Copy, Debug, Args)]
pub struct DestroyArgs {
    /// Confirm that stored data is destroyed, without which nothing is changed.
    #[arg(long)]
    pub yes_destroy_data: bool,
}

impl DestroyArgs {
    /// Checks that the user has confirmed.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`].
    pub fn check(self, device: &DeviceName) -> Result<(), Error> {
        match self.yes_destroy_data {
            true => Ok(()),
            false => Err(Error::Unconfirmed { device: device.to_string() }),
        }
    }
}

/// A filesystem on a controller.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct VolumeArgs {
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Partition number (GPT or MBR), which `nvio partitions` shows. By default the filesystem is
    /// the whole namespace.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partition: Option<u32>,
    /// Begin at this byte of the device or partition: for a filesystem without a partition table,
    /// in firmware or an Android super image.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub fs_offset: Option<u64>,
    /// Device of an external journal; DEVICE again if the journal is on another namespace or
    /// partition of it. Needed if the journal needs recovery.
    #[arg(long, value_name = "DEVICE")]
    pub journal: Option<DeviceName>,
    /// Namespace ID of the journal.
    #[arg(long, value_name = "N", requires = "journal", value_parser = clap::value_parser!(u32).range(1..))]
    pub journal_namespace: Option<u32>,
    /// Partition number of the journal.
    #[arg(long, value_name = "N", requires = "journal", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub journal_partition: Option<u32>,
    #[command(flatten)]
    pub rescue: RescueArgs,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

impl VolumeArgs {
    /// Returns the images among the devices.
    pub fn images(&self) -> Vec<PathBuf> {
        let devices = [Some(&self.controller.device), self.journal.as_ref()];
        let image = |device: &'_ DeviceName| match device {
            DeviceName::Image(path) => Some(path.clone()),
            DeviceName::Address(_) => None,
        };
        devices.into_iter().flatten().filter_map(image).collect()
    }
}

/// Options for reading a damaged filesystem. Nothing is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Args)]
pub struct RescueArgs {
    /// Use the copy of the superblock in this block, as e2fsck -b does.
    #[arg(long, value_name = "BLOCK")]
    pub superblock: Option<u64>,
    /// Block size that --superblock counts in. By default all sizes are tried.
    #[arg(long, value_name = "SIZE", requires = "superblock", value_parser = block_size)]
    pub block_size: Option<u32>,
    /// Do not read the journal, as mount -o ro,noload. The newest changes may be missing.
    #[arg(long)]
    pub noload: bool,
    /// Read the filesystem even if multi-mount protection says that another host uses it.
    #[arg(long)]
    pub ignore_mmp: bool,
}

/// Options of the metadata cache.
#[derive(Clone, Copy, Debug, PartialEq, Args)]
pub struct MemoryArgs {
    /// Size of the cache of inode tables, directories and other metadata.
    #[arg(long, value_name = "SIZE", value_parser = size::<usize>, default_value = "16M")]
    pub cache: usize,
    /// Amount of metadata to read ahead at a time, at most a quarter of --cache.
    #[arg(long, value_name = "SIZE", value_parser = size::<usize>, default_value = "4M")]
    pub read_ahead: usize,
    /// Read each metadata block when it is needed.
    #[arg(long, conflicts_with = "read_ahead")]
    pub no_read_ahead: bool,
}

impl MemoryArgs {
    /// Returns the number of bytes of metadata that are read ahead at a time.
    pub fn read_ahead_bytes(self) -> usize {
        if self.no_read_ahead { 0 } else { self.read_ahead }
    }
}

fn block_size(text: &str) -> Result<u32, String> {
    let bytes = size::<u32>(text)?;
    let is_good = bytes.is_power_of_two() && (1024..=65_536).contains(&bytes);
    if is_good { Ok(bytes) } else { Err("a power of two from 1024 to 65536".to_owned()) }
}

pub(crate) fn lba_size(text: &str) -> Result<u32, &'static str> {
    let bytes = size(text).ok().filter(|bytes| [512, 4096].contains(bytes));
    bytes.ok_or("a block is 512 or 4096 bytes")
}

pub(crate) fn identify_text<const MOST: usize>(text: &str) -> Result<String, String> {
    let good = text.len() <= MOST && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if good { Ok(text.to_owned()) } else { Err(format!("up to {MOST} printable ASCII characters")) }
}
