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
    pub fn rest(&self) -> &DmaBuf {
        &self.rest
    }

    /// Returns the number of bytes of the pieces that were cut off.
    #[inline]
    fn cut_bytes(&self) -> u32 {
        self.rest.start() - self.start
    }

    /// Returns true if all pieces that were cut off came back.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.returned == self.cut_bytes()
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
    #[inline]
    pub fn put(&mut self, piece: DmaBuf) -> Result<(), DmaBuf> {
        if !piece.is_between(self.start, &self.rest) {
            return Err(piece);
        }
        // No more than was cut off, because pieces are disjoint and owned.
        self.returned += piece.len32();
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
        // SAFETY: the `cut` bytes before `rest` were cut off as owned, disjoint pieces. Pieces of
        // `cut` bytes from that range came back by value and were dropped in `put`, so that no
        // buffer covers any of the bytes.
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

    #[test]
    fn strangers_and_shrunk_pieces_are_not_taken_for_the_missing_ones() {
        let arena = Arena::detached(1).unwrap();
        let mut pieces = SplitBuffer::new(arena.alloc(1000).unwrap());
        let mut piece = pieces.cut(600).unwrap();
        let stranger = pieces.put(arena.alloc(600).unwrap()).unwrap_err();
        assert_eq!(stranger.len(), 600);
        let half = piece.split_to(300).unwrap();
        pieces.put(half).unwrap();
        drop(piece);
        assert!(pieces.finish().is_err());
    }
}
