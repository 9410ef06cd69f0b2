//! Data and metadata in one buffer, and in buffers of their own, on the embedded controller.

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_spec::protection::{ProtectionInfo, ProtectionType, guard_after};
use zerocopy::IntoBytes;

use super::{CommandOptions, Completion, Protection, QueuePair};
use crate::served::{Served, writable};
use crate::{Controller, DmaBuf, Error, ScatterList, WritableNamespace};

/// The format of a namespace.
#[derive(Clone, Copy, Debug)]
struct Format {
    block: usize,
    metadata: usize,
    extended: bool,
    kind: u8,
}

struct Rig {
    _emulator: Emulator,
    controller: Controller,
    namespace: WritableNamespace,
    queue: QueuePair<u32>,
    format: Format,
}

fn formats() -> impl Iterator<Item = Format> {
    [(512, 8), (512, 12), (512, 128), (4096, 8), (4096, 64)].into_iter().flat_map(
        |(block, metadata)| {
            [false, true].into_iter().flat_map(move |extended| {
                [0, 1].map(|kind| Format { block, metadata, extended, kind })
            })
        },
    )
}

/// A namespace of 1,024 blocks, on a controller that transfers 64 KiB a command.
fn rig(format: Format, sgl: bool) -> Rig {
    let Format { block, metadata, extended, kind } = format;
    let config = NamespaceConfig::new(Backing::memory(1024 * block as u64));
    let config = config.block_size(block as u32).metadata(metadata as u16, extended);
    let config = match ProtectionType::new(kind) {
        Some(kind) => config.protection(kind, false),
        None => config,
    };
    let builder = Emulator::builder().namespace(config).mdts(Some(4)).sgl(sgl);
    let served = Served::start(builder, writable());
    let namespace = served.writable_namespace();
    let Served { controller, emulator } = served;
    let queue = controller.queue_pair(4).unwrap();
    Rig { _emulator: emulator, controller, namespace, queue, format }
}

impl Format {
    /// Bytes of data, and of metadata, in a buffer.
    fn lengths(&self, blocks: u32) -> (usize, usize) {
        (blocks as usize * self.block, blocks as usize * self.metadata)
    }

    /// Data and metadata of blocks, with correct protection information if the format has any.
    fn content(&self, lba: u64, blocks: u32) -> (Vec<u8>, Vec<u8>) {
        let (data, metadata) = self.lengths(blocks);
        let byte = |i: usize, salt: u64| (i as u64 * 31 / 7 + salt * 13) as u8;
        let data: Vec<u8> = (0..data).map(|i| byte(i, lba)).collect();
        let mut metadata: Vec<u8> = (0..metadata).map(|i| byte(i, lba + 1)).collect();
        if self.kind != 0 {
            let blocks = data.chunks(self.block).zip(metadata.chunks_mut(self.metadata));
            for (tag, (data, metadata)) in (lba as u32..).zip(blocks) {
                let (before, info) = metadata.split_at_mut(self.metadata - 8);
                let crc = guard_after(guard_after(0, data), before);
                info.copy_from_slice(ProtectionInfo::new(crc, 0, tag).as_bytes());
            }
        }
        (data, metadata)
    }

    fn join(&self, (data, metadata): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
        if !self.extended {
            return [&data[..], metadata].concat();
        }
        let blocks = data.chunks(self.block).zip(metadata.chunks(self.metadata));
        blocks.flat_map(|(data, metadata)| [data, metadata].concat()).collect()
    }

    fn checks(&self, lba: u64) -> CommandOptions {
        let checked = self.kind != 0;
        let protection = Protection {
            check_guard: checked,
            check_reference: checked,
            reference: lba,
            ..Protection::default()
        };
        CommandOptions { protection, ..CommandOptions::default() }
    }
}

