//! The values that each part of a file may have, by the calls that wrote it.
//!
//! A call has a stamp at its begin and one at its end. A value may be seen if its write began before
//! the reader ended, and no other write began after that write had ended and ended before the reader
//! began.

use std::ops::Range;

/// Bytes of a cell, the unit of writes.
pub(super) const CELL: u64 = 256;
/// The stamp of an end that has not come.
const OPEN: u64 = u64::MAX;

/// A write of one value to a cell.
#[derive(Clone, Copy, Debug)]
struct Write {
    value: u64,
    begin: u64,
    end: u64,
    /// The write did happen. One that failed may have happened or not.
    sure: bool,
    /// Readers of the cache see the value as soon as one of them has.
    cached: bool,
}

/// The history of a file.
#[derive(Default)]
pub(super) struct History {
    cells: Vec<Vec<Write>>,
    /// For each cell, the begin of the last write that is durable: older values are gone.
    durable: Vec<u64>,
    stamp: u64,
    /// Writes that may have moved the end of the file: the new end, a stamp, and whether they have.
    ends: Vec<(u64, u64, bool)>,
    /// Changes of the size: the new size, and the stamps of their begin and end.
    truncations: Vec<(u64, u64, u64)>,
}

/// The word that value `value` fills cell `cell` with. Zeroes are the same everywhere.
fn word(cell: usize, value: u64) -> u64 {
    if value == 0 { 0 } else { (cell as u64) << 32 | value }
}

/// Returns the bytes of cells that a write of `value` fills.
pub(super) fn fill(cells: Range<usize>, value: u64) -> Vec<u8> {
    let words = |cell| std::iter::repeat_n(word(cell, value), CELL as usize / 8);
    cells.flat_map(words).flat_map(u64::to_le_bytes).collect()
}

/// Returns the value of a cell, if all of it has one.
fn value(cell: usize, bytes: &[u8]) -> Option<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    let first = u64::from_le_bytes(*words.first()?);
    let is_whole = words.iter().all(|word| u64::from_le_bytes(*word) == first);
    let value = first & u64::from(u32::MAX);
    (is_whole && word(cell, value) == first).then_some(value)
}

impl History {
    /// Creates the history of a file of `size` bytes whose cells have `values`.
    pub(super) fn new(values: &[u64], size: u64) -> Self {
        let cell = |&value| vec![Write { value, begin: 0, end: 0, sure: true, cached: false }];
        Self {
            cells: values.iter().map(cell).collect(),
            durable: vec![0; values.len()],
            stamp: 0,
            ends: Vec::new(),
            truncations: vec![(size, 0, 0)],
        }
    }

    /// Returns the stamp of an event.
    pub(super) fn stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Begins a write, and returns its stamp.
    pub(super) fn begin(&mut self, cells: Range<usize>, value: u64, cached: bool) -> u64 {
        let begin = self.stamp();
        for cell in &mut self.cells[cells] {
            cell.push(Write { value, begin, end: OPEN, sure: false, cached });
        }
        begin
    }

    /// Begins a write that can make the file end at `end`.
    pub(super) fn begin_growth(&mut self, end: u64) {
        let stamp = self.stamp();
        self.ends.push((end, stamp, false));
    }

    /// Ends a write that wrote the cells before `sure`. The others have not been written, or `maybe`.
    pub(super) fn end(&mut self, cells: Range<usize>, begin: u64, sure: usize, maybe: bool) {
        let end = self.stamp();
        for cell in cells {
            let writes = &mut self.cells[cell];
            let Some(at) = writes.iter().position(|write| write.begin == begin) else { continue };
            let write = &mut writes[at];
            write.end = write.end.min(end);
            write.sure |= cell < sure;
            if !write.sure && !maybe {
                writes.remove(at);
            }
        }
    }

    /// Notes that the file ends at `end` or later.
    pub(super) fn grown(&mut self, end: u64) {
        let stamp = self.stamp();
        self.ends.push((end, stamp, true));
    }

    /// Ends a change of the size that began at `begin`, and leaves zeroes from there on if it is `sure`.
    pub(super) fn truncated(&mut self, size: u64, begin: u64, sure: bool) {
        let sure = if sure { self.cells.len() } else { 0 };
        self.end((size / CELL) as usize..self.cells.len(), begin, sure, true);
        let end = self.stamp();
        match sure {
            // The size is the old one.
            0 => self.truncations.retain(|change| change.1 != begin),
            _ => self.truncations.iter_mut().for_each(|change| {
                if change.1 == begin {
                    change.2 = end;
                }
            }),
        }
    }

