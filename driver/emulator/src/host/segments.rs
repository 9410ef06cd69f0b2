//! Data pointers: from a command's data pointer to ranges of host memory (Base 4.1).

use std::ops::Range;

use nvio_spec::sgl::Descriptor;
use nvio_spec::{Sqe, Status, status};
use zerocopy::{FromBytes, IntoBytes};

use crate::host::access::Access;
use crate::host::memory::{HostMemory, Place};

/// Entries of a list that are read at a time.
const CHUNK_ENTRIES: usize = 32;

/// A contiguous range of host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Place of the range; `None` for bytes that are discarded (bit bucket).
    pub(crate) place: Option<Place>,
    pub(crate) len: u64,
}

impl Segment {
    /// Returns the rest of the range after `len` bytes.
    pub(crate) fn after(self, len: u64) -> Self {
        let place = self.place.map(|place| Place { offset: place.offset + len, ..place });
        Self { place, len: self.len - len }
    }
}

/// The data pointer of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DataPointer {
    /// Two PRP entries.
    Prp {
        prp1: u64,
        prp2: u64,
        /// Host page size as a power of two (CC.MPS).
        page_shift: u32,
    },
    /// The first descriptor of an SGL.
    Sgl(Descriptor),
}

/// The ranges of one transfer, in order. The list is reused by every command, so that commands do
/// not allocate.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    list: Vec<Segment>,
    /// The addresses of the Controller Memory Buffer, which is for submission queues only.
    pub(crate) controller_memory: Range<u64>,
}

impl Segments {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Segment> + '_ {
        self.list.iter().copied()
    }

    /// Resolves a transfer of `len` bytes that needs `access` to host memory. Every range is
    /// checked before a byte is transferred.
    ///
    /// # Errors
    /// As [`Walk::prp`] and [`Walk::sgl`]. Data Transfer Error for memory that the host has not
    /// mapped, or not for this access, and Invalid Use of Controller Memory Buffer for addresses in
    /// that buffer.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        memory: &HostMemory,
        pointer: DataPointer,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        let mut walk = self.walk(memory, len, access);
        match pointer {
            DataPointer::Prp { prp1, prp2, page_shift } => walk.prp(prp1, prp2, 1 << page_shift),
            DataPointer::Sgl(first) => walk.sgl(first, status::DATA_SGL_LENGTH_INVALID),
        }
    }

    /// Resolves `len` bytes of metadata in a separate buffer by MPTR.
    ///
    /// # Errors
    /// As [`Walk::mptr`].
    pub(crate) fn resolve_metadata(
        &mut self,
        memory: &HostMemory,
        sqe: &Sqe,
        len: u64,
        access: Access,
    ) -> Result<(), Status> {
        self.walk(memory, len, access).mptr(sqe)
    }

    #[inline]
    fn walk<'a>(&'a mut self, memory: &'a HostMemory, rest: u64, access: Access) -> Walk<'a> {
        self.list.clear();
        Walk { segments: self, memory, access, rest }
    }
}

/// The state of the resolution of a data pointer.
pub(crate) struct Walk<'a> {
    segments: &'a mut Segments,
    memory: &'a HostMemory,
    pub(crate) access: Access,
    /// Bytes of the transfer that no entry has described yet.
    pub(crate) rest: u64,
}

impl Walk<'_> {
    /// Adds a range, which one mapping holds. It joins the range before it if it continues that in
    /// the same mapping.
    #[inline]
    pub(crate) fn push(&mut self, iova: u64, len: u64) -> Result<(), Status> {
        let place = self.memory.find(iova, len, self.access);
        let place = place.ok_or_else(|| self.not_mapped(iova))?;
        self.rest -= len;
        match self.segments.list.last_mut() {
            Some(Segment { place: Some(before), len: before_len })
                if before.mapping == place.mapping
                    && before.offset + *before_len == place.offset =>
            {
                *before_len += len;
            }
            _ => self.segments.list.push(Segment { place: Some(place), len }),
        }
        Ok(())
    }

    /// Adds a range that may continue in the next mapping.
    pub(crate) fn push_any(&mut self, mut iova: u64, mut len: u64) -> Result<(), Status> {
        while len > 0 {
            let now = self.memory.reach(iova, len).ok_or_else(|| self.not_mapped(iova))?;
            self.push(iova, now)?;
            len -= now;
            // The end of a mapping is not beyond the end of the address space.
            iova = iova.wrapping_add(now);
        }
        Ok(())
    }

    /// Adds bytes that are discarded.
    pub(crate) fn discard(&mut self, len: u64) {
        self.rest -= len;
        self.segments.list.push(Segment { place: None, len });
    }

    /// Reads `count` entries of a list at `at`, and passes them to `run` with the number of entries
    /// after each.
    pub(crate) fn entries<T: Copy + Default + FromBytes + IntoBytes>(
        &mut self,
        mut at: u64,
        mut count: u64,
        mut run: impl FnMut(&mut Self, T, u64) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut chunk = [T::default(); CHUNK_ENTRIES];
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(CHUNK_ENTRIES).min(CHUNK_ENTRIES);
            let bytes = chunk[..now].as_mut_bytes();
            let len = bytes.len() as u64;
            self.memory.read(at, bytes).ok_or_else(|| self.not_mapped(at))?;
            for entry in &chunk[..now] {
                count -= 1;
                run(self, *entry, count)?;
            }
            // If this wraps, the address is not mapped.
            at = at.wrapping_add(len);
        }
        Ok(())
    }

    /// Returns the status for an address that is not in host memory.
    #[cold]
    fn not_mapped(&self, iova: u64) -> Status {
        if self.segments.controller_memory.contains(&iova) {
            status::INVALID_USE_OF_CMB
        } else {
            status::DATA_TRANSFER_ERROR
        }
    }
}