impl Rig {
    /// A buffer of `bytes` that begins `lead` bytes into a page, and the memory around it.
    fn buf(&self, lead: usize, bytes: usize) -> (DmaBuf, [DmaBuf; 2]) {
        let mut after = self.controller.alloc(lead + bytes + 4096).unwrap();
        after.fill(0xee);
        let before = after.split_to(lead).unwrap();
        (after.split_to(bytes).unwrap(), [before, after])
    }

    /// The list of one buffer: data with metadata after each block, or data of all blocks before
    /// the metadata of all blocks.
    fn list(&self, blocks: u32, buf: DmaBuf) -> ScatterList {
        match self.format.extended {
            true => ScatterList::from(buf),
            false => ScatterList::split_at(buf, self.format.lengths(blocks).0),
        }
    }

    fn read(&mut self, range: (u64, u32), buf: DmaBuf, how: CommandOptions, context: u32) {
        let list = self.list(range.1, buf);
        self.queue.read_with(&self.namespace, range, list, how, context).unwrap();
    }

    fn write(&mut self, range: (u64, u32), buf: DmaBuf, how: CommandOptions, context: u32) {
        let list = self.list(range.1, buf);
        self.queue.write_with(&self.namespace, range, list, how, context).unwrap();
    }

    /// Content in the buffers that the format of the namespace needs.
    fn parts(&self, content: &(Vec<u8>, Vec<u8>)) -> ScatterList {
        let buf = |bytes: &[u8]| {
            let mut buf = self.controller.alloc(bytes.len()).unwrap();
            buf.copy_from_slice(bytes);
            buf
        };
        match self.format.extended {
            true => ScatterList::from(buf(&self.format.join(content))),
            false => ScatterList::new(vec![buf(&content.0)], Some(buf(&content.1))),
        }
    }

    fn done(&mut self) -> Completion<u32> {
        let mut ended = None;
        while ended.is_none() {
            self.queue.wait(|done| ended = Some(done)).unwrap();
        }
        ended.unwrap()
    }

    /// Like [`done`](Self::done), with data and metadata joined.
    fn done_joined(&mut self) -> Completion<u32> {
        let done = self.done();
        let buf = ScatterList::from_completed(done.buf).unwrap().into_joined().unwrap();
        Completion { buf, ..done }
    }

    fn refused(&mut self, range: (u64, u32), buf: DmaBuf, how: CommandOptions) -> Error {
        let (iova, len) = (buf.iova(), buf.len());
        let list = self.list(range.1, buf);
        let rejected = self.queue.write_with(&self.namespace, range, list, how, 5).unwrap_err();
        let (list, context) = rejected.payload;
        let buf = list.into_joined().unwrap();
        assert_eq!((buf.iova(), buf.len(), context), (iova, len, 5));
        let namespace = self.namespace.clone();
        let list = self.list(range.1, buf);
        let read = self.queue.read_with(&namespace, range, list, how, 5).unwrap_err();
        assert_eq!(read.error.to_string(), rejected.error.to_string());
        read.error
    }
}

