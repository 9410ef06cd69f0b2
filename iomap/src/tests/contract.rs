//! The contract between the engine and a filesystem.

use super::*;
use crate::contract::iter::iterate;
use crate::contract::mapper::{Mapper, Op};

#[test]
fn only_ranges_with_blocks_have_a_device_address() {
    let mapped = Mapping::mapped(4096, 8192, 1 << 20);
    let unwritten = Mapping::unwritten(4096, 8192, 1 << 20);
    for mapping in [mapped, unwritten] {
        let answers = [4095, 4096, 12287, 12288].map(|pos| mapping.device_address(pos));
        assert_eq!(answers, [None, Some(1 << 20), Some((1 << 20) + 8191), None]);
        assert_eq!(mapping.end(), 12288);
    }
    for kind in [MappingKind::Hole, MappingKind::Delalloc, MappingKind::Inline] {
        assert_eq!(Mapping { kind, ..mapped }.device_address(4096), None, "{kind:?}");
    }
    let last = Mapping::mapped(0, u64::MAX, u64::MAX - 10);
    assert_eq!((last.device_address(10), last.device_address(11)), (Some(u64::MAX), None));
    assert_eq!(Mapping::hole(u64::MAX, 10).end(), u64::MAX);
}

#[test]
fn a_range_that_says_nothing_more_is_read() {
    let mut rig = Rig::plain(64);
    rig.read(IoArgs::at(0), BLOCK).unwrap();
    assert_eq!(rig.file.ops, [Op::DIRECT]);
}

#[test]
fn the_operation_is_told_to_begin_and_to_end() {
    let modifiers = [
        (IoFlags::empty(), Op::empty()),
        (IoFlags::NOWAIT, Op::NOWAIT),
        (IoFlags::ATOMIC, Op::ATOMIC),
        (IoFlags::DONTCACHE, Op::DONTCACHE),
    ];
    for (flags, op) in modifiers {
        let mut rig = Rig::plain(64);
        rig.files.queue.max_atomic = 4096;
        rig.write(at(0, flags), &pattern(BLOCK)).unwrap();
        assert_eq!(rig.file.ops, [Op::DIRECT | Op::WRITE | op], "{flags:?}");
        assert_eq!(rig.file.told[0].3, rig.file.ops[0]);
        if flags != IoFlags::ATOMIC {
            for more in [IoFlags::empty(), IoFlags::GENERIC] {
                rig.read(at(0, flags | more), BLOCK).unwrap();
                assert_eq!(rig.file.ops.last(), Some(&(Op::DIRECT | op)), "{flags:?}");
            }
        }
    }
    for op in [Op::ZERO, Op::REPORT, Op::WRITE | Op::OVERWRITE_ONLY, Op::all()] {
        let mut file = Script::new([Mapping::hole(0, 100)]);
        assert_eq!(iterate(&mut file, 0, 100, op, |_, _, _, n| Ok(n)).processed, 100);
        assert_eq!((file.ops[0], file.told[0].3), (op, op));
    }
}

#[test]
fn mappings_that_break_the_contract_are_errors_on_every_path() {
    let stale = with(Mapping::mapped(0, 8192, 0), MappingFlags::STALE);
    let overflow = Mapping::mapped(0, 8192, u64::MAX - 100);
    let before = Mapping::mapped(0, 512, 0);
    let behind = Mapping::mapped(1024, 4096, 0);
    let empty = Mapping::mapped(512, 0, 0);
    for bad in [stale, overflow, before, behind, empty] {
        for flags in [IoFlags::empty(), IoFlags::GENERIC, IoFlags::BOUNCE] {
            let mut rig = Rig::new(64, []);
            rig.file.mappings = [bad].into();
            let error = rig.read(at(512, flags), BLOCK).unwrap_err();
            assert_eq!(name(&error), "BadMapping", "{bad:?} {flags:?}");
            assert_eq!(rig.file.ends(), [0], "ended all the same");
            rig.file.mappings = [bad].into();
            let error = rig.write(at(512, flags), &pattern(BLOCK)).unwrap_err();
            assert_eq!(name(&error), "BadMapping", "{bad:?} {flags:?}");
            assert!(rig.files.queue.log.is_empty());
            rig.assert_idle();
        }
    }
}

