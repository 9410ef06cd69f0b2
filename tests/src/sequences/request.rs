//! A request, with what the rules say of it before it is given to the queue.

use nvio_iomap::{IoFlags, MappingFlags};

use super::layout::{Kind, Layout};
use super::strategy::{Ask, Device, Mischief, Shape, Unit, Way};

/// Bytes of a request, at most.
const MOST: u64 = 64 << 10;

/// How a request may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Class {
    Misaligned,
    MisalignedMemory,
    Flags,
    WouldBlock,
    Busy,
    Delalloc,
    NoBlocks,
    NotAtomic,
    FallBack,
    Fault,
    NoMemory,
    BadMapping,
    Device,
    Flush,
    Begin,
    Again,
    End,
    SubmitHook,
    EndHook,
    WriteBack,
    Inline,
    Other,
}

/// A request of which everything is settled.
#[derive(Clone, Debug)]
pub struct Request {
    /// As it was drawn.
    pub ask: Ask,
    /// Whether it is a write.
    pub write: bool,
    /// First byte of the file.
    pub pos: u64,
    /// Bytes of the memory.
    pub len: u64,
    /// Bytes of the file: of a read, those in front of its end.
    pub count: u64,
    /// How it is served.
    pub flags: IoFlags,
    /// Bytes moved before.
    pub done_before: u64,
    /// Its memory.
    pub shape: Shape,
    /// Where the memory ends to be accessible, if faulting in is not allowed or does not help.
    pub fault: Option<u64>,
    /// The same, whether it is allowed or not.
    pub frail: Option<u64>,
}

impl Request {
    /// Settles what was drawn.
    pub fn new(ask: &Ask, layout: &Layout) -> Self {
        let unit = match ask.unit {
            Unit::Block => layout.device_block,
            Unit::FsBlock => layout.block,
            Unit::Byte => 1,
        };
        // Now and then behind the last block.
        let places = (layout.span() + layout.block / 8) / unit + 1;
        let pos = ((u64::from(ask.at) * places) >> 16) * unit;
        // A few bytes are as good as many, if they are near the end of a block.
        let len = match ask.unit {
            Unit::Byte => u64::from(ask.units) * 173,
            _ => u64::from(ask.units) * unit,
        };
        // Most end where there are blocks.
        let inside = ask.unit != Unit::Byte && !ask.at.is_multiple_of(8) && pos < layout.span();
        let most = if inside { layout.span() - pos } else { u64::MAX };
        let len = len.min(MOST).min(most);
        let short = ask.way == Way::Short && !ask.write;
        let bare = short || ask.way == Way::Slice;
        let slice_write = ask.way == Way::Slice && ask.write;
        let flags = match () {
            () if slice_write => ask.flags,
            () if bare => IoFlags::empty(),
            () => ask.flags,
        };
        let done_before = if bare { 0 } else { ask.done_before.into() };
        let shape = match ask.way {
            Way::Short if !ask.write => Shape::Dma(match ask.shape {
                Shape::Dma(pad) | Shape::Vectored(_, pad) => pad,
                _ => 0,
            }),
            Way::OneBuffer => Shape::Dma(match ask.shape {
                Shape::Dma(pad) => pad,
                _ => 0,
            }),
            _ => ask.shape.clone(),
        };
        let count = if ask.write { len } else { layout.size.saturating_sub(pos).min(len) };
        let (frail, hard) = match ask.way {
            Way::Cursor { fault: Some(fault), soft, .. } => {
                let hard = !soft || flags.contains(IoFlags::NOFAULT);
                (Some((u64::from(fault) * len) >> 16), hard)
            }
            _ => (None, false),
        };
        let (ask, write, fault) = (ask.clone(), ask.write, frail.filter(|_| hard));
        Self { ask, write, pos, len, count, flags, done_before, shape, fault, frail }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: IoFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Whether it is the caller's memory, borrowed for the call.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.ask.way, Way::Cursor { .. } | Way::Slice)
    }

    /// Whether data is copied through private memory.
    pub fn is_bounced(&self) -> bool {
        self.is_borrowed() || self.has(IoFlags::BOUNCE) || matches!(self.shape, Shape::Bytes)
    }

    /// Whether a read of it may be at any byte.
    pub fn any_alignment(&self) -> bool {
        !self.write && (self.is_borrowed() || matches!(self.shape, Shape::Bytes))
    }

    /// Whether its submitter waits for it.
    pub fn is_waited(&self) -> bool {
        self.is_borrowed() || matches!(self.ask.way, Way::Execute | Way::OneBuffer)
    }

