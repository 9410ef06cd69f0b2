//! The versions of all blocks, which reads are compared with.

use std::ops::Range;

use crate::pattern::{Found, Origin, SECTOR};
use crate::target::{Error, Request, Wrong};

/// Version of the first write to a block.
const FIRST: u32 = 1;

/// A block: the largest unit that all requests consist of.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Version of the data, or 0 if it is not known.
    version: u32,
    /// Version of the write in flight, or that of the data.
    next: u32,
    is_busy: bool,
}

/// The contents of a range of a file that no other thread writes to.
#[derive(Debug)]
pub struct Verify {
    origin: Origin,
    name: String,
    start: u64,
    unit: u64,
    blocks: Box<[Block]>,
    /// A block that this thread has not written must have data of the seed, too.
    must_know: bool,
}

impl Verify {
    /// Creates the state of `range`, whose contents are not known yet. `name` is the file's.
    /// `unit` divides the lengths and positions of all requests. With `must_know`, a block that was
    /// not written by this state must have data of the seed, too.
    pub fn new(origin: Origin, name: &str, range: Range<u64>, unit: u64, must_know: bool) -> Self {
        let count = usize::try_from((range.end - range.start) / unit.max(1)).unwrap_or(0);
        let blocks = vec![Block::default(); count].into();
        Self { origin, name: name.to_owned(), start: range.start, unit, blocks, must_know }
    }

    /// Returns the number of blocks of `range` from the start whose version is known.
    pub fn known(&self) -> usize {
        self.blocks.iter().filter(|block| block.version > 0).count()
    }

    fn blocks(&mut self, request: &Request) -> &mut [Block] {
        let first = usize::try_from((request.pos - self.start) / self.unit).unwrap_or(usize::MAX);
        let count = usize::try_from(request.bytes as u64 / self.unit).unwrap_or(0);
        self.blocks.get_mut(first..first.saturating_add(count)).unwrap_or_default()
    }

    /// Reserves the blocks of a request, and returns false if another request in flight has one of
    /// them: the device orders nothing.
    pub fn reserve(&mut self, request: &Request) -> bool {
        let blocks = self.blocks(request);
        if blocks.iter().any(|block| block.is_busy) {
            return false;
        }
        blocks.iter_mut().for_each(|block| block.is_busy = true);
        true
    }

    /// Releases the blocks of a request that was not submitted.
    pub fn release(&mut self, request: &Request) {
        for block in self.blocks(request) {
            (block.is_busy, block.next) = (false, block.version);
        }
    }

    /// Fills the memory of a write with the next versions.
    pub fn fill(&mut self, request: &Request, bytes: &mut [u8]) {
        let (origin, unit) = (self.origin, self.unit);
        let mut pos = request.pos;
        let parts = bytes.chunks_mut(usize::try_from(unit).unwrap_or(SECTOR));
        for (block, part) in self.blocks(request).iter_mut().zip(parts) {
            // 0 is no version.
            block.next = block.next.wrapping_add(1).max(FIRST);
            origin.fill(pos, block.next, part);
            pos += unit;
        }
    }

    /// Ends a request, whose data is `bytes` unless it failed.
    ///
    /// # Errors
    /// Wrong data.
    pub fn settle(&mut self, request: &Request, bytes: Option<&mut [u8]>) -> Result<(), Wrong> {
        let (origin, unit, must_know) = (self.origin, self.unit, self.must_know);
        let mut wrong = None;
        let step = usize::try_from(unit).unwrap_or(SECTOR);
        let mut parts = bytes.as_deref().map(|bytes| bytes.chunks(step));
        let mut pos = request.pos;
        for block in self.blocks(request) {
            block.is_busy = false;
            let part = parts.as_mut().and_then(Iterator::next);
            match (request.write, part) {
                (true, Some(_)) => block.version = block.next,
                // A write that failed may have stored something.
                (true, None) => block.version = 0,
                (false, None) => {}
                (false, Some(part)) => {
                    let checked = block.check(origin, pos, part, must_know);
                    wrong = wrong.or(checked.err().map(|(pos, found)| (pos, found, block.version)));
                }
            }
            pos += unit;
        }
        wrong.map_or(Ok(()), |wrong| Err(self.describe(wrong)))
    }

    #[cold]
    fn describe(&self, (pos, found, version): (u64, Found, u32)) -> Wrong {
        let Origin { seed, file } = self.origin;
        let there = match found {
            Found::Foreign if version == 0 => {
                "no data of this seed; --prepare writes it first".to_owned()
            }
            Found::Foreign => "no data of this seed".to_owned(),
            Found::Damaged { at } => format!("the right header and a wrong byte after byte {at}"),
            Found::Data { file: other, pos: from, version: old }
                if other != file || from != pos =>
            {
                let of = if other == file { String::new() } else { format!(" of file {other}") };
                format!("the data of offset {from}{of}, version {old}: the wrong block")
            }
            Found::Data { version: old, .. } => {
                format!("version {old} instead of {version}: a write that was lost or is old")
            }
        };
        let text = format!("{}: wrong data at offset {pos}: {there}; seed {seed}", self.name);
        Wrong { pos, error: Error(text) }
    }
}

