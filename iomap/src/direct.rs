//! Direct reads, generic path: any number of mappings, any number of bios, into DMA memory.

use nvio_driver::{DmaBuf, DmaPieces};

use crate::{Bio, Error, Mapper, Mapping, MappingKind, Op, Queue, iterate};

/// A read that failed. The buffer is missing when the queue failed and keeps it, since the device
/// may still write to it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<E: std::error::Error> {
    /// The first error.
    pub error: E,
    /// The buffer; its contents are not defined.
    pub buf: Option<DmaBuf>,
}

/// Reads the file at `pos` into `buf`, waits, and gives the buffer back with the number of bytes.
///
/// `size` is the file's size (i_size): nothing is read at or past it, and what lies in the buffer
/// behind the last byte of the file, within its device block, is zeroed. `pos` and `buf.len()` are
/// multiples of the device's block. Holes and unwritten ranges become zeroes without a command;
/// mapped ranges are split at [`Queue::max_transfer_at`]. Nothing else may be in flight on `queue`.
///
/// # Errors
/// The first error wins; after it no further command is submitted, and those in flight are waited
/// for.
pub fn read<Q: Queue, M: Mapper>(
    queue: &mut Q,
    mapper: &mut M,
    size: u64,
    pos: u64,
    buf: DmaBuf,
) -> Result<(DmaBuf, usize), Failed<M::Error>> {
    let align = 1 << queue.block_shift();
    let length = buf.len();
    if !is_multiple(pos | length as u64, align) {
        let error = Error::Misaligned { pos, length: length as u64, align };
        return Err(Failed { error: error.into(), buf: Some(buf) });
    }
    let count = size.saturating_sub(pos).min(length as u64);
    let mut read = Read { queue, pieces: DmaPieces::new(buf), in_flight: 0, error: None };
    let end = pos.saturating_add(count);
    let walked = iterate(mapper, pos, count, Op::DIRECT, |mapper, mapping, pos, n| {
        read.range(mapper, mapping, pos, n, end).map(|()| n)
    });
    let in_time = read.drain();
    let Read { pieces, error, .. } = read;
    // An error of the device came first: submission stopped because of it.
    let error = error.or(in_time.err()).map(M::Error::from).or(walked.error);
    match (pieces.finish(), error) {
        (Ok(mut buf), None) if walked.processed == count => {
            let count = usize::try_from(count).unwrap_or(length).min(length);
            let block_end = count.next_multiple_of(1 << read.queue.block_shift()).min(length);
            buf[count..block_end].fill(0);
            Ok((buf, count))
        }
        (Ok(buf), error) => {
            let stuck = Error::BadMapping { pos: pos + walked.processed, offset: pos, length: 0 };
            Err(Failed { error: error.unwrap_or_else(|| stuck.into()), buf: Some(buf) })
        }
        (Err(_), error) => {
            let error = error.unwrap_or_else(|| Error::LostBuffer { length }.into());
            Err(Failed { error, buf: None })
        }
    }
}

fn is_multiple(value: u64, power_of_two: u64) -> bool {
    value & (power_of_two - 1) == 0
}

/// A read on its way.
struct Read<'q, Q> {
    queue: &'q mut Q,
    pieces: DmaPieces,
    in_flight: usize,
    /// The first error of a completion.
    error: Option<Error>,
}

impl<Q: Queue> Read<'_, Q> {
    /// Serves the `n` bytes at `pos`, all of one mapping. `end` is where the read ends.
    fn range<M: Mapper>(
        &mut self,
        mapper: &mut M,
        mapping: &Mapping,
        pos: u64,
        n: u64,
        end: u64,
    ) -> Result<(), M::Error> {
        let block = 1u64 << self.queue.block_shift();
        // Only the file's last block may be part of one.
        if !is_multiple(n, block) && pos + n != end {
            let Mapping { offset, length, .. } = *mapping;
            return Err(Error::BadMapping { pos, offset, length }.into());
        }
        let bytes = n.next_multiple_of(block);
        match mapping.kind {
            MappingKind::Mapped => self.submit_range(mapping, pos, bytes).map_err(M::Error::from),
            MappingKind::Hole | MappingKind::Unwritten => self.fill(bytes, |buf| {
                buf.fill(0);
                Ok(())
            }),
            MappingKind::Inline => self.fill(bytes, |buf| {
                let n = usize::try_from(n).unwrap_or(buf.len()).min(buf.len());
                let (data, rest) = buf.split_at_mut(n);
                rest.fill(0);
                mapper.read_inline(mapping, pos, data)
            }),
            MappingKind::Delalloc => Err(Error::Delalloc { pos }.into()),
        }
    }

    /// Serves the next `bytes` of the buffer without the device.
    fn fill<E: From<Error>>(
        &mut self,
        bytes: u64,
        with: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = self.cut(bytes)?;
        let result = with(&mut piece);
        self.put(piece)?;
        result
    }

    fn submit_range(&mut self, mapping: &Mapping, pos: u64, bytes: u64) -> Result<(), Error> {
        let bad = Error::BadMapping { pos, offset: mapping.offset, length: mapping.length };
        let mut addr = mapping.device_address(pos).ok_or(bad)?;
        let mut left = bytes;
        while left > 0 {
            let n = left.min(self.queue.max_transfer_at(addr) as u64);
            let buf = self.cut(n)?;
            self.submit(Bio { addr, buf })?;
            addr = addr.saturating_add(n);
            left -= n;
        }
        Ok(())
    }

    /// Submits a bio, making room by waiting for others.
    fn submit(&mut self, mut bio: Bio) -> Result<(), Error> {
        loop {
            if self.error.is_some() {
                // The read has failed already: no further command.
                self.put(bio.buf)?;
                return Err(Error::Busy);
            }
            match self.queue.submit(bio) {
                Ok(()) => {
                    self.in_flight += 1;
                    return Ok(());
                }
                Err(refused) if matches!(refused.error, Error::Busy) && self.in_flight > 0 => {
                    bio = refused.bio;
                    if let Err(error) = self.wait() {
                        self.put(bio.buf)?;
                        return Err(error);
                    }
                }
                Err(refused) => {
                    self.put(refused.bio.buf)?;
                    return Err(refused.error);
                }
            }
        }
    }

    /// Waits for everything in flight. The doorbell is rung in any case.
    fn drain(&mut self) -> Result<(), Error> {
        while self.in_flight > 0 {
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Error> {
        let Self { queue, pieces, in_flight, error } = self;
        let taken = queue.wait(|done| {
            *in_flight = in_flight.saturating_sub(1);
            let length = done.buf.len();
            let returned = pieces.put(done.buf).map_err(|_| Error::LostBuffer { length });
            if let Err(failed) = done.result.and(returned) {
                error.get_or_insert(failed);
            }
        })?;
        // The queue says that nothing is in flight, and that is not so.
        if taken == 0 { Err(Error::LostBuffer { length: 0 }) } else { Ok(()) }
    }

    fn cut(&mut self, bytes: u64) -> Result<DmaBuf, Error> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.pieces.cut(length).ok_or(Error::LostBuffer { length })
    }

    fn put(&mut self, piece: DmaBuf) -> Result<(), Error> {
        self.pieces.put(piece).map_err(|piece| Error::LostBuffer { length: piece.len() })
    }
}

#[cfg(test)]
mod tests;
