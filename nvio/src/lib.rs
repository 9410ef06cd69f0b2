//! Files of ext4 filesystems on NVMe devices, read and overwritten from user space.
//!
//! ```
//! # let sample = nvio_testkit::image::Sample::new();
//! # let device = sample.path();
//! // "0000:01:00.0", "vfio-user:SOCKET" or the path of an image.
//! let volume = nvio::Volume::open(device)?;
//! let text = volume.read_to_string("/etc/hostname")?;
//! assert_eq!(text, "worker-7\n");
//! # Ok::<(), nvio::Error>(())
//! ```
//!
//! A device is the PCI address of an NVMe controller that is bound to vfio-pci, the socket of a
//! vfio-user server, or the path of an image. An image is read with system calls, or, with
//! [`OpenOptions::emulate`], through an embedded NVMe controller on threads of this process. A
//! [`Location`] selects namespace, partition, byte range or byte offset; [`OpenOptions`] set the size of caches,
//! the depth of queues, and the device of an external journal.
//!
//! # Ways to read
//!
//! | call | waits | copies |
//! |---|---|---|
//! | [`Volume::read`], [`Volume::read_to_string`] | yes | once |
//! | [`File::read_at`], [`File::read_exact_at`], [`io::Read`](std::io::Read) of [`File`] | yes | once |
//! | [`Queue`]: submit any number of requests, ring once, poll | no | none for DMA memory |
//! | [`AsyncQueue`]: a future for each request | no | none for DMA memory |
//!
//! Calls whose name begins with `submit` never wait; `read_at` and `write_at` wait; `async`
//! functions are futures. A volume is shared by threads; a queue belongs to one thread.
//!
//! # Writing
//!
//! A [`WritableVolume`] overwrites bytes that files have. Nothing else is written. The requests of a
//! [`CachedQueue`] go through a cache, and so do those of [`IoMode::Buffered`]. A [`JournaledVolume`]
//! changes metadata, through the journal: files grow and shrink, permissions, owners and times change, and
//! names are created, renamed and removed by calls in the shape of [`std::fs`]. Those of an [`AsyncVolume`]
//! are futures.
//!
//! # Layers
//!
//! The crates below are re-exported: [`ext4`] for walks, extents and attributes, [`iomap`] for
//! flags, vectored memory and counters, [`driver`] for raw blocks, identify data and log pages, and
//! [`emulator`] for an NVMe controller in software.
#![forbid(unsafe_code)]

mod async_volume;
mod cached_queue;
mod device;
mod error;
mod file;
mod file_options;
mod image;
mod in_use;
mod journaled;
mod journaled_file;
mod journaled_names;
mod journaled_shared;
mod location;
mod open;
mod options;
mod partition;
mod place;
mod pool;
mod pooled;
mod queue;
mod range;
mod recognise;
mod remove_tree;
mod shared;
mod shutdown;
mod storage;
mod volume;
mod volume_queue;
mod writable;
mod writable_file;
mod writable_shared;

pub use async_volume::AsyncVolume;
pub use cached_queue::{AsyncCachedQueue, CachedQueue};
pub use device::Device;
pub use error::{Error, Found};
pub use file::File;
pub use file_options::FileOptions;
pub use image::{ImagePart, check as check_image};
pub use in_use::ImageUser;
pub use journaled::JournaledVolume;
pub use journaled_file::JournaledFile;
pub use location::{DeviceName, Location};
pub use nvio_driver as driver;
pub use nvio_emulator as emulator;
pub use nvio_ext4 as ext4;
pub use nvio_ext4::{AsyncFile, DirEntry, FileType, Inode};
pub use nvio_iomap as iomap;
pub use open::Inspected;
pub use options::OpenOptions;
pub use partition::{Error as PartitionError, Partition, PartitionKind, PartitionTable, Scheme};
pub use queue::{AsyncQueue, Queue, WritableQueue};
pub use recognise::Format;
pub use shutdown::Shutdown;
pub use volume::{READ_BYTES_MAX, ReadDir, Volume};
pub use volume_queue::VolumeQueue;
pub use writable::WritableVolume;
pub use writable_file::{IoMode, WritableFile};
