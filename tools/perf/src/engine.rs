//! The loop that keeps requests in flight.

use std::time::Duration;

use crate::clock::Clock;
use crate::outcome::{Failed, Outcome, Second, Side};
use crate::plan::{Latency, Plan, Watch};
use crate::slots::Slots;
use crate::target::{Buffer, Counters, Error, Rejected, Request, Sink, Target, Wrong};
use crate::workload::{Issue, Workload};

/// The values of the loop's parameter `MODE`: [`Latency`] as a constant.
pub const NONE: u8 = 0;
/// See [`Latency::Batch`].
pub const BATCH: u8 = 1;
/// See [`Latency::Each`].
pub const EACH: u8 = 2;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Most turns of the loop between two looks at the clock for the end of the run.
const TURNS_MAX: u32 = 256;
/// Longest time between two looks in nanoseconds, after which they become more frequent.
const LOOK_MAX: u64 = 2_000_000;
/// Longest sleep until a start. The end of the run is noticed after it.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// Most seconds that are kept apart: a day.
const SECONDS_MAX: usize = 86_400;

/// Runs a load, and returns the measurement. Failed requests are in the outcome.
///
/// # Errors
/// If memory cannot be allocated, or the queue fails.
pub fn run<T: Target, C: Clock, W: Workload>(
    target: &mut T,
    clock: &mut C,
    work: &mut W,
    plan: &Plan,
    watch: Watch<'_>,
) -> Result<Outcome, Error> {
    match plan.latency {
        Latency::None => Engine::<T, C, W, NONE>::new(target, clock, work, plan, watch)?.run(),
        Latency::Batch => Engine::<T, C, W, BATCH>::new(target, clock, work, plan, watch)?.run(),
        Latency::Each => Engine::<T, C, W, EACH>::new(target, clock, work, plan, watch)?.run(),
    }
}

/// A load in progress.
pub struct Engine<'e, T: Target, C, W, const MODE: u8> {
    target: &'e mut T,
    clock: &'e mut C,
    work: &'e mut W,
    plan: &'e Plan,
    watch: Watch<'e>,
    slots: Slots<T::Buf>,
    /// Requests in flight.
    in_flight: usize,
    tally: Tally,
    /// Time of the last look at the clock, in nanoseconds.
    now: u64,
    /// Requests that may still be submitted.
    quota: u64,
    /// Last time at which a request was due and all slots were in use.
    full_at: Option<u64>,
    late: u64,
    /// Results since the last submission.
    gathered: usize,
    turns: Turns,
    window: Window,
}

/// Results of the measurement so far.
#[derive(Default)]
struct Tally {
    sides: [Side; 2],
    errors: u64,
    failed: Option<Failed>,
    /// The run must end, because of an error.
    must_end: bool,
}

/// The turns of the loop until the next look at the clock.
struct Turns {
    left: u32,
    between: u32,
    last: u64,
}

/// The measured time.
struct Window {
    /// Begin of the measurement, or of the ramp before it.
    begin: u64,
    is_measuring: bool,
    counters: Counters,
    cpu: u64,
    /// End of the current second.
    second: u64,
    seconds: Vec<Second>,
    /// Totals at the begin of the current second.
    before: Second,
}

