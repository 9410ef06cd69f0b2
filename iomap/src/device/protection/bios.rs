//! Bios on a protected namespace: what their commands have besides the data.
//!
//! Guards are made of the data as it is when a bio is submitted, and checked when it comes back.
//! Where metadata lies apart, the data moves from and to the bio's own buffer. Where it follows
//! each block, there is no room for it in that: the data is copied.

use nvio_driver::spec::protection::CheckError;
use nvio_driver::{
    BouncePool, CommandOptions, Completion, Controller, DmaBuf, Error as DriverError, Rejected,
    ScatterList,
};

use crate::device::bio::{Bio, BioDone, BioOp};
use crate::device::disk::Disk;
use crate::device::disk_queue::from_driver;
use crate::device::protection::{BadProtection, NamespaceProtection};
use crate::error::{BioError, Error};

/// The protection of the bios of one queue.
pub(crate) struct ProtectedBios {
    protection: NamespaceProtection,
    controller: Controller,
    block_shift: u32,
    /// Most bytes of data of a bio.
    most: usize,
    /// What commands are given, without buffers yet. Each is labelled with its place in `bios`.
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
    /// The bio's buffer, where the command has a copy.
    copied: Option<DmaBuf>,
}

impl ProtectedBios {
    /// For at most `depth` bios at once on `disk`; `None` if it is not protected.
    ///
    /// # Errors
    /// As [`NamespaceProtection::of`].
    pub(crate) fn of(
        controller: &Controller,
        disk: &Disk,
        depth: usize,
    ) -> Result<Option<Box<Self>>, Error> {
        let namespace = disk.namespace();
        let Some(protection) = NamespaceProtection::of(namespace)? else { return Ok(None) };
        let block = namespace.block_size() as usize;
        let mut most = namespace.max_transfer();
        while most > block && metadata_buf(&protection, most) > BouncePool::BUFFER_BYTES_MAX {
            most = ((most / 2) & !(block - 1)).max(block);
        }
        let parts = |label| ScatterList::labelled(Vec::with_capacity(1), None, label);
        Ok(Some(Box::new(Self {
            protection,
            controller: controller.clone(),
            block_shift: namespace.block_shift(),
            most,
            idle: (0..depth as u64).map(parts).collect(),
            bios: (0..depth).map(|_| InFlight::default()).collect(),
            pool: BouncePool::default(),
        })))
    }

    /// Most bytes of data of one bio, a multiple of the block.
    pub(crate) fn max_transfer(&self) -> usize {
        self.most
    }

    /// Has `queue` make a command of a bio at block `lba` of the namespace.
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
            Rejected { error: from_driver(error), payload: Bio { op, addr, buf, tag, fua } }
        })
    }

    /// The end of the bio whose command ended; reads are verified.
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
            // A flush, or memory that had to be given up.
            Err(buf) => BioDone { tag, buf, result },
        }
    }

    /// Puts a bio's buffer, or a copy of it, into what its command is given; sealed, for a write.
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
                // What is in flight gives its memory back.
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

    /// Checks what was read, and copies it to the bio's buffer if it is not there.
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

    /// Gives a bio's buffer back out of what its command was given.
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
            // Not of this queue: an empty buffer.
            None => parts.into_completed(),
        }
    }
}

fn bad(bad: BadProtection) -> BioError {
    log::warn!("a read gave what is not protected: {bad}");
    match bad {
        BadProtection::Block { error: CheckError::Guard { expected, found }, .. } => {
            BioError::Guard { expected, found }
        }
        BadProtection::Block { error: CheckError::RefTag { found, .. }, .. } => {
            BioError::ReferenceTag { found }
        }
        // Application tags are not checked.
        BadProtection::Block { error: CheckError::AppTag { .. }, .. }
        | BadProtection::Short { .. } => BioError::Unprotected,
    }
}

/// Bytes that a bio of `bytes` of data needs besides its own buffer.
fn metadata_buf(protection: &NamespaceProtection, bytes: usize) -> usize {
    match protection.is_extended() {
        true => protection.buf_len(bytes),
        false => protection.metadata_len(bytes),
    }
}

fn of_label<'a>(bios: &'a mut [InFlight], parts: &ScatterList) -> Option<&'a mut InFlight> {
    bios.get_mut(usize::try_from(parts.label()).ok()?)
}
