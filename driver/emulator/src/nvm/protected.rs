//! The commands of the NVM command set on blocks with metadata, which is transferred, stored and
//! checked with the data (NVM 5.2.2).

use nvio_spec::{Sqe, Status, status};

use crate::config::atomic::PIECE;
use crate::config::metadata::Metadata;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::host::prp::{Segment, Segments};
use crate::host::stream::Stream;
use crate::media::failed;
use crate::media::namespace::Namespace;
use crate::media::store::Store;
use crate::nvm::protection::{Action, Request};
use crate::nvm::{Media, Settings, Staging, make_durable, pointer};

/// CDW12 bit 25 of Write Zeroes: Deallocate (NVM 3.2.8).
const DEAC: u32 = 1 << 25;

impl Media {
    /// Executes Read (NVM 3.2.4).
    #[inline(never)]
    pub(crate) fn read_tagged(
        &mut self,
        metadata: Metadata,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let command = Command::new(namespace, metadata, sqe, false)?;
        let mut host = command.host(
            (&mut self.segments, &mut self.metadata_segments),
            memory,
            settings,
            self.max_transfer,
            Access::WRITE,
        )?;
        commit_for_reading(namespace, sqe, &command)?;
        let Staging { data, metadata, .. } = &mut self.staging;
        for piece in command.pieces() {
            let has_data = command.read(namespace, piece, data, metadata)?;
            host.put(has_data.then_some(&data[..]), &metadata[..], piece.blocks)?;
        }
        self.health.reads += 1;
        self.health.bytes_read += command.len;
        Ok(())
    }

    /// Executes Write (NVM 3.2.6).
    #[inline(never)]
    pub(crate) fn write_tagged(
        &mut self,
        metadata: Metadata,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let command = Command::new(namespace, metadata, sqe, true)?;
        namespace.check_writable()?;
        let mut host = command.host(
            (&mut self.segments, &mut self.metadata_segments),
            memory,
            settings,
            self.max_transfer,
            Access::READ,
        )?;
        let Staging { data, metadata, .. } = &mut self.staging;
        namespace.atomically((command.offset, command.len), |store| {
            command.pieces().try_for_each(|piece| {
                command.get(&mut host, piece, data, metadata)?;
                let written = store.write_blocks(piece.offset, data, metadata);
                written.map_err(|error| failed(&error, status::WRITE_FAULT))
            })
        })?;
        make_durable(namespace, sqe, settings, (command.offset, command.len))?;
        self.health.writes += 1;
        self.health.bytes_written += command.len;
        Ok(())
    }

    /// Executes Compare (NVM 3.2.1). It compares the data and the metadata without the protection
    /// information, which is checked on both sides.
    #[inline(never)]
    pub(crate) fn compare_tagged(
        &mut self,
        metadata: Metadata,
        sqe: &Sqe,
        memory: &HostMemory,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let command = Command::new(namespace, metadata, sqe, false)?;
        if command.action.is_some_and(|action| action.is_pract()) {
            return Err(status::INVALID_PROTECTION_INFORMATION);
        }
        let mut host = command.host(
            (&mut self.segments, &mut self.metadata_segments),
            memory,
            settings,
            self.max_transfer,
            Access::READ,
        )?;
        commit_for_reading(namespace, sqe, &command)?;
        let staging = &mut self.staging;
        let (data, metadata) = (&mut staging.data, &mut staging.metadata);
        let (other_data, other_metadata) = (&mut staging.other_data, &mut staging.other_metadata);
        for piece in command.pieces() {
            command.get(&mut host, piece, data, metadata)?;
            let has_data = command.read(namespace, piece, other_data, other_metadata)?;
            let same = !has_data || data == other_data;
            if !same || !command.same_metadata(metadata, other_metadata) {
                return Err(status::COMPARE_FAILURE);
            }
        }
        self.health.reads += 1;
        self.health.bytes_read += command.len;
        Ok(())
    }

