//! Delivery of completions, and the checks of each.

use nvio_driver::spec::{Status, status};
use nvio_driver::{Completion, DmaBuf, ScatterList};

use super::mix::RETRIES_MANY;
use super::request::{Kind, Request};
use super::run::Run;
use crate::simulator::buffers::span;
use crate::simulator::lend::Span;
use crate::simulator::model::Ending;
use crate::simulator::{Checked, Wrong, content, ensure};

impl Run<'_> {
    /// Polls one queue pair.
    pub(super) fn poll(&mut self, lane: usize, limit: usize) -> Checked {
        let mut done = Vec::new();
        let count = self.lanes[lane].pair.poll(limit, |completion| done.push(completion));
        ensure!(count == done.len(), "poll returned {count}, but called back {} times", done.len());
        self.deliver(lane, done)
    }

    /// Rings the doorbell of a queue pair, polls all completions, and lets it run its health check.
    pub(super) fn attend(&mut self, lane: usize) -> Checked {
        let (now, bounds) = (self.device.now(), self.bounds);
        self.lanes[lane].attend(now, &bounds);
        self.lanes[lane].pair.ring();
        while self.lanes[lane].pair.is_ready() {
            self.poll(lane, usize::MAX)?;
        }
        let mut done = Vec::new();
        let count = self.lanes[lane].pair.check(|completion| done.push(completion));
        ensure!(count == done.len(), "check says {count} and gave {}", done.len());
        let now = self.device.now();
        self.lanes[lane].attended(now);
        self.deliver(lane, done)?;
        self.lanes[lane].check_ages(now, &bounds)
    }

    /// Waits for a completion like a blocking caller.
    pub(super) fn wait(&mut self, lane: usize) -> Checked {
        let (now, bounds) = (self.device.now(), self.bounds);
        self.lanes[lane].attend(now, &bounds);
        let mut done = Vec::new();
        let waited = self.lanes[lane].pair.wait(|completion| done.push(completion));
        let now = self.device.now();
        self.lanes[lane].attended(now);
        let empty = self.lanes[lane].requests.is_empty();
        ensure!(waited.is_ok(), "waiting fails");
        ensure!(empty || !done.is_empty(), "wait returned before the first completion");
        self.deliver(lane, done)
    }

    fn deliver(&mut self, lane: usize, done: Vec<Completion<u64>>) -> Checked {
        done.into_iter().try_for_each(|completion| self.judge(lane, completion))
    }

    /// Checks the completion of a request.
    fn judge(&mut self, lane: usize, done: Completion<u64>) -> Checked {
        let Completion { context: token, buf, status, .. } = done;
        self.device.note("completion", &[token, lane as u64, status.0.into()]);
        self.model.moment();
        let (now, bounds) = (self.device.now(), self.bounds);
        let from = &mut self.lanes[lane];
        let Some(request) = from.requests.remove(&token) else {
            return Err(Wrong(format!(
                "request {token} completed, but is not in flight: {status}"
            )));
        };
        let age = from.age(&request, now, &bounds);
        ensure!(age <= 1000, "request {token} took {age} thousandths of its bound: {request:?}");
        self.outcome.longest = self.outcome.longest.max(age);
        match status.is_success() {
            true => {
                from.ended.0 += 1;
                self.outcome.succeeded += 1;
            }
            false => {
                from.ended.1 += 1;
                self.outcome.failed += 1;
            }
        }
        let data = match ScatterList::from_completed(buf) {
            Ok(parts) => parts.into_inner().0,
            Err(buf) if buf.is_empty() => Vec::new(),
            Err(buf) => vec![buf],
        };
        self.check_memory(&request, &data, status)?;
        let verdict = match status.is_success() {
            true => self.succeeded(token, &request, &data),
            false => self.failed(token, &request, status),
        };
        data.into_iter().chain(request.guards).for_each(|buf| self.buffers.keep(buf));
        verdict
    }

    /// Checks that all buffers are returned unchanged, unless the controller may still access them.
    fn check_memory(&mut self, request: &Request, data: &[DmaBuf], status: Status) -> Checked {
        let back: Vec<Span> = data.iter().map(span).collect();
        if back == request.spans {
            return Ok(());
        }
        let may = self.mix.is_broken() && !status.is_success() && back.is_empty();
        ensure!(may, "{:#x?} was submitted and {back:#x?} was returned", request.spans);
        // The buffers stay lent.
        self.leaky = true;
        Ok(())
    }

    fn succeeded(&mut self, token: u64, request: &Request, data: &[DmaBuf]) -> Checked {
        let draft = &request.draft;
        match draft.kind {
            Kind::Read => {
                let bytes: Vec<u8> = data.iter().flat_map(|buf| buf.iter().copied()).collect();
                let block_size = self.spaces[draft.space].block_size() as usize;
                let nsid = self.spaces[draft.space].id();
                self.outcome.bytes_checked += bytes.len() as u64;
                for (block, lba) in bytes.chunks(block_size).zip(draft.blocks()) {
                    let value = content::identify(block, content::place(nsid, lba));
                    let Some(value) = value else {
                        let begin = &block[..block.len().min(32)];
                        return Err(Wrong(format!(
                            "request {token}: block {lba} of namespace {nsid} is of no one write, \
                             beginning with {begin:02x?}: {request:?}"
                        )));
                    };
                    self.holds(token, request, lba, value)?;
                }
                Ok(())
            }
            Kind::Compare => {
                for (lba, &value) in draft.blocks().zip(&request.values) {
                    self.holds(token, request, lba, value)?;
                }
                Ok(())
            }
            Kind::Flush => {
                self.model.flushed(draft.space, request.begun);
                Ok(())
            }
            Kind::Verify => Ok(()),
            Kind::Write | Kind::Zeroes { .. } | Kind::Deallocate => {
                let ending = Ending::Done { durable: draft.fua };
                for lba in draft.blocks() {
                    self.model.write_ends(draft.space, lba, token, request.begun, ending);
                }
                Ok(())
            }
        }
    }

    /// Checks that a block may hold the value that was read.
    fn holds(&mut self, token: u64, request: &Request, lba: u64, value: u64) -> Checked {
        let space = request.draft.space;
        self.model.read_ends(space, lba, value, request.begun).map_err(|impossible| {
            let possible = impossible.possible;
            let nsid = self.spaces[space].id();
            Wrong(format!(
                "request {token}: block {lba} of namespace {nsid} holds the value of write {value}, \
                 where only {possible:?} are possible: {request:?}"
            ))
        })
    }

    fn failed(&mut self, token: u64, request: &Request, status: Status) -> Checked {
        let draft = &request.draft;
        if status.bare() == status::COMPARE_FAILURE {
            ensure!(draft.kind == Kind::Compare, "{status}: {request:?}");
            let pairs: Vec<(u64, u64)> =
                draft.blocks().zip(request.values.iter().copied()).collect();
            let differ = pairs
                .iter()
                .any(|&(lba, value)| self.model.may_differ(draft.space, lba, value, request.begun));
            ensure!(differ, "request {token}: {status}, and all blocks are the same: {request:?}");
            return Ok(());
        }
        let by_host =
            [status::ABORTED_BY_HOST, status::HOST_PATHING_ERROR].contains(&status.bare());
        self.write_failed(token, request, by_host);
        let may = self.is_disturbed() && !self.strict;
        ensure!(may, "request {token} fails without a cause: {status}: {request:?}");
        let hidden = self.must_be_repeated(request, status);
        ensure!(!hidden, "request {token} was not repeated: {status}: {request:?}");
        Ok(())
    }

    /// Returns true if further attempts of a failed request would have succeeded.
    fn must_be_repeated(&self, request: &Request, status: Status) -> bool {
        let is_bounded = self.mix.options.retries < RETRIES_MANY;
        let was_aborted = status.bare() == status::ABORT_REQUESTED;
        if is_bounded || !request.draft.kind.is_repeatable() || (status.dnr() && !was_aborted) {
            return false;
        }
        // A reset on request ends commands, and so does the end of the controller.
        let by_host =
            [status::ABORTED_BY_HOST, status::HOST_PATHING_ERROR].contains(&status.bare());
        !by_host || (self.outcome.resets + self.outcome.removals == 0 && !self.may_fail())
    }

    /// Records a failed write, which may have been executed. If the host ended the command and the
    /// controller could not be reset, it may even be executed later.
    pub(super) fn write_failed(&mut self, token: u64, request: &Request, by_host: bool) {
        let draft = &request.draft;
        if !draft.kind.changes() {
            return;
        }
        let open = by_host && self.mix.is_broken();
        let ending = if open { Ending::Open } else { Ending::Unknown };
        for lba in draft.blocks() {
            self.model.write_ends(draft.space, lba, token, request.begun, ending);
        }
    }
}
