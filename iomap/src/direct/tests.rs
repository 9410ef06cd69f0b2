use super::*;
use crate::MappingFlags;
use crate::mock::{Fail, MockQueue, Script};

const BLOCK: u64 = MockQueue::BLOCK as u64;

fn inline(length: u64) -> Mapping {
    Mapping { kind: MappingKind::Inline, ..Mapping::hole(0, length) }
}

fn run(
    queue: &mut MockQueue,
    script: &mut Script,
    size: u64,
    pos: u64,
    blocks: u64,
) -> Result<Vec<u8>, (Fail, bool)> {
    let buf = queue.alloc((blocks * BLOCK) as usize);
    let result = read(queue, script, size, pos, buf);
    script.assert_balanced();
    result
        .map(|(buf, n)| {
            assert_eq!(buf.len() as u64, blocks * BLOCK, "the whole buffer comes back");
            buf[..n].to_vec()
        })
        .map_err(|failed| (failed.error, failed.buf.is_some()))
}

#[test]
fn ranges_of_every_kind_come_together() {
    let mut queue = MockQueue::new(64);
    let (a, b) = (10 * BLOCK, 40 * BLOCK);
    let mut script = Script::new([
        Mapping::mapped(0, 6 * BLOCK, a),
        Mapping::hole(6 * BLOCK, 2 * BLOCK),
        Mapping::unwritten(8 * BLOCK, BLOCK, 0),
        Mapping::mapped(9 * BLOCK, 20 * BLOCK, b),
    ]);
    let got = run(&mut queue, &mut script, 1 << 20, 0, 12).unwrap();
    let mut want = queue.device[a as usize..(a + 6 * BLOCK) as usize].to_vec();
    want.resize(9 * BLOCK as usize, 0);
    want.extend(&queue.device[b as usize..(b + 3 * BLOCK) as usize]);
    assert_eq!(got, want);
    // Split at four blocks; nothing for the hole and the unwritten range.
    assert_eq!(queue.log, [(a, 2048), (a + 2048, 1024), (b, 1536)]);
}

#[test]
fn no_bio_crosses_the_boundary_of_the_device() {
    let mut queue = MockQueue::new(64);
    queue.boundary = 6 * BLOCK;
    // In the file it is elsewhere.
    let at = 5 * BLOCK;
    let mut script = Script::new([Mapping::mapped(0, 20 * BLOCK, at)]);
    let got = run(&mut queue, &mut script, 1 << 20, 0, 12).unwrap();
    assert_eq!(got, queue.device[at as usize..][..12 * BLOCK as usize]);
    let blocks: Vec<_> = queue.log.iter().map(|&(at, n)| (at / BLOCK, n as u64 / BLOCK)).collect();
    assert_eq!(blocks, [(5, 1), (6, 4), (10, 2), (12, 4), (16, 1)]);
}

#[test]
fn nothing_is_read_at_or_past_the_end() {
    let mut queue = MockQueue::new(8);
    for (size, pos, blocks) in [(0, 0, 1), (512, 512, 1), (512, 1024, 4), (512, 0, 0)] {
        assert!(run(&mut queue, &mut Script::new([]), size, pos, blocks).unwrap().is_empty());
    }
    assert!(queue.log.is_empty());
}

#[test]
fn a_read_across_the_end_is_clipped_and_shows_nothing_behind_it() {
    let mut queue = MockQueue::new(8);
    let mut script = Script::new([Mapping::mapped(0, 8 * BLOCK, 0)]);
    let buf = queue.alloc(4 * BLOCK as usize);
    let (buf, n) = read(&mut queue, &mut script, 700, 0, buf).unwrap();
    assert_eq!(n, 700);
    assert_eq!(buf[..700], queue.device[..700]);
    assert!(buf[700..1024].iter().all(|&b| b == 0), "the rest of the block");
    assert!(buf[1024..].iter().all(|&b| b == 0xee), "not touched");
    assert_eq!(queue.log, [(0, 1024)]);
}

