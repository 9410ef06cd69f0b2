//! The blocks of a command, which are transferred, stored and checked with their metadata (NVM
//! 5.2.2).

use nvio_spec::{Sqe, Status, status};

use crate::config::atomic::PIECE_BYTES;
use crate::config::metadata::Metadata;
use crate::host::access::Access;
use crate::host::request::{Request, Transfers};
use crate::host::segments::Segment;
use crate::host::stream::Stream;
use crate::media::failed;
use crate::media::namespace::Namespace;
use crate::media::store::Store;
use crate::nvm::protection::{Action, Checks};

/// A range of blocks of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    pub(crate) metadata: Option<Metadata>,
    /// Processing of the protection information, if blocks have any.
    pub(crate) action: Option<Action>,
    pub(crate) block_size: usize,
    count: u32,
    /// Offset in the store, in bytes of data.
    pub(crate) offset: u64,
    /// Length in bytes of data.
    pub(crate) len: u64,
}

/// Blocks that are processed together.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// Number of the blocks before the piece.
    pub(crate) index: u32,
    pub(crate) blocks: u32,
    /// Offset in the store, in bytes of data.
    pub(crate) offset: u64,
}

/// Buffers for blocks on their way through the controller. They grow to the largest piece so far.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    pub(crate) data: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
}

impl Staging {
    /// Sizes the buffers for a piece.
    fn resize(&mut self, of: &Blocks, piece: Piece) {
        let count = piece.blocks as usize;
        self.data.resize(count * of.block_size, 0);
        self.metadata.resize(count * of.metadata.map_or(0, |metadata| metadata.len()), 0);
    }

    /// Fills the buffers with the zeroes of a piece.
    pub(crate) fn zero(&mut self, of: &Blocks, piece: Piece) {
        self.resize(of, piece);
        self.data.fill(0);
        self.metadata.fill(0);
    }

    /// Writes the blocks to the store.
    pub(crate) fn write(&mut self, store: &mut Store, offset: u64) -> Result<(), Status> {
        let written = store.write_blocks(offset, &mut self.data, &self.metadata);
        written.map_err(failed(status::WRITE_FAULT))
    }
}

impl Blocks {
    /// Returns the blocks of Read, Write and their kin.
    ///
    /// # Errors
    /// As [`Self::new`].
    #[inline]
    pub(crate) fn of(namespace: &Namespace, sqe: &Sqe, writes: bool) -> Result<Self, Status> {
        let checks = Checks::of(sqe, namespace.config.information);
        Self::new(namespace, checks, sqe.nlb(), writes)
    }

    /// Returns `count` blocks of a namespace. `writes` is true if PRACT inserts protection
    /// information.
    ///
    /// # Errors
    /// LBA Out of Range, and as [`Checks::action`].
    #[inline]
    pub(crate) fn new(
        namespace: &Namespace,
        checks: Checks,
        count: u32,
        writes: bool,
    ) -> Result<Self, Status> {
        let (offset, len) = namespace.range(checks.slba, count)?;
        let metadata = namespace.metadata;
        let action = metadata.map_or(Ok(None), |metadata| checks.action(metadata, writes))?;
        let block_size = 1 << namespace.block_shift;
        Ok(Self { metadata, action, block_size, count, offset, len })
    }

    /// Returns true if protection information is inserted or stripped.
    pub(crate) fn is_pract(&self) -> bool {
        self.action.is_some_and(|action| action.is_pract())
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (offset, size, count) = (self.offset, self.block_size as u64, self.count);
        let most = u32::try_from(PIECE_BYTES / self.block_size).unwrap_or(1);
        (0..count).step_by(most as usize).map(move |index| Piece {
            index,
            blocks: (count - index).min(most),
            offset: offset + u64::from(index) * size,
        })
    }

