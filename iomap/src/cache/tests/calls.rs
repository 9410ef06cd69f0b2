//! The calls of a sequence, with the check of each result.

use std::ops::Range;

use super::double::{BLOCK, Block, Double, Inode};
use super::history::{CELL, History, fill};
use super::plan::{CELLS, Call, How};
use super::stepped::Stepped;
use super::world::{Handle, World};
use crate::cache::{CachedFile, CachedQueue};
use crate::{Done, Error, FileQueue, IoArgs, IoFlags, Memory, Source, Tag};

/// A queue for direct I/O on the file.
pub(super) type Direct = FileQueue<Stepped<Tag<Inode>>, Inode>;

/// A write that has begun.
struct Writing {
    cells: Range<usize>,
    how: How,
    /// Bytes of the caller's memory that can be read.
    readable: usize,
    begin: u64,
}

/// A request that has begun.
enum Begun {
    Read(Range<usize>, u64),
    Write(Writing),
    Sync(u64, u64),
}

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
        // The filesystem lets nobody write while it frees blocks.
        let _gate = match call {
            Call::Write { .. } | Call::WriteDirect(_) | Call::Zero(_) | Call::Batch(_) => {
                (Some(self.gate.read()), None)
            }
            Call::Truncate(_) => (None, Some(self.gate.write())),
            _ => (None, None),
        };
        let file = &mut handle.file;
        match call {
            Call::Read(cells) => self.read(cells, true, |pos, out| file.read_at(pos, out)),
            Call::ReadDirect(cells) => {
                let mut double = self.double.clone();
                self.read(cells, false, |pos, out| direct.read_at(&mut double, pos, out))
            }
            Call::Write { cells, how, readable } => {
                let (write, data) = self.begin_write(cells, *how, *readable);
                let io = IoArgs::at(bytes(cells).start).flags(flags(*how));
                let written = file.write_from(io, Torn(&data, write.readable));
                self.end_write(write, written)
            }
            Call::Batch(calls) => self.batch(handle, calls),
            Call::Truncate(size) => self.truncate(file, *size),
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
        let done = read(pos, &mut out);
        self.end_read(cells, cached, begin, done, &out)
    }

    /// Judges the result of a read that began at `begin`.
    fn end_read(
        &self,
        cells: &Range<usize>,
        cached: bool,
        begin: u64,
        done: Result<usize, Error>,
        out: &[u8],
    ) -> Result<(), String> {
        let n = match done {
            Ok(n) => n,
            // A block that was reserved after dirty data was written back.
            Err(Error::Delalloc { .. }) if !cached => return Ok(()),
            Err(error) => return self.error(&error),
        };
        let Range { start: pos, end } = bytes(cells);
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

    /// Begins a write, and returns its data.
    fn begin_write(&self, cells: &Range<usize>, how: How, readable: usize) -> (Writing, Vec<u8>) {
        let (end, value) = (bytes(cells).end, self.value());
        let data = fill(cells.clone(), value);
        let begin = self.history(|history| {
            history.begin_growth(end);
            history.begin(cells.clone(), value, true)
        });
        let readable = (readable * CELL as usize).min(data.len());
        (Writing { cells: cells.clone(), how, readable, begin }, data)
    }

    /// Judges the result of a write.
    fn end_write(&self, write: Writing, written: Result<usize, Error>) -> Result<(), String> {
        let Writing { cells, how, readable, begin } = write;
        let Range { start: pos, end } = bytes(&cells);
        let length = (end - pos) as usize;
        let n = match written {
            Ok(n) => n,
            Err(error) => {
                self.history(|history| history.end(cells, begin, 0, true));
                let is_torn = readable < length && matches!(error, Error::Fault { .. });
                return if is_torn { Ok(()) } else { self.error(&error) };
            }
        };
        let is_short = n < length && readable == length && !self.has_faults();
        if is_short || n > readable || !n.is_multiple_of(CELL as usize) {
            return Err(format!("{n} bytes were written, of {readable} of {length}"));
        }
        let done = cells.start..cells.start + n / CELL as usize;
        self.history(|history| {
            history.end(cells, begin, done.end, false);
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

    /// Plays requests that are in flight at a time.
    fn batch(&self, handle: &mut Handle, calls: &[Call]) -> Result<(), String> {
        let mut queue = CachedQueue::new(calls.len());
        let mut begun: Vec<Option<Begun>> = Vec::new();
        for call in calls {
            let token = begun.len() as u64;
            let (request, submitted) = match call {
                Call::Read(cells) => {
                    let Range { start: pos, end } = bytes(cells);
                    let begin = self.history(History::stamp);
                    let (io, out) =
                        (IoArgs::at(pos).token(token), vec![0xff; (end - pos) as usize]);
                    let request = Begun::Read(cells.clone(), begin);
                    (request, queue.submit_read(&mut handle.file, io, out))
                }
                Call::Write { cells, how, .. } => {
                    let (write, data) = self.begin_write(cells, *how, usize::MAX >> 10);
                    let io = IoArgs::at(bytes(cells).start).flags(flags(*how)).token(token);
                    (Begun::Write(write), queue.submit_write(&mut handle.file, io, data))
                }
                // One at a time: an error is reported by one of them.
                _ if begun.iter().any(|begun| matches!(begun, Some(Begun::Sync(..)))) => continue,
                _ => {
                    let request = Begun::Sync(self.history(History::stamp), self.failures());
                    (request, queue.submit_sync_data(&mut handle.file, token))
                }
            };
            submitted.map_err(|rejected| format!("rejected: {}", rejected.error))?;
            begun.push(Some(request));
        }
        while queue.in_flight() > 0 {
            let mut ended = Vec::new();
            queue.wait(|done| ended.push(done));
            for Done { token, result, memory } in ended {
                match begun[token as usize].take().ok_or("a second result")? {
                    Begun::Read(cells, begin) => {
                        let Some(Memory::Bytes(out)) = memory else {
                            return Err("no memory".into());
                        };
                        self.end_read(&cells, true, begin, result, &out)?;
                    }
                    Begun::Write(write) => self.end_write(write, result)?,
                    Begun::Sync(begin, failures) => {
                        self.end_sync(handle, begin, failures, result.map(drop))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the size of the file, and frees the blocks past it as the filesystem does.
    fn truncate(&self, file: &mut CachedFile<Double>, size: usize) -> Result<(), String> {
        let size = size as u64 * CELL;
        let begin = self.history(|history| history.begin_truncation(size));
        let change = || {
            self.double.record(|record| {
                let blocks = record.blocks.iter_mut().skip(size.div_ceil(BLOCK) as usize);
                blocks.for_each(|block| *block = Block::Hole);
                record.size = size;
            });
            Ok(())
        };
        let truncated = file.truncate(size, change);
        self.history(|history| history.truncated(size, begin, truncated.is_ok()));
        truncated.or_else(|error| self.error(&error))
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
        self.end_sync(handle, begin, failures, synced)
    }

    /// Judges the result of a sync that began at `begin`, after `failures`.
    fn end_sync(
        &self,
        handle: &mut Handle,
        begin: u64,
        failures: u64,
        synced: Result<(), Error>,
    ) -> Result<(), String> {
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
