//! The end of a sequence: faults are disabled, all requests complete, and the file and the device
//! are read completely, then again after a power cut.

use std::time::Duration;

use nvio_emulator::Faults;

use super::outcome::Outcome;
use super::run::{IO_TIMEOUT, Run, finish_one};
use super::source::{Came, Sources};
use super::strategy::{Ask, Mischief, Shape, Unit, Way};
use super::{filesystem::Mood, request::Request};
use crate::simulator::buffers::span;
use crate::simulator::lend::Lent;
use crate::simulator::{Checked, Wrong, content, ensure, lock, wrong};

/// Maximum number of results after the last request. It is larger than any queue.
const MOST: usize = 10_000;
/// Maximum number of attempts to read the file.
const ATTEMPTS: u32 = 3;

impl Run<'_> {
    /// Ends the run.
    pub(super) fn finish(mut self) -> Checked<Outcome> {
        self.device.say(|| "the end".into());
        self.drain()?;
        self.device.set_faults(&Faults::new())?;
        lock(&self.seen).most = usize::MAX;
        self.fs.with(|state| state.fail_end_hook = false);
        // Late commands complete now, and must not access memory.
        for _ in 0..4 {
            self.device.with(|machine| machine.pass(IO_TIMEOUT, usize::MAX));
        }
        self.check()?;
        self.read_file()?;
        self.shut_queue()?;
        if self.sequence.seed.is_multiple_of(2) {
            let seed = self.rng.next_u64();
            self.device.with(|machine| machine.power_cut(seed));
            self.model.power_cut();
            self.controller.reset().map_err(|error| wrong("after the power cut", &error))?;
        }
        self.read_device()?;
        self.check()?;
        self.device.check_pages()?;
        let counts = self.device.with(|machine| machine.fault_counts());
        let seen = lock(&self.seen).total;
        self.outcome.commands = seen;
        self.outcome.faults = counts.status + counts.late + counts.lost + counts.device;
        self.outcome.mishaps = self.mishaps;
        self.outcome.hash = self.device.with(|machine| lock(&machine.trace).hash());
        Ok(self.outcome.clone())
    }

    /// Waits until all requests complete.
    fn drain(&mut self) -> Checked {
        let mut results = 0;
        while !self.pending.is_empty() {
            results += self.wait()?;
            ensure!(results < MOST, "{results} results, but requests are still in flight");
            self.check()?;
        }
        // No result may follow the last one.
        let more = self.wait()?;
        ensure!(more == 0, "{more} results too many");
        let left = self.fs.in_flight();
        ensure!(left == 0, "{left} requests never complete");
        let (ended, reported) = self.fs.with(|state| (state.ended.len(), state.reported));
        ensure!(ended == 0, "the filesystem received {ended} extra end hooks");
        let failures = self.failures;
        ensure!(reported == failures, "{reported} errors were reported, but {failures} occurred");
        Ok(())
    }

    /// Reads the whole file in pieces of any size.
    fn read_file(&mut self) -> Checked {
        let (size, known) = self.fs.with(|state| {
            let blocks = &state.layout.blocks;
            let delalloc =
                |block: &super::layout::Block| block.kind == super::strategy::Kind::Delalloc;
            (state.layout.size, !blocks.iter().any(delalloc))
        });
        if !known {
            return Ok(());
        }
        let begun = self.model.moment();
        let mut attempts = 0;
        let (bytes, n) = loop {
            attempts += 1;
            self.fs.with(|state| {
                state.mood = Mood { mischief: Mischief::None, trim: 0, late: false };
                state.visits.clear();
            });
            let mut bytes = vec![content::POISON; usize::try_from(size).unwrap_or(0) + 100];
            let queue = self.queue.as_mut().ok_or(Wrong("no queue".into()))?;
            match queue.read_at(&mut self.fs, 0, &mut bytes) {
                Ok(n) => break (bytes, n),
                // A queue pair that does not know of a reset yet notices it by an error.
                Err(_) if attempts < ATTEMPTS && self.is_disturbed() => {}
                Err(error) => return Err(wrong("the file cannot be read", &error)),
            }
        };
        ensure!(n as u64 == size, "{n} bytes of a file of {size}");
        self.model.moment();
        let ask = Ask {
            write: false,
            way: Way::Slice,
            unit: Unit::Byte,
            at: 0,
            units: 0,
            shape: Shape::Bytes,
            flags: nvio_iomap::IoFlags::empty(),
            done_before: 0,
            mischief: Mischief::None,
            trim: 0,
            late: false,
        };
        let len = bytes.len() as u64;
        let request = self.fs.with(|state| Request::new(&ask, &state.layout));
        let request = Request { len, count: size, ..request };
        let sources = self.fs.with(|state| Sources::new(&request, state));
        sources.check(&request, &bytes, Came::To(size), &mut self.model, begun)
    }

    /// Drops the queue, which must free all its memory.
    fn shut_queue(&mut self) -> Checked {
        let queue = self.queue.take().ok_or(Wrong("no queue".into()))?;
        let left = queue.device().inner().pair().in_flight();
        ensure!(left == 0, "{left} commands are in flight");
        drop(queue);
        self.device.check_pages()
    }

    /// Checks that every block of the device holds a possible value.
    fn read_device(&mut self) -> Checked {
        let failed = |error: nvio_driver::Error| wrong("reading the device", &error);
        let mut pair = self.controller.queue_pair::<()>(2).map_err(failed)?;
        let block = self.namespace.block_size() as usize;
        let most = (self.namespace.max_transfer().min(64 << 10) / block) as u64;
        let mut lba = 0;
        while lba < self.namespace.blocks() {
            let blocks = most.min(self.namespace.blocks() - lba);
            let begun = self.model.moment();
            let len = usize::try_from(blocks).unwrap_or(1) * block;
            let mut buf = self.controller.alloc(len).map_err(failed)?;
            buf.fill(content::POISON);
            let at = span(&buf);
            lock(&self.workshop.table).set(at, Lent::In);
            let asked = pair.read(&self.namespace, lba, buf, ());
            asked.map_err(|rejected| failed(rejected.error))?;
            let buf = finish_one(&mut pair, &self.device).map_err(failed)?;
            lock(&self.workshop.table).forget(at);
            let buf = buf.ok_or(Wrong(format!("block {lba} cannot be read")))?;
            self.model.moment();
            for (lba, bytes) in (lba..).zip(buf.chunks(block)) {
                let value = content::identify(bytes, content::place(1, lba));
                let candidates = self.model.candidates(0, lba, begun);
                let right = value.is_some_and(|value| candidates.contains(&value));
                ensure!(
                    right,
                    "block {lba} of the device holds {:x?}, of write {value:?}, not of \
                     {candidates:?}",
                    &bytes[..16]
                );
            }
            lba += blocks;
        }
        drop(pair);
        self.device.with(|machine| machine.pass(Duration::from_millis(1), usize::MAX));
        Ok(())
    }
}
