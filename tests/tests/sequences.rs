//! Random sequences of operations on a file: some seeds, those that have failed before, and the
//! shortest ones that revealed a bug. The program `sequences` plays all seeds; `tests/run
//! sequences` runs it.

use nvio_iomap::{IoFlags, MappingFlags};
use nvio_tests::sequences::play::{drawn, play, replay};
use nvio_tests::sequences::run::run;
use nvio_tests::sequences::strategy::Kind;
use nvio_tests::sequences::strategy::{
    Ask, Device, Extent, File, Mischief, Sequence, Shape, Step, Trouble, Unit, Way,
};
use nvio_tests::sequences::watch::Sabotage;

#[test]
fn a_few_seeds() {
    for seed in 0..200 {
        if let Err(failure) = play(seed, Sabotage::None, false) {
            panic!("sequences --seed {seed} --verbose: {}: {:#?}", failure.why, failure.smallest);
        }
    }
}

#[test]
fn sequences_that_failed_before() {
    if let Err(failure) = replay() {
        panic!("{}: {:#?}", failure.why, failure.smallest);
    }
}

#[test]
fn a_seed_means_one_thing() {
    for seed in 0..40 {
        let sequence = drawn(seed).unwrap();
        assert_eq!(format!("{sequence:?}"), format!("{:?}", drawn(seed).unwrap()));
        let [first, second] = [(); 2].map(|()| run(&sequence, Sabotage::None, false).unwrap());
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.hash, 0);
    }
}

#[test]
fn a_queue_or_device_that_does_wrong_is_found_out() {
    let sabotages = [
        Sabotage::DropFua,
        Sabotage::LyingFlush,
        Sabotage::LyingRead,
        Sabotage::LyingWrite,
        Sabotage::Misdirected,
        Sabotage::FlippedByte,
        Sabotage::HiddenError,
    ];
    for sabotage in sabotages {
        let found = (0..3000).find(|&seed| {
            let sequence = drawn(seed).unwrap();
            run(&sequence, sabotage, false).is_err()
        });
        println!("{sabotage:?}: seed {found:?}");
        assert!(found.is_some(), "{sabotage:?} is not detected");
    }
}

#[test]
fn everything_is_drawn_by_some_seed() {
    let all: Vec<Sequence> = (0..1000).map(|seed| drawn(seed).unwrap()).collect();
    let some = |test: fn(&Sequence) -> bool| assert!(all.iter().any(test));
    some(|s| s.depth == 1 && s.steps.len() > 30);
    some(|s| s.depth == 32 && s.rates == Trouble::default());
    some(|s| s.rates.lost > 0 && s.rates.late > 0 && s.rates.status > 0);
    some(|s| s.file.inline);
    some(|s| s.device.block_shift == 12 && s.device.cached && s.device.boundary > 0);
    let asks: Vec<&Ask> = all
        .iter()
        .flat_map(|sequence| &sequence.steps)
        .filter_map(|step| if let Step::Ask(ask) = step { Some(ask) } else { None })
        .collect();
    // Direct I/O refuses WRITETHROUGH, whatever else is asked for.
    for flag in IoFlags::all().difference(IoFlags::WRITETHROUGH).iter() {
        let with = |write| asks.iter().any(|a| a.write == write && a.flags.contains(flag));
        assert!(with(false) && with(true), "{flag:?}");
    }
    let some = |test: fn(&Ask) -> bool| assert!(asks.iter().any(|&ask| test(ask)));
    some(|a| matches!(a.way, Way::Cursor { fault: Some(_), soft: false, .. }) && !a.write);
    some(|a| matches!(a.way, Way::Cursor { fault: Some(_), .. }) && a.write && a.done_before > 0);
    some(|a| matches!(a.shape, Shape::Vectored(ref cuts, _) if cuts.contains(&0)));
    some(|a| matches!(a.mischief, Mischief::Bad(_, 3)));
    some(|a| matches!(a.mischief, Mischief::Submit(0)) && a.flags.contains(IoFlags::HOOKS));
}

// The shortest sequences that have revealed a bug.

const ASK: Ask = Ask {
    write: false,
    way: Way::Submit,
    unit: Unit::Block,
    at: 0,
    units: 1,
    shape: Shape::Dma(0),
    flags: IoFlags::empty(),
    done_before: 0,
    mischief: Mischief::None,
    trim: 0,
    late: false,
};

