//! Submission of requests.

use nvio_driver::spec::DsmRange;
use nvio_driver::{CommandOptions, DmaBuf, Error, Rejected, ScatterList};

use super::mix::chance;
use super::request::{Draft, Kind, Request};
use super::run::Run;
use crate::simulator::buffers::span;
use crate::simulator::wrong;
use crate::simulator::{Checked, content, ensure};

/// The result of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The request is in flight.
    Yes,
    /// The queue pair or the arena is full, or the transfer cannot be described.
    No,
    /// The queue pair is closed.
    Closed,
}

/// The error and the buffers of a rejected submission.
type Refusal = (Error, Vec<DmaBuf>);

fn bare(rejected: Rejected<Error, ((), u64)>) -> Refusal {
    (rejected.error, Vec::new())
}

fn one(rejected: Rejected<Error, (DmaBuf, u64)>) -> Refusal {
    (rejected.error, vec![rejected.payload.0])
}

fn several(rejected: Rejected<Error, (ScatterList, u64)>) -> Refusal {
    (rejected.error, rejected.payload.0.into_inner().0)
}

impl Run<'_> {
    /// Submits several requests to one queue pair.
    pub(super) fn submit_some(&mut self, lane: usize) -> Checked {
        for _ in 0..self.rng.range(1, 13) {
            let spaces = self.spaces.len() as u64;
            let space = usize::try_from(self.rng.range(0, spaces)).unwrap_or(0);
            let limits = self.limits(space);
            let draft = Draft::draw(&mut self.rng, self.mix, space, &limits);
            if self.submit(lane, draft)? != Asked::Yes {
                break;
            }
            if self.mix.rings_each {
                self.lanes[lane].pair.ring();
            }
        }
        if chance(&mut self.rng, 80) {
            self.lanes[lane].pair.ring();
        }
        Ok(())
    }

    /// Submits one request.
    pub(super) fn submit(&mut self, lane: usize, draft: Draft) -> Checked<Asked> {
        let controller = self.device.controller()?;
        let Some(pieces) = self.buffers.take(&controller, &draft.pieces) else {
            self.buffers.clear();
            return Ok(Asked::No);
        };
        self.token += 1;
        let token = self.token;
        let begun = self.model.moment();
        let values = self.values(&draft, token);
        let (mut data, guards) = (pieces.data, pieces.guards);
        self.prepare(&draft, &values, &mut data);
        if let Some(lent) = draft.kind.lends() {
            data.iter().for_each(|buf| self.buffers.mark(buf, lent));
        }
        let spans = data.iter().map(span).collect();
        self.device.note("submit", &[token, lane as u64, data.len() as u64]);
        self.device.say(|| format!("request {token}: {draft:?}"));
        let refused = self.ask(lane, &draft, data, token);
        if let Err((error, data)) = refused {
            data.into_iter().chain(guards).for_each(|buf| self.buffers.keep(buf));
            return self.refused(lane, &draft, &error);
        }
        if draft.kind.changes() {
            let value = if draft.kind == Kind::Write { token } else { 0 };
            for lba in draft.blocks() {
                self.model.write_begins(draft.space, lba, token, value);
            }
        }
        self.outcome.requests += 1;
        let (at, bounds) = (self.device.now(), self.bounds);
        let lane = &mut self.lanes[lane];
        let excused = lane.neglected(at, &bounds);
        let request = Request { draft, begun, at, excused, spans, guards, values };
        lane.requests.insert(token, request);
        lane.submitted += 1;
        Ok(Asked::Yes)
    }

    /// Returns the values to write to each block, or to compare with.
    fn values(&mut self, draft: &Draft, token: u64) -> Vec<u64> {
        let right = draft.kind != Kind::Compare || chance(&mut self.rng, 80);
        let value = |lba| match draft.kind {
            Kind::Write => token,
            Kind::Compare if right => self.model.guess(draft.space, lba),
            _ => token,
        };
        match draft.kind {
            Kind::Write | Kind::Compare => draft.blocks().map(value).collect(),
            _ => Vec::new(),
        }
    }

    /// Fills the buffers before the submission.
    fn prepare(&self, draft: &Draft, values: &[u64], data: &mut [DmaBuf]) {
        if values.is_empty() {
            return data.iter_mut().for_each(|buf| buf.fill(content::POISON));
        }
        let block_size = self.spaces[draft.space].block_size() as usize;
        let nsid = self.spaces[draft.space].id();
        let mut bytes = vec![0; values.len() * block_size];
        let blocks = bytes.chunks_mut(block_size).zip(draft.blocks()).zip(values);
        for ((block, lba), &value) in blocks {
            content::fill(block, value, content::place(nsid, lba));
        }
        let mut rest = &bytes[..];
        for buf in data {
            let (now, later) = rest.split_at(buf.len());
            buf.copy_from_slice(now);
            rest = later;
        }
    }

    fn ask(
        &mut self,
        lane: usize,
        draft: &Draft,
        mut data: Vec<DmaBuf>,
        token: u64,
    ) -> Result<(), Refusal> {
        let pair = &mut self.lanes[lane].pair;
        let namespace = &self.spaces[draft.space];
        let range = draft.ranges.first().copied().unwrap_or((0, 0));
        let how = CommandOptions { fua: draft.fua, ..CommandOptions::default() };
        if draft.parts {
            let parts = ScatterList::new(data, None);
            let asked = match draft.kind {
                Kind::Read => pair.read_with(namespace, range, parts, how, token),
                Kind::Compare => pair.compare(namespace, range, parts, how, token),
                _ => pair.write_with(namespace, range, parts, how, token),
            };
            return asked.map_err(several);
        }
        let ranges = || draft.ranges.iter().map(|&(lba, blocks)| DsmRange::new(0, blocks, lba));
        match (draft.kind, data.pop()) {
            (Kind::Read, Some(buf)) => pair.read(namespace, range.0, buf, token).map_err(one),
            (Kind::Deallocate, Some(buf)) => {
                let ranges: Vec<DsmRange> = ranges().collect();
                pair.deallocate(namespace, &ranges, buf, token).map_err(one)
            }
            (_, Some(buf)) => pair.write(namespace, range.0, buf, token).map_err(one),
            (Kind::Zeroes { deallocate }, None) => {
                pair.write_zeroes(namespace, range, deallocate, how, token).map_err(bare)
            }
            (Kind::Verify, None) => pair.verify(namespace, range, how, token).map_err(bare),
            (_, None) => pair.flush(namespace, token).map_err(bare),
        }
    }

    /// Checks that a rejection is justified.
    fn refused(&mut self, lane: usize, draft: &Draft, error: &Error) -> Checked<Asked> {
        let pair = &self.lanes[lane].pair;
        self.device.say(|| format!("refused: {error}"));
        match error {
            Error::QueueFull { capacity } => {
                let full = pair.in_flight() == *capacity && *capacity == pair.capacity();
                ensure!(full, "full with {} of {} in flight", pair.in_flight(), pair.capacity());
                Ok(Asked::No)
            }
            Error::Scattered => {
                let sgl = self.limits(draft.space).sgl;
                ensure!(
                    !sgl && draft.parts,
                    "rejected as scattered, although SGLs are {sgl}: {draft:?}"
                );
                Ok(Asked::No)
            }
            _ if self.is_disturbed() && !self.strict => Ok(Asked::Closed),
            error => Err(wrong("a request is refused", error)),
        }
    }

    /// Drops a queue pair with its requests in flight.
    pub(super) fn drop_lane(&mut self, index: usize) -> Checked {
        let lane = self.lanes.remove(index);
        let counters = lane.pair.counters();
        self.outcome.stale += counters.stale;
        self.outcome.rebuilt += counters.resets;
        let requests = lane.requests;
        // The memory of the queue is lost if the controller refuses to delete it or cannot be
        // stopped.
        self.leaky |= !self.mix.admin.is_empty() || self.mix.is_broken();
        self.device.note("drop queue pair", &[lane.pair.id().into(), requests.len() as u64]);
        self.outcome.lanes_dropped += 1;
        drop(lane.pair);
        let arena = self.device.controller()?.arena().clone();
        self.model.moment();
        for (token, request) in requests {
            self.outcome.dropped += 1;
            self.write_failed(token, &request, true);
            request.guards.into_iter().for_each(|guard| self.buffers.drop(guard));
            for span in request.spans {
                if arena.is_allocated(span.iova, 1) {
                    let may = !self.mix.admin.is_empty() || self.mix.is_broken();
                    ensure!(may, "{span:#x?} is not freed");
                    self.leaky = true;
                } else {
                    self.buffers.forget(span);
                }
            }
        }
        Ok(())
    }

    /// Submits a flush, to test a queue pair.
    pub(super) fn flush(&mut self, lane: usize, space: usize) -> Checked<Asked> {
        let (ranges, pieces) = (Vec::new(), Vec::new());
        let draft = Draft { kind: Kind::Flush, space, ranges, fua: false, pieces, parts: false };
        self.submit(lane, draft)
    }

    /// Submits a read of some blocks into one buffer.
    pub(super) fn read(
        &mut self,
        lane: usize,
        space: usize,
        lba: u64,
        blocks: u32,
    ) -> Checked<Asked> {
        let bytes = blocks as usize * self.spaces[space].block_size() as usize;
        let (ranges, pieces) = (vec![(lba, blocks)], vec![(0, bytes)]);
        let draft = Draft { kind: Kind::Read, space, ranges, fua: false, pieces, parts: false };
        self.submit(lane, draft)
    }
}
