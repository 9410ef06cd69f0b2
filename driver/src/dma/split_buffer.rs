//! A buffer that is split into pieces for several commands.

use super::buf::DmaBuf;

/// A [`DmaBuf`] whose pieces are in flight.
///
/// Pieces are cut off the front and returned in any order. Pieces are owned and disjoint, so that
/// the number of bytes that came back proves that no piece is missing.
///
/// # Examples
/// ```
/// use nvio_driver::{Arena, SplitBuffer};
///
/// let mut buffer = SplitBuffer::new(Arena::detached(2 << 20)?.alloc(10_000)?);
/// let first = buffer.cut(4096).ok_or("too short")?;
/// let second = buffer.cut_at_most(8192).ok_or("too short")?;
/// assert_eq!(second.len(), 5904);
/// assert_eq!(buffer.rest().len(), 0);
/// // The pieces come back in any order.
/// buffer.put(second).map_err(|_| "not a piece")?;
/// buffer.put(first).map_err(|_| "not a piece")?;
/// assert_eq!(buffer.finish().map_err(|_| "a piece is missing")?.len(), 10_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SplitBuffer {
    /// Rest of the buffer after the pieces.
    rest: DmaBuf,
    /// Offset of the first piece in the allocation.
    start: u32,
    /// Bytes of the pieces that came back.
    returned: u32,
}

