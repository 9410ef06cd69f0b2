//! A command that is executed, and the transfer of its data.

use nvio_spec::sgl::PSDT_PRP;
use nvio_spec::{Sqe, Status, status};

use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::segments::{DataPointer, Segments};
use crate::host::stream::Stream;

/// A command, the memory of its host, and the settings that apply to it now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) sqe: &'a Sqe,
    pub(crate) memory: &'a HostMemory,
    /// Host page size as a power of two (CC.MPS).
    pub(crate) page_shift: u32,
    /// Every write is durable before it completes (the write cache is off).
    pub(crate) write_through: bool,
}

impl Request<'_> {
    /// Returns the namespace identifier.
    #[inline]
    pub(crate) fn nsid(&self) -> u32 {
        self.sqe.nsid.get()
    }

    /// Returns true if the command requests Force Unit Access.
    #[inline]
    pub(crate) fn fua(&self) -> bool {
        self.sqe.cdw12.get() & Sqe::FUA != 0
    }

    /// Returns the data pointer of a command whose flags have been checked.
    #[inline]
    pub(crate) fn pointer(&self) -> DataPointer {
        if self.sqe.flags != PSDT_PRP {
            return DataPointer::Sgl(self.sqe.sgl());
        }
        let (prp1, prp2) = (self.sqe.prp1.get(), self.sqe.prp2.get());
        DataPointer::Prp { prp1, prp2, page_shift: self.page_shift }
    }
}

/// The memory of the present command, reused by every command.
#[derive(Debug)]
pub(crate) struct Transfers {
    /// Largest transfer in bytes (MDTS).
    pub(crate) bytes_max: u64,
    pub(crate) data: Segments,
    /// Metadata in a buffer of its own.
    pub(crate) metadata: Segments,
}

impl Transfers {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, data: Segments::default(), metadata: Segments::default() }
    }

    /// Resolves the `len` bytes of data of a command without metadata.
    ///
    /// # Errors
    /// Invalid Field in Command for a transfer above MDTS; as [`Segments::resolve`].
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        request: Request<'_>,
        len: u64,
        access: Access,
    ) -> Result<&Segments, Status> {
        if len > self.bytes_max {
            return Err(status::INVALID_FIELD);
        }
        self.data.resolve(request.memory, request.pointer(), len, access)?;
        Ok(&self.data)
    }

    /// Reads the data of a command from host memory.
    ///
    /// # Errors
    /// As [`Segments::resolve`].
    pub(crate) fn receive(&mut self, request: Request<'_>, to: &mut [u8]) -> Result<(), Status> {
        let (memory, pointer) = (request.memory, request.pointer());
        self.data.resolve(memory, pointer, to.len() as u64, Access::READ)?;
        Stream::new(memory, self.data.iter()).get(to)
    }

    /// Writes the data of a command to host memory.
    ///
    /// # Errors
    /// As [`Segments::resolve`].
    pub(crate) fn send(&mut self, request: Request<'_>, from: &[u8]) -> Result<(), Status> {
        let (memory, pointer) = (request.memory, request.pointer());
        self.data.resolve(memory, pointer, from.len() as u64, Access::WRITE)?;
        Stream::new(memory, self.data.iter()).put(from)
    }
}