#[test]
fn data_and_metadata_written_together_are_read_apart_and_vice_versa() {
    for (format, sgl) in formats().flat_map(|format| [(format, false), (format, true)]) {
        let mut it = rig(format, sgl);
        let most = (it.namespace.max_transfer() / format.block) as u32;
        for (lba, blocks, lead) in
            [(0, 1, 0), (3, 7, 512), (20, 8, 4), (40, 9, 3584), (1024 - u64::from(most), most, 0)]
        {
            let what = format!("{format:?}, SGLs {sgl}: {blocks} blocks at {lba}");
            let content = format.content(lba, blocks);
            let joined = format.join(&content);
            let how = format.checks(lba);
            let (mut buf, _around) = it.buf(lead, joined.len());
            buf.copy_from_slice(&joined);
            it.write((lba, blocks), buf, how, 1);
            let done = it.done_joined();
            assert!(done.status.is_success(), "{what}: {}", done.status);
            assert_eq!((done.buf.len(), done.context), (joined.len(), 1));

            let nothing = (vec![0; content.0.len()], vec![0; content.1.len()]);
            let parts = it.parts(&nothing);
            it.queue.read_with(&it.namespace, (lba, blocks), parts, how, 2).unwrap();
            let done = it.done();
            assert!(done.status.is_success(), "{what}: {}", done.status);
            let (data, metadata) = ScatterList::from_completed(done.buf).unwrap().into_inner();
            match metadata {
                Some(metadata) => assert!((*data[0] == *content.0) && *metadata == *content.1),
                None => assert!(*data[0] == *joined, "{what}"),
            }

            // Other contents, written from two buffers and read into one.
            let other = format.content(lba + (1 << 32), blocks);
            let parts = it.parts(&other);
            it.queue.write_with(&it.namespace, (lba, blocks), parts, how, 3).unwrap();
            assert!(it.done().status.is_success(), "{what}");
            let (buf, around) = it.buf(lead, joined.len());
            it.read((lba, blocks), buf, how, 4);
            let done = it.done_joined();
            assert!(done.status.is_success(), "{what}: {}", done.status);
            assert!(*done.buf == *format.join(&other), "{what}");
            assert!(around.iter().flat_map(|buf| buf.iter()).all(|&byte| byte == 0xee), "{what}");
        }
    }
}

#[test]
fn metadata_that_the_controller_strips_is_not_in_the_buffer() {
    for extended in [false, true] {
        let format = Format { block: 512, metadata: 8, extended, kind: 1 };
        let mut it = rig(format, false);
        let (data, metadata) = format.content(9, 20);
        let protection = Protection { action: true, ..format.checks(9).protection };
        let how = CommandOptions { protection, ..CommandOptions::default() };
        let (mut buf, _around) = it.buf(0, data.len());
        buf.copy_from_slice(&data);
        it.write((9, 20), buf, how, 0);
        assert!(it.done().status.is_success());
        let (buf, _around) = it.buf(0, data.len() + metadata.len());
        let checks = format.checks(9);
        it.read((9, 20), buf, checks, 0);
        assert!(*it.done_joined().buf == *format.join(&(data, metadata)));
    }
}

/// In a namespace without protection information, PRACT has no effect: all of the metadata is
/// transferred, and must have room in the buffers.
#[test]
fn metadata_that_is_no_protection_information_is_never_kept() {
    for extended in [false, true] {
        let format = Format { block: 512, metadata: 8, extended, kind: 0 };
        let mut it = rig(format, false);
        let content = format.content(5, 16);
        let protection = Protection { action: true, ..Protection::default() };
        let how = CommandOptions { protection, ..CommandOptions::default() };
        let (buf, _around) = it.buf(0, content.0.len());
        let error = it.refused((5, 16), buf, how);
        match extended {
            true => assert!(matches!(error, Error::TransferSize { .. }), "{error}"),
            false => assert!(matches!(error, Error::MetadataSize { .. }), "{error}"),
        }
        let parts = ScatterList::from(it.controller.alloc(content.0.len()).unwrap());
        assert!(it.queue.read_with(&it.namespace, (5, 16), parts, how, 0).is_err());
        let parts = it.parts(&content);
        it.queue.write_with(&it.namespace, (5, 16), parts, how, 0).unwrap();
        assert!(it.done().status.is_success());
        let (buf, _around) = it.buf(0, content.0.len() + content.1.len());
        it.read((5, 16), buf, how, 0);
        assert!(*it.done_joined().buf == *format.join(&content));
    }
}

