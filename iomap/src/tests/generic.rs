//! The generic path: what is read and written, and what is refused.

use super::*;
use crate::memory::borrowed::Cursor;
use crate::tests::mock::Command;

const READ: fn(u64, u64) -> Command = |addr, bytes| Command::Read(addr, bytes as usize);
const WRITE: fn(u64, u64) -> Command = |addr, bytes| Command::Write(addr, bytes as usize);

#[test]
fn ranges_of_every_kind_come_together() {
    let (a, b) = (10 * BLOCK, 40 * BLOCK);
    let mut rig = Rig::new(
        64,
        [
            Mapping::mapped(0, 6 * BLOCK, a),
            Mapping::hole(6 * BLOCK, 2 * BLOCK),
            Mapping::unwritten(8 * BLOCK, BLOCK, 0),
            Mapping::mapped(9 * BLOCK, 20 * BLOCK, b),
        ],
    );
    let got = rig.read(IoArgs::at(0), 12 * BLOCK).unwrap();
    let mut want = rig.device()[a as usize..(a + 6 * BLOCK) as usize].to_vec();
    want.resize(9 * BLOCK as usize, 0);
    want.extend(&rig.device()[b as usize..(b + 3 * BLOCK) as usize]);
    assert_eq!(got, want);
    // Split at four blocks; nothing for the hole and the unwritten range.
    assert_eq!(rig.files.queue.log, [READ(a, 2048), READ(a + 2048, 1024), READ(b, 1536)]);
    rig.assert_idle();
}

#[test]
fn reads_of_nothing_but_holes_need_no_command() {
    for hole in [Mapping::hole(0, 1 << 20), Mapping::unwritten(0, 1 << 20, 0)] {
        let mut rig = Rig::new(64, [hole]);
        assert_eq!(rig.read(IoArgs::at(512), 8192).unwrap(), [0; 8192]);
        let mut out = [7; 1000];
        assert_eq!(rig.files.read_at(&mut rig.file, 77, &mut out).unwrap(), 1000);
        assert_eq!(out, [0; 1000]);
        rig.files
            .submit_read_with(&mut rig.file, IoArgs::at(0).token(5), vec![7; 100].into())
            .unwrap();
        let mut done = rig.drain();
        let done = done.pop().unwrap();
        assert_eq!((done.token, done.result.unwrap()), (5, 100));
        assert_eq!(done.memory.unwrap().into_bytes().unwrap(), [0; 100]);
        assert!(rig.files.queue.log.is_empty());
        rig.assert_idle();
    }
}

#[test]
fn no_command_crosses_the_boundary_of_the_device() {
    let at = 5 * BLOCK;
    let mut rig = Rig::new(64, [Mapping::mapped(0, 20 * BLOCK, at)]);
    rig.files.queue.boundary = 6 * BLOCK;
    let got = rig.read(IoArgs::at(0), 12 * BLOCK).unwrap();
    assert_eq!(got, rig.device()[at as usize..][..12 * BLOCK as usize]);
    let cut = |(at, blocks)| READ(at * BLOCK, blocks * BLOCK);
    assert_eq!(rig.files.queue.log, [(5, 1), (6, 4), (10, 2), (12, 4), (16, 1)].map(cut));
}

#[test]
fn no_length_and_nothing_left_of_the_file_give_nothing() {
    let mut rig = Rig::new(8, []);
    for (size, pos, bytes) in
        [(0, 0, 512), (512, 512, 512), (512, 1024, 2048), (512, 0, 0), (512, 3, 0), (700, 701, 512)]
    {
        rig.file.size = size;
        let io = at(pos, IoFlags::empty());
        assert!(rig.read(io, bytes).unwrap().is_empty(), "{size} {pos} {bytes}");
        let mut out = vec![0xaa; bytes as usize];
        assert_eq!(rig.files.read_at(&mut rig.file, pos, &mut out).unwrap(), 0);
        assert!(out.iter().all(|&byte| byte == 0xaa));
    }
    assert_eq!(rig.write(IoArgs::at(100), &[]).unwrap(), 0);
    assert_eq!(rig.files.write_at(&mut rig.file, 3, &[]).unwrap(), 0);
    assert!(rig.files.queue.log.is_empty() && rig.file.asked.is_empty());
    rig.assert_idle();
}

