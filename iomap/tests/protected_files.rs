//! Files on namespaces with end-to-end protection: guards are made and checked at both ends.

use crate::extents;

use extents::{NoState, Scattered};
use nvio_driver::spec::opcode::nvm;
use nvio_driver::spec::protection::ProtectionType;
use nvio_driver::spec::{GuardFormat, InformationFormat, Status, status};
use nvio_driver::{CommandOptions, Options, QueuePair, WritableNamespace};
use nvio_emulator::{Backing, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_iomap::{
    BioError, Cursor, DiskQueue, DmaBuf, Error, FileQueue, IoArgs, IoFlags, Memory,
    NamespaceProtection, Reason, Tag, WritableDisk,
};
use nvio_testkit::controller::{self, Served, Watched};

/// Bytes of the file, which ends inside of a block.
const SIZE: usize = 300 * 1024 + 777;

type Queue = FileQueue<DiskQueue<Tag<NoState>, WritableDisk>, NoState>;

#[derive(Clone, Copy, Debug)]
struct Format {
    block: u32,
    metadata: u16,
    extended: bool,
    kind: u8,
    first: bool,
    information: InformationFormat,
}

struct Rig {
    _emulator: Emulator,
    controller: Watched,
    namespace: WritableNamespace,
    queue: Queue,
    file: Scattered,
    protection: NamespaceProtection,
    what: String,
}

fn formats() -> impl Iterator<Item = Format> {
    let sizes = [(512, 8), (512, 64), (4096, 8), (4096, 16)].into_iter();
    sizes.flat_map(|(block, metadata)| {
        [false, true].into_iter().flat_map(move |extended| {
            let kinds = [(1, false), (2, true), (3, false)];
            kinds.into_iter().flat_map(move |(kind, first)| {
                informations(metadata).map(move |information| Format {
                    block,
                    metadata,
                    extended,
                    kind,
                    first,
                    information,
                })
            })
        })
    })
}

/// Formats of the protection information for which the metadata has room.
fn informations(metadata: u16) -> impl Iterator<Item = InformationFormat> {
    use GuardFormat::{Bits16, Bits32, Bits64};
    let all = [(Bits16, 0), (Bits16, 8), (Bits32, 16), (Bits32, 40), (Bits64, 0), (Bits64, 12)];
    let all = all.map(|(guard, bits)| InformationFormat::new(guard, bits).unwrap());
    all.into_iter().filter(move |format| format.size() <= usize::from(metadata))
}

/// A disk that begins inside of the namespace, as a partition does.
fn rig(format: Format, faults: Faults) -> Rig {
    let Format { block, metadata, extended, kind, first, information } = format;
    let file = Scattered::new(SIZE as u64);
    let bytes = file.disk_bytes() + (64 << 10);
    let config = NamespaceConfig::new(Backing::memory(bytes)).block_size(block);
    let config = config.metadata(metadata, extended);
    let config = config.protection(ProtectionType::new(kind).unwrap(), first);
    let config = config.information(information);
    let builder = Emulator::builder().namespace(config).mdts(Some(5)).faults(faults);
    let options = Options { arena_bytes: 16 << 20, ..controller::writable() };
    let served = Served::start(builder, options);
    let namespace = served.writable_namespace();
    let Served { controller, emulator } = served;
    let disk = WritableDisk::whole(&namespace).slice(64 << 10, file.disk_bytes()).unwrap();
    let queue = FileQueue::new(DiskQueue::new(&controller, &disk, 8).unwrap());
    let protection = NamespaceProtection::of(&namespace).unwrap();
    let what = format!("{format:?}");
    Rig { _emulator: emulator, controller, namespace, queue, file, protection, what }
}

fn pattern(bytes: usize, salt: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i + salt * 7919) * 31 / 11) as u8).collect()
}

impl Rig {
    fn dma(&self, data: &[u8]) -> DmaBuf {
        let mut buf = self.controller.alloc(data.len()).unwrap();
        buf.copy_from_slice(data);
        buf
    }

    /// Writes all of the file with `data`, and what its last block has behind it with zeroes.
    fn fill(&mut self, data: &[u8]) {
        let mut whole = data.to_vec();
        whole.resize(data.len().next_multiple_of(Scattered::BLOCK as usize), 0);
        let io = IoArgs::at(0);
        let buf = self.dma(&whole);
        let (_, n) = self.queue.write_with(&mut self.file, io, buf.into()).unwrap();
        assert_eq!(n, whole.len());
    }

    /// The block of the namespace that has byte `pos` of the file.
    fn lba(&self, pos: u64) -> u64 {
        ((64 << 10) + self.file.address(pos)) >> self.namespace.block_shift()
    }