#[test]
fn inline_data_is_copied() {
    let mut queue = MockQueue::new(8);
    let mut script = Script::new([inline(60)]);
    script.inline = (0..60).collect();
    assert_eq!(run(&mut queue, &mut script, 60, 0, 1).unwrap(), script.inline);
    assert!(queue.log.is_empty());
}

#[test]
fn misaligned_requests_transfer_nothing() {
    let mut queue = MockQueue::new(8);
    let mut script = Script::new([Mapping::mapped(0, 4096, 0)]);
    assert_eq!(run(&mut queue, &mut script, 4096, 1, 1), Err((Fail::Iomap, true)));
    let odd = queue.alloc(100);
    assert!(matches!(
        read(&mut queue, &mut script, 4096, 0, odd),
        Err(Failed { buf: Some(_), .. })
    ));
    assert_eq!(script.begins(), 0);
}

#[test]
fn mappings_that_cannot_be_read_are_errors() {
    let delalloc = Mapping { kind: MappingKind::Delalloc, ..Mapping::hole(0, 4096) };
    let odd_length = Mapping::mapped(0, 100, 0);
    let odd_offset = Mapping { flags: MappingFlags::MERGED, ..Mapping::hole(0, 700) };
    let outside = Mapping::mapped(0, 4096, u64::MAX - 511);
    for bad in [delalloc, odd_length, odd_offset, outside] {
        let mut queue = MockQueue::new(8);
        let result = run(&mut queue, &mut Script::new([bad]), 4096, 0, 8);
        assert_eq!(result, Err((Fail::Iomap, true)), "{bad:?}");
    }
}

#[test]
fn the_first_error_wins_and_stops_submission() {
    let mut queue = MockQueue::new(64);
    queue.failing = vec![2];
    let mut script = Script::new([Mapping::mapped(0, 64 * BLOCK, 0)]);
    let buf = queue.alloc(64 * BLOCK as usize);
    let failed = read(&mut queue, &mut script, 64 * BLOCK, 0, buf).unwrap_err();
    script.assert_balanced();
    assert_eq!(failed.error, Fail::Iomap);
    assert_eq!(failed.buf.map(|buf| buf.len()), Some(64 * BLOCK as usize));
    // Depth 3, and the third fails first: it is seen when the fourth waits for room.
    assert_eq!(queue.log.len(), 3);
}

#[test]
fn an_error_of_the_mapper_waits_for_what_is_in_flight() {
    let mut queue = MockQueue::new(64);
    let mut script = Script::new([Mapping::mapped(0, 4 * BLOCK, 0)]);
    assert_eq!(run(&mut queue, &mut script, 8 * BLOCK, 0, 8), Err((Fail::Begin, true)));
    assert_eq!(queue.log.len(), 1);
}

#[test]
fn buffers_stay_with_a_dead_device() {
    let mut queue = MockQueue::new(64);
    queue.dead = true;
    let mut script = Script::new([Mapping::mapped(0, 64 * BLOCK, 0)]);
    assert_eq!(run(&mut queue, &mut script, 64 * BLOCK, 0, 64), Err((Fail::Iomap, false)));
}

#[test]
fn bounced_reads_need_no_alignment() {
    let mut queue = MockQueue::new(64);
    for (pos, length) in [(0u64, 1usize), (1, 511), (511, 2), (513, 3000), (32_000, 768)] {
        let mut script = Script::new([Mapping::mapped(0, 64 * BLOCK, 0)]);
        let mut out = vec![0xaa; length];
        let n = crate::bounce::read(&mut queue, &mut script, 64 * BLOCK, pos, &mut out).unwrap();
        let at = pos as usize;
        assert_eq!((n, &out[..]), (length, &queue.device[at..at + length]), "{pos} + {length}");
    }
    let mut script = Script::new([Mapping::mapped(0, 64 * BLOCK, 0)]);
    let mut out = vec![0xaa; 100];
    let n = crate::bounce::read(&mut queue, &mut script, 1030, 1000, &mut out).unwrap();
    assert_eq!(n, 30);
    assert_eq!(out[..30], queue.device[1000..1030]);
    assert!(out[30..].iter().all(|&b| b == 0xaa), "not touched");
}