    /// Executes Verify (NVM 3.2.5).
    #[inline(never)]
    pub(crate) fn verify_tagged(&mut self, metadata: Metadata, sqe: &Sqe) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let command = Command::new(namespace, metadata, sqe, false)?;
        if command.action.is_some_and(|action| action.is_pract()) {
            return Err(status::INVALID_FIELD);
        }
        commit_for_reading(namespace, sqe, &command)?;
        let Staging { data, metadata, .. } = &mut self.staging;
        for piece in command.pieces() {
            command.read(namespace, piece, data, metadata)?;
        }
        Ok(())
    }

    /// Executes Write Zeroes (NVM 3.2.8). Protection information is computed with PRACT, all ones
    /// for deallocated blocks, and otherwise zero.
    #[inline(never)]
    pub(crate) fn write_zeroes_tagged(
        &mut self,
        metadata: Metadata,
        sqe: &Sqe,
        settings: Settings,
    ) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(sqe.nsid.get())?;
        let command = Command::new(namespace, metadata, sqe, true)?;
        // PRCHK has to be zero, because there is nothing to check.
        if command.action.is_some_and(|action| action.checks()) {
            return Err(status::INVALID_PROTECTION_INFORMATION);
        }
        namespace.check_writable()?;
        let Staging { data, metadata, .. } = &mut self.staging;
        let action = command.action.filter(|_| sqe.cdw12.get() & DEAC == 0);
        let mut zeroed = |store: &mut Store| {
            store.zero(command.offset, command.len)?;
            let Some(action) = action else { return Ok(()) };
            command.pieces().try_for_each(|piece| {
                data.clear();
                command.resize(piece, data, metadata);
                metadata.fill(0);
                if action.is_pract() {
                    action.insert(piece.index, command.block_size, data, metadata);
                }
                store.write_metadata(piece.offset, metadata)
            })
        };
        namespace.atomically((command.offset, command.len), |store| {
            zeroed(store).map_err(|error| failed(&error, status::WRITE_FAULT))
        })?;
        make_durable(namespace, sqe, settings, (command.offset, command.len))
    }
}

/// Applies FUA of a command that reads: makes the blocks durable first.
fn commit_for_reading(
    namespace: &mut Namespace,
    sqe: &Sqe,
    command: &Command,
) -> Result<(), Status> {
    if sqe.cdw12.get() & Sqe::FUA == 0 {
        return Ok(());
    }
    let durable = namespace.store.commit(command.offset, command.len);
    durable.map_err(|error| failed(&error, status::WRITE_FAULT))
}

/// A command on a range of blocks with metadata.
struct Command<'a> {
    sqe: &'a Sqe,
    metadata: Metadata,
    action: Option<Action>,
    block_size: usize,
    /// Offset of the blocks in the store, in bytes of data.
    offset: u64,
    len: u64,
}

/// Blocks that are processed together.
#[derive(Clone, Copy)]
struct Piece {
    /// Number of the command's blocks before the piece.
    index: u32,
    blocks: usize,
    /// Offset in the store, in bytes of data.
    offset: u64,
}

impl<'a> Command<'a> {
    fn new(
        namespace: &Namespace,
        metadata: Metadata,
        sqe: &'a Sqe,
        writes: bool,
    ) -> Result<Self, Status> {
        let (offset, len) = namespace.range(sqe.slba(), sqe.nlb())?;
        let action = Request::of(sqe).action(metadata, writes)?;
        Ok(Self { sqe, metadata, action, block_size: 1 << namespace.block_shift, offset, len })
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (offset, size) = (self.offset, self.block_size as u64);
        let most = u32::try_from(PIECE / self.block_size).unwrap_or(1);
        let blocks = self.sqe.nlb();
        (0..blocks).step_by(most as usize).map(move |index| Piece {
            index,
            blocks: (blocks - index).min(most) as usize,
            offset: offset + u64::from(index) * size,
        })
    }

    /// Returns the bytes of metadata of each block in client memory.
    fn host_metadata(&self) -> usize {
        let kept = self.action.is_some_and(|action| action.keeps_metadata());
        if kept { 0 } else { self.metadata.len() }
    }