impl<'e, T: Target, C: Clock, W: Workload, const MODE: u8> Engine<'e, T, C, W, MODE> {
    /// Allocates the memory of the requests.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(
        target: &'e mut T,
        clock: &'e mut C,
        work: &'e mut W,
        plan: &'e Plan,
        watch: Watch<'e>,
    ) -> Result<Self, Error> {
        let depth = plan.depth.min(target.capacity()).max(1);
        let bufs: Result<Vec<T::Buf>, Error> =
            (0..depth).map(|_| target.alloc(plan.bytes_max)).collect();
        let slots = Slots::new(bufs?, plan.bytes_max);
        let now = clock.now();
        work.begin(now);
        let seconds = usize::try_from(plan.time / SECOND).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        let window = Window {
            begin: now,
            is_measuring: false,
            counters: Counters::default(),
            cpu: 0,
            second: u64::MAX,
            seconds: Vec::with_capacity(seconds + 2),
            before: Second::default(),
        };
        let turns = Turns { left: 1, between: 1, last: now };
        let mut engine = Self {
            target,
            clock,
            work,
            plan,
            watch,
            slots,
            in_flight: 0,
            tally: Tally::default(),
            now,
            quota: u64::MAX,
            full_at: None,
            late: 0,
            gathered: usize::MAX,
            turns,
            window,
        };
        if plan.ramp == 0 {
            // The time from which a rate is counted: the first request may start later.
            engine.begin_window(now);
        }
        Ok(engine)
    }

    /// Runs the load to its end.
    ///
    /// # Errors
    /// If the queue fails.
    pub fn run(mut self) -> Result<Outcome, Error> {
        while !self.is_over() {
            if self.may_submit() {
                self.submit();
            }
            let mut count = self.complete();
            if count == 0 && self.plan.interrupt {
                count = self.sleep()?;
            }
            self.gathered = self.gathered.saturating_add(count);
            self.turns.left -= 1;
            if self.turns.left == 0 && self.look() {
                break;
            }
        }
        let outcome = self.end_window();
        self.drain(outcome)
    }

    /// Returns true if enough results are gathered. A rate does not wait for results.
    #[inline(always)]
    fn may_submit(&self) -> bool {
        let is_gathered = self.gathered >= self.plan.batch_complete;
        is_gathered || self.in_flight == 0 || self.work.due().is_some()
    }

    /// Returns true if no request is left, or the run must end.
    #[inline(always)]
    fn is_over(&self) -> bool {
        self.tally.must_end || self.quota == 0 && self.in_flight == 0
    }

    /// Submits requests into all free slots, or as many as one doorbell is for, and rings.
    #[inline(always)]
    pub fn submit(&mut self) {
        if MODE != NONE && self.work.due().is_some() {
            self.now = self.clock.now();
        }
        let most = self.quota.min(self.plan.batch_submit as u64);
        let mut submitted = 0;
        while submitted < most {
            let Some((number, slot)) = self.slots.next() else {
                self.note_full();
                break;
            };
            if MODE == EACH && self.work.due().is_none() {
                self.now = self.clock.now();
            }
            let Some(Issue { request, due }) = self.work.next(self.now) else { break };
            let Some(mut buf) = slot.buf.take() else { break };
            match W::PLAIN_READS {
                true => slot.request.pos = request.pos,
                false => slot.request = request,
            }
            if MODE != NONE {
                slot.start = due.unwrap_or(self.now);
            }
            if !W::PLAIN_READS {
                buf.set_len(request.bytes);
                if request.write {
                    self.work.fill(&request, buf.bytes());
                }
            }
            if let Some(due) = due {
                self.late += u64::from(self.full_at.is_some_and(|full| due <= full));
            }
            match self.target.submit(&request, buf, number.into()) {
                Ok(()) => self.slots.take(),
                Err(rejected) => {
                    self.rejected(number, *rejected);
                    break;
                }
            }
            submitted += 1;
        }
        if submitted < most {
            // No slot is left. Else the next turn rings for the next batch.
            self.gathered = 0;
        }
        if submitted > 0 {
            self.quota -= submitted;
            self.in_flight += usize::try_from(submitted).unwrap_or(0);
            self.target.ring();
        }
    }

    /// Notes that a request may be due without a free slot.
    #[inline(always)]
    fn note_full(&mut self) {
        if let Some(due) = self.work.due()
            && due <= self.now
        {
            self.full_at = Some(self.now);
        }
    }

    #[cold]
    fn rejected(&mut self, number: u32, rejected: Rejected<T::Buf>) {
        let Rejected { error, busy, buf } = rejected;
        let Some(slot) = self.slots.get_mut(number.into()) else { return };
        let request = slot.request;
        let is_lost = buf.is_none();
        slot.buf = buf;
        self.work.undo(&request);
        if is_lost {
            self.slots.take();
            self.slots.lose();
        }
        if !busy {
            self.tally.fail(request, error);
            self.tally.must_end |= !self.plan.go_on || self.slots.is_empty();
        }
    }

    /// Polls once, and returns the number of results.
    #[inline(always)]
    pub fn complete(&mut self) -> usize {
        let Self { target, clock, work, slots, tally, now, plan, .. } = self;
        let mut takes: Takes<'_, T::Buf, C, W, MODE> = Takes {
            clock: &mut **clock,
            work: &mut **work,
            slots,
            tally,
            now,
            is_read: false,
            go_on: plan.go_on,
        };
        let errors = takes.tally.errors;
        let count = target.poll(usize::MAX, &mut takes);
        self.in_flight -= count.min(self.in_flight);
        if W::PLAIN_READS && count > 0 {
            let failed = tally.errors - errors;
            tally.sides[0].ios += count as u64 - failed;
        }
        count
    }

    /// Returns the number of requests that succeeded in the measurement so far.
    pub fn ios(&self) -> usize {
        let total = self.total();
        usize::try_from(total.ios[0] + total.ios[1]).unwrap_or(usize::MAX)
    }

    /// Sleeps until there are results, or until the next request is due.
    #[cold]
    fn sleep(&mut self) -> Result<usize, Error> {
        match self.until_due() {
            Some(Duration::ZERO) => Ok(0),
            Some(time) => self.wait(Some(time.min(SLEEP_MAX))),
            None if self.in_flight == 0 => Ok(0),
            None => {
                let count = self.wait(None)?;
                if self.quota > 0 && self.work.due().is_some() {
                    // No slot was free for the requests that became due meanwhile.
                    self.now = self.clock.now();
                    self.note_full();
                }
                Ok(count)
            }
        }
    }

    /// Returns the time until a request may be submitted. `None` if it needs a result first.
    fn until_due(&mut self) -> Option<Duration> {
        if self.quota == 0 || self.slots.next().is_none() {
            return None;
        }
        let due = self.work.due()?;
        Some(Duration::from_nanos(due.saturating_sub(self.clock.now())))
    }

    /// Waits for results, no longer than `within`.
    #[cold]
    fn wait(&mut self, within: Option<Duration>) -> Result<usize, Error> {
        let Self { target, clock, work, slots, tally, now, plan, turns, .. } = self;
        // A sleep is long: look at the clock after each.
        turns.left = 1;
        let mut takes: Takes<'_, T::Buf, C, W, MODE> = Takes {
            clock: &mut **clock,
            work: &mut **work,
            slots,
            tally,
            now,
            is_read: false,
            go_on: plan.go_on,
        };
        let errors = takes.tally.errors;
        let count = target.wait(within, &mut takes)?;
        self.in_flight -= count.min(self.in_flight);
        if W::PLAIN_READS {
            tally.sides[0].ios += count as u64 - (tally.errors - errors);
        }
        Ok(count)
    }

    /// Looks at the clock: publishes the progress, and returns true if the run is over.
    #[cold]
    fn look(&mut self) -> bool {
        let now = self.clock.now();
        self.now = now;
        let turns = &mut self.turns;
        let is_slow = now.saturating_sub(turns.last) > LOOK_MAX;
        turns.between = if is_slow { turns.between / 2 } else { turns.between * 2 };
        turns.between = turns.between.clamp(1, TURNS_MAX);
        (turns.left, turns.last) = (turns.between, now);
        if !self.window.is_measuring && now.saturating_sub(self.window.begin) >= self.plan.ramp {
            self.begin_window(now);
        }
        let total = self.total();
        let [ios, bytes] = [total.ios, total.bytes].map(|of| of[0] + of[1]);
        self.watch.live.publish(ios, bytes, total.errors, self.window.is_measuring);
        while now >= self.window.second {
            let window = &mut self.window;
            if window.seconds.len() < window.seconds.capacity().min(SECONDS_MAX) {
                window.seconds.push(total.since(&window.before));
            }
            window.before = total;
            window.second += SECOND;
        }
        let is_late = now.saturating_sub(self.window.begin) >= self.plan.time;
        let is_stopped = self.watch.stop.load(std::sync::atomic::Ordering::Relaxed);
        is_late && self.window.is_measuring || is_stopped
    }

    fn total(&self) -> Second {
        let [reads, writes] = &self.tally.sides;
        let bytes = if W::PLAIN_READS {
            [reads.ios * self.plan.bytes_max as u64, 0]
        } else {
            [reads.bytes, writes.bytes]
        };
        Second {
            ios: [reads.ios, writes.ios],
            bytes,
            latency: [reads.latency.sum(), writes.latency.sum()],
            errors: self.tally.errors,
        }
    }

    /// Begins the measurement, at `now`.
    #[cold]
    fn begin_window(&mut self, now: u64) {
        self.tally.sides.iter_mut().for_each(Side::clear);
        (self.quota, self.late) = (self.plan.count, 0);
        self.now = now;
        self.window.begin = now;
        self.window.is_measuring = true;
        self.window.second = now + SECOND;
        self.window.before = Second { errors: self.tally.errors, ..Second::default() };
        self.window.counters = self.target.counters();
        self.window.cpu = (self.plan.cpu)();
    }

    /// Ends the measurement.
    #[cold]
    fn end_window(&mut self) -> Outcome {
        let now = self.clock.now();
        if !self.window.is_measuring {
            self.begin_window(now);
        }
        let total = self.total();
        let mut seconds = std::mem::take(&mut self.window.seconds);
        let rest = total.since(&self.window.before);
        let is_whole = now + SECOND / 2 < self.window.second;
        if !is_whole && rest != Second::default() && seconds.len() < SECONDS_MAX {
            seconds.push(rest);
        }
        let [mut reads, writes] = self.tally.sides.clone();
        reads.bytes = total.bytes[0];
        Outcome {
            reads,
            writes,
            elapsed: now.saturating_sub(self.window.begin),
            late: self.late,
            missed: self.full_at.map_or(0, |full| self.work.missed(full)),
            seconds,
            counters: self.target.counters().since(self.window.counters),
            cpu: (self.plan.cpu)().saturating_sub(self.window.cpu),
            ..Outcome::default()
        }
    }

    /// Waits for the requests in flight, which are not part of the measurement.
    #[cold]
    fn drain(mut self, mut outcome: Outcome) -> Result<Outcome, Error> {
        while self.in_flight > 0 {
            if self.complete() == 0 && self.plan.interrupt {
                self.wait(None)?;
            }
        }
        outcome.granted = self.plan.depth.min(self.target.capacity());
        outcome.errors = self.tally.errors;
        outcome.failed = self.tally.failed.take().map(|failed| {
            let lba = self.target.lba(failed.pos);
            Failed { lba, ..failed }
        });
        Ok(outcome)
    }
}

