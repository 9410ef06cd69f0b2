//! Reads into memory that the device cannot reach, or that is not aligned: through private DMA
//! memory, and copied.

use crate::direct::{self, Failed};
use crate::{Mapper, Queue};

/// Most bytes that are bounced at a time.
pub const PIECE: usize = 1 << 20;

/// Reads the file at `pos` into `out`, waits, and gives the number of bytes, which is less than
/// `out.len()` only at the end of the file. Neither `pos` nor the length need be aligned.
///
/// Only bytes that arrived are copied out. `size` is the file's size.
///
/// # Errors
/// As [`direct::read`]; the contents of `out` behind the last full [`PIECE`] are as they were.
pub fn read<Q: Queue, M: Mapper>(
    queue: &mut Q,
    mapper: &mut M,
    size: u64,
    pos: u64,
    out: &mut [u8],
) -> Result<usize, M::Error> {
    let block = 1usize << queue.block_shift();
    let left_in_file = usize::try_from(size.saturating_sub(pos)).unwrap_or(usize::MAX);
    let count = out.len().min(left_in_file);
    let mut done = 0;
    while done < count {
        let at = pos.saturating_add(done as u64);
        // A block holds at most 64 KiB, so that the lead is small.
        let lead = usize::try_from(at & (block as u64 - 1)).unwrap_or(0);
        let wanted = lead.saturating_add(count - done).min(PIECE).next_multiple_of(block);
        let buf = queue.take_bounce(wanted.min(PIECE)).map_err(M::Error::from)?;
        let (buf, read) = match direct::read(queue, mapper, size, at - lead as u64, buf) {
            Ok(ok) => ok,
            Err(Failed { error, buf }) => {
                buf.into_iter().for_each(|buf| queue.put_bounce(buf));
                return Err(error);
            }
        };
        let n = read.saturating_sub(lead).min(count - done);
        out[done..done + n].copy_from_slice(&buf[lead..lead + n]);
        queue.put_bounce(buf);
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}
