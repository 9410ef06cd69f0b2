//! Races that the random sequences have found, as the shortest sequences that show them.

use nvio_testkit::random::Rng;
use shuttle::Runner;

use super::double::{BLOCK, Block};
use super::plan::How::{self, Cached, Durable, DurableThrough, Through};
use super::plan::{Call, Plan, Rule};
use super::schedule::Chosen;
use super::stepped::Faults;
use super::switched;
use super::world::{config, play};
use crate::cache::CachedFile;

/// Schedules of each rule that a sequence is played with.
const SCHEDULES: u64 = 150;

fn mapped(count: u64) -> Vec<Block> {
    (0..count).map(|index| Block::Mapped(index * BLOCK)).collect()
}

fn unwritten(count: u64) -> Vec<Block> {
    (0..count).map(|index| Block::Unwritten(index * BLOCK)).collect()
}

/// A file of `blocks` and `size` cells, in a cache of four folios over a queue of four commands.
fn plan(blocks: Vec<Block>, size: usize, threads: &[&[Call]]) -> Plan {
    Plan {
        seed: 1,
        limit: 16 << 10,
        blocks,
        size,
        depth: 4,
        most: 1 << 20,
        faults: Faults::default(),
        filesystem: 0,
        rule: Rule::Any,
        threads: threads.iter().map(|calls| calls.to_vec()).collect(),
    }
}

/// Plays a sequence with many schedules.
fn holds(plan: &Plan) {
    holds_from(plan, 0);
}

fn holds_from(plan: &Plan, first: u64) {
    for rule in [Rule::Any, Rule::Seldom(8), Rule::Priorities(4)] {
        for schedule in first..first + SCHEDULES {
            let plan = Plan { rule, seed: schedule, ..plan.clone() };
            if let Err(why) = play(&plan, schedule) {
                panic!("{rule:?}, schedule {schedule}: {why}");
            }
        }
    }
}

fn write(cells: std::ops::Range<usize>, how: How) -> Call {
    Call::Write { cells, how, readable: 999 }
}

#[test]
fn folio_that_another_thread_adds_first_is_not_counted() {
    holds(&plan(mapped(8), 32, &[&[Call::Read(0..4)], &[write(0..4, Cached)]]));
}

#[test]
fn folio_that_is_busy_again_is_not_lost() {
    let calls = [write(0..4, Through), write(4..8, Through), write(0..4, Through)];
    holds(&plan(mapped(8), 32, &[&calls, &calls]));
}

#[test]
fn durable_write_waits_for_the_thread_that_tells_the_filesystem_of_it() {
    let syncs = [Call::Sync, Call::Sync, Call::Sync];
    let writes = [write(0..4, DurableThrough), write(8..12, DurableThrough)];
    holds(&plan(unwritten(8), 32, &[&writes, &syncs]));
}

#[test]
fn blocks_whose_writing_has_not_ended_for_the_filesystem_are_not_written_back() {
    let nowait = Call::WriteBack { cells: 0..4, nowait: true };
    let calls = [write(0..4, Cached), nowait.clone(), nowait.clone(), nowait];
    holds(&plan(unwritten(8), 32, &[&calls, &[Call::Sync, Call::Sync]]));
}

#[test]
fn zeroing_reaches_data_that_another_thread_is_writing() {
    let calls = [write(0..4, Cached), Call::Zero(0..2), write(8..12, Cached), Call::Zero(8..9)];
    holds(&plan(unwritten(8), 32, &[&calls, &[Call::Sync, Call::Sync, Call::Sync]]));
}

#[test]
fn durable_write_flushes_if_another_thread_has_written_its_blocks_back() {
    let calls = [write(0..4, Cached), write(0..2, Durable), write(2..4, Durable)];
    let back = Call::WriteBack { cells: 0..4, nowait: false };
    holds(&plan(mapped(8), 32, &[&calls, &[back.clone(), back.clone(), back]]));
}

#[test]
fn bytes_that_extend_the_file_are_not_zeroed_by_a_write_that_began_before() {
    let calls = [write(1..2, Cached), write(2..3, Cached), write(3..6, Cached)];
    holds(&plan(mapped(1), 1, &[&calls, &[Call::Sync, Call::Sync, Call::Sync]]));
}

