//! Commands of all kinds, and their expected entries.

use nvio_driver::spec::opcode::nvm;
use nvio_driver::spec::{CopyRange, DsmRange};
use nvio_driver::{CommandOptions, DmaBuf, Error, Protection, Rejected, ScatterList};

use super::bytes::Bytes;
use super::completions::Host;
use super::lent::{Lent, Wanted};

/// Most blocks of a command in these tests, for speed.
const MOST_BLOCKS: u32 = 1100;

impl Host {
    /// Submits a command, which may be invalid.
    pub(super) fn submit(&mut self, bytes: &mut Bytes<'_>) {
        let index = bytes.below(3);
        if index >= self.pairs.len() {
            return;
        }
        let kind = bytes.below(10);
        let range = self.range(bytes);
        match kind {
            0..=2 => self.read_or_write(index, kind == 1, range, bytes),
            3 => self.flush(index),
            4..=6 => self.transfer(index, kind, range, bytes),
            7 => self.without_data(index, range, bytes),
            _ => self.with_list(index, kind == 8, range, bytes),
        }
    }

    fn range(&self, bytes: &mut Bytes<'_>) -> (u64, u32) {
        let (how, small) = (bytes.u8(), u64::from(bytes.u8()));
        let lba = match how & 3 {
            0 | 1 => small,
            2 => self.namespace.blocks().wrapping_sub(small),
            _ => bytes.u64(),
        };
        let most = (self.namespace.max_transfer() >> self.namespace.block_shift()) as u32;
        let blocks = match how >> 2 & 3 {
            0 | 1 => u32::from(bytes.u8() & 15),
            2 => most.saturating_sub(u32::from(bytes.u8() & 3)),
            _ => most + u32::from(bytes.u8() & 3),
        };
        (lba, blocks.min(MOST_BLOCKS))
    }

    /// Allocates a buffer that may begin inside a page.
    fn buffer(&self, len: usize, bytes: &mut Bytes<'_>) -> Option<DmaBuf> {
        let lead = match bytes.u8() {
            lead @ 0xc0.. => usize::from(lead & 0x3f) * 64,
            _ => 0,
        };
        let mut buf = self.controller.alloc(lead + len).ok()?;
        drop(buf.split_to(lead));
        let range = (buf.iova(), buf.len());
        let overlaps =
            |(at, len): (u64, usize)| at < range.0 + range.1 as u64 && range.0 < at + len as u64;
        let lent = self.pairs.iter().any(|pair| pair.lent().any(overlaps));
        assert!(!lent, "memory is allocated that is with a command");
        Some(buf)
    }

