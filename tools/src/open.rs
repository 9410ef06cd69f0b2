//! Opens the device or the filesystem that a command line names.

use std::path::Path;
use std::time::Duration;

use nvio::driver::{Address, Options, Wait};
use nvio::ext4::Recovery;
use nvio::{
    Device, DeviceName, Inode, Inspected, JournaledVolume, Location, OpenOptions, PartitionTable,
    Volume, WritableVolume,
};

use crate::args::{ControllerArgs, VolumeArgs};
use crate::error::Error;
use crate::interrupt;
use crate::session;
use crate::steps;
use crate::warning;

/// Size of the DMA arena in bytes. Two queues and their bounce memory need about 4 MiB. Most
/// systems let a user lock 8 MiB, so that root is not needed, and pinning them is quick.
const ARENA_BYTES: usize = 8 << 20;

/// Size of the DMA arena of a mount in bytes: for the cache, and for as many queues as it has threads.
const MOUNT_ARENA_BYTES: usize = 64 << 20;

/// Opens a controller.
///
/// # Errors
/// If the device cannot be opened, or the image cannot be served.
pub fn device(args: &ControllerArgs) -> Result<Device, Error> {
    let device = controller_options(args).open_device(args.device.clone())?;
    steps::controller_opened(args, &device);
    Ok(device)
}

/// Calls `run` with an open controller: that of the batch, or one that is opened for the call.
///
/// # Errors
/// As [`device`], or the error of `run`.
pub fn with_device<T>(
    args: &ControllerArgs,
    run: impl FnOnce(&Device) -> Result<T, Error>,
) -> Result<T, Error> {
    let volume = session::device(args);
    match volume.as_ref().and_then(Volume::device) {
        Some(device) => run(device),
        None => run(&device(args)?),
    }
}

/// Opens a controller whose stored data is to be changed.
///
/// # Errors
/// As [`device`], and if the image is in use.
pub fn writable_device(args: &ControllerArgs) -> Result<Device, Error> {
    let device = controller_options(args).open_writable_device(args.device.clone())?;
    steps::controller_opened(args, &device);
    Ok(device)
}

/// Opens a controller with these options of the driver.
///
/// # Errors
/// If the device cannot be opened.
pub fn controller(address: Address, options: Options) -> Result<Device, Error> {
    let options = OpenOptions::new().controller_options(options).shutdown(&interrupt::SHUTDOWN);
    Ok(options.open_device(DeviceName::Address(address))?)
}

/// Reads the partition table of a namespace.
///
/// # Errors
/// If the device cannot be opened, or has no table that can be read.
pub fn partitions(args: &ControllerArgs) -> Result<PartitionTable, Error> {
    let location = part(Location::new(args.device.clone()), args.namespace, None);
    Ok(controller_options(args).partitions(location)?)
}

/// Opens a filesystem for reading.
///
/// # Errors
/// If device, namespace, partition or filesystem cannot be opened.
pub fn volume(args: &VolumeArgs) -> Result<Volume, Error> {
    if let Some(volume) = session::volume(args) {
        return Ok(volume);
    }
    let volume = volume_options(args).open(location(args))?;
    steps::volume_opened(args, &volume);
    warning::volume_opened(args, &volume);
    Ok(volume)
}

/// Opens a filesystem whose files are to be overwritten.
///
/// # Errors
/// If device, namespace, partition or filesystem cannot be opened for writing.
pub fn writable_volume(args: &VolumeArgs) -> Result<WritableVolume, Error> {
    let volume = volume_options(args).open_writable(location(args))?;
    steps::volume_opened(args, &volume);
    warning::volume_opened(args, &volume);
    Ok(volume)
}

/// Opens a filesystem whose metadata is to be changed.
///
/// # Errors
/// If device, namespace, partition or filesystem cannot be opened for changes.
pub fn journaled_volume(args: &VolumeArgs) -> Result<JournaledVolume, Error> {
    Ok(volume_options(args).open_journaled(location(args))?)
}