#[test]
fn a_mapping_may_be_shorter_or_longer_than_what_was_asked_for() {
    let mut rig = Rig::new(64, []);
    rig.file.mappings = [Mapping::mapped(512, 1024, 2048), Mapping::mapped(0, 1 << 30, 512)].into();
    let got = rig.read(at(1024, IoFlags::GENERIC), 4 * BLOCK).unwrap();
    assert_eq!(got[..512], rig.device()[2560..3072]);
    assert_eq!(got[512..], rig.device()[2048..3584]);
    assert_eq!(rig.file.asked, [(1024, 2048), (1536, 1536)], "the rest each time");
    assert_eq!(rig.file.ends(), [512, 1536]);
}

#[test]
fn a_request_of_one_mapping_is_one_round() {
    let mut rig = Rig::plain(64);
    for (blocks, flags) in [(1, IoFlags::empty()), (1, IoFlags::GENERIC), (16, IoFlags::empty())] {
        let begins = rig.file.begins();
        rig.read(at(0, flags), blocks * BLOCK).unwrap();
        assert_eq!(rig.file.begins(), begins + 1, "nothing is mapped again, or anew");
    }
}

#[test]
fn end_sees_the_mapping_as_the_round_left_it_and_the_next_round_does_not() {
    let mut file = Script::new([]);
    file.layout = vec![Mapping::hole(0, 100)];
    let mut seen = Vec::new();
    iterate(&mut file, 0, 100, Op::empty(), |_, mapping, _, _| {
        seen.push(mapping.flags);
        mapping.flags |= MappingFlags::SIZE_CHANGED;
        Ok(50)
    });
    assert_eq!(seen, [MappingFlags::empty(); 2]);
    assert!(file.told.iter().all(|told| told.0.flags == MappingFlags::SIZE_CHANGED));
}

#[test]
fn end_is_told_what_of_its_range_was_processed_and_no_more() {
    // The memory cannot be accessed from the middle of the second piece on.
    let mut rig = Rig::plain(64);
    let data = pattern(4096);
    let mut source = crate::Cursor::new(super::bounce::Torn::source(&data, 3000));
    let flags = IoFlags::PARTIAL;
    assert_eq!(rig.files.write_from(&mut rig.file, at(0, flags), &mut source).unwrap(), 2048);
    assert_eq!(rig.file.ends()[0], 2048);
    assert!(rig.file.ends()[1..].iter().all(|&processed| processed == 0));
    rig.assert_idle();
}

#[test]
fn an_error_of_end_counts_only_if_nothing_was_processed() {
    for flags in [IoFlags::empty(), IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        rig.file.fail_end(0);
        assert_eq!(rig.read(at(0, flags), BLOCK).unwrap().len(), 512, "{flags:?}");
    }
    // The simple path does not serve a hole; the generic path does, from the mapping of one
    // `begin`.
    let mut rig = Rig::new(64, [Mapping::hole(0, 4096)]);
    rig.file.fail_end(0);
    assert_eq!(rig.read(IoArgs::at(0), BLOCK).unwrap(), [0; 512]);
    assert_eq!((rig.file.begins(), rig.file.ends()), (1, &[512][..]));
}

#[test]
fn a_file_is_what_its_mapper_says() {
    struct Least(Script);
    impl Mapper for Least {
        type OpenFile = MockInode;
        fn open_file(&self) -> &crate::FileRef<MockInode> {
            &self.0.inode
        }
        fn size(&self) -> u64 {
            1 << 20
        }
        fn block_size(&self) -> u32 {
            4096
        }
        fn begin(&mut self, _: u64, _: u64, _: Op) -> Result<Mapping, Fail> {
            Ok(inline(1 << 20))
        }
    }
    // Inline data of a filesystem that has no such.
    let mut file = Least(Script::new([]));
    let mut rig = Rig::plain(64);
    let mut out = [0; 100];
    let error = rig.files.read_at(&mut file, 0, &mut out).unwrap_err();
    assert_eq!(name(&error), "NoInlineData");
    let error = rig.files.write_at(&mut file, 0, &pattern(512)).unwrap_err();
    assert_eq!(name(&error), "NoInlineData");
}
