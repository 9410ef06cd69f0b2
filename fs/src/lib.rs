//! Reads and changes ext4 filesystems; reads ext3 and ext2.
//!
//! ```
//! use std::fs::File;
//!
//! use nvio_ext4::Filesystem;
//! use nvio_iomap::{FileQueue, ImageQueue};
//!
//! # let sample = nvio_testkit::image::Sample::new();
//! # let image = sample.path();
//! let fs = Filesystem::open(File::open(&image)?)?;
//! let mut queue = FileQueue::new(ImageQueue::new(File::open(&image)?, 32)?);
//! let mut file = fs.file(&fs.lookup("/hello.txt")?)?;
//! let mut text = [0; 12];
//! assert_eq!(file.read_at(&mut queue, 0, &mut text)?, 12);
//! assert_eq!(&text, b"Hello, world");
//!
//! for entry in fs.read_dir(&fs.root()?)? {
//!     let entry = entry?;
//!     println!("{:>8} {}", entry.inode, String::from_utf8_lossy(&entry.name));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Filesystem`] is opened on a [`BlockSource`], which reads metadata: an image file, memory, or
//! a device.
//!
//! - [`Filesystem::lookup`] resolves a path to an [`Inode`], which has the fields of `stat`;
//!   [`Filesystem::read_dir`] and [`Filesystem::read_link`] return names and targets.
//! - [`Filesystem::file`] opens a regular file. A [`File`] is a [`Mapper`](nvio_iomap::Mapper): it
//!   maps ranges of the file to ranges of the device. It caches mappings, holes included, so that a
//!   range that was mapped before needs no metadata I/O.
//! - [`File::extents`] lists a file's extents, as FIEMAP and filefrag do.
//! - [`Filesystem::xattrs`] returns extended attributes, [`Filesystem::acl`] an access control list.
//! - [`File`] reads through a [`FileQueue`]; [`AsyncFile`] does so with futures.
//! - [`Filesystem::writable`] and [`WritableFile`] overwrite allocated blocks of files, without a
//!   change of metadata.
//! - [`JournaledFilesystem`] changes metadata, through the journal, and lets files grow.
//!
//! # Supported features
//! Block sizes from 1 KiB to 64 KiB, inodes from 128 bytes to a block, all layouts of block groups,
//! extent trees of any depth, the block maps of ext2 and ext3, files and directories inside inodes,
//! directories with and without hash trees, case-insensitive and encrypted directories, extended
//! attributes and access control lists.
//! `open` fails if a feature that changes the format is unsupported
//! ([`Error::UnsupportedFeature`]), or if another host uses the filesystem ([`Error::InUse`]). A
//! feature that concerns single inodes, such as encryption, fails only the calls that need it
//! ([`Error::UnsupportedInode`]). The hashes of fs-verity files are not verified.
//!
//! # Recovery
//! A filesystem that was not unmounted is read in the state that the next mount would recover, and
//! the device is not changed: the journal is replayed in memory. Each replaced block needs 16 bytes
//! of memory, because its new contents are read from the log. All versions of the journal are
//! supported, checksums are verified, and damage that the kernel rejects is [`Error::Corrupt`].
//! Pass a journal on another device to [`Filesystem::open_with_journal`]. [`Filesystem::recovered`]
//! returns the counts of the replay. [`Options::recovery`] can reject such filesystems; their files
//! can never be written to.
//!
//! # Trust
//! The contents of a device are untrusted input. All checksums are verified, every number is
//! checked before it is used, and every loop is bounded. Damage is reported as [`Error::Corrupt`],
//! which names the structure and the rule that it breaks. Memory is bounded by [`Options`].
//!
//! # Live filesystems
//! No other program may write to the filesystem while it is open here, because metadata is cached
//! and changes on the device are not noticed.
#![doc(html_root_url = "https://docs.rs/nvio-ext4/0.1.0")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unreachable,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod alloc;
mod async_file;
mod blocks;
mod change;
mod dir;
mod error;
mod file;
mod filesystem;
mod format;
mod journal;
mod map;
mod mount;
mod number;
mod recovery;
#[cfg(test)]
mod testing;
mod walk;
mod xattr;

pub use async_file::{AsyncFile, AsyncFileQueue};
pub use blocks::device::{BlockDevice, WriteRange};
pub use blocks::queue_device::QueueDevice;
pub use blocks::queue_source::QueueSource;
pub use blocks::source::{BlockSource, ReadRange, SourceError};
pub use change::JournaledFilesystem;
pub use change::create::SpecialFile;
pub use change::file::JournaledFile;
pub use change::hold::HeldInode;
pub use change::new_inode::NewFile;
pub use change::rename::RenameMode;
pub use change::xattr::XattrMode;
pub use dir::path::MAX_SYMLINKS;
pub use dir::{DirEntry, ReadDir};
pub use error::path_name::PathName;
pub use error::reasons::{BadAttribute, BadRange, MmpHolder, NotWritable, Protected, WrongJournal};
pub use error::{Error, Subject, Unsupported};
pub use file::File;
pub use file::open_inode::OpenInode;
pub use file::read::FileQueue;
pub use file::writable::WritableFilesystem;
pub use file::writable_file::WritableFile;
pub use filesystem::Filesystem;
pub use format::corrupt::{Corrupt, StructureKind};
pub use format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
pub use format::file_type::FileType;
pub use format::inode::Inode;
pub use format::inode_flags::InodeFlags;
pub use format::mmp::MmpFields;
pub use format::superblock::Superblock;
pub use format::superblock_copy::SuperblockCopy;
pub use format::superblock_fields::{ErrorRecord, SuperblockFields};
pub use format::time::Timestamp;
pub use map::extents::{Extent, Extents};
pub use mount::inspect::Inspection;
pub use mount::options::{Options, Recovery};
pub use mount::statfs::StatFs;
pub use number::{InodeNumber, PhysicalBlock};
pub use recovery::journal::fields::JournalFields;
pub use recovery::journal::summary::JournalReplay;
pub use walk::{Visit, Walk, WalkEvent, WalkOrder};
pub use xattr::acl::{Acl, AclEntry, AclTag};
pub use xattr::{Xattr, Xattrs};