    /// All blocks of the file pass the controller's own checks, the application tag's too.
    fn verify_all(&self) {
        let mut queue: QueuePair<()> = self.controller.queue_pair(4).unwrap();
        let block = u64::from(self.namespace.block_size());
        for pos in (0..SIZE as u64).step_by(block as usize) {
            let lba = self.lba(pos);
            let mut how = self.protection.transfer(lba);
            how.protection.check_application = true;
            how.protection.application_mask = u16::MAX;
            queue.verify(&self.namespace, (lba, 1), how, ()).unwrap();
            let ended = queue.wait(|done| assert!(done.status.is_success(), "{}", done.status));
            assert_eq!(ended.unwrap(), 1);
        }
    }

    /// Stores a block as it is, whatever its guard.
    fn store(&self, pos: u64, change: impl FnOnce(&mut [u8])) {
        let mut queue: QueuePair<()> = self.controller.queue_pair(4).unwrap();
        let lba = self.lba(pos);
        let block = self.namespace.block_size() as usize;
        let mut buf = self.controller.alloc(self.protection.buf_len(block)).unwrap();
        self.protection.seal(&mut buf, block, lba);
        change(&mut buf[..block]);
        let how = CommandOptions::default();
        let list = self.protection.scatter_list(buf, block);
        queue.write_with(&self.namespace, (lba, 1), list, how, ()).unwrap();
        queue.wait(|done| assert!(done.status.is_success())).unwrap();
    }
}

#[test]
fn files_are_read_and_overwritten_as_without_protection() {
    for mut it in formats().map(|format| rig(format, Faults::new())) {
        let mut model = pattern(SIZE, 1);
        it.fill(&model);
        let block = it.namespace.block_size() as usize;
        // Overwrites: bounced, zero copy, several buffers.
        let pieces = [(0, 1), (5, 3), (23, 24), (60, 9)].map(|(at, n)| (at * 4096, n * 4096));
        for (salt, (at, length)) in pieces.into_iter().chain([(8 * block, 3 * block)]).enumerate() {
            let data = pattern(length, salt + 2);
            let io = IoArgs::at(at as u64);
            let n = match salt % 3 {
                0 => {
                    let flags = IoFlags::DSYNC;
                    it.queue
                        .write_from(
                            &mut it.file,
                            IoArgs::at(at as u64).flags(flags),
                            &mut Cursor::new(&data[..]),
                        )
                        .unwrap()
                }
                1 => {
                    let buf = it.dma(&data);
                    it.queue
                        .write_with(&mut it.file, io.flags(IoFlags::BOUNCE), buf.into())
                        .unwrap()
                        .1
                }
                _ => {
                    let (front, back) = data.split_at(block);
                    let memory = Memory::Vectored(vec![it.dma(front), it.dma(back)]);
                    it.queue.write_with(&mut it.file, io, memory).unwrap().1
                }
            };
            assert_eq!(n, length, "{}", it.what);
            model[at..at + length].copy_from_slice(&data);
        }
        it.verify_all();
        // Reads of any bytes, and of whole blocks without a copy.
        for (at, length) in [(0, SIZE), (1, 1), (4095, 2), (70_001, 100_000), (SIZE - 5, 100)] {
            let mut out = vec![0xee; length];
            let n = it.queue.read_at(&mut it.file, at as u64, &mut out).unwrap();
            assert_eq!(n, length.min(SIZE - at));
            assert!(out[..n] == model[at..at + n], "{}: {length} bytes at {at}", it.what);
        }
        for (at, length) in [(0, 76 * 4096), (4096, 4096), (5 * block, 64 * block)] {
            let buf = it.dma(&vec![0xee; length]);
            let (memory, n) =
                it.queue.read_with(&mut it.file, IoArgs::at(at as u64), buf.into()).unwrap();
            let buf = memory.into_dma().unwrap();
            assert_eq!(n, length.min(SIZE - at));
            assert!(buf[..n] == model[at..at + n], "{}: {length} bytes at {at}", it.what);
        }
        let counters = it.queue.counters();
        assert_eq!(counters.simple, 0, "guards are not for the simple path");
        assert!(counters.fell_back(Reason::Integrity) > 0);
    }
}

#[test]
fn many_requests_are_in_flight_at_once() {
    for mut it in formats().filter(|it| it.kind == 1).map(|format| rig(format, Faults::new())) {
        let model = pattern(SIZE, 5);
        it.fill(&model);
        let mut waiting: Vec<u64> = (0..70).rev().collect();
        let mut done = 0;
        while done < 70 {
            while let Some(&token) = waiting.last() {
                let memory = Memory::Dma(it.controller.alloc(4096).unwrap());
                let io = IoArgs::at(token * 4096).token(token);
                match it.queue.submit_read_with(&mut it.file, io, memory) {
                    Ok(()) => waiting.pop(),
                    Err(rejected) if matches!(rejected.error, Error::Busy) => break,
                    Err(rejected) => panic!("{}: {}", it.what, rejected.error),
                };
            }
            let model = &model;
            let wait = it.queue.wait(|ended| {
                let at = ended.token as usize * 4096;
                assert_eq!(ended.result.unwrap(), 4096);
                let buf = ended.memory.unwrap().into_dma().unwrap();
                assert!(*buf == model[at..at + 4096]);
                done += 1;
            });
            wait.unwrap();
        }
        assert_eq!(it.queue.device().pair().in_flight(), 0);
    }
}