impl Block {
    /// Checks the bytes of the block, and learns its version if that was not known.
    fn check(
        &mut self,
        origin: Origin,
        pos: u64,
        bytes: &[u8],
        must_know: bool,
    ) -> Result<(), (u64, Found)> {
        let mut learned = None;
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = pos + (index * SECTOR) as u64;
            let version = match (self.version, origin.read(sector)) {
                (0, Found::Data { version, .. }) => version,
                (0, _) if !must_know => {
                    learned = Some(0);
                    continue;
                }
                (version, _) => version,
            };
            origin.check(at, version, sector).map_err(|found| (at, found))?;
            // An earlier run may have written the sectors of the block apart.
            let before = learned.get_or_insert(version);
            if *before != version {
                learned = Some(0);
            }
        }
        self.version = learned.unwrap_or(self.version);
        self.next = self.version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { seed: 4, file: 9 };
    const READ: Request = Request { pos: 8192, bytes: 8192, write: false };
    const WRITE: Request = Request { write: true, ..READ };

    fn verify(must_know: bool) -> Verify {
        Verify::new(ORIGIN, "/file", 4096..4096 + 65_536, 4096, must_know)
    }

    fn write(verify: &mut Verify, bytes: &mut [u8]) {
        assert!(verify.reserve(&WRITE));
        verify.fill(&WRITE, bytes);
        verify.settle(&WRITE, Some(bytes)).unwrap();
    }

    #[test]
    fn old_wrong_and_lost_blocks_are_named() {
        let mut verify = verify(false);
        let (mut old, mut new) = (vec![0; 8192], vec![0; 8192]);
        write(&mut verify, &mut old);
        write(&mut verify, &mut new);
        let mut error = |bytes: &[u8]| {
            assert!(verify.reserve(&READ));
            let settled = verify.settle(&READ, Some(&mut bytes.to_vec()));
            settled.map_err(|wrong| wrong.error.0)
        };
        assert_eq!(error(&new), Ok(()));
        let said = error(&old).unwrap_err();
        for part in ["/file", "offset 8192", "version 1 instead of 2", "seed 4"] {
            assert!(said.contains(part), "{said}");
        }
        let swapped = [&new[4096..], &new[..4096]].concat();
        let said = error(&swapped).unwrap_err();
        assert!(said.contains("the data of offset 12288, version 2: the wrong block"), "{said}");
        let mut second_half = new.clone();
        second_half[4096..].copy_from_slice(&old[4096..]);
        assert!(error(&second_half).unwrap_err().contains("offset 12288"));
        assert!(error(&[7; 8192]).unwrap_err().contains("no data of this seed"));
        new[5000] ^= 1;
        assert!(error(&new).unwrap_err().contains("a wrong byte after byte 392"));
    }

    #[test]
    fn unknown_blocks_are_learned_or_refused() {
        let mut bytes = vec![0; 8192];
        write(&mut verify(false), &mut bytes);
        let mut second = bytes.clone();
        ORIGIN.fill(8192, 2, &mut second);
        for must_know in [false, true] {
            let mut verify = verify(must_know);
            let foreign = verify.settle(&READ, Some(&mut [1; 8192]));
            assert_eq!(foreign.is_err(), must_know);
            verify.settle(&READ, Some(&mut bytes)).unwrap();
            assert_eq!(verify.known(), 2);
            assert!(verify.settle(&READ, Some(&mut second)).is_err(), "another version");
            let mut moved = vec![0; 8192];
            ORIGIN.fill(32_768, 1, &mut moved);
            let elsewhere = Request { pos: 16_384, ..READ };
            assert!(verify.settle(&elsewhere, Some(&mut moved)).is_err(), "the wrong block");
            // Sectors that another run has written one by one.
            let mut mixed = vec![0; 8192];
            ORIGIN.fill(24_576, 1, &mut mixed);
            ORIGIN.fill(24_576 + 512, 5, &mut mixed[512..1024]);
            let apart = Request { pos: 24_576, ..READ };
            verify.settle(&apart, Some(&mut mixed)).unwrap();
            assert_eq!(verify.known(), 3, "only the second block has one version");
        }
    }

    #[test]
    fn a_write_that_failed_leaves_an_unknown_block() {
        let mut verify = verify(false);
        let mut bytes = vec![0; 8192];
        write(&mut verify, &mut bytes);
        assert!(verify.reserve(&WRITE) && !verify.reserve(&READ), "one of them is in flight");
        verify.settle(&WRITE, None).unwrap();
        assert_eq!(verify.known(), 0);
        verify.settle(&READ, Some(&mut [3; 8192])).unwrap();
        // A write that was not submitted changes nothing.
        write(&mut verify, &mut bytes);
        assert!(verify.reserve(&WRITE));
        verify.fill(&WRITE, &mut vec![0; 8192]);
        verify.release(&WRITE);
        verify.settle(&READ, Some(&mut bytes)).unwrap();
    }
}