    /// Resolves the blocks in client memory.
    ///
    /// # Errors
    /// Invalid Field in Command for a transfer above MDTS, which counts interleaved metadata
    /// (CTRATT.MEM is 0); the errors of [`Segments::resolve`] and [`Segments::resolve_metadata`].
    fn host<'m>(
        &self,
        (segments, own): (&'m mut Segments, &'m mut Segments),
        memory: &'m HostMemory,
        settings: Settings,
        max_transfer: u64,
        access: Access,
    ) -> Result<Host<'m, impl Iterator<Item = Segment> + use<'m>>, Status> {
        let metadata = self.host_metadata();
        let blocks = u64::from(self.sqe.nlb());
        let all = blocks * metadata as u64;
        let (interleaved, separate) = if self.metadata.extended { (all, 0) } else { (0, all) };
        if self.len + interleaved > max_transfer {
            return Err(status::INVALID_FIELD);
        }
        let pointer = pointer(self.sqe, settings);
        segments.resolve(memory, pointer, self.len + interleaved, access)?;
        if separate > 0 {
            own.resolve_metadata(memory, self.sqe, separate, access)?;
        }
        Ok(Host {
            data: Stream::new(memory, segments.iter()),
            separate: (separate > 0).then(|| Stream::new(memory, own.iter())),
            block_size: self.block_size,
            metadata,
        })
    }

    /// Sizes the buffers for a piece.
    fn resize(&self, piece: Piece, data: &mut Vec<u8>, metadata: &mut Vec<u8>) {
        data.resize(piece.blocks * self.block_size, 0);
        metadata.resize(piece.blocks * self.metadata.len(), 0);
    }

    /// Reads a piece from client memory, and checks or inserts its protection information.
    fn get<I: Iterator<Item = Segment>>(
        &self,
        host: &mut Host<'_, I>,
        piece: Piece,
        data: &mut Vec<u8>,
        metadata: &mut Vec<u8>,
    ) -> Result<(), Status> {
        self.resize(piece, data, metadata);
        host.get(data, metadata)?;
        match &self.action {
            Some(action) if action.is_pract() => {
                action.insert(piece.index, self.block_size, data, metadata);
                Ok(())
            }
            Some(action) => action.check(piece.index, self.block_size, data, metadata),
            None => Ok(()),
        }
    }

    /// Reads a piece from the store and checks it. Returns false if the store has no data (null),
    /// so that there is nothing to check.
    fn read(
        &self,
        namespace: &mut Namespace,
        piece: Piece,
        data: &mut Vec<u8>,
        metadata: &mut Vec<u8>,
    ) -> Result<bool, Status> {
        self.resize(piece, data, metadata);
        let read = namespace.store.read_bytes(piece.offset, data).and_then(|has_data| {
            namespace.store.read_metadata(piece.offset, metadata)?;
            Ok(has_data)
        });
        let has_data = read.map_err(|error| failed(&error, status::UNRECOVERED_READ_ERROR))?;
        if let Some(action) = self.action.filter(|_| has_data) {
            action.check(piece.index, self.block_size, data, metadata)?;
        }
        Ok(has_data)
    }

    /// Returns true if the metadata of two pieces is equal, except for the protection information.
    fn same_metadata(&self, one: &[u8], other: &[u8]) -> bool {
        let at = self.metadata.protection_offset();
        let len = self.metadata.len();
        one.chunks_exact(len).zip(other.chunks_exact(len)).all(|(one, other)| match at {
            Some(0) => one[8..] == other[8..],
            Some(at) => one[..at] == other[..at],
            None => one == other,
        })
    }
}

/// The blocks of a command in client memory.
struct Host<'a, I> {
    data: Stream<'a, I>,
    /// Metadata in a buffer of its own, if it is separate.
    separate: Option<Stream<'a, I>>,
    block_size: usize,
    /// Bytes of metadata of each block in client memory.
    metadata: usize,
}

impl<I: Iterator<Item = Segment>> Host<'_, I> {
    /// Reads whole blocks with their metadata. Metadata that the controller inserts is not changed.
    fn get(&mut self, data: &mut [u8], metadata: &mut [u8]) -> Result<(), Status> {
        if let Some(separate) = &mut self.separate {
            separate.get(metadata)?;
            return self.data.get(data);
        }
        if self.metadata == 0 {
            return self.data.get(data);
        }
        let blocks = data.chunks_exact_mut(self.block_size);
        for (data, metadata) in blocks.zip(metadata.chunks_exact_mut(self.metadata)) {
            self.data.get(data)?;
            self.data.get(metadata)?;
        }
        Ok(())
    }

    /// Writes whole blocks with their metadata. Without data, the data in client memory stays.
    fn put(&mut self, data: Option<&[u8]>, metadata: &[u8], blocks: usize) -> Result<(), Status> {
        if self.separate.is_none() && self.metadata > 0 {
            for (block, metadata) in metadata.chunks_exact(self.metadata).enumerate() {
                let range = block * self.block_size..(block + 1) * self.block_size;
                match data {
                    Some(data) => self.data.put(&data[range])?,
                    None => self.data.skip(self.block_size)?,
                }
                self.data.put(metadata)?;
            }
            return Ok(());
        }
        if let Some(separate) = &mut self.separate {
            separate.put(metadata)?;
        }
        match data {
            Some(data) => self.data.put(data),
            None => self.data.skip(blocks * self.block_size),
        }
    }
}