impl Tally {
    #[cold]
    fn fail(&mut self, request: Request, error: Error) {
        let pos = request.pos;
        self.note(Failed { request, pos, lba: None, error, is_wrong_data: false });
    }

    #[cold]
    fn read_wrong(&mut self, request: Request, Wrong { pos, error }: Wrong) {
        self.note(Failed { request, pos, lba: None, error, is_wrong_data: true });
    }

    fn note(&mut self, failed: Failed) {
        self.errors += 1;
        self.failed.get_or_insert(failed);
    }
}

/// The receiver of results.
struct Takes<'t, B, C, W, const MODE: u8> {
    clock: &'t mut C,
    work: &'t mut W,
    slots: &'t mut Slots<B>,
    tally: &'t mut Tally,
    now: &'t mut u64,
    /// The clock was read in this batch.
    is_read: bool,
    go_on: bool,
}

impl<B: Buffer, C: Clock, W: Workload, const MODE: u8> Sink<B> for Takes<'_, B, C, W, MODE> {
    #[inline(always)]
    fn done(&mut self, number: u64, buf: B) {
        // Before the clock is read, because the buffer would otherwise be stored for an unwinding.
        let Some(slot) = self.slots.put(number, buf) else { return };
        if MODE == EACH || MODE == BATCH && !self.is_read {
            *self.now = self.clock.now();
            self.is_read = true;
        }
        // The clock never goes back, and no start is in the future.
        let latency = self.now.wrapping_sub(slot.start);
        if W::PLAIN_READS {
            if MODE != NONE {
                self.tally.sides[0].latency.record(latency);
            }
        } else {
            let request = slot.request;
            let bytes = slot.buf.as_mut().map(Buffer::bytes);
            match self.work.settle(&request, bytes) {
                Ok(()) => self.tally.count::<MODE>(&request, latency),
                Err(wrong) => {
                    self.tally.read_wrong(request, wrong);
                    self.tally.must_end |= !self.go_on;
                }
            }
        }
    }

    #[cold]
    fn failed(&mut self, number: u64, error: Error, buf: Option<B>) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let request = slot.request;
        match buf {
            Some(buf) => drop(self.slots.put(number, buf)),
            None => self.slots.lose(),
        }
        // A failure is no wrong data.
        let _ = self.work.settle(&request, None);
        self.tally.fail(request, error);
        self.tally.must_end |= !self.go_on || self.slots.is_empty();
    }
}

impl Tally {
    #[inline(always)]
    fn count<const MODE: u8>(&mut self, request: &Request, latency: u64) {
        let side = &mut self.sides[usize::from(request.write)];
        side.ios += 1;
        side.bytes += request.bytes as u64;
        if MODE != NONE {
            side.latency.record(latency);
        }
    }
}
