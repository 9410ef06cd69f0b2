//! The I/O commands of the NVM command set (NVM 3.2).

pub(crate) mod blocks;
pub(crate) mod copy;
pub(crate) mod old_blocks;
pub(crate) mod protection;

use nvio_spec::opcode::nvm;
use nvio_spec::{DsmRange, MAX_RANGES, NSID_ALL, Sqe, Status, status};
use zerocopy::IntoBytes;

use crate::admin::health::Health;
use crate::host::access::Access;
use crate::host::request::{Request, Transfers};
use crate::host::stream::Stream;
use crate::media::failed;
use crate::media::namespaces::Namespaces;
use crate::nvm::blocks::{Blocks, Staging};
use crate::random::Random;

/// CDW12 bit 25 of Write Zeroes: Deallocate (NVM 3.2.8).
const DEAC: u32 = 1 << 25;

/// The namespaces and buffers that commands use.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) namespaces: Namespaces,
    pub(crate) health: Health,
    pub(crate) transfers: Transfers,
    /// Blocks on their way through the controller.
    pub(crate) staging: Staging,
    /// Stored blocks that Compare compares with those.
    stored: Staging,
    /// Source range at which the last Copy command failed.
    pub(crate) failed_range: u32,
}

impl Media {
    pub(crate) fn new(namespaces: Namespaces, transfer_bytes_max: u64) -> Self {
        Self {
            namespaces,
            health: Health::default(),
            transfers: Transfers::new(transfer_bytes_max),
            staging: Staging::default(),
            stored: Staging::default(),
            failed_range: 0,
        }
    }

    /// Executes an I/O command whose flags have been checked.
    #[inline]
    pub(crate) fn execute(&mut self, request: Request<'_>) -> Result<(), Status> {
        match request.sqe.opcode {
            nvm::READ => self.read(request),
            nvm::WRITE => self.write(request),
            nvm::FLUSH => self.flush(request.nsid()),
            nvm::COMPARE => self.compare(request),
            nvm::WRITE_ZEROES => self.write_zeroes(request),
            nvm::DATASET_MANAGEMENT => self.dataset_management(request),
            nvm::VERIFY => self.verify(request),
            nvm::COPY => self.copy(request),
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

    /// Executes Read (NVM 3.2.4). Blocks without metadata move from the store to host memory without
    /// a copy in between.
    #[inline]
    fn read(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        if namespace.metadata.is_some() {
            return self.read_with_metadata(request);
        }
        let (offset, len) = namespace.range(request.sqe.slba(), request.sqe.nlb())?;
        let data = self.transfers.resolve(request, len, Access::WRITE)?;
        let store = &mut namespace.store;
        if request.fua() {
            store.commit(offset, len).map_err(failed(status::WRITE_FAULT))?;
        }
        if namespace.moves_data {
            Stream::new(request.memory, data.iter()).each(len, |at, mut to| {
                let read = store.read(offset + at, &mut to);
                read.map(drop).map_err(failed(status::UNRECOVERED_READ_ERROR))
            })?;
        }
        self.health.reads += 1;
        self.health.bytes_read += len;
        Ok(())
    }

    /// Reads blocks with metadata, which is checked in a buffer.
    fn read_with_metadata(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, false)?;
        let mut host = blocks.in_host(&mut self.transfers, request, Access::WRITE)?;
        let store = &mut namespace.store;
        blocks.commit(store, request.fua())?;
        for piece in blocks.pieces() {
            let has_data = blocks.read(store, piece, &mut self.staging)?;
            host.put(&self.staging, has_data)?;
        }
        self.health.reads += 1;
        self.health.bytes_read += blocks.len;
        Ok(())
    }

    /// Executes Write (NVM 3.2.6). Blocks without metadata move from host memory to the store
    /// without a copy in between.
    #[inline]
    fn write(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        if namespace.metadata.is_some() {
            return self.write_with_metadata(request);
        }
        let (offset, len) = namespace.range(request.sqe.slba(), request.sqe.nlb())?;
        namespace.check_writable()?;
        let data = self.transfers.resolve(request, len, Access::READ)?;
        if namespace.moves_data {
            namespace.atomically((offset, len), |store| {
                Stream::new(request.memory, data.iter()).each(len, |at, from| {
                    store.write(offset + at, &from).map_err(failed(status::WRITE_FAULT))
                })
            })?;
        }
        if request.fua() || request.write_through {
            namespace.store.commit(offset, len).map_err(failed(status::WRITE_FAULT))?;
        }
        self.health.writes += 1;
        self.health.bytes_written += len;
        Ok(())
    }

    /// Writes blocks with metadata, which is checked or inserted in a buffer.
    fn write_with_metadata(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, true)?;
        namespace.check_writable()?;
        let mut host = blocks.in_host(&mut self.transfers, request, Access::READ)?;
        let staging = &mut self.staging;
        namespace.atomically((blocks.offset, blocks.len), |store| {
            blocks.pieces().try_for_each(|piece| {
                blocks.receive(&mut host, piece, staging)?;
                staging.write(store, piece.offset)
            })
        })?;
        blocks.commit(&mut namespace.store, request.fua() || request.write_through)?;
        self.health.writes += 1;
        self.health.bytes_written += blocks.len;
        Ok(())
    }