#[test]
fn a_read_across_the_end_is_clipped_and_shows_nothing_behind_it() {
    let mut rig = Rig::plain(8);
    rig.file.size = 700;
    let buf = rig.buf(2048);
    let (buf, n) = rig.read_dma(IoArgs::at(0), buf).unwrap();
    assert_eq!(n, 700);
    assert_eq!(buf[..700], rig.device()[..700]);
    assert!(buf[700..1024].iter().all(|&b| b == 0), "the rest of the block");
    assert!(buf[1024..].iter().all(|&b| b == 0xee), "not touched");
    assert_eq!(rig.files.queue.log, [READ(0, 1024)]);
    // A bounced read.
    let mut out = [0xaa; 1000];
    assert_eq!(rig.files.read_at(&mut rig.file, 100, &mut out).unwrap(), 600);
    assert_eq!(out[..600], rig.device()[100..700]);
    assert!(out[600..].iter().all(|&b| b == 0xaa));
}

#[test]
fn the_size_of_the_file_is_sampled_once() {
    let mut rig = Rig::plain(64);
    (rig.file.size, rig.file.growth) = (700, 512);
    assert_eq!(rig.read(at(0, IoFlags::GENERIC), 8192).unwrap().len(), 700);
    // The file grows during a write that ends at the old end, in the middle of a filesystem block.
    let mut rig = Rig::plain(64);
    (rig.file.size, rig.file.growth) = (512, 1 << 20);
    rig.write(at(0, IoFlags::empty()), &pattern(BLOCK)).unwrap();
    assert!(rig.device()[512..4096].iter().all(|&b| b == 0), "zeroed to the end of the block");
}

#[test]
fn misaligned_requests_transfer_nothing() {
    let block = IoFlags::FSBLOCK_ALIGNED;
    for (pos, bytes, flags) in [
        (1, 512, IoFlags::empty()),
        (512, 100, IoFlags::empty()),
        (0, 8292, IoFlags::empty()),
        (513, 8192, IoFlags::BOUNCE),
        (512, 4096, block),
        (0, 512, block),
        (4096, 6144, block),
    ] {
        let mut rig = Rig::plain(64);
        let error = iomap(rig.read(at(pos, flags), bytes).unwrap_err());
        let align = if flags == block { 4096 } else { 512 };
        let wanted = (pos, bytes, align);
        assert!(
            matches!(error, Error::Misaligned { pos, length, align }
                if (pos, length, align) == wanted),
            "{error}"
        );
        let error = rig.write(at(pos, flags), &pattern(bytes)).unwrap_err();
        assert_eq!(name(&error), "Misaligned");
        assert!(rig.file.asked.is_empty() && rig.files.queue.log.is_empty());
        rig.assert_idle();
    }
    let mut rig = Rig::plain(64);
    rig.read(at(4096, block), 4096).unwrap();
    rig.read(at(4096, block), 8192).unwrap();
    // Bytes need no alignment, unless the flag asks for it.
    let error = rig.files.submit_read_with(&mut rig.file, at(100, block), vec![0; 4096].into());
    assert_eq!(name(&error.unwrap_err().error), "Misaligned");
    // BorrowedMemory memory for a write.
    let error = rig.files.write_at(&mut rig.file, 0, &[1; 100]).unwrap_err();
    assert_eq!(name(&error), "Misaligned");
    // At the end of all positions.
    let last = u64::MAX - 511;
    assert_eq!(name(&rig.write(IoArgs::at(last), &pattern(512)).unwrap_err()), "Misaligned");
}