    /// Resolves the blocks in host memory.
    ///
    /// # Errors
    /// Invalid Field in Command for a transfer above MDTS, which counts interleaved metadata
    /// (CTRATT.MEM is 0); as [`Segments::resolve`](crate::host::segments::Segments::resolve) and
    /// [`Segments::resolve_metadata`](crate::host::segments::Segments::resolve_metadata).
    #[inline]
    pub(crate) fn in_host<'m>(
        &self,
        transfers: &'m mut Transfers,
        request: Request<'m>,
        access: Access,
    ) -> Result<InHost<'m, impl Iterator<Item = Segment> + use<'m>>, Status> {
        let kept = self.action.is_some_and(|action| action.keeps_metadata());
        let metadata = self.metadata.filter(|_| !kept);
        let bytes = metadata.map_or(0, |metadata| metadata.len());
        let all = u64::from(self.count) * bytes as u64;
        let is_extended = metadata.is_some_and(|metadata| metadata.extended);
        let (interleaved, separate) = if is_extended { (all, 0) } else { (0, all) };
        if self.len + interleaved > transfers.bytes_max {
            return Err(status::INVALID_FIELD);
        }
        let memory = request.memory;
        transfers.data.resolve(memory, request.pointer(), self.len + interleaved, access)?;
        if separate > 0 {
            transfers.metadata.resolve_metadata(memory, request.sqe, separate, access)?;
        }
        Ok(InHost {
            data: Stream::new(memory, transfers.data.iter()),
            separate: (separate > 0).then(|| Stream::new(memory, transfers.metadata.iter())),
            block_size: self.block_size,
            interleaved: if is_extended { bytes } else { 0 },
        })
    }

    /// Reads a piece from host memory, and checks or inserts its protection information.
    pub(crate) fn receive<I: Iterator<Item = Segment>>(
        &self,
        host: &mut InHost<'_, I>,
        piece: Piece,
        to: &mut Staging,
    ) -> Result<(), Status> {
        to.resize(self, piece);
        host.get(to)?;
        self.protect(piece.index, to, true)
    }

    /// Inserts the protection information of blocks that are written, or checks it if they have
    /// data. The first block is `index` blocks into the command.
    pub(crate) fn protect(
        &self,
        index: u32,
        blocks: &mut Staging,
        has_data: bool,
    ) -> Result<(), Status> {
        let Staging { data, metadata } = blocks;
        match &self.action {
            Some(action) if action.is_pract() => {
                action.insert(index, self.block_size, data, metadata);
                Ok(())
            }
            Some(action) if has_data => action.check(index, self.block_size, data, metadata),
            _ => Ok(()),
        }
    }

    /// Reads a piece from the store and checks it. Returns false if the store has no data (null),
    /// so that there is nothing to check.
    pub(crate) fn read(
        &self,
        store: &mut Store,
        piece: Piece,
        to: &mut Staging,
    ) -> Result<bool, Status> {
        to.resize(self, piece);
        let read = store.read_blocks(piece.offset, &mut to.data, &mut to.metadata);
        let has_data = read.map_err(failed(status::UNRECOVERED_READ_ERROR))?;
        if let Some(action) = self.action.filter(|_| has_data) {
            action.check(piece.index, self.block_size, &to.data, &to.metadata)?;
        }
        Ok(has_data)
    }

    /// Makes the blocks durable, if `required`.
    #[inline]
    pub(crate) fn commit(&self, store: &mut Store, required: bool) -> Result<(), Status> {
        if !required {
            return Ok(());
        }
        store.commit(self.offset, self.len).map_err(failed(status::WRITE_FAULT))
    }

    /// Returns true if two pieces are equal, except for the protection information, and for the
    /// data if the store has none.
    pub(crate) fn are_equal(&self, sent: &Staging, stored: &Staging, has_data: bool) -> bool {
        let same_data = !has_data || sent.data == stored.data;
        let Some(metadata) = self.metadata else { return same_data };
        let sent = sent.metadata.chunks_exact(metadata.len());
        let mut pairs = sent.zip(stored.metadata.chunks_exact(metadata.len()));
        same_data
            && pairs.all(|(one, other)| match metadata.protection_place() {
                Some(place) if place.start == 0 => one[place.end..] == other[place.end..],
                Some(place) => one[..place.start] == other[..place.start],
                None => one == other,
            })
    }
}

/// The blocks of a command in host memory.
pub(crate) struct InHost<'a, I> {
    /// Data, and metadata that is interleaved with it.
    pub(crate) data: Stream<'a, I>,
    /// Metadata in a buffer of its own, if it is separate.
    separate: Option<Stream<'a, I>>,
    block_size: usize,
    /// Bytes of metadata after each block of data; 0 if it is separate or not transferred.
    interleaved: usize,
}

impl<I: Iterator<Item = Segment>> InHost<'_, I> {
    /// Reads whole blocks with their metadata. Metadata that the controller inserts is not changed.
    fn get(&mut self, Staging { data, metadata }: &mut Staging) -> Result<(), Status> {
        if let Some(separate) = &mut self.separate {
            separate.get(metadata)?;
        }
        if self.interleaved == 0 {
            return self.data.get(data);
        }
        let blocks = data.chunks_exact_mut(self.block_size);
        for (data, metadata) in blocks.zip(metadata.chunks_exact_mut(self.interleaved)) {
            self.data.get(data)?;
            self.data.get(metadata)?;
        }
        Ok(())
    }

    /// Writes whole blocks with their metadata. Without data, the data in host memory stays.
    pub(crate) fn put(&mut self, from: &Staging, has_data: bool) -> Result<(), Status> {
        if let Some(separate) = &mut self.separate {
            separate.put(&from.metadata)?;
        }
        if self.interleaved == 0 {
            return self.put_data(&from.data, has_data);
        }
        let blocks = from.data.chunks_exact(self.block_size);
        for (data, metadata) in blocks.zip(from.metadata.chunks_exact(self.interleaved)) {
            self.put_data(data, has_data)?;
            self.data.put(metadata)?;
        }
        Ok(())
    }

    /// Skips blocks whose metadata has `metadata` bytes each.
    pub(crate) fn skip(&mut self, blocks: u64, metadata: u64) -> Result<(), Status> {
        if let Some(separate) = &mut self.separate {
            separate.skip(blocks * metadata)?;
        }
        self.data.skip(blocks * (self.block_size + self.interleaved) as u64)
    }

    fn put_data(&mut self, data: &[u8], has_data: bool) -> Result<(), Status> {
        if has_data { self.data.put(data) } else { self.data.skip(data.len() as u64) }
    }
}
