//! Bios on a namespace with metadata: the metadata of their commands, and protection information in
//! it if the namespace is protected.
//!
//! Guards are generated when a write is submitted, and checked when a read completes. If metadata
//! lies apart, the device accesses the bio's own buffer. If it follows each block, the data is
//! copied because the bio's buffer has no room for it.

use nvio_driver::spec::protection::CheckError;
use nvio_driver::{
    BouncePool, CommandOptions, Completion, Controller, DmaBuf, Error as DriverError, Rejected,
    ScatterList,
};

use crate::device::bio::{Bio, BioDone, BioOp};
use crate::device::disk::Disk;
use crate::device::protection::{BadProtection, NamespaceProtection};
use crate::error::{BioError, Error};

/// The protection of the bios of one queue.
pub(crate) struct ProtectedBios {
    protection: NamespaceProtection,
    controller: Controller,
    block_shift: u32,
    /// Maximum bytes of data of a bio.
    most: usize,
    /// Scatter lists of commands that are not in flight, without buffers. The label of each is its
    /// place in `bios`.
    idle: Vec<ScatterList>,
    bios: Box<[InFlight]>,
    /// Memory for metadata, and for blocks with metadata in between.
    pool: BouncePool,
}

/// A bio in flight.
#[derive(Default)]
struct InFlight {
    lba: u64,
    write: bool,
    /// The bio's buffer, if the command has a copy.
    copied: Option<DmaBuf>,
}

impl ProtectedBios {
    /// Creates the state for at most `depth` bios in flight on `disk`; `None` if its blocks have no
    /// metadata.
    pub(crate) fn of(controller: &Controller, disk: &Disk, depth: usize) -> Option<Box<Self>> {
        let namespace = disk.namespace();
        let protection = NamespaceProtection::of_metadata(namespace)?;
        let block = namespace.block_size() as usize;
        let mut most = namespace.max_transfer();
        while most > block && metadata_buf(&protection, most) > BouncePool::BUFFER_BYTES_MAX {
            most = ((most / 2) & !(block - 1)).max(block);
        }
        let parts = |label| ScatterList::labelled(Vec::with_capacity(1), None, label);
        Some(Box::new(Self {
            protection,
            controller: controller.clone(),
            block_shift: namespace.block_shift(),
            most,
            idle: (0..depth as u64).map(parts).collect(),
            bios: (0..depth).map(|_| InFlight::default()).collect(),
            pool: BouncePool::default(),
        }))
    }

    /// Returns the maximum number of bytes of data of one bio, a multiple of the block.
    pub(crate) fn max_transfer(&self) -> usize {
        self.most
    }

    /// Submits a bio at block `lba` of the namespace by `queue`.
    ///
    /// # Errors
    /// [`Error::NoMemory`], and those of `queue`.
    pub(crate) fn submit<C>(
        &mut self,
        bio: Bio<C>,
        lba: u64,
        queue: impl FnOnce(
            (u64, u32),
            ScatterList,
            CommandOptions,
            C,
        ) -> Result<(), Rejected<DriverError, (ScatterList, C)>>,
    ) -> Result<(), Rejected<Error, Bio<C>>> {
        let Bio { op, addr, buf, tag, fua } = bio;
        let blocks = u32::try_from(buf.len() >> self.block_shift).unwrap_or(u32::MAX);
        let how = CommandOptions { fua, ..self.protection.transfer(lba) };
        let parts = match self.prepare(buf, lba, op == BioOp::Write) {
            Ok(parts) => parts,
            Err((error, buf)) => {
                return Err(Rejected { error, payload: Bio { op, addr, buf, tag, fua } });
            }
        };
        queue((lba, blocks), parts, how, tag).map_err(|rejected| {
            let Rejected { error, payload: (parts, tag) } = rejected;
            let buf = self.take_apart(parts);
            Rejected { error: Error::from_driver(error), payload: Bio { op, addr, buf, tag, fua } }
        })
    }

