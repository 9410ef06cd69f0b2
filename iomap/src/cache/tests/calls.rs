//! The calls of a sequence, with the check of each result.

use std::ops::Range;

use super::double::{BLOCK, Block, Double, Inode};
use super::history::{CELL, History, fill};
use super::plan::{CELLS, Call, How};
use super::stepped::Stepped;
use super::world::{Handle, World};
use crate::cache::CachedFile;
use crate::{Error, FileQueue, IoArgs, IoFlags, Source, Tag};

/// A queue for direct I/O on the file.
pub(super) type Direct = FileQueue<Stepped<Tag<Inode>>, Inode>;

/// Memory of which only the first bytes can be read.
struct Torn<'a>(&'a [u8], usize);

impl Source for Torn<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], _nofault: bool) -> usize {
        let end = self.1.min(self.0.len());
        let Some(data) = self.0.get(at..end) else { return 0 };
        let len = out.len().min(data.len());
        out[..len].copy_from_slice(&data[..len]);
        len
    }
}

fn bytes(cells: &Range<usize>) -> Range<u64> {
    cells.start as u64 * CELL..cells.end as u64 * CELL
}

fn flags(how: How) -> IoFlags {
    match how {
        How::Cached => IoFlags::empty(),
        How::Through => IoFlags::WRITETHROUGH,
        How::Durable => IoFlags::DSYNC,
        How::DurableThrough => IoFlags::DSYNC | IoFlags::WRITETHROUGH,
    }
}

impl World {
    pub(super) fn call(
        &self,
        handle: &mut Handle,
        direct: &mut Direct,
        call: &Call,
    ) -> Result<(), String> {
        let file = &mut handle.file;
        match call {
            Call::Read(cells) => self.read(cells, true, |pos, out| file.read_at(pos, out)),
            Call::ReadDirect(cells) => {
                let mut double = self.double.clone();
                self.read(cells, false, |pos, out| direct.read_at(&mut double, pos, out))
            }
            Call::Write { cells, how, readable } => self.write(file, cells, *how, *readable),
            Call::WriteDirect(cells) => self.write_direct(file, direct, cells),
            Call::Zero(cells) => self.zero(file, cells),
            Call::Invalidate(cells) => {
                file.invalidate(bytes(cells));
                Ok(())
            }
            Call::WriteBack { cells, nowait } => self.write_back(file, cells, *nowait),
            Call::Sync => self.sync(handle),
            Call::Move(block) => self.relocate(file, *block),
            Call::Evict => {
                let evicted = self.cache.0.evict_one();
                self.count(|counts| counts.evicted += u64::from(evicted));
                Ok(())
            }
            Call::Reopen => {
                handle.at_begin = self.failures();
                let state = &file.cache_for_tests().state;
                if state.commands() > 0 || state.endings() > 0 {
                    // Not all of them are recorded yet.
                    handle.at_begin = u64::MAX;
                }
                handle.file = handle.file.clone();
                handle.at_end = self.failures();
                Ok(())
            }
        }
    }

    /// Judges an error that a fault may have caused.
    fn error(&self, error: &Error) -> Result<(), String> {
        self.count(|counts| counts.errors += 1);
        if self.has_faults() { Ok(()) } else { Err(format!("error without a fault: {error}")) }
    }