#[test]
fn size_on_the_device_is_raised_by_a_write_that_began_with_the_file_before() {
    let calls = [write(2..3, Through), write(4..6, Through), write(6..7, Through)];
    holds(&plan(mapped(2), 1, &[&calls, &[Call::Sync, Call::Sync, Call::Sync]]));
}

#[test]
fn block_that_moves_is_not_read_at_its_old_place() {
    let reads = [Call::Read(0..4), Call::Invalidate(0..4), Call::Read(0..4), Call::Read(4..8)];
    let moves = [Call::Move(0), Call::Move(0), Call::Move(0), Call::Move(0), Call::Move(0)];
    holds(&plan(mapped(8), 32, &[&reads, &moves]));
}

#[test]
fn direct_write_leaves_nothing_old_in_a_folio_that_others_use() {
    let others =
        [write(8..10, Cached), Call::Read(12..14), write(9..11, Cached), Call::Read(12..14)];
    let direct = [Call::WriteDirect(12..16), Call::Read(12..16), Call::WriteDirect(12..16)];
    holds(&plan(mapped(8), 32, &[&direct, &others]));
}

#[test]
fn thread_gets_memory_that_another_is_looking_at() {
    let sequence = || {
        let (device, double) = super::mapped(&mut Rng::new(1), 64, 64 * BLOCK);
        // Room for one folio.
        let cache = device.cache(4096);
        let mut file = CachedFile::new(&cache, double);
        file.read_at(0, &mut [0; 100]).unwrap();
        let evictor = shuttle::thread::spawn(move || {
            cache.0.without_clock_for_tests(|| (0..200).for_each(|_| switched::yield_now()));
        });
        switched::yield_now();
        assert_eq!(file.read_at(8192, &mut [0; 100]).unwrap(), 100);
        evictor.join().unwrap();
    };
    for seed in 0..20 {
        let runner = Runner::new(Chosen::new(seed, Rule::Any), config());
        switched::switching(100_000, || _ = runner.run(sequence));
    }
}

#[test]
fn end_that_a_request_zeroes_is_where_it_is_and_not_where_it_was() {
    let request = [Call::Batch(vec![write(20..21, Cached), write(30..31, Cached)])];
    holds(&plan(mapped(1), 2, &[&request, &[write(1..4, Cached), Call::Sync]]));
}

#[test]
fn size_on_the_device_is_not_raised_by_a_write_that_ends_after_a_truncation() {
    let calls = [write(1..3, Cached), Call::Truncate(1), write(2..4, Cached), Call::Truncate(2)];
    let syncs = [Call::Sync, Call::Sync, Call::Sync];
    let plan = plan(mapped(1), 1, &[&calls, &syncs, &syncs]);
    (0..3).for_each(|first| holds_from(&plan, first * SCHEDULES));
}

#[test]
fn write_of_memory_that_cannot_be_read_is_applied_once() {
    let torn = Call::Write { cells: 0..4, how: Cached, readable: 3 };
    let others = [Call::Read(0..4), write(0..2, Cached), Call::Read(0..4)];
    holds(&plan(mapped(8), 32, &[&[write(0..4, Cached), torn.clone(), torn], &others]));
}

#[test]
fn block_that_another_thread_wrote_back_and_dropped_is_not_written_again() {
    let direct = [write(12..16, Cached), Call::WriteDirect(12..16), Call::Read(12..16)];
    let others = [write(8..9, Cached), Call::Sync, write(8..9, Cached), Call::Sync];
    let syncs = [Call::Sync, Call::Sync, Call::Sync];
    let plan = plan(mapped(8), 32, &[&direct, &others, &syncs]);
    (0..3).for_each(|first| holds_from(&plan, first * SCHEDULES));
}

#[test]
fn block_that_moves_is_not_written_at_its_old_place() {
    let writes = [write(0..4, Cached), Call::Sync, write(0..2, Cached), Call::Sync];
    let moves = [Call::Move(0), Call::Move(0), Call::Move(0), Call::Move(0), Call::Move(0)];
    holds(&plan(mapped(8), 32, &[&writes, &moves]));
}