fn bio_error(error: &Error) -> BioError {
    match error {
        Error::Bio { error, .. } => *error,
        other => panic!("{other}"),
    }
}

#[test]
fn damage_on_the_disk_is_an_error_and_no_data() {
    for mut it in formats().map(|format| rig(format, Faults::new())) {
        let model = pattern(SIZE, 3);
        it.fill(&model);
        it.store(40_960, |block| block[7] ^= 1);
        let mut out = vec![0; 8192];
        let error = it.queue.read_at(&mut it.file, 38_912, &mut out).unwrap_err();
        assert_eq!(bio_error(&error), BioError::Status(status::GUARD_CHECK_ERROR), "{}", it.what);
        let buf = it.dma(&[0; 4096]);
        let failed = it.queue.read_with(&mut it.file, IoArgs::at(40_960), buf.into()).unwrap_err();
        assert_eq!(failed.payload.map(|buf| buf.len()), Some(4096));
        assert!(error.to_string().contains("position"), "{error}");
        // The blocks around it can be read, and an overwrite heals it.
        assert_eq!(it.queue.read_at(&mut it.file, 0, &mut vec![0; 40_960]).unwrap(), 40_960);
        let fresh = it.dma(&model[40_960..45_056]);
        it.queue.write_with(&mut it.file, IoArgs::at(40_960), fresh.into()).unwrap();
        let n = it.queue.read_at(&mut it.file, 40_960, &mut out).unwrap();
        assert!(n == 8192 && out == model[40_960..49_152], "{}", it.what);
    }
}

/// A controller that says that it has read, and has not: it checked nothing.
#[test]
fn missing_data_is_detected_by_the_host() {
    let lie = Rule::new(Fault::Status(Status::SUCCESS)).opcode(nvm::READ);
    for format in formats() {
        let mut it = rig(format, Faults::new().rule(lie.clone().from(2)));
        let model = pattern(SIZE, 4);
        it.fill(&model);
        // The truth, which is in the memory of the next command.
        let buf = it.dma(&[0; 4096]);
        let (memory, _) = it.queue.read_with(&mut it.file, IoArgs::at(8192), buf.into()).unwrap();
        let buf = memory.into_dma().unwrap();
        assert!(*buf == model[8192..12_288]);
        let failed = it.queue.read_with(&mut it.file, IoArgs::at(8192), buf.into()).unwrap_err();
        let error = bio_error(&failed.error);
        assert!(matches!(error, BioError::Guard { .. }), "{}: {error}", it.what);
        let mut out = [0; 100];
        let error = it.queue.read_at(&mut it.file, 8192, &mut out).unwrap_err();
        assert!(matches!(bio_error(&error), BioError::Guard { .. }), "{}", it.what);
        assert_eq!(out, [0; 100], "nothing of it is copied out");
    }
}

#[test]
fn without_protection_the_simple_path_serves() {
    let config = NamespaceConfig::new(Backing::memory(1 << 20)).block_size(4096);
    let Served { controller, emulator: _emulator } = Served::new(config);
    let disk = nvio_iomap::Disk::whole(&controller.namespace(1).unwrap());
    let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 8).unwrap());
    let mut file = Scattered::new(100_000);
    queue.submit_read(&mut file, 4096, controller.alloc(4096).unwrap(), 1).unwrap();
    queue.wait(|done| assert_eq!(done.result.unwrap(), 4096)).unwrap();
    assert_eq!(queue.counters().simple, 1);
}

#[test]
fn metadata_without_protection_is_written_as_zeroes_and_passed_over() {
    for (block, metadata, extended) in
        [(512, 8, false), (512, 8, true), (512, 64, true), (4096, 4, false), (4096, 128, true)]
    {
        let mut file = Scattered::new(SIZE as u64);
        let config = NamespaceConfig::new(Backing::memory(file.disk_bytes())).block_size(block);
        let builder = Emulator::builder().namespace(config.metadata(metadata, extended));
        let served = Served::start(builder, controller::writable());
        let disk = WritableDisk::whole(&served.writable_namespace());
        let queue = DiskQueue::new(&served.controller, &disk, 8).unwrap();
        let mut queue: Queue = FileQueue::new(queue);
        let mut whole = pattern(SIZE, 3);
        whole.resize(SIZE.next_multiple_of(Scattered::BLOCK as usize), 0);
        let mut buf = served.controller.alloc(whole.len()).unwrap();
        buf.copy_from_slice(&whole);
        queue.write_with(&mut file, IoArgs::at(0), buf.into()).unwrap();
        let mut read = vec![0; SIZE];
        assert_eq!(queue.read_at(&mut file, 0, &mut read).unwrap(), SIZE, "{metadata} {extended}");
        assert!(read == whole[..SIZE], "{block} + {metadata}, extended {extended}");
    }
}