    fn read(
        &self,
        cells: &Range<usize>,
        cached: bool,
        read: impl FnOnce(u64, &mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), String> {
        let Range { start: pos, end } = bytes(cells);
        let mut out = vec![0xff; (end - pos) as usize];
        let begin = self.history(History::stamp);
        let n = match read(pos, &mut out) {
            Ok(n) => n,
            // A block that was reserved after dirty data was written back.
            Err(Error::Delalloc { .. }) if !cached => return Ok(()),
            Err(error) => return self.error(&error),
        };
        self.history(|history| {
            let (least, most) = history.sizes(begin);
            let clip = |size: u64| (size.clamp(pos, end) - pos) as usize;
            let is_short = n < clip(least) && cached && !self.has_faults();
            if is_short || n > clip(most) {
                return Err(format!("{n} bytes of a file of {least} to {most}"));
            }
            history.check(cells.start, &out[..n], begin)?;
            if cached {
                history.seen(cells.start, &out[..n]);
            }
            Ok(())
        })
    }

    fn write(
        &self,
        file: &mut CachedFile<Double>,
        cells: &Range<usize>,
        how: How,
        readable: usize,
    ) -> Result<(), String> {
        let (Range { start: pos, end }, value) = (bytes(cells), self.value());
        let data = fill(cells.clone(), value);
        let readable = (readable * CELL as usize).min(data.len());
        let begin = self.history(|history| {
            history.begin_growth(end);
            history.begin(cells.clone(), value, true)
        });
        let written = file.write_from(IoArgs::at(pos).flags(flags(how)), Torn(&data, readable));
        let n = match written {
            Ok(n) => n,
            Err(error) => {
                self.history(|history| history.end(cells.clone(), begin, 0, true));
                let is_torn = readable < data.len() && matches!(error, Error::Fault { .. });
                return if is_torn { Ok(()) } else { self.error(&error) };
            }
        };
        let is_short = n < data.len() && readable == data.len() && !self.has_faults();
        if is_short || n > readable || !n.is_multiple_of(CELL as usize) {
            return Err(format!("{n} bytes were written, of {readable} of {}", data.len()));
        }
        let done = cells.start..cells.start + n / CELL as usize;
        self.history(|history| {
            history.end(cells.clone(), begin, done.end, false);
            if n > 0 {
                history.grown(pos + n as u64);
            }
        });
        if !matches!(how, How::Durable | How::DurableThrough) {
            return Ok(());
        }
        self.history(|history| history.durable(done.clone(), begin));
        self.check_durable(&done)
    }

    fn zero(&self, file: &mut CachedFile<Double>, cells: &Range<usize>) -> Result<(), String> {
        let begin = self.history(|history| history.begin(cells.clone(), 0, true));
        let (least, _) = self.history(|history| history.sizes(begin));
        let zeroed = file.zero_range(bytes(cells));
        // Only bytes of the file are zeroed, and the file may have grown meanwhile.
        let sure = if zeroed.is_ok() { (least / CELL) as usize } else { 0 };
        self.history(|history| history.end(cells.clone(), begin, sure, true));
        zeroed.or_else(|error| self.error(&error))
    }

    fn write_direct(
        &self,
        file: &mut CachedFile<Double>,
        direct: &mut Direct,
        cells: &Range<usize>,
    ) -> Result<(), String> {
        let (Range { start: pos, end }, value) = (bytes(cells), self.value());
        let data = fill(cells.clone(), value);
        let begin = self.history(|history| history.begin(cells.clone(), value, false));
        let written = match direct.write_at(&mut self.double.clone(), pos, &data) {
            Err(Error::FallBack { .. }) => {
                let through = IoArgs::at(pos).flags(IoFlags::WRITETHROUGH);
                let written = file.write_from(through, &data[..]);
                file.write_back(pos..end, false).and(written)
            }
            written => {
                self.count(|counts| counts.direct += u64::from(written.is_ok()));
                written
            }
        };
        let n = *written.as_ref().unwrap_or(&0) / CELL as usize;
        self.history(|history| history.end(cells.clone(), begin, cells.start + n, true));
        match written {
            Ok(n) if n < data.len() && !self.has_faults() => Err(format!("{n} bytes were written")),
            Ok(_) => Ok(()),
            Err(error) => self.error(&error),
        }
    }

    fn write_back(
        &self,
        file: &CachedFile<Double>,
        cells: &Range<usize>,
        nowait: bool,
    ) -> Result<(), String> {
        let begin = self.history(History::stamp);
        match file.write_back(bytes(cells), nowait) {
            Ok(true) => {}
            Ok(false) if nowait => return Ok(()),
            Ok(false) => return Err("false from a call that waits".into()),
            Err(error) => return self.error(&error),
        }
        self.history(|history| {
            let found = self.disk(|disk| self.double.on_device(&disk.bytes));
            let Range { start, end } = bytes(cells);
            let found = found.get(start as usize..found.len().min(end as usize));
            let found = found.unwrap_or_default();
            history.check(cells.start, found, begin).map_err(|why| format!("the device: {why}"))
        })
    }

    fn sync(&self, handle: &mut Handle) -> Result<(), String> {
        let (begin, failures) = (self.history(History::stamp), self.failures());
        let synced = handle.file.sync_data();
        let now = self.failures();
        let reports = matches!(synced, Err(Error::Bio { what: "write", .. }));
        if handle.at_end < failures && !reports {
            return Err(format!(
                "{} failed writes were not reported: {synced:?}",
                failures - handle.at_end
            ));
        }
        if reports && now == handle.at_begin {
            return Err("an error was reported twice".into());
        }
        (handle.at_begin, handle.at_end) = (failures, now);
        if let Err(error) = synced {
            return self.error(&error);
        }
        self.history(|history| history.synced(begin));
        self.check_device(begin)
    }

    /// Checks what a power cut leaves of cells.
    fn check_durable(&self, cells: &Range<usize>) -> Result<(), String> {
        self.history(|history| {
            let left = self.disk(|disk| self.double.on_device(&disk.durable));
            let Range { start, end } = bytes(cells);
            if left.len() < end as usize {
                return Err(format!("a power cut leaves {} bytes of the file", left.len()));
            }
            let left = &left[start as usize..end as usize];
            let checked = history.check_durable(cells.start, left);
            checked.map_err(|why| format!("after a power cut: {why}"))
        })
    }

    /// Moves a block that no command uses, as the filesystem does.
    fn relocate(&self, file: &CachedFile<Double>, block: usize) -> Result<(), String> {
        let cache = file.cache_for_tests();
        let mapper = cache.mapper.lock();
        file.mappings_changed();
        // Whoever maps from here on waits, and writes that were mapped before are refused.
        if cache.state.commands() > 0 || self.double.0.in_flight() > 0 {
            return Ok(());
        }
        let moved = self.double.record(|record| {
            let to = record.allocate();
            let block = record.blocks.get_mut(block)?;
            let from = match block {
                Block::Mapped(addr) | Block::Unwritten(addr) => std::mem::replace(addr, to),
                _ => return None,
            };
            Some((from, to))
        });
        if let Some((from, to)) = moved {
            self.disk(|disk| disk.relocate(from, to, BLOCK as usize));
            self.count(|counts| counts.moved += 1);
        }
        drop(mapper);
        Ok(())
    }
}

const _: () = assert!(CELLS as u64 * CELL == BLOCK);