#[test]
fn wrong_lengths_are_refused_by_name() {
    for (extended, metadata) in [(false, 16), (true, 16), (false, 0)] {
        let format = Format { block: 512, metadata, extended, kind: 0 };
        let mut it = rig(format, false);
        let most = (it.namespace.max_transfer() / 512) as u32;
        let how = CommandOptions::default();
        let each = 512 + metadata;
        let buf = |bytes| it.controller.alloc(bytes).unwrap();
        let (none, one, nine) = (buf(0), buf(each), buf(9 * each));
        let (long, longer) = (buf((most + 1) as usize * each), buf(9 * each + 8));
        let (shorter, shortest) = (buf(9 * each - 8), buf(9 * 512 - 1));
        let mut crooked = buf(each + 2);
        drop(crooked.split_to(2));

        assert!(matches!(it.refused((0, 0), none, how), Error::TransferSize { bytes: 0, .. }));
        let error = it.refused((0, most + 1), long, how);
        assert!(matches!(error, Error::TransferSize { max, .. } if max == most as usize * 512));
        let error = it.refused((1024, 1), one, how);
        assert!(matches!(error, Error::OutOfRange { lba: 1024, blocks: 1, size: 1024, .. }));
        let error = it.refused((1023, 9), nine, how);
        assert!(matches!(error, Error::OutOfRange { lba: 1023, blocks: 9, .. }));
        for buf in [longer, shorter] {
            let bytes = buf.len();
            let error = it.refused((0, 9), buf, how);
            let rest = bytes.wrapping_sub(9 * 512);
            match error {
                Error::MetadataSize { bytes, needed } => {
                    assert_eq!((bytes, needed, extended), (rest, 9 * metadata, false));
                }
                Error::TransferSize { max, .. } => assert_eq!(max, 9 * each),
                error => panic!("{error}"),
            }
        }
        let rest = (!extended && metadata > 0).then(|| it.controller.alloc(9 * metadata).unwrap());
        let list = ScatterList::new(vec![shortest], rest);
        let error = it.queue.read_with(&it.namespace, (0, 9), list, how, 5).unwrap_err().error;
        assert!(matches!(error, Error::TransferSize { bytes: 4607, .. }), "{error}");
        let error = it.refused((0, 1), crooked, how);
        assert!(matches!(error, Error::Misaligned { align: 4, .. }), "{error}");
        assert_eq!(it.queue.counters().submitted, 0);
    }
}

#[test]
fn buffers_that_no_address_describes_are_rejected_by_every_command() {
    let mut it = rig(Format { block: 512, metadata: 0, extended: false, kind: 0 }, true);
    for lead in 1..8 {
        let buf = |bytes| it.buf(lead, bytes).0;
        let (read, write, through) = (buf(512), buf(1024), buf(8192));
        let (ranges, list) = (buf(16), ScatterList::from(buf(512)));
        let how = CommandOptions::default();
        let results = [
            it.queue.read(&it.namespace, 0, read, 0).map_err(Error::from),
            it.queue.write(&it.namespace, 0, write, 0).map_err(Error::from),
            it.queue.write_through(&it.namespace, 0, through, 0).map_err(Error::from),
        ];
        let range = [nvio_spec::DsmRange::new(0, 1, 0)];
        let deallocated = it.queue.deallocate(&it.namespace, &range, ranges, 0);
        let read = it.queue.read_with(&it.namespace, (0, 1), list, how, 0);
        let others = [deallocated.map_err(Error::from), read.map_err(Error::from)];
        for result in results.into_iter().chain(others) {
            match result {
                Ok(()) => assert_eq!(lead, 4),
                Err(Error::Misaligned { align: 4, .. }) => assert_ne!(lead, 4),
                Err(Error::QueueFull { .. }) => assert_eq!(lead, 4, "four commands fit"),
                Err(error) => panic!("{error}"),
            }
        }
        while it.queue.in_flight() > 0 {
            it.queue.wait(|done| assert!(done.status.is_success(), "{}", done.status)).unwrap();
        }
    }
}

#[test]
fn a_full_queue_gives_the_buffer_back() {
    let format = Format { block: 512, metadata: 8, extended: false, kind: 1 };
    let mut it = rig(format, false);
    for context in 0..4 {
        let buf = it.controller.alloc(520).unwrap();
        let how = CommandOptions::default();
        it.read((0, 1), buf, how, context);
    }
    let buf = it.controller.alloc(520).unwrap();
    let error = it.refused((0, 1), buf, CommandOptions::default());
    assert!(matches!(error, Error::QueueFull { capacity: 4 }));
}
