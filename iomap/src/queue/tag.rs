//! What goes with a command through the queue.

use crate::contract::open_file::InFlight;

/// What this layer has a [`Queue`](crate::Queue) carry along with each command.
///
/// It is made for one cache line: the queue's table of commands in flight has it beside the bio.
// Words rather than variants with fields: those would be copied around as a whole.
#[derive(Debug)]
pub struct Tag<I> {
    /// Of a request of the simple path; what is without it is of one of the generic path.
    pub(crate) in_flight: Option<InFlight<I>>,
    /// The caller's token, or the number of a wait; or what [`Part`] says.
    pub(crate) id: u64,
    /// Position in the file, with [`WAITED`] if the submitter waits; or position in the request.
    pub(crate) at: u64,
}

/// No file has a position as high.
pub(crate) const WAITED: u64 = 1 << 63;

/// What a command of the generic path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A piece of the request's data, which begins so many bytes before what it is for.
    Piece { skip: u32 },
    /// Zeroes beside what a request writes.
    Pad,
    /// A request's flush.
    Flush,
}

impl<I> Tag<I> {
    const PAD: u64 = 1 << 62;
    const FLUSH: u64 = 1 << 63;

    #[inline(always)]
    pub(crate) fn simple(in_flight: InFlight<I>, token: u64, pos: u64) -> Self {
        Self { in_flight: Some(in_flight), id: token, at: pos }
    }

    #[inline(always)]
    pub(crate) fn waited(in_flight: InFlight<I>, wait: u64, pos: u64) -> Self {
        Self { in_flight: Some(in_flight), id: wait, at: pos | WAITED }
    }

    /// `skip` is less than a block.
    #[inline(always)]
    pub(crate) fn piece(request: u32, skip: u32, at: u64) -> Self {
        Self { in_flight: None, id: u64::from(request) | u64::from(skip & 0xff_ffff) << 32, at }
    }

    pub(crate) fn pad(request: u32) -> Self {
        Self { in_flight: None, id: u64::from(request) | Self::PAD, at: 0 }
    }

    pub(crate) fn flush(request: u32) -> Self {
        Self { in_flight: None, id: u64::from(request) | Self::FLUSH, at: 0 }
    }

    pub(crate) fn is_pad(&self) -> bool {
        self.in_flight.is_none() && self.id & Self::PAD != 0
    }

    /// The request in the pool, and what of it this is.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "made of numbers of that size")]
    pub(crate) fn part(&self) -> (u32, Part) {
        let part = match self.id & (Self::PAD | Self::FLUSH) {
            0 => Part::Piece { skip: (self.id >> 32) as u32 & 0xff_ffff },
            Self::PAD => Part::Pad,
            _ => Part::Flush,
        };
        (self.id as u32, part)
    }
}
