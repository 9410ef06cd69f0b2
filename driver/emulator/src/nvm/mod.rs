//! The I/O commands of the NVM command set (NVM 3.2).

pub(crate) mod copy;
pub(crate) mod protected;
pub(crate) mod protection;

use nvio_spec::opcode::nvm;
use nvio_spec::{DsmRange, MAX_RANGES, NSID_ALL, Sqe, Status, status};
use zerocopy::IntoBytes;

use crate::admin::health::Health;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::prp::{DataPointer, Segments};
use crate::host::sgl;
use crate::host::stream::Stream;
use crate::media::failed;
use crate::media::namespace::Namespace;
use crate::media::namespaces::Namespaces;
use crate::random::Random;

/// Bytes that Compare and Verify process at a time.
const BOUNCE: usize = 64 << 10;

/// The namespaces and buffers that I/O commands use.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) namespaces: Namespaces,
    pub(crate) health: Health,
    /// Largest transfer in bytes (MDTS).
    pub(crate) max_transfer: u64,
    pub(crate) segments: Segments,
    /// Segments of metadata in a buffer of its own.
    pub(crate) metadata_segments: Segments,
    stored: Vec<u8>,
    sent: Vec<u8>,
    pub(crate) staging: Staging,
    /// Source range at which the last Copy command failed.
    pub(crate) failed_range: u32,
}

/// Buffers for blocks on their way through the controller. They grow to the largest piece so far.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    pub(crate) data: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
    other_data: Vec<u8>,
    other_metadata: Vec<u8>,
}

/// Settings that apply to every command at this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Host page size as a power of two (CC.MPS).
    pub(crate) page_shift: u32,
    /// Every write is durable before it completes (the write cache is off).
    pub(crate) write_through: bool,
    /// SGLs are offered.
    pub(crate) sgl: bool,
}

impl Media {
    pub(crate) fn new(namespaces: Namespaces, max_transfer: u64) -> Self {
        Self {
            namespaces,
            health: Health::default(),
            max_transfer,
            segments: Segments::default(),
            metadata_segments: Segments::default(),
            stored: vec![0; BOUNCE],
            sent: vec![0; BOUNCE],
            staging: Staging::default(),
            failed_range: 0,
        }
    }

    /// Executes an I/O command.
    #[inline]
    pub(crate) fn execute(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        // Refuse fused commands and reserved bits.
        sgl::check(sqe.flags, settings.sgl)?;
        match sqe.opcode {
            nvm::READ => self.read(sqe, memory, settings),
            nvm::WRITE => self.write(sqe, memory, settings),
            nvm::FLUSH => self.flush(sqe.nsid.get()),
            nvm::COMPARE => self.compare(sqe, memory, settings),
            nvm::WRITE_ZEROES => self.write_zeroes(sqe, settings),
            nvm::DATASET_MANAGEMENT => self.dataset_management(sqe, memory, settings),
            nvm::VERIFY => self.verify(sqe),
            nvm::COPY => self.copy(sqe, memory, settings),
            _ => Err(status::INVALID_OPCODE),
        }
    }

    /// Returns the bytes that a valid command transfers between host and media.
    pub(crate) fn bytes_moved(&self, sqe: &Sqe) -> u64 {
        match (sqe.opcode, self.namespaces.active(sqe.nsid.get())) {
            (nvm::READ | nvm::WRITE | nvm::COMPARE, Some(namespace)) => {
                u64::from(sqe.nlb()) << namespace.block_shift
            }
            _ => 0,
        }
    }

