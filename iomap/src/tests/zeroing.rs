//! Parts of blocks without data are zeroed beside a write, whatever fails.

use super::*;
use crate::tests::mock::{Command, Event};

const FS: u64 = 4096;

/// Blocks whose contents nobody may see: unwritten, and new ones.
fn fresh() -> [Mapping; 2] {
    let blocks = Mapping::mapped(0, 4 * FS, FS);
    [Mapping { kind: MappingKind::Unwritten, ..blocks }, with(blocks, MappingFlags::NEW)]
}

#[test]
fn the_rest_of_fresh_blocks_is_zeroed_around_a_write() {
    for mapping in fresh() {
        for flags in [IoFlags::empty(), IoFlags::BOUNCE, IoFlags::DSYNC] {
            for (pos, bytes) in
                [(0, 512), (512, 1024), (3584, 512), (3584, 1024), (1024, 9216), (4096, 4096)]
            {
                let mut rig = Rig::new(64, [mapping]);
                let (mut want, data) = (rig.device().to_vec(), pattern(bytes));
                rig.write(at(pos, flags), &data).unwrap();
                let (first, end) = (pos & !(FS - 1), (pos + bytes).next_multiple_of(FS));
                want[(FS + first) as usize..(FS + end) as usize].fill(0);
                want[(FS + pos) as usize..][..bytes as usize].copy_from_slice(&data);
                assert!(rig.device() == want, "{mapping:?} {flags:?} {pos} {bytes}");
                rig.assert_idle();
            }
        }
    }
}

#[test]
fn whole_blocks_and_old_ones_are_not_zeroed() {
    let mut rig = Rig::new(64, fresh());
    rig.write(IoArgs::at(4096), &pattern(FS)).unwrap();
    let commands = rig.files.queue.log.len();
    assert_eq!(commands, 2);
    // A write into old blocks, inside of the file, zeroes nothing either.
    let mut rig = Rig::plain(64);
    let (mut want, data) = (rig.device().to_vec(), pattern(1024));
    rig.write(IoArgs::at(512), &data).unwrap();
    want[512..1536].copy_from_slice(&data);
    assert!(rig.device() == want);
}

#[test]
fn a_write_that_ends_at_or_past_the_end_of_the_file_zeroes_the_rest_of_the_block() {
    for (size, zeroed) in [(1000, true), (1535, true), (1536, true), (1537, false), (9000, false)] {
        let mut rig = Rig::plain(64);
        rig.file.size = size;
        let (mut want, data) = (rig.device().to_vec(), pattern(1024));
        rig.write(IoArgs::at(512), &data).unwrap();
        want[512..1536].copy_from_slice(&data);
        if zeroed {
            want[1536..4096].fill(0);
        }
        assert!(rig.device() == want, "{size}");
    }
}

/// Bytes of the device up to `end` that are neither what was written at `pos` nor zeroes.
fn stale(rig: &Rig, pos: u64, data: &[u8], end: u64) -> Vec<usize> {
    let mut want = vec![0; (FS + end) as usize];
    want[(FS + pos) as usize..][..data.len()].copy_from_slice(data);
    let good = |&i: &usize| rig.device()[i] == want[i] || rig.device()[i] == 0;
    (FS as usize..want.len()).filter(|i| !good(i)).collect()
}

#[test]
fn failed_commands_reveal_no_stale_data() {
    for mapping in fresh() {
        for flags in [IoFlags::empty(), IoFlags::BOUNCE] {
            // Head, three pieces of data, tail.
            let (pos, bytes) = (512, 5 * BLOCK + 4096);
            for failing in 0.. {
                let mut rig = Rig::new(64, [mapping]);
                rig.files.queue.failing = vec![failing];
                let result = rig.write(at(pos, flags), &pattern(bytes));
                let log = rig.files.queue.log.clone();
                if failing >= log.len() {
                    assert!(result.is_ok() && failing > 4);
                    break;
                }
                assert_eq!(name(&result.unwrap_err()), "Bio");
                // All that is old is what the failing command was to write, and what was not
                // reached: the rest of the block where it stopped is zeroes.
                let Command::Write(addr, length) = log[failing] else { panic!("{log:?}") };
                let failed = addr as usize..addr as usize + length;
                let reached = log.iter().map(|command| match *command {
                    Command::Write(addr, length) => addr + length as u64 - FS,
                    _ => 0,
                });
                let reached = reached.max().unwrap();
                assert_eq!(reached % FS, 0, "up to the end of a block");
                let stale = stale(&rig, pos, &pattern(bytes), reached);
                assert!(stale.iter().all(|at| failed.contains(at)), "{failing}: {stale:?}");
                rig.assert_idle();
            }
        }
    }
}

#[test]
fn partial_submission_reveals_no_stale_data() {
    let data = FS + 512..FS + 7680;
    for mapping in fresh() {
        // Pieces that end inside of a block are zeroed, too.
        for (most, depth) in [(2048, 3), (512, 64), (1536, 2)] {
            let rig = || {
                let mut queue = MockQueue::new(64);
                (queue.max_transfer, queue.depth) = (most, depth);
                Rig::over(queue, [mapping])
            };
            let mut whole = rig();
            whole.write(IoArgs::at(512), &pattern(7168)).unwrap();
            let mut refused = 0;
            for (number, event) in whole.journal.events().into_iter().enumerate() {
                let Event::Submit(Command::Write(addr, _)) = event else { continue };
                let mut rig = rig();
                rig.journal.fail_at(number);
                assert_eq!(
                    name(&rig.write(IoArgs::at(512), &pattern(7168)).unwrap_err()),
                    "Driver"
                );
                rig.assert_idle();
                if !data.contains(&addr) {
                    continue;
                }
                refused += 1;
                let rest = addr as usize..addr.next_multiple_of(FS) as usize;
                assert!(rig.device()[rest].iter().all(|&byte| byte == 0), "{addr} {most}");
                let before = FS as usize + 512..addr as usize;
                assert_eq!(rig.device()[before.clone()], pattern(7168)[..before.len()]);
            }
            assert_eq!(refused, 7168_usize.div_ceil(most));
        }
    }
}

#[test]
fn a_tail_without_memory_to_zero_it_is_an_error_and_waits_for_what_is_in_flight() {
    let mut rig = Rig::new(64, fresh());
    rig.files.queue.allocations = 0;
    assert_eq!(name(&rig.write(IoArgs::at(0), &pattern(512)).unwrap_err()), "NoMemory");
    rig.assert_idle();
    // One buffer is enough: the data is bounced through it first, and the zeroes after that.
    rig.files.queue.allocations = 1;
    rig.write(at(0, IoFlags::BOUNCE), &pattern(512)).unwrap();
    assert_eq!(rig.device()[4096..4608], pattern(512));
    assert!(rig.device()[4608..8192].iter().all(|&byte| byte == 0));
    rig.assert_idle();
}