#[test]
fn memory_that_the_device_cannot_reach_is_refused_or_bounced() {
    let mut rig = Rig::plain(64);
    for bytes in [512, 8192] {
        let odd = |rig: &Rig| {
            let mut buf = rig.buf(bytes + 2);
            drop(buf.split_to(2));
            buf
        };
        let buf = odd(&rig);
        let failed = rig.read_dma(IoArgs::at(0), buf).unwrap_err();
        assert_eq!(name(&failed.error), "MisalignedMemory");
        assert_eq!(failed.payload.unwrap().len() as u64, bytes, "it comes back");
        let buf = odd(&rig);
        let failed = rig.write_dma(IoArgs::at(0), buf).unwrap_err();
        assert_eq!(name(&failed.error), "MisalignedMemory");
        let mut pair = vec![rig.buf(512)];
        pair.push(odd(&rig));
        let rejected =
            rig.files.submit_read_with(&mut rig.file, IoArgs::at(0), pair.into()).unwrap_err();
        assert_eq!(name(&rejected.error), "MisalignedMemory");
        assert!(rig.files.queue.log.is_empty());
        let buf = odd(&rig);
        let io = at(0, IoFlags::BOUNCE);
        let (buf, _) = rig.read_dma(io, buf).unwrap();
        assert_eq!(buf[..], rig.device()[..bytes as usize]);
        rig.files.queue.log.clear();
    }
}

#[test]
fn inline_data_is_copied_both_ways() {
    for flags in [IoFlags::empty(), IoFlags::BOUNCE] {
        let mut rig = Rig::new(8, [inline(4096)]);
        rig.file.size = 60;
        rig.file.inline = (0..60).collect();
        assert_eq!(rig.read(at(0, flags), BLOCK).unwrap(), rig.file.inline);
        let mut out = [0xaa; 100];
        assert_eq!(rig.files.read_at(&mut rig.file, 7, &mut out).unwrap(), 53);
        assert_eq!(out[..53], rig.file.inline[7..]);
        assert!(out[53..].iter().all(|&b| b == 0xaa));
        rig.file.inline = vec![0; 1024];
        rig.file.size = 1024;
        assert_eq!(rig.write(at(512, flags), &pattern(512)).unwrap(), 512);
        assert_eq!(rig.file.inline[512..], pattern(512));
        assert_eq!(rig.file.inline[..512], [0; 512]);
        rig.files
            .write_from(&mut rig.file, at(0, flags), &mut Cursor::new(&pattern(1024)[..]))
            .unwrap();
        assert_eq!(rig.file.inline, pattern(1024));
        assert!(rig.files.queue.log.is_empty(), "no command");
        rig.assert_idle();
    }
}

#[test]
fn a_write_without_blocks_is_an_error_and_never_a_success() {
    let anonymous = with(Mapping::mapped(0, 8192, 0), MappingFlags::ANON_WRITE);
    for missing in [Mapping::hole(0, 8192), delalloc(8192), anonymous] {
        for flags in [IoFlags::empty(), IoFlags::BOUNCE, IoFlags::PARTIAL, IoFlags::DSYNC] {
            let mut rig = Rig::new(64, [missing]);
            let error = rig.write(at(0, flags), &pattern(1024)).unwrap_err();
            assert_eq!(name(&error), "NoBlocks", "{missing:?}");
            assert!(rig.files.queue.log.is_empty());
            // Behind blocks that are there, which are written first.
            let shifted = Mapping { offset: 2048, ..missing };
            let mut rig = Rig::new(64, [Mapping::mapped(0, 2048, 0), shifted]);
            let error = rig.write(at(1024, flags), &pattern(2048)).unwrap_err();
            assert_eq!(iomap(error).to_string(), Error::NoBlocks { pos: 2048 }.to_string());
            assert_eq!(rig.files.queue.log.len(), 1);
            rig.assert_idle();
        }
    }
}

#[test]
fn mappings_that_cannot_be_read_are_errors() {
    let odd_length = Mapping::mapped(0, 100, 0);
    let odd_hole = with(Mapping::hole(0, 700), MappingFlags::MERGED);
    let overflow = Mapping::mapped(0, 4096, u64::MAX - 511);
    let odd_address = Mapping::mapped(0, 4096, 100);
    let outside = Mapping::mapped(0, 4096, 1 << 30);
    for (bad, error) in [
        (delalloc(4096), "Delalloc"),
        (odd_length, "BadMapping"),
        (odd_hole, "BadMapping"),
        (overflow, "OutsideDisk"),
        (odd_address, "Misaligned"),
        (outside, "OutsideDisk"),
    ] {
        let mut rig = Rig::new(8, [bad]);
        let buf = rig.buf(4096);
        let failed = rig.read_dma(IoArgs::at(0), buf).unwrap_err();
        assert_eq!(name(&failed.error), error, "{bad:?}");
        assert_eq!(failed.payload.unwrap().len(), 4096);
        rig.assert_idle();
    }
}