    /// Begins a change of the size, during which nothing is written, and returns its stamp.
    pub(super) fn begin_truncation(&mut self, size: u64) -> u64 {
        let cells = (size / CELL) as usize..self.cells.len();
        let begin = self.begin(cells, 0, true);
        self.truncations.push((size, begin, OPEN));
        begin
    }

    /// Returns the least and the largest size that a call may see that began at `begin`.
    pub(super) fn sizes(&self, begin: u64) -> (u64, u64) {
        let (over, open): (Vec<_>, _) =
            self.truncations.iter().partition(|change| change.2 <= begin);
        let &&(size, _, since) = over.last().unwrap();
        let grown = self.ends.iter().filter(|(_, stamp, _)| *stamp > since);
        let least = grown.clone().filter(|(_, stamp, sure)| *sure && *stamp <= begin);
        let least = least.map(|(size, ..)| *size).fold(size, u64::max);
        let cut: Vec<_> = open;
        let least = cut.iter().map(|change| change.0).fold(least, u64::min);
        let most = grown.map(|(size, ..)| *size).fold(size, u64::max);
        (least, cut.iter().map(|change| change.0).fold(most, u64::max))
    }

    /// Notes that the write of cells that began at `begin` is durable.
    pub(super) fn durable(&mut self, cells: Range<usize>, begin: u64) {
        for durable in &mut self.durable[cells] {
            *durable = begin.max(*durable);
        }
    }

    /// Notes that all writes that had ended before `stamp` are durable.
    pub(super) fn synced(&mut self, stamp: u64) {
        for cell in 0..self.cells.len() {
            self.durable(cell..cell + 1, self.newest(cell, stamp));
        }
    }

    /// Returns the begin of the last sure write of a cell that had ended before `stamp`.
    fn newest(&self, cell: usize, stamp: u64) -> u64 {
        let ended = self.cells[cell].iter().filter(|write| write.sure && write.end < stamp);
        ended.map(|write| write.begin).max().unwrap_or(0)
    }

    /// Checks bytes from cell `first` on that a call saw which began at `begin`.
    pub(super) fn check(&self, first: usize, bytes: &[u8], begin: u64) -> Result<(), String> {
        for (index, bytes) in bytes.chunks(CELL as usize).enumerate() {
            self.check_cell(first + index, bytes, self.newest(first + index, begin))?;
        }
        Ok(())
    }

    /// Checks the bytes from cell `first` on that a power cut leaves.
    pub(super) fn check_durable(&self, first: usize, bytes: &[u8]) -> Result<(), String> {
        for (index, bytes) in bytes.chunks(CELL as usize).enumerate() {
            self.check_cell(first + index, bytes, self.durable[first + index])?;
        }
        Ok(())
    }

    /// Checks a value that is not older than the write that began at `newest`.
    fn check_cell(&self, cell: usize, bytes: &[u8], newest: u64) -> Result<(), String> {
        let found = value(cell, bytes);
        let Some(found) = found else {
            let (words, _) = bytes.as_chunks::<8>();
            let mut words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            words.dedup();
            return Err(format!("cell {cell} is torn or of another place: {words:x?}"));
        };
        let allowed = |write: &&Write| write.value == found && write.end >= newest;
        // While the file is cut, its old size is still on the device, without the dirty data.
        let is_cut =
            |change: &(u64, u64, u64)| change.2 == OPEN && change.0 < (cell as u64 + 1) * CELL;
        if self.truncations.iter().any(is_cut) {
            return Ok(());
        }
        match self.cells[cell].iter().any(|write| allowed(&write)) {
            true => Ok(()),
            false => Err(format!(
                "cell {cell} has value {found}, which is older than {newest}: {:?}",
                self.cells[cell]
                    .iter()
                    .map(|w| (w.value, w.begin, w.end, w.sure))
                    .collect::<Vec<_>>()
            )),
        }
    }

    /// Notes that a reader of the cache saw bytes: they are there from now on.
    pub(super) fn seen(&mut self, first: usize, bytes: &[u8]) {
        let now = self.stamp();
        for (index, bytes) in bytes.chunks(CELL as usize).enumerate() {
            let Some(found) = value(first + index, bytes) else { continue };
            let of_value = |write: &&mut Write| write.value == found && write.cached && found != 0;
            for write in self.cells[first + index].iter_mut().filter(of_value) {
                write.end = write.end.min(now);
                write.sure = true;
            }
        }
    }
}
