//! The builder of runs.

use nvio_iomap::{Mapping, MappingFlags, MappingKind};

use crate::format::superblock::Superblock;
use crate::map::run::MapRun;

/// First logical block that no file has: logical block numbers have 32 bits, and the largest is
/// reserved.
pub(crate) const LOGICAL_END: u64 = 0xffff_ffff;

/// A builder of a [`MapRun`] from mappings in logical order.
pub(crate) struct RunBuilder<'a> {
    superblock: &'a Superblock,
    start: u64,
    /// First logical block that is not covered yet.
    next: u64,
    mappings: Vec<Mapping>,
}

impl<'a> RunBuilder<'a> {
    pub(crate) fn new(superblock: &'a Superblock, start: u64, capacity: usize) -> Self {
        let mappings = Vec::with_capacity(capacity);
        Self { superblock, start, next: start, mappings }
    }

    /// Appends `count` blocks at logical block `logical`. A gap to the end of the previous mapping
    /// becomes a hole.
    pub(crate) fn push(&mut self, logical: u64, count: u64, physical: u64, kind: MappingKind) {
        self.hole_until(logical);
        self.mappings.push(Mapping {
            offset: self.superblock.bytes(logical),
            length: self.superblock.bytes(count),
            addr: self.superblock.bytes(physical),
            kind,
            flags: MappingFlags::empty(),
        });
        self.next = logical.saturating_add(count);
    }

    /// Appends blocks like [`push`](Self::push), but extends the previous mapping if both are
    /// adjacent in the file and on the device and of the same kind.
    pub(crate) fn push_joined(
        &mut self,
        logical: u64,
        count: u64,
        physical: u64,
        kind: MappingKind,
    ) {
        let (offset, addr) = (self.superblock.bytes(logical), self.superblock.bytes(physical));
        match self.mappings.last_mut() {
            Some(last)
                if last.kind == kind
                    && last.end() == offset
                    && last.addr.checked_add(last.length) == Some(addr) =>
            {
                last.length = last.length.saturating_add(self.superblock.bytes(count));
                last.flags = MappingFlags::MERGED;
                self.next = logical.saturating_add(count);
            }
            _ => self.push(logical, count, physical, kind),
        }
    }

    fn hole_until(&mut self, logical: u64) {
        if let Some(count) = logical.checked_sub(self.next).filter(|&count| count > 0) {
            self.mappings
                .push(hole(self.superblock.bytes(self.next), self.superblock.bytes(count)));
            self.next = logical;
        }
    }

    /// Ends the run before logical block `end`.
    pub(crate) fn finish(mut self, end: u64) -> MapRun {
        self.hole_until(end);
        let range = self.superblock.bytes(self.start)..self.superblock.bytes(end);
        MapRun::new(range, self.mappings.into())
    }
}

/// Returns a hole of `length` bytes.
pub(crate) fn hole(offset: u64, length: u64) -> Mapping {
    let flags = MappingFlags::empty();
    Mapping { offset, length, addr: 0, kind: MappingKind::Hole, flags }
}
