//! The time at which doorbells are written, against a controller that completes what it was shown.

use nvio_testkit::random::Rng;

use super::*;
use crate::queue::doorbells::{HELD_MAX, KNOWN_MIN};

const ENTRIES: u32 = 256;
const DEPTH: u16 = 128;

/// A controller that executes commands in order.
struct Target {
    device: Device,
    /// Identifiers of the commands that it was shown, and that have not ended.
    known: Vec<u16>,
}

impl Target {
    fn new() -> (Self, RawQueuePair<u32>) {
        let (device, core) = Device::with_depth(ENTRIES, DEPTH);
        (Self { device, known: Vec::new() }, core)
    }

    /// Looks at the doorbell, and returns the number of commands of the controller.
    fn look(&mut self) -> usize {
        self.known.extend(self.device.take().iter().map(|sqe| sqe.cid.get()));
        self.known.len()
    }

    /// Completes `count` commands, for which there must be room.
    fn complete(&mut self, count: usize) {
        for cid in self.known.drain(..count) {
            assert!(self.device.unreleased() < ENTRIES - 1, "the completion queue is full");
            self.device.post(cid, Status::SUCCESS);
        }
    }
}

/// Submits `count` commands, each with its own call of `ring`.
fn submit_each(core: &mut RawQueuePair<u32>, count: usize) {
    for _ in 0..count {
        assert!(submit(core, 0));
        core.ring();
    }
}

/// A controller with `known` commands of a caller that rings for each.
fn gathering(known: usize) -> (Target, RawQueuePair<u32>) {
    let (mut target, mut core) = Target::new();
    submit_each(&mut core, DEPTH.into());
    for _ in 0..ENTRIES {
        target.look();
        target.complete(1);
        assert_eq!(poll(&mut core).len(), 1);
        submit_each(&mut core, 1);
    }
    assert!(core.gathering.is_on);
    core.ring_overdue();
    let excess = target.look() - known;
    target.complete(excess);
    poll(&mut core);
    core.ring_overdue();
    // The completions above came without submissions.
    core.gathering.is_on = true;
    (target, core)
}

#[test]
fn a_command_is_shown_at_once_while_the_controller_has_few() {
    let (mut target, mut core) = gathering(KNOWN_MIN);
    target.complete(KNOWN_MIN);
    poll(&mut core);
    for known in 1..=KNOWN_MIN {
        submit_each(&mut core, 1);
        assert_eq!(target.look(), known);
    }
}

#[test]
fn a_batch_is_shown_at_once() {
    let held = HELD_MAX as usize;
    let (mut target, mut core) = gathering(KNOWN_MIN);
    (0..held).for_each(|_| assert!(submit(&mut core, 0)));
    core.ring();
    assert_eq!(target.look(), KNOWN_MIN + held);
}

#[test]
fn further_commands_are_shown_together() {
    let (mut target, mut core) = gathering(KNOWN_MIN);
    for known in [KNOWN_MIN, KNOWN_MIN + HELD_MAX as usize] {
        submit_each(&mut core, HELD_MAX as usize - 1);
        assert_eq!(target.look(), known);
        submit_each(&mut core, 1);
        assert_eq!(target.look(), known + HELD_MAX as usize);
    }
}

#[test]
fn held_commands_are_shown_before_the_controller_has_little_to_do() {
    let known = KNOWN_MIN + 2 * HELD_MAX as usize;
    let (mut target, mut core) = gathering(known);
    submit_each(&mut core, 3);
    // Not rung.
    assert!(submit(&mut core, 0));
    for left in (KNOWN_MIN..known).rev() {
        target.complete(1);
        poll(&mut core);
        assert_eq!(target.look(), left);
    }
    target.complete(1);
    assert!(matches!(core.process_one(), Processed::Completed(_)));
    assert_eq!(target.look(), KNOWN_MIN - 1 + 3);
    core.ring_all();
    assert_eq!(target.look(), KNOWN_MIN + 3);
}

#[test]
fn commands_are_shown_when_it_is_time_and_before_a_sleep() {
    let (mut target, mut core) = gathering(KNOWN_MIN);
    submit_each(&mut core, 2);
    assert!(core.ring(), "there is a doorbell to be written in time");
    assert!(submit(&mut core, 0));
    assert_eq!(target.look(), KNOWN_MIN);
    core.ring_overdue();
    assert_eq!(target.look(), KNOWN_MIN + 2);
    core.ring_all();
    assert_eq!(target.look(), KNOWN_MIN + 3);
    target.complete(5);
    poll(&mut core);
    assert_ne!(target.device.head(), target.device.cq_tail);
    core.ring_overdue();
    assert_eq!(target.device.head(), target.device.cq_tail);
}

#[test]
fn held_commands_do_not_survive_a_reset() {
    let (mut target, mut core) = gathering(KNOWN_MIN);
    submit_each(&mut core, 2);
    let before = core.counters().doorbells;
    while core.abandon(status::ABORTED_BY_HOST, false).is_some() {}
    core.restart();
    core.ring_overdue();
    assert_eq!(core.counters().doorbells, before);
    (target.device.sq_head, target.known) = (0, Vec::new());
    target.device.doorbells.write32(sq_tail_doorbell(QID, 4), 0).unwrap();
    submit_each(&mut core, 1);
    assert_eq!(target.look(), 1);
}

/// In any order of events, at most seven rung commands are hidden, and only from a controller that
/// has 64 others; and the controller always has room for completions.
#[test]
fn nothing_is_hidden_from_a_controller_that_has_little_to_do() {
    let mut rng = Rng::new(5);
    let (mut target, mut core) = Target::new();
    let (mut unrung, mut held) = (0, 0);
    for _ in 0..100_000 {
        match rng.below(4) {
            0 | 1 => {
                for _ in 0..rng.range(1, 4) {
                    unrung += usize::from(submit(&mut core, 0));
                }
                if rng.below(8) > 0 {
                    core.ring();
                    unrung = 0;
                }
            }
            2 => {
                let most = target.look().min(if rng.below(50) == 0 { 128 } else { 4 });
                let count = rng.below(most as u64 + 1) as usize;
                target.complete(count);
            }
            _ => {
                poll(&mut core);
            }
        }
        let posted = (core.in_flight() - core.sq.hidden() as usize) - target.look();
        let hidden = core.sq.hidden() as usize - unrung.min(core.sq.hidden() as usize);
        held += usize::from(hidden > 0);
        assert!(hidden < HELD_MAX as usize);
        assert!(hidden == 0 || target.known.len() + posted >= KNOWN_MIN, "{hidden} are hidden");
    }
    let counters = core.counters();
    assert!(counters.completed > 50_000 && held > 1000, "{held} moments with hidden commands");
}
