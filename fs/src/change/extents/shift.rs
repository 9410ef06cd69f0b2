//! Moves of the extents of a file to other blocks of the file.

use std::ops::Range;

use crate::change::extents::{ALL, Child, Entries, Extent, Tree, push};
use crate::journal::handle::Stop;

/// A move of all extents of a file from a block on. An extent that begins before the block is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    /// First block of the file that moves.
    pub from: u64,
    /// The block of the file to which it moves.
    pub to: u64,
}

impl Shift {
    /// Moves the extents of a leaf.
    fn extents(self, extents: Vec<Extent>) -> Vec<Extent> {
        let mut new = Vec::with_capacity(extents.len().saturating_add(1));
        for extent in extents {
            push(&mut new, extent.part(0..self.from));
            push(&mut new, extent.part(self.from..u64::MAX).map(|part| self.moved(part)));
        }
        new
    }

    fn moved(self, extent: Extent) -> Extent {
        let start = extent.start.saturating_sub(self.from).saturating_add(self.to);
        Extent { start, ..extent }
    }
}

impl Tree<'_, '_> {
    /// Moves extents. The caller has made sure that there are none between the two places, if they move
    /// to the begin of the file, and that the last one stays inside the largest file.
    pub(crate) fn shift(&mut self, shift: Shift) -> Result<(), Stop> {
        let (entries, depth) = self.read_root()?;
        let entries = self.shift_entries(entries, depth, ALL, shift)?;
        self.is_changed = true;
        self.store_root(entries, depth, true)
    }

    /// Moves the extents of a node and of those below it. Returns the new entries of the node, which
    /// maps `range`.
    fn shift_entries(
        &mut self,
        entries: Entries,
        depth: u16,
        range: Range<u64>,
        shift: Shift,
    ) -> Result<Entries, Stop> {
        match entries {
            Entries::Extents(extents) => Ok(Entries::Extents(shift.extents(extents))),
            Entries::Children(children) => {
                Ok(Entries::Children(self.shift_children(children, depth, range, shift)?))
            }
        }
    }

    fn shift_children(
        &mut self,
        children: Vec<Child>,
        depth: u16,
        all: Range<u64>,
        shift: Shift,
    ) -> Result<Vec<Child>, Stop> {
        let mut new = Vec::with_capacity(children.len());
        let ends = children.iter().skip(1).map(|child| child.start).chain([all.end]);
        let ends: Vec<u64> = ends.collect();
        let below = depth.saturating_sub(1);
        let mut low = all.start;
        for (child, high) in children.into_iter().zip(ends) {
            let range = low..high;
            low = high;
            if range.end <= shift.from {
                new.push(child);
                continue;
            }
            let entries = self.read(child.block, below, range.clone())?;
            // The recursion ends, because `read` checks that the depth decreases.
            let entries = self.shift_entries(entries, below, range, shift)?;
            new.extend(self.store(Some(child.block), below, &entries)?);
        }
        Ok(new)
    }
}
