//! The places of the maps of files: extent trees and indirect blocks.

use super::fields::{self, Field, fields};
use super::layout::{Layout, Run, field};
use super::seal::Seal;

impl Layout {
    /// Returns the fields of the extent node at byte `start` of the image and byte `base` of its
    /// structure.
    pub fn node_fields(&self, start: usize, base: usize) -> Vec<Field> {
        let (entries, depth) = (self.get(start + 2, 2) as usize, self.get(start + 6, 2));
        let table = if depth == 0 { fields::EXTENT } else { fields::EXTENT_INDEX };
        let some = (0..entries.min(4)).chain(entries.checked_sub(1).filter(|&last| last > 3));
        let all = some.flat_map(|at| fields(table, base + 12 + at * 12));
        fields(fields::EXTENT_HEADER, base).chain(all).collect()
    }

    pub fn extents(&mut self, start: usize, seed: u32, runs: &mut Vec<Run>) {
        let (entries, depth) = (self.get(start + 2, 2) as usize, self.get(start + 6, 2));
        for entry in (0..entries).map(|at| start + 12 + at * 12) {
            if depth == 0 {
                let length = self.get(entry + 4, 2);
                let physical = self.get(entry + 8, 4) | self.get(entry + 6, 2) << 32;
                if length <= 32768 {
                    runs.push((self.get(entry, 4), physical, length));
                }
                continue;
            }
            let block = self.get(entry + 4, 4) | self.get(entry + 8, 2) << 32;
            let at = block as usize * self.block_size;
            let kind = if depth == 1 { "extent leaf" } else { "extent index" };
            let all = self.node_fields(at, 0);
            self.add_block(kind, block, all, Seal::ExtentBlock(seed));
            self.extents(at, seed, runs);
        }
    }

    pub fn pointers(&mut self, start: usize, runs: &mut Vec<Run>) {
        for at in 0..12 {
            runs.push((at, self.get(start + at as usize * 4, 4), 1));
        }
        let (mut logical, mut span) = (12, 1);
        for level in 1..=3 {
            let block = self.get(start + (11 + level) * 4, 4);
            span *= self.block_size as u64 / 4;
            self.indirect(block, level, logical, span, runs);
            logical += span;
        }
        runs.retain(|&(_, physical, _)| physical != 0);
    }

    fn indirect(&mut self, block: u64, level: usize, logical: u64, span: u64, runs: &mut Vec<Run>) {
        if block == 0 {
            return;
        }
        let count = self.block_size / 4;
        let all = (0..8).chain([count - 1]).map(|at| field("pointer", at * 4, 4));
        let kind = ["", "indirect block", "double indirect block", "triple indirect block"][level];
        self.add_block(kind, block, all, Seal::Nothing);
        let each = span / count as u64;
        for at in 0..count {
            let (pointer, logical) = (
                self.get(block as usize * self.block_size + at * 4, 4),
                logical + at as u64 * each,
            );
            match level {
                1 => runs.push((logical, pointer, 1)),
                _ => self.indirect(pointer, level - 1, logical, each, runs),
            }
        }
    }
}