    /// The byte after the last of the file.
    pub fn end(&self) -> u64 {
        self.pos + self.count
    }

    /// The first byte of it, as an offset, that cannot be accessed.
    pub fn faults_at(&self) -> Option<u64> {
        self.fault.filter(|&at| at < self.count)
    }

    /// Reasons for which it must fail, and others for which it may, whatever the device does.
    pub fn causes(&self, layout: &Layout, device: &Device) -> (Vec<Class>, Vec<Class>) {
        let (mut certain, mut possible) = (Vec::new(), Vec::new());
        // What is wrong with a request that is about nothing need not be noticed.
        let about = |certain: &mut Vec<Class>, possible: &mut Vec<Class>, class| {
            if self.count > 0 { certain.push(class) } else { possible.push(class) }
        };
        if self.has(IoFlags::NOWAIT) && self.is_bounced() {
            about(&mut certain, &mut possible, Class::WouldBlock);
        }
        if !self.write && self.flags.intersects(IoFlags::ATOMIC | IoFlags::DSYNC) {
            about(&mut certain, &mut possible, Class::Flags);
        }
        let fs = self.has(IoFlags::FSBLOCK_ALIGNED);
        let align = if fs { layout.block } else { layout.device_block };
        if !(self.pos | self.len).is_multiple_of(align) {
            match self.any_alignment() {
                false => about(&mut certain, &mut possible, Class::Misaligned),
                true if fs => possible.push(Class::Misaligned),
                true => {}
            }
        }
        if !self.is_bounced() {
            let pad = match &self.shape {
                Shape::Dma(pad) | Shape::Vectored(_, pad) => *pad,
                _ => 0,
            };
            if !pad.is_multiple_of(4) {
                about(&mut certain, &mut possible, Class::MisalignedMemory);
            }
            if matches!(self.shape, Shape::Odd) {
                about(&mut certain, &mut possible, Class::Misaligned);
            }
        }
        if self.count == 0 {
            return (certain, possible);
        }
        self.file_causes(layout, device, &mut certain, &mut possible);
        (certain, possible)
    }

    /// Reasons that lie in the file.
    fn file_causes(
        &self,
        layout: &Layout,
        device: &Device,
        certain: &mut Vec<Class>,
        possible: &mut Vec<Class>,
    ) {
        if self.write && self.ask.mischief == Mischief::Pinned {
            certain.push(Class::FallBack);
        }
        if !self.write && self.ask.mischief == Mischief::WriteBack {
            certain.push(Class::WriteBack);
        }
        let fault = self.faults_at();
        // What comes after a fault is not reached.
        let reached = fault.map_or(self.end(), |at| self.pos + at);
        let mut kinds = Vec::new();
        let mut at = self.pos;
        while at < self.end() {
            let block = layout.at(at);
            let kind = block.map_or(Kind::Hole, |block| block.kind);
            let elsewhere =
                block.is_some_and(|block| block.flags.contains(MappingFlags::ANON_WRITE));
            let next = (at / layout.block + 1) * layout.block;
            let bad = match (self.write, kind) {
                _ if layout.inline && at < layout.block => None,
                (false, Kind::Delalloc) => Some(Class::Delalloc),
                (true, Kind::Hole | Kind::Delalloc) => Some(Class::NoBlocks),
                // Blocks for it are still to be chosen.
                (true, _) if elsewhere => Some(Class::NoBlocks),
                _ => None,
            };
            if let Some(class) = bad {
                if at <= reached && fault.is_none() {
                    certain.push(class)
                } else {
                    possible.push(class)
                }
            }
            kinds.push(kind);
            at = next;
        }
        if let Some(fault) = fault {
            let first = if self.write { fault < layout.device_block } else { fault == 0 };
            let partial = self.has(IoFlags::PARTIAL);
            // A piece is as long as a command may be.
            let none = !partial || first;
            if none {
                certain.push(Class::Fault)
            } else {
                possible.push(Class::Fault)
            }
            if partial && self.done_before > 0 {
                possible.push(Class::FallBack);
            }
        }
        if self.write && self.has(IoFlags::ATOMIC) {
            possible.push(Class::NotAtomic);
            let one = kinds.iter().all(|kind| *kind == kinds[0]);
            let most = u64::from(device.atomic) << device.block_shift;
            if !layout.inline && (!one || self.len > most) {
                certain.push(Class::NotAtomic);
            }
        }
        if layout.inline {
            possible.push(Class::Inline);
        }
    }
}
