//! The builder of runs.

use std::ops::Range;

use nvio_iomap::{Mapping, MappingFlags, MappingKind};

use crate::format::superblock::Superblock;
use crate::map::run::MapRun;
use crate::number::{LogicalBlock, PhysicalBlock};

/// A builder of a [`MapRun`] from mappings in logical order.
pub(crate) struct RunBuilder<'a> {
    superblock: &'a Superblock,
    start: LogicalBlock,
    /// First logical block that is not covered yet.
    next: LogicalBlock,
    mappings: Vec<Mapping>,
}

impl<'a> RunBuilder<'a> {
    pub(crate) fn new(superblock: &'a Superblock, start: LogicalBlock, capacity: usize) -> Self {
        let mappings = Vec::with_capacity(capacity);
        Self { superblock, start, next: start, mappings }
    }

    /// Appends the blocks of `range`, which are stored from `physical` on. A gap to the end of the
    /// previous mapping becomes a hole.
    pub(crate) fn push(
        &mut self,
        range: Range<LogicalBlock>,
        physical: PhysicalBlock,
        kind: MappingKind,
    ) {
        self.hole_until(range.start);
        let (offset, length) = self.bytes(&range);
        let (addr, flags) = (self.superblock.address(physical), MappingFlags::empty());
        self.mappings.push(Mapping { offset, length, addr, kind, flags });
        self.next = range.end;
    }

    /// Appends blocks like [`push`](Self::push), but extends the previous mapping if both are
    /// adjacent in the file and on the device and of the same kind.
    pub(crate) fn push_joined(
        &mut self,
        range: Range<LogicalBlock>,
        physical: PhysicalBlock,
        kind: MappingKind,
    ) {
        let ((offset, length), addr) = (self.bytes(&range), self.superblock.address(physical));
        match self.mappings.last_mut() {
            Some(last)
                if last.kind == kind
                    && last.end() == offset
                    && last.addr.checked_add(last.length) == Some(addr) =>
            {
                last.length = last.length.saturating_add(length);
                last.flags = MappingFlags::MERGED;
                self.next = range.end;
            }
            _ => self.push(range, physical, kind),
        }
    }

    /// Returns the first byte of a range and its length.
    fn bytes(&self, range: &Range<LogicalBlock>) -> (u64, u64) {
        let length = self.superblock.bytes(range.end.since(range.start).into());
        (self.superblock.position(range.start), length)
    }

    /// Adds a hole up to `logical`, if there is a gap.
    fn hole_until(&mut self, logical: LogicalBlock) {
        if self.next < logical {
            let (offset, length) = self.bytes(&(self.next..logical));
            self.mappings.push(hole(offset, length));
            self.next = logical;
        }
    }

    /// Returns the run, whose last mapping is a hole if it ends before `end`.
    pub(crate) fn finish(mut self, end: LogicalBlock) -> MapRun {
        self.hole_until(end);
        let range = self.superblock.position(self.start)..self.superblock.position(end);
        MapRun::new(range, self.mappings.into())
    }
}

/// Returns a hole of `length` bytes.
pub(crate) fn hole(offset: u64, length: u64) -> Mapping {
    let flags = MappingFlags::empty();
    Mapping { offset, length, addr: 0, kind: MappingKind::Hole, flags }
}