    /// Flushes one namespace, or all (Flush, Base 7.1).
    pub(crate) fn flush(&mut self, nsid: u32) -> Result<(), Status> {
        let flushed = if nsid == NSID_ALL {
            self.namespaces.iter_mut().try_for_each(|namespace| namespace.store.flush())
        } else {
            self.namespaces.for_command(nsid)?.store.flush()
        };
        flushed.map_err(failed(status::WRITE_FAULT))
    }

    /// Flushes every namespace at shutdown. Errors are logged, because no command waits for them.
    pub(crate) fn shutdown(&mut self) {
        self.namespaces.iter_mut().for_each(|namespace| namespace.flush_and_log());
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
    /// Protection information is computed with PRACT, all ones for deallocated blocks, and otherwise
    /// zero.
    fn write_zeroes(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, true)?;
        // PRCHK has to be zero, because there is nothing to check.
        if blocks.action.is_some_and(|action| action.checks()) {
            return Err(status::INVALID_PROTECTION_INFORMATION);
        }
        namespace.check_writable()?;
        let action = blocks.action.filter(|_| request.sqe.cdw12.get() & DEAC == 0);
        let staging = &mut self.staging;
        namespace.atomically((blocks.offset, blocks.len), |store| {
            store.zero(blocks.offset, blocks.len).map_err(failed(status::WRITE_FAULT))?;
            let Some(action) = action else { return Ok(()) };
            blocks.pieces().try_for_each(|piece| {
                staging.zero(&blocks, piece);
                if action.is_pract() {
                    let (data, metadata) = (&staging.data, &mut staging.metadata);
                    action.insert(piece.index, blocks.block_size, data, metadata);
                }
                let written = store.write_metadata(piece.offset, &staging.metadata);
                written.map_err(failed(status::WRITE_FAULT))
            })
        })?;
        blocks.commit(&mut namespace.store, request.fua() || request.write_through)
    }

    /// Executes Compare (NVM 3.2.1). It compares the data and the metadata without the protection
    /// information, which is checked on both sides.
    fn compare(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, false)?;
        if blocks.is_pract() {
            return Err(status::INVALID_PROTECTION_INFORMATION);
        }
        let mut host = blocks.in_host(&mut self.transfers, request, Access::READ)?;
        blocks.commit(&mut namespace.store, request.fua())?;
        for piece in blocks.pieces() {
            blocks.receive(&mut host, piece, &mut self.staging)?;
            let has_data = blocks.read(&mut namespace.store, piece, &mut self.stored)?;
            if !blocks.are_equal(&self.staging, &self.stored, has_data) {
                return Err(status::COMPARE_FAILURE);
            }
        }
        self.health.reads += 1;
        self.health.bytes_read += blocks.len;
        Ok(())
    }

    /// Executes Verify (NVM 3.2.5): reads without a transfer.
    fn verify(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, false)?;
        if blocks.is_pract() {
            return Err(status::INVALID_FIELD);
        }
        blocks.commit(&mut namespace.store, request.fua())?;
        for piece in blocks.pieces() {
            blocks.read(&mut namespace.store, piece, &mut self.staging)?;
        }
        Ok(())
    }

    /// Executes Dataset Management (NVM 3.2.3): deallocates; the other attributes are hints.
    fn dataset_management(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let ranges = usize::from(request.sqe.cdw10.get().to_le_bytes()[0]) + 1;
        let list = &mut [DsmRange::default(); MAX_RANGES][..ranges];
        self.transfers.receive(request, list.as_mut_bytes())?;
        if request.sqe.cdw11.get() & Sqe::DSM_DEALLOCATE == 0 {
            return Ok(());
        }
        namespace.check_writable()?;
        // All ranges are checked before any is deallocated.
        let ranges = list.iter().map(|range| namespace.range(range.slba.get(), range.blocks.get()));
        for (offset, len) in ranges.collect::<Result<Vec<_>, _>>()? {
            namespace.store.zero(offset, len).map_err(failed(status::WRITE_FAULT))?;
        }
        Ok(())
    }
}
