//! A buffer handed out piece by piece, to several commands, and put together again.

use super::buf::DmaBuf;

/// A [`DmaBuf`] of which parts are in flight.
///
/// Pieces are cut off the front and returned in any order. Since pieces are owned and disjoint,
/// counting the bytes that came back is proof that nobody has any part of the buffer any more.
#[derive(Debug)]
pub struct SplitBuffer {
    /// The part at the front that was cut up already, as a buffer of no bytes at its start.
    start: DmaBuf,
    /// What was not cut off yet.
    rest: DmaBuf,
    cut: u32,
    returned: u32,
}

impl SplitBuffer {
    /// Takes a buffer to be cut up.
    pub fn new(buf: DmaBuf) -> Self {
        Self { start: buf.mark(), rest: buf, cut: 0, returned: 0 }
    }

    /// Cuts off the next `len` bytes, or `None` if fewer are left.
    #[inline]
    pub fn cut(&mut self, len: usize) -> Option<DmaBuf> {
        let piece = self.rest.split_to(len)?;
        self.cut += piece.len32();
        Some(piece)
    }

    /// Cuts off the next `most` bytes, or what is left, if that is less; `None` if nothing is.
    #[inline]
    pub fn cut_at_most(&mut self, most: usize) -> Option<DmaBuf> {
        let len = self.rest.len().min(most);
        if len == 0 { None } else { self.cut(len) }
    }

    /// Takes a piece back.
    ///
    /// # Errors
    /// Gives it back if it is not of this buffer, or more than was cut off.
    #[inline]
    pub fn put(&mut self, piece: DmaBuf) -> Result<(), DmaBuf> {
        let missing = self.cut - self.returned;
        if piece.len32() > missing || !piece.within(&self.start, self.cut) {
            return Err(piece);
        }
        self.returned += piece.len32();
        Ok(())
    }

    /// The whole buffer.
    ///
    /// # Errors
    /// `self`, if a piece is still missing.
    pub fn finish(mut self) -> Result<DmaBuf, Self> {
        if self.returned != self.cut {
            return Err(self);
        }
        // SAFETY: the `cut` bytes after `start` were cut off as owned, disjoint pieces; as many
        // bytes of that range came back by value, each piece to be dropped in `put`, so that no
        // buffer covers any of them.
        unsafe { self.start.grow_over(self.cut) };
        match self.start.join(self.rest) {
            Ok(()) => Ok(self.start),
            // Cannot be: `rest` begins where the pieces end.
            Err(_) => Ok(self.start),
        }
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