impl SplitBuffer {
    /// Splits `buf`, of which no piece is cut yet.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn new(buf: DmaBuf) -> Self {
        Self { start: buf.start(), rest: buf, returned: 0 }
    }

    /// Returns the rest of the buffer, of which no piece is cut yet.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn rest(&self) -> &DmaBuf {
        &self.rest
    }

    /// Returns the number of bytes of the pieces that were cut off.
    #[inline]
    fn cut_bytes(&self) -> u32 {
        self.rest.start() - self.start
    }

    /// Cuts off the next `len` bytes; `None` if fewer are left.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn cut(&mut self, len: usize) -> Option<DmaBuf> {
        self.rest.split_to(len)
    }

    /// Cuts off the next `most` bytes, or the rest if it is shorter; `None` at the end.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn cut_at_most(&mut self, most: usize) -> Option<DmaBuf> {
        let len = self.rest.len().min(most);
        if len == 0 { None } else { self.cut(len) }
    }

    /// Returns a piece to the buffer.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the piece if it is not from this buffer.
    #[inline(always)]
    pub fn put(&mut self, piece: DmaBuf) -> Result<(), DmaBuf> {
        if !piece.is_between(self.start, &self.rest) {
            return Err(piece);
        }
        // Each byte counts at most once: a byte of a dropped piece is in a buffer again only after
        // `finish`, or after `DmaBuf::reclaim`, which fails as long as `rest` exists.
        self.returned += piece.len32();
        piece.drop_part();
        Ok(())
    }

    /// Returns the whole buffer.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns `self` if a piece is missing.
    #[inline]
    pub fn finish(mut self) -> Result<DmaBuf, Self> {
        let cut = self.cut_bytes();
        if self.returned != cut {
            return Err(self);
        }
        // SAFETY: `put` counted bytes only of buffers that lie in the `cut` bytes before `rest`, and
        // dropped them. It counted no byte twice, because buffers are disjoint and cannot be cloned,
        // and because no buffer gets bytes back that `put` dropped. So `cut` bytes counted are all
        // bytes of the range, and no buffer covers any of them.
        unsafe { self.rest.grow_back(cut) };
        Ok(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;

    #[test]
    fn a_buffer_comes_together_from_pieces_in_any_order() {
        let arena = Arena::detached(1).unwrap();
        let mut pieces = SplitBuffer::new(arena.alloc(1000).unwrap());
        let (a, b) = (pieces.cut(300).unwrap(), pieces.cut(500).unwrap());
        assert!(pieces.cut(201).is_none());
        pieces.put(b).unwrap();
        let mut pieces = pieces.finish().unwrap_err();
        pieces.put(a).unwrap();
        let buf = pieces.finish().unwrap();
        assert_eq!((buf.len(), buf.iova()), (1000, arena.iova()));
    }

    /// A buffer of 1,000 bytes, with its first 600 bytes cut off, and its arena.
    fn cut_in_two() -> (Arena, SplitBuffer, DmaBuf) {
        let arena = Arena::detached(2).unwrap();
        let mut pieces = SplitBuffer::new(arena.alloc(1000).unwrap());
        let piece = pieces.cut(600).unwrap();
        (arena, pieces, piece)
    }

    #[test]
    fn a_piece_of_another_buffer_is_returned() {
        let (arena, mut pieces, piece) = cut_in_two();
        let other = pieces.put(arena.alloc(600).unwrap()).unwrap_err();
        assert_eq!(other.len(), 600);
        // A part of the allocation, but not of the range that was split.
        let mut whole = arena.alloc(1000).unwrap();
        let before = whole.split_to(100).unwrap();
        let mut after = whole;
        let mut middle = SplitBuffer::new(after.split_to(100).unwrap());
        let cut = middle.cut(100).unwrap();
        let before = middle.put(before).unwrap_err();
        let after = middle.put(after).unwrap_err();
        assert_eq!((before.len(), after.len()), (100, 800));
        assert!(middle.finish().is_err(), "its own piece is missing");
        drop((cut, pieces, piece));
    }

    #[test]
    fn a_piece_counts_once_even_if_its_bytes_are_split_again() {
        let (_arena, mut pieces, piece) = cut_in_two();
        // The piece is split by a second owner, and one half goes to each.
        let mut inner = SplitBuffer::new(piece);
        let (half, other_half) = (inner.cut(300).unwrap(), inner.cut(300).unwrap());
        inner.put(half).unwrap();
        pieces.put(other_half).unwrap();
        let mut inner = inner.finish().unwrap_err();
        assert!(pieces.finish().is_err());
        assert!(inner.cut(1).is_none(), "no byte of it is left");
    }

    #[test]
    fn a_dropped_piece_does_not_come_back_by_reclaim() {
        let (_arena, mut pieces, mut piece) = cut_in_two();
        let first = piece.split_to(300).unwrap();
        pieces.put(first).unwrap();
        assert!(!piece.reclaim() && piece.len() == 300, "the rest of the buffer exists");
        pieces.put(piece).unwrap();
        assert_eq!(pieces.finish().unwrap().len(), 1000);
    }

    #[test]
    fn a_forgotten_or_shrunk_piece_is_missing() {
        let (_arena, pieces, piece) = cut_in_two();
        std::mem::forget(piece);
        assert!(pieces.finish().is_err());
        let (_arena, mut pieces, mut piece) = cut_in_two();
        piece.truncate(599);
        pieces.put(piece).unwrap();
        assert!(pieces.finish().is_err());
    }

    #[test]
    fn buffers_stay_disjoint_whatever_is_done_with_pieces() {
        let mut random = 7u64;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % bound.max(1)
        };
        let mut finished = 0;
        let arena = Arena::detached(1).unwrap();
        for _ in 0..2000 {
            let (mut bufs, mut splits) = (vec![arena.alloc(64).unwrap()], Vec::new());
            let base = bufs[0].iova();
            for _ in 0..40 {
                let (split, buf) = (below(splits.len()), below(bufs.len()));
                match below(6) {
                    0 if !bufs.is_empty() => splits.push(SplitBuffer::new(bufs.swap_remove(buf))),
                    1 if !bufs.is_empty() => bufs[buf].truncate(63 - below(4)),
                    2 if !bufs.is_empty() => {
                        bufs[buf].reclaim();
                    }
                    3 if !splits.is_empty() => bufs.extend(splits[split].cut(1 + below(20))),
                    4 if !splits.is_empty() && !bufs.is_empty() => {
                        let piece = bufs.swap_remove(buf);
                        bufs.extend(splits[split].put(piece).err());
                    }
                    5 if !splits.is_empty() => match splits.swap_remove(split).finish() {
                        Ok(buf) => {
                            finished += 1;
                            bufs.push(buf);
                        }
                        Err(split) => splits.push(split),
                    },
                    _ => {}
                }
                let mut owned = [false; 4096];
                let rests = splits.iter().map(SplitBuffer::rest);
                for buf in bufs.iter().chain(rests) {
                    let start = (buf.iova() - base) as usize;
                    for byte in &mut owned[start..start + buf.len()] {
                        assert!(!std::mem::replace(byte, true), "two buffers have one byte");
                    }
                }
            }
        }
        assert!(finished > 1000, "{finished}");
    }
}