    fn context(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Records the result of a submission.
    fn submitted<B>(
        &mut self,
        index: usize,
        result: Result<(), Rejected<Error, (B, u64)>>,
        lent: Lent,
        back: impl FnOnce(&B) -> Lent,
        wanted: &Wanted,
    ) {
        let pair = &mut self.pairs[index];
        match result {
            Ok(()) => {
                let most = self.controller.max_transfer();
                assert!(wanted.bytes <= most, "{} bytes, MDTS is {most}", wanted.bytes);
                assert!(pair.has_room());
                pair.accepted(self.next, lent, wanted);
            }
            Err(Rejected { error, payload: (buf, context) }) => {
                assert_eq!((back(&buf), context), (lent, self.next), "not what was given");
                if let Error::QueueFull { capacity } = error {
                    assert_eq!(pair.flying(), capacity, "the queue is not full");
                }
                pair.settle();
            }
        }
    }

    fn read_or_write(
        &mut self,
        index: usize,
        write: bool,
        (lba, blocks): (u64, u32),
        bytes: &mut Bytes<'_>,
    ) {
        let odd = if bytes.u8() == 0xff { 100 } else { 0 };
        let len = ((blocks as usize) << self.namespace.block_shift()) + odd;
        let Some(buf) = self.buffer(len, bytes) else { return };
        let (lent, context) = (Lent::of(&buf), self.context());
        let (namespace, queue) = (&self.namespace, &mut self.pairs[index].queue);
        let result = match write {
            true => queue.write(namespace, lba, buf, context),
            false => queue.read(namespace, lba, buf, context),
        };
        if result.is_ok() {
            assert!(odd == 0 && self.is_inside(lba, blocks));
        }
        let opcode = if write { nvm::WRITE } else { nvm::READ };
        let count = blocks.wrapping_sub(1) & 0xffff;
        let wanted = Wanted { opcode, lba, count, bytes: len, metadata: 0 };
        self.submitted(index, result, lent, Lent::of, &wanted);
    }

    fn is_inside(&self, lba: u64, blocks: u32) -> bool {
        blocks > 0 && lba.checked_add(blocks.into()).is_some_and(|end| end <= self.honest.blocks)
    }

    fn flush(&mut self, index: usize) {
        let context = self.context();
        let result = self.pairs[index].queue.flush(&self.namespace, context);
        let wanted = Wanted { opcode: nvm::FLUSH, lba: 0, count: 0, bytes: 0, metadata: 0 };
        self.submitted(index, result, Lent::Nothing, |()| Lent::Nothing, &wanted);
    }

    /// Submits a command with several buffers and protection information.
    fn transfer(
        &mut self,
        index: usize,
        kind: usize,
        (lba, blocks): (u64, u32),
        bytes: &mut Bytes<'_>,
    ) {
        let how = bytes.u8();
        let protection = Protection { action: how & 1 != 0, ..Protection::default() };
        let transfer = CommandOptions { fua: how & 2 != 0, limited_retry: false, protection };
        let count = blocks as usize;
        let each = usize::from(self.honest.metadata);
        let stripped = protection.action && each == 8;
        let metadata = if stripped { 0 } else { count * each };
        let mut len = count << self.namespace.block_shift();
        let beside = if self.honest.extended { 0 } else { metadata };
        len += metadata - beside;
        let wrong = if how >> 2 == 0x3f { 4 } else { 0 };
        let Some(parts) = self.parts(len + wrong, beside, bytes) else { return };
        let (lent, context) = (Lent::of_parts(&parts), self.context());
        let (namespace, queue) = (&self.namespace, &mut self.pairs[index].queue);
        let at = (lba, blocks);
        let (opcode, result) = match kind {
            4 => (nvm::READ, queue.read_with(namespace, at, parts, transfer, context)),
            5 => (nvm::WRITE, queue.write_with(namespace, at, parts, transfer, context)),
            _ => (nvm::COMPARE, queue.compare(namespace, at, parts, transfer, context)),
        };
        if result.is_ok() {
            assert!(wrong == 0 && self.is_inside(lba, blocks));
        }
        let count = blocks.wrapping_sub(1) & 0xffff;
        let wanted = Wanted { opcode, lba, count, bytes: len, metadata: beside };
        self.submitted(index, result, lent, Lent::of_parts, &wanted);
    }

    /// Allocates data in several buffers, and metadata.
    fn parts(&self, len: usize, metadata: usize, bytes: &mut Bytes<'_>) -> Option<ScatterList> {
        let mut data = vec![];
        let mut left = len;
        for _ in 0..bytes.below(4) {
            let whole = bytes.flag();
            let piece = usize::from(bytes.u8()) * if whole { 4096 } else { 16 };
            let piece = piece.min(left);
            data.push(self.buffer(piece, bytes)?);
            left -= piece;
        }
        if left > 0 {
            data.push(self.buffer(left, bytes)?);
        }
        let metadata = match metadata {
            0 => None,
            bytes_ => Some(self.buffer(bytes_, bytes)?),
        };
        Some(ScatterList::new(data, metadata))
    }

    fn without_data(&mut self, index: usize, (lba, blocks): (u64, u32), bytes: &mut Bytes<'_>) {
        let (verify, deallocate) = (bytes.flag(), bytes.flag());
        let context = self.context();
        let (namespace, queue) = (&self.namespace, &mut self.pairs[index].queue);
        let (at, how) = ((lba, blocks), CommandOptions::default());
        let (opcode, result) = match verify {
            true => (nvm::VERIFY, queue.verify(namespace, at, how, context)),
            false => {
                let result = queue.write_zeroes(namespace, at, deallocate, how, context);
                (nvm::WRITE_ZEROES, result)
            }
        };
        if result.is_ok() {
            assert!(self.is_inside(lba, blocks));
        }
        let count = blocks.wrapping_sub(1) & 0xffff;
        let wanted = Wanted { opcode, lba, count, bytes: 0, metadata: 0 };
        self.submitted(index, result, Lent::Nothing, |()| Lent::Nothing, &wanted);
    }

    /// Submits Dataset Management or Copy.
    fn with_list(
        &mut self,
        index: usize,
        deallocate: bool,
        (lba, blocks): (u64, u32),
        bytes: &mut Bytes<'_>,
    ) {
        let count = [1, 2, 100, 255, 256, 257, 0, 129][bytes.below(8)];
        let each: usize = if deallocate { 16 } else { 32 };
        let more = [0, 0, 4096, 20_000][bytes.below(4)];
        let short = usize::from(bytes.u8() == 0xff);
        let len = (count * each + more).saturating_sub(short);
        let Some(buf) = self.buffer(len, bytes) else { return };
        let (lent, context) = (Lent::of(&buf), self.context());
        let (namespace, queue) = (&self.namespace, &mut self.pairs[index].queue);
        let (opcode, lba, result) = if deallocate {
            let ranges = vec![DsmRange::new(0, blocks, lba); count];
            let result = queue.deallocate(namespace, &ranges, buf, context);
            (
                nvm::DATASET_MANAGEMENT,
                u64::from(count as u32).wrapping_sub(1) & 0xff | 4 << 32,
                result,
            )
        } else {
            let ranges = vec![CopyRange::new(0, blocks); count];
            (nvm::COPY, lba, queue.copy(namespace, lba, &ranges, buf, context))
        };
        let taken = (count as u32).wrapping_sub(1) & 0xff;
        let taken = if deallocate { 0 } else { taken };
        let wanted = Wanted { opcode, lba, count: taken, bytes: count * each, metadata: 0 };
        self.submitted(index, result, lent, Lent::of, &wanted);
    }
}