    #[inline]
    fn read(&mut self, sqe: &Sqe, memory: &HostMemory, settings: Settings) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        if let Some(metadata) = namespace.metadata {
            return self.read_tagged(metadata, sqe, memory, settings);
        }
        let (offset, len) = transfer(namespace, sqe, self.max_transfer)?;
        self.segments.resolve(memory, pointer(sqe, settings), len, Access::WRITE)?;
        let fua = sqe.cdw12.get() & Sqe::FUA != 0;
        if fua {
            let durable = namespace.store.commit(offset, len);
            durable.map_err(|error| failed(&error, status::WRITE_FAULT))?;
        }
        if namespace.moves_data {
            let mut at = offset;
            for segment in self.segments.iter() {
                let to = memory.at(segment.place, segment.len);
                let mut to = to.ok_or(status::DATA_TRANSFER_ERROR)?;
                let read = namespace.store.read(at, &mut to);
                read.map_err(|error| failed(&error, status::UNRECOVERED_READ_ERROR))?;
                at += segment.len;
            }
        }
        self.health.reads += 1;
        self.health.bytes_read += len;
        Ok(())
    }

    #[inline]
    fn write(&mut self, sqe: &Sqe, memory: &HostMemory, settings: Settings) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        if let Some(metadata) = namespace.metadata {
            return self.write_tagged(metadata, sqe, memory, settings);
        }
        let (offset, len) = transfer(namespace, sqe, self.max_transfer)?;
        namespace.check_writable()?;
        self.segments.resolve(memory, pointer(sqe, settings), len, Access::READ)?;
        if namespace.moves_data {
            let segments = &self.segments;
            namespace.atomically((offset, len), |store| {
                let mut at = offset;
                for segment in segments.iter() {
                    let from = memory.at(segment.place, segment.len);
                    let from = from.ok_or(status::DATA_TRANSFER_ERROR)?;
                    let written = store.write(at, &from);
                    written.map_err(|error| failed(&error, status::WRITE_FAULT))?;
                    at += segment.len;
                }
                Ok(())
            })?;
        }
        make_durable(namespace, sqe, settings, (offset, len))?;
        self.health.writes += 1;
        self.health.bytes_written += len;
        Ok(())
    }

    /// Flushes one namespace, or all (Flush, Base 7.1).
    pub(crate) fn flush(&mut self, nsid: u32) -> Result<(), Status> {
        let flushed = if nsid == NSID_ALL {
            self.namespaces.iter_mut().try_for_each(|namespace| namespace.store.flush())
        } else {
            self.namespaces.for_command(nsid)?.store.flush()
        };
        flushed.map_err(|error| failed(&error, status::WRITE_FAULT))
    }

    /// Flushes every namespace at shutdown. Errors are logged, because no command waits for them.
    pub(crate) fn shutdown(&mut self) {
        for namespace in self.namespaces.iter_mut() {
            if let Err(error) = namespace.store.flush() {
                log::error!("namespace {}: flush at shutdown: {error}", namespace.nsid);
            }
        }
    }

    /// Cuts the power: `seed` decides which cached blocks are stored.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        self.health.power_cuts += 1;
        for namespace in self.namespaces.iter_mut() {
            if let Err(error) = namespace.store.power_cut(&mut random) {
                log::error!("namespace {}: power cut: {error}", namespace.nsid);
            }
        }
    }

    /// Executes Write Zeroes (NVM 3.2.8). It transfers no data, so MDTS does not limit it.
    fn write_zeroes(&mut self, sqe: &Sqe, settings: Settings) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        if let Some(metadata) = namespace.metadata {
            return self.write_zeroes_tagged(metadata, sqe, settings);
        }
        let (offset, len) = namespace.range(sqe.slba(), sqe.nlb())?;
        namespace.check_writable()?;
        namespace.atomically((offset, len), |store| {
            let zeroed = store.zero(offset, len);
            zeroed.map_err(|error| failed(&error, status::WRITE_FAULT))
        })?;
        make_durable(namespace, sqe, settings, (offset, len))
    }

    /// Executes Compare (NVM 3.2.1).
    fn compare(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        if let Some(metadata) = namespace.metadata {
            return self.compare_tagged(metadata, sqe, memory, settings);
        }
        let (offset, len) = transfer(namespace, sqe, self.max_transfer)?;
        self.segments.resolve(memory, pointer(sqe, settings), len, Access::READ)?;
        let mut at = offset;
        for segment in self.segments.iter() {
            let from = memory.at(segment.place, segment.len);
            let from = from.ok_or(status::DATA_TRANSFER_ERROR)?;
            let mut done = 0;
            while done < from.len() {
                let now = (from.len() - done).min(BOUNCE);
                let (stored, sent) = (&mut self.stored[..now], &mut self.sent[..now]);
                let read = namespace.store.read_bytes(at, stored);
                let has_data =
                    read.map_err(|error| failed(&error, status::UNRECOVERED_READ_ERROR))?;
                let chunk = from.subslice(done, now).map_err(|_| status::DATA_TRANSFER_ERROR)?;
                chunk.copy_to(sent);
                if has_data && stored != sent {
                    return Err(status::COMPARE_FAILURE);
                }
                done += now;
                at += now as u64;
            }
        }
        self.health.reads += 1;
        self.health.bytes_read += len;
        Ok(())
    }

    /// Executes Verify (NVM 3.2.5): reads without a transfer.
    fn verify(&mut self, sqe: &Sqe) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        if let Some(metadata) = namespace.metadata {
            return self.verify_tagged(metadata, sqe);
        }
        let (mut at, mut left) = namespace.range(sqe.slba(), sqe.nlb())?;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(BOUNCE).min(BOUNCE);
            let read = namespace.store.read_bytes(at, &mut self.stored[..now]);
            read.map_err(|error| failed(&error, status::UNRECOVERED_READ_ERROR))?;
            at += now as u64;
            left -= now as u64;
        }
        Ok(())
    }

    /// Executes Dataset Management (NVM 3.2.3): deallocates; the other attributes are hints.
    fn dataset_management(
        &mut self,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let ranges = usize::from(sqe.cdw10.get().to_le_bytes()[0]) + 1;
        let bytes = ranges * size_of::<DsmRange>();
        let pointer = pointer(sqe, settings);
        self.segments.resolve(memory, pointer, bytes as u64, Access::READ)?;
        let mut list = [DsmRange::default(); MAX_RANGES];
        let list = &mut list[..ranges];
        Stream::new(memory, self.segments.iter()).get(list.as_mut_bytes())?;
        if sqe.cdw11.get() & Sqe::DSM_DEALLOCATE == 0 {
            return Ok(());
        }
        namespace.check_writable()?;
        // All ranges are checked before any is deallocated.
        for range in &*list {
            namespace.range(range.slba.get(), range.blocks.get())?;
        }
        for range in list {
            let (offset, len) = namespace.range(range.slba.get(), range.blocks.get())?;
            if len > 0 {
                let zeroed = namespace.store.zero(offset, len);
                zeroed.map_err(|error| failed(&error, status::WRITE_FAULT))?;
            }
        }
        Ok(())
    }
}

/// Returns offset and length in bytes of a command that transfers blocks.
#[inline]
fn transfer(namespace: &Namespace, sqe: &Sqe, max: u64) -> Result<(u64, u64), Status> {
    if u64::from(sqe.nlb()) << namespace.block_shift > max {
        return Err(status::INVALID_FIELD);
    }
    namespace.range(sqe.slba(), sqe.nlb())
}

#[inline]
pub(crate) fn pointer(sqe: &Sqe, settings: Settings) -> DataPointer {
    if sqe.flags != 0 {
        // The flags have been checked.
        return DataPointer::Sgl(sqe.sgl());
    }
    let (prp1, prp2) = (sqe.prp1.get(), sqe.prp2.get());
    DataPointer::Prp { prp1, prp2, page_shift: settings.page_shift }
}

#[inline]
pub(crate) fn make_durable(
    namespace: &mut Namespace,
    sqe: &Sqe,
    settings: Settings,
    (offset, len): (u64, u64),
) -> Result<(), Status> {
    if settings.write_through || sqe.cdw12.get() & Sqe::FUA != 0 {
        let durable = namespace.store.commit(offset, len);
        durable.map_err(|error| failed(&error, status::WRITE_FAULT))?;
    }
    Ok(())
}
