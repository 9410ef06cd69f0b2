//! A namespace, or a partition of one, as a device.

use std::ops::Deref;

use nvio_driver::{Namespace, WritableNamespace};

use crate::error::Error;

/// A range of a namespace: the whole namespace, or a partition. Cheap to clone.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(1 << 20);
/// # let controller = &served.controller;
/// use nvio_iomap::{Disk, DiskAccess, WritableDisk};
///
/// let disk = Disk::whole(&controller.namespace(1)?);
/// assert_eq!((disk.size(), disk.block_shift(), disk.namespace().id()), (1 << 20, 9, 1));
///
/// // A partition: 128 KiB from byte 64 KiB on.
/// let partition = disk.slice(64 << 10, 128 << 10)?;
/// assert_eq!(partition.size(), 128 << 10);
/// assert!(disk.slice(0, 2 << 20).is_err() && partition.writable().is_none());
///
/// let namespace = controller.writable()?.writable_namespace(1)?;
/// let partition = WritableDisk::whole(&namespace).slice(64 << 10, 128 << 10)?;
/// assert!(partition.writable().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Disk {
    /// Handle of the namespace that ends where the disk does.
    pub(crate) namespace: Namespace,
    /// First block in the namespace.
    pub(crate) start: u64,
    blocks: u64,
}

impl Disk {
    /// Creates a disk of the whole namespace.
    ///
    /// See the [example](Self#examples).
    pub fn whole(namespace: &Namespace) -> Self {
        Self { namespace: namespace.clone(), start: 0, blocks: namespace.blocks() }
    }

    /// Returns a disk of the `length` bytes from byte `offset` of this disk on: a partition.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Misaligned`] unless they are whole blocks, [`Error::OutsideDisk`] unless they are
    /// inside the disk.
    pub fn slice(&self, offset: u64, length: u64) -> Result<Self, Error> {
        let (shift, align) = (self.block_shift(), u64::from(self.namespace.block_size()));
        if !(offset | length).is_multiple_of(align) {
            return Err(Error::Misaligned { pos: offset, length, align });
        }
        self.check(offset, length)?;
        let (start, blocks) = (self.start + (offset >> shift), length >> shift);
        Ok(Self { namespace: self.namespace.limited_to(start + blocks), start, blocks })
    }

    /// Returns the namespace of the disk.
    ///
    /// See the [example](Self#examples).
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the logical block, as a power of two.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn block_shift(&self) -> u32 {
        self.namespace.block_shift()
    }

    /// Returns the size in bytes.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn size(&self) -> u64 {
        self.blocks << self.block_shift()
    }

    pub(crate) fn check(&self, addr: u64, length: u64) -> Result<(), Error> {
        let size = self.size();
        if addr <= size && length <= size - addr {
            return Ok(());
        }
        Err(Error::OutsideDisk { addr, length, size })
    }
}

/// A [`Disk`] or a [`WritableDisk`].
pub trait DiskAccess: AsRef<Disk> + Clone {
    /// Returns the disk as one that accepts writes, if it does.
    ///
    /// See the [example](Disk#examples).
    fn writable(&self) -> Option<&WritableDisk>;
}

impl DiskAccess for Disk {
    #[inline(always)]
    fn writable(&self) -> Option<&WritableDisk> {
        None
    }
}

impl DiskAccess for WritableDisk {
    #[inline(always)]
    fn writable(&self) -> Option<&WritableDisk> {
        Some(self)
    }
}

impl AsRef<Disk> for Disk {
    #[inline]
    fn as_ref(&self) -> &Disk {
        self
    }
}

/// A [`Disk`] that accepts writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WritableDisk {
    disk: Disk,
    pub(crate) namespace: WritableNamespace,
}

impl WritableDisk {
    /// Creates a disk of the whole namespace.
    ///
    /// See the [example](Disk#examples).
    pub fn whole(namespace: &WritableNamespace) -> Self {
        Self { disk: Disk::whole(namespace), namespace: namespace.clone() }
    }

    /// Returns a disk of the `length` bytes from byte `offset` of this disk on: a partition.
    ///
    /// See the [example](Disk#examples).
    ///
    /// # Errors
    /// As [`Disk::slice`].
    pub fn slice(&self, offset: u64, length: u64) -> Result<Self, Error> {
        let disk = self.disk.slice(offset, length)?;
        let namespace = self.namespace.limited_to(disk.start + disk.blocks);
        Ok(Self { disk, namespace })
    }
}

impl Deref for WritableDisk {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

impl AsRef<Disk> for WritableDisk {
    #[inline]
    fn as_ref(&self) -> &Disk {
        &self.disk
    }
}
