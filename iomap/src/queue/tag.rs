//! The state that a command carries through the queue.

use crate::contract::open_file::InFlight;

/// The state that iomap adds to each command of a [`Queue`](crate::Queue).
///
/// A tag is small, so that the queue's table of commands in flight stores it beside the bio in one
/// cache line.
// Words rather than variants with fields, which would be copied as a whole.
#[derive(Debug)]
pub struct Tag<I> {
    /// The file, for a read of one command. `None` for a command of a request in the table.
    pub(crate) in_flight: Option<InFlight<I>>,
    /// The caller's token or the number of a wait; for a request in the table see [`Part`].
    pub(crate) id: u64,
    /// Position in the file, with [`WAITED`] if the submitter of a read of one command waits.
    pub(crate) at: u64,
}

/// Marks a position whose submitter waits. Positions in files are below it.
pub(crate) const WAITED: u64 = 1 << 63;

/// The purpose of a command of a request in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A data command. Its buffer starts `skip` bytes before the requested position, because the
    /// device reads whole blocks.
    Data { skip: u32 },
    /// Zeroes beside the data of a write.
    Pad,
    /// The flush of a write.
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

    /// Returns the number of the wait for a read of one command, or 0, and its token.
    pub(crate) fn wait_and_token(id: u64, at: u64) -> (u64, u64) {
        if at & WAITED == 0 { (0, id) } else { (id, 0) }
    }

    /// `skip` is less than a block. Without it, the tag's `id` is the number of the request.
    #[inline(always)]
    pub(crate) fn data(request: u32, skip: u32, pos: u64) -> Self {
        let id = u64::from(request) | u64::from(skip & 0xff_ffff) << 32;
        Self { in_flight: None, id, at: pos }
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

    /// Returns the request's entry in the table and the purpose of the command.
    #[expect(clippy::cast_possible_truncation, reason = "made of numbers of that size")]
    pub(crate) fn part(&self) -> (u32, Part) {
        let part = match self.id & (Self::PAD | Self::FLUSH) {
            0 => Part::Data { skip: (self.id >> 32) as u32 & 0xff_ffff },
            Self::PAD => Part::Pad,
            _ => Part::Flush,
        };
        (self.id as u32, part)
    }
}