/// Runs steps on a file with blocks of 4 KiB, on a device with blocks of 512 bytes, with a queue of
/// `depth` commands.
fn must_succeed(kind: Kind, most_shift: u32, depth: u16, asks: impl Into<Vec<Step>>) {
    let device = Device {
        block_shift: 9,
        mdts: None,
        most_shift,
        boundary: 0,
        cached: true,
        atomic: 16,
        jitter: false,
        sgl: false,
    };
    let extent = Extent { kind, blocks: 4, gap: 0, flags: MappingFlags::empty() };
    let extents = vec![extent.clone(), extent.clone(), extent.clone(), extent];
    // The file ends in the middle of its last block but one.
    let file = File { over: 5, extents, cut: 0xc000, inline: false, scatter: 1 };
    let rates = Trouble::default();
    let steps = asks.into();
    let sequence = Sequence { device, file, depth, rates, seed: 2, steps };
    if let Err(wrong) = run(&sequence, Sabotage::None, false) {
        panic!("{}", wrong.0);
    }
}

#[test]
fn no_memory_ends_a_request_while_results_wait() {
    let hole = Ask { write: true, units: 0, ..ASK };
    let bounced = Ask { flags: IoFlags::BOUNCE, way: Way::Execute, ..ASK };
    let steps = [Step::Shortage(0), Step::Ask(hole), Step::Ask(bounced)];
    must_succeed(Kind::Mapped, 16, 8, steps);
}

#[test]
fn hooks_know_where_each_command_for_zeroes_is() {
    // Three commands zero the first 12 KiB of the block.
    let ask = Ask { write: true, at: 6144, flags: IoFlags::HOOKS, ..ASK };
    must_succeed(Kind::Unwritten, 12, 8, [Step::Ask(ask)]);
}

#[test]
fn an_atomic_write_of_several_buffers_is_none() {
    let shape = Shape::Vectored(vec![1], 0);
    let ask = Ask { write: true, units: 2, flags: IoFlags::ATOMIC, shape, ..ASK };
    must_succeed(Kind::Mapped, 16, 8, [Step::Ask(ask)]);
}

#[test]
fn an_atomic_write_is_not_bounced_in_parts() {
    let (shape, way) = (Shape::Bytes, Way::Execute);
    let ask = Ask { write: true, units: 16, flags: IoFlags::ATOMIC, shape, way, ..ASK };
    must_succeed(Kind::Mapped, 16, 8, [Step::Shortage(4096), Step::Ask(ask)]);
}

#[test]
fn waiting_call_waits_for_room_in_the_request_table() {
    let hooked = Ask { flags: IoFlags::HOOKS, units: 0, ..ASK };
    let forced = Ask { flags: IoFlags::HOOKS | IoFlags::FORCE_WAIT, ..hooked.clone() };
    let read = Ask { units: 1, shape: Shape::Dma(0), flags: IoFlags::GENERIC, ..ASK };
    let waits = Ask { way: Way::Slice, ..ASK };
    let steps = [read, hooked, forced, waits].map(Step::Ask);
    must_succeed(Kind::Mapped, 16, 1, steps);
}

#[test]
fn bytes_written_before_a_fault_are_reported() {
    let way = Way::Cursor { fault: Some(0x9000), soft: false, before: 0 };
    let flags = IoFlags::PARTIAL | IoFlags::HOOKS;
    let ask = Ask { write: true, units: 16, way, flags, ..ASK };
    must_succeed(Kind::Unwritten, 12, 8, [Step::Ask(ask)]);
}

#[test]
fn a_tail_that_could_not_be_zeroed_is_no_success_in_part() {
    let way = Way::Cursor { fault: Some(0x9000), soft: false, before: 0 };
    let flags = IoFlags::PARTIAL | IoFlags::HOOKS;
    // The third command writes the zeroes.
    let mischief = Mischief::Submit(2);
    let ask = Ask { write: true, units: 16, way, flags, mischief, ..ASK };
    must_succeed(Kind::Unwritten, 12, 8, [Step::Ask(ask)]);
}

#[test]
fn a_fault_that_is_found_while_there_is_no_room_leaves_what_was_read() {
    let way = Way::Cursor { fault: Some(0x1000), soft: false, before: 0 };
    let ask = Ask { units: 32, way, flags: IoFlags::PARTIAL, ..ASK };
    must_succeed(Kind::Mapped, 12, 1, [Step::Ask(ask)]);
}

#[test]
fn zeroes_behind_a_durable_write_are_durable() {
    // A write up to the end of the file, which also zeroes the rest of its block.
    let ask = Ask { write: true, at: 0xdfff, unit: Unit::Block, flags: IoFlags::DSYNC, ..ASK };
    for units in 1..=40 {
        must_succeed(Kind::Mapped, 16, 8, [Step::Ask(Ask { units, ..ask.clone() })]);
    }
}