#[test]
fn overwrites_reach_every_mapping_and_nothing_beside() {
    for flags in [IoFlags::empty(), IoFlags::BOUNCE] {
        let layout = [Mapping::mapped(0, 4096, 8192), Mapping::mapped(4096, 8192, 20480)];
        let mut rig = Rig::new(64, layout);
        let (before, data) = (rig.device().to_vec(), pattern(6144));
        assert_eq!(rig.write(at(1024, flags), &data).unwrap(), 6144);
        let mut want = before;
        want[9216..12288].copy_from_slice(&data[..3072]);
        want[20480..23552].copy_from_slice(&data[3072..]);
        assert!(rig.device() == want);
        let log = [WRITE(9216, 2048), WRITE(11264, 1024), WRITE(20480, 2048), WRITE(22528, 1024)];
        assert_eq!(rig.files.queue.log, log);
        assert_eq!(rig.read(IoArgs::at(1024), 6144).unwrap(), data);
        rig.assert_idle();
    }
}

#[test]
fn vectors_of_memory_are_one_run_of_the_file() {
    for flags in [IoFlags::empty(), IoFlags::BOUNCE] {
        let layout = [Mapping::mapped(0, 1536, 8192), Mapping::mapped(1536, 8192, 2048)];
        let mut rig = Rig::new(64, layout);
        let data = pattern(4096);
        let cuts = [0..512, 512..512, 512..3072, 3072..4096];
        let bufs: Vec<_> = cuts.clone().map(|cut| rig.filled(&data[cut])).into();
        let (memory, n) = rig.files.write_with(&mut rig.file, at(512, flags), bufs.into()).unwrap();
        assert_eq!((n, memory.len()), (4096, 4096));
        assert_eq!(rig.device()[8704..9728], data[..1024]);
        assert_eq!(rig.device()[2048..5120], data[1024..]);
        let bufs: Vec<_> = cuts.clone().map(|cut| rig.buf(cut.len() as u64)).into();
        let (memory, n) = rig.files.read_with(&mut rig.file, at(512, flags), bufs.into()).unwrap();
        let Memory::Vectored(bufs) = memory else { panic!("{memory:?}") };
        assert_eq!(
            (n, bufs.iter().map(DmaBuf::len).collect::<Vec<_>>()),
            (4096, vec![512, 0, 2560, 1024])
        );
        assert_eq!(bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<_>>(), data);
        rig.assert_idle();
    }
    // Each a multiple of the block, for who wants no copy.
    let mut rig = Rig::plain(64);
    let bufs = vec![rig.buf(256), rig.buf(256)];
    let rejected =
        rig.files.submit_read_with(&mut rig.file, IoArgs::at(0), bufs.into()).unwrap_err();
    assert_eq!(name(&rejected.error), "Misaligned");
    assert_eq!(rejected.payload.len(), 512);
}

#[test]
fn bytes_done_before_are_added() {
    let mut rig = Rig::plain(64);
    let io = IoArgs::at(1024).done_before(1024);
    let memory = rig.buf(512);
    let (memory, n) = rig.files.read_with(&mut rig.file, io, memory.into()).unwrap();
    assert_eq!((n, memory.len()), (1536, 512));
    rig.files.submit_write_with(&mut rig.file, io.token(9), memory).unwrap();
    assert_eq!(rig.drain()[0].result.as_ref().unwrap(), &1536);
    // At the end of the file `done_before` is the result. The cursor moves by the new bytes.
    rig.file.size = 1536;
    let mut out = [0; 1024];
    let mut cursor = Cursor::new(&mut out[..]);
    assert_eq!(rig.files.read_into(&mut rig.file, io, &mut cursor).unwrap(), 1536);
    assert_eq!(cursor.at, 512);
    let io = IoArgs::at(1536).done_before(1536);
    assert_eq!(rig.files.read_into(&mut rig.file, io, &mut cursor).unwrap(), 1536);
    assert_eq!(cursor.at, 512);
    // An error stays one.
    rig.file.layout = vec![];
    let buf = rig.buf(512);
    let io = IoArgs::at(0).done_before(512);
    assert_eq!(name(&rig.read_dma(io, buf).unwrap_err().error), "Begin");
}