/// Opens a filesystem that is to be mounted for reading, with DMA memory for several queues.
///
/// # Errors
/// As [`volume`].
pub fn mounted_volume(args: &VolumeArgs) -> Result<Volume, Error> {
    let volume = volume_options(args).arena_bytes(MOUNT_ARENA_BYTES).open(location(args))?;
    warning::volume_opened(args, &volume);
    Ok(volume)
}

/// Opens a filesystem that is to be mounted for changes, with DMA memory for several queues and a cache.
///
/// # Errors
/// As [`journaled_volume`].
pub fn mounted_journaled_volume(
    args: &VolumeArgs,
    access_times: bool,
) -> Result<JournaledVolume, Error> {
    let options = volume_options(args).arena_bytes(MOUNT_ARENA_BYTES).access_times(access_times);
    Ok(options.open_journaled(location(args))?)
}

/// Opens the filesystem in an image.
///
/// # Errors
/// If the image cannot be served, or holds no filesystem.
pub fn image(image: &Path, lba_size: u32) -> Result<Volume, Error> {
    Ok(options(lba_size).open(image)?)
}

/// Reads the superblock of a filesystem or an external journal.
///
/// # Errors
/// If device, namespace or partition cannot be opened, or hold neither of the two.
pub fn inspection(args: &VolumeArgs) -> Result<Inspected, Error> {
    Ok(volume_options(args).inspect(location(args))?)
}

/// Reads the target of a symbolic link. Returns `None` if `inode` is not a symbolic link.
///
/// # Errors
/// If the target is damaged.
pub fn target(volume: &Volume, path: &[u8], inode: &Inode) -> Result<Option<Vec<u8>>, Error> {
    if !inode.is_symlink() {
        return Ok(None);
    }
    volume.filesystem().read_link(inode).map(Some).map_err(Error::path(path))
}

/// Images go through the embedded controller, so that the command works on them as on a device.
fn options(lba_size: u32) -> OpenOptions {
    OpenOptions::new()
        .emulate(true)
        .wait(Wait::Poll)
        .shutdown(&interrupt::SHUTDOWN)
        .arena_bytes(ARENA_BYTES)
        .image_block_bytes(lba_size)
}

fn controller_options(args: &ControllerArgs) -> OpenOptions {
    args.driver.apply(options(args.lba_size))
}

/// Returns the options of a measurement: `arena_bytes` of DMA memory, queues of `depth` commands, and
/// waiting calls that sleep or poll.
pub fn perf_options(
    args: &VolumeArgs,
    arena_bytes: usize,
    depth: u16,
    interrupt: bool,
) -> OpenOptions {
    let wait = if interrupt { Wait::Interrupt { spin: Duration::ZERO } } else { Wait::Poll };
    volume_options(args).arena_bytes(arena_bytes).queue_depth(depth).wait(wait)
}

fn volume_options(args: &VolumeArgs) -> OpenOptions {
    let mut options = controller_options(&args.controller)
        .cache_bytes(args.memory.cache)
        .read_ahead_bytes(args.memory.read_ahead_bytes())
        .ignore_mmp(args.rescue.ignore_mmp);
    if args.rescue.noload {
        options = options.recovery(Recovery::Skip);
    }
    if let Some(block) = args.rescue.superblock {
        options = options.superblock(block);
    }
    if let Some(bytes) = args.rescue.block_size {
        options = options.superblock_block_bytes(bytes);
    }
    match &args.journal {
        None => options,
        Some(device) => {
            let journal = Location::new(device.clone());
            options.journal(part(journal, args.journal_namespace, args.journal_partition))
        }
    }
}

/// Returns the part of the device that a filesystem is on.
pub fn location(args: &VolumeArgs) -> Location {
    let device = Location::new(args.controller.device.clone());
    let part = part(device, args.controller.namespace, args.partition);
    part.offset(args.fs_offset.unwrap_or(0))
}

/// Selects a namespace and a partition.
pub fn part(mut location: Location, namespace: Option<u32>, partition: Option<u32>) -> Location {
    if let Some(nsid) = namespace {
        location = location.namespace(nsid);
    }
    if let Some(number) = partition {
        location = location.partition(number);
    }
    location
}