    /// Returns the completion of the bio of a command, after verifying a read.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete<C>(&mut self, completion: Completion<C>) -> BioDone<C> {
        let Completion { context: tag, buf, status, .. } = completion;
        let result = match status.is_success() {
            true => Ok(()),
            false => Err(BioError::Status(status)),
        };
        match ScatterList::from_completed(buf) {
            Ok(parts) => {
                let result = result.and_then(|()| self.verify(&parts));
                BioDone { tag, buf: self.take_apart(parts), result }
            }
            // A flush, or memory that did not come back.
            Err(buf) => BioDone { tag, buf, result },
        }
    }

    /// Returns the scatter list of a command, with the bio's buffer or a copy of it, and with
    /// guards for a write.
    fn prepare(
        &mut self,
        buf: DmaBuf,
        lba: u64,
        write: bool,
    ) -> Result<ScatterList, (Error, DmaBuf)> {
        let Self { protection, controller, idle, bios, pool, .. } = self;
        let bytes = buf.len();
        let Some(mut parts) = idle.pop() else { return Err((Error::Busy, buf)) };
        let Some(bio) = of_label(bios, &parts) else { return Err((Error::Busy, buf)) };
        let len = metadata_buf(protection, bytes);
        let mut metadata_buf = match pool.take(len, |bytes| controller.alloc(bytes)) {
            Ok(metadata_buf) => metadata_buf,
            Err(_) => {
                idle.push(parts);
                // Commands in flight return their memory.
                let alone = idle.len() == bios.len();
                return Err((if alone { Error::NoMemory } else { Error::Busy }, buf));
            }
        };
        (bio.lba, bio.write) = (lba, write);
        if !protection.is_extended() {
            match write {
                true => protection.seal_apart(&buf, &mut metadata_buf, lba),
                false => protection.poison_apart(&mut metadata_buf),
            }
            parts.insert(buf, Some(metadata_buf));
            return Ok(parts);
        }
        if write {
            protection.copy_in(&mut metadata_buf, bytes, 0, &buf);
            protection.seal(&mut metadata_buf, bytes, lba);
        } else {
            protection.poison(&mut metadata_buf, bytes);
        }
        bio.copied = Some(buf);
        parts.insert(metadata_buf, None);
        Ok(parts)
    }

    /// Checks the data of a read, and copies it to the bio's buffer if the command had a copy.
    fn verify(&mut self, parts: &ScatterList) -> Result<(), BioError> {
        let Self { protection, bios, .. } = self;
        let Some(bio) = of_label(bios, parts).filter(|bio| !bio.write) else { return Ok(()) };
        let data = parts.data().first().map_or(&[][..], |buf| buf);
        let Some(own) = &mut bio.copied else {
            let metadata = parts.metadata().map_or(&[][..], |buf| buf);
            return protection.verify_apart(data, metadata, bio.lba).map_err(bad);
        };
        let bytes = own.len();
        protection.verify(data, bytes, bio.lba).map_err(bad)?;
        protection.copy_out(data, bytes, 0, own);
        Ok(())
    }

    /// Returns the bio's buffer out of the scatter list of its command.
    fn take_apart(&mut self, mut parts: ScatterList) -> DmaBuf {
        let Self { idle, bios, pool, .. } = self;
        let (data, metadata) = parts.remove();
        let own = of_label(bios, &parts).and_then(|bio| bio.copied.take());
        let (own, metadata_buf) = if own.is_some() { (own, data) } else { (data, metadata) };
        if let Some(metadata_buf) = metadata_buf {
            pool.put(metadata_buf);
        }
        match own {
            Some(own) => {
                idle.push(parts);
                own
            }
            // Not a list of this queue: an empty buffer.
            None => parts.into_completed(),
        }
    }
}

fn bad(bad: BadProtection) -> BioError {
    log::warn!("a read gave what is not protected: {bad}");
    match bad {
        BadProtection::Block { error: CheckError::Guard { expected, found }, .. } => {
            let low = |guard: u64| (guard & 0xffff) as u16;
            BioError::Guard { expected: low(expected), found: low(found) }
        }
        BadProtection::Block { error: CheckError::RefTag { found, .. }, .. } => {
            BioError::ReferenceTag { found: (found & 0xffff_ffff) as u32 }
        }
        // Application tags are not checked.
        BadProtection::Block { error: CheckError::AppTag { .. }, .. }
        | BadProtection::Short { .. } => BioError::Unprotected,
    }
}

/// Returns the bytes that a command for `bytes` of data needs besides the bio's buffer.
fn metadata_buf(protection: &NamespaceProtection, bytes: usize) -> usize {
    match protection.is_extended() {
        true => protection.buf_len(bytes),
        false => protection.metadata_len(bytes),
    }
}

fn of_label<'a>(bios: &'a mut [InFlight], parts: &ScatterList) -> Option<&'a mut InFlight> {
    bios.get_mut(usize::try_from(parts.label()).ok()?)
}
