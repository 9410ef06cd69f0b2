//! A request and the rules for its result, before it is submitted.

use nvio_iomap::{IoFlags, MappingFlags};

use super::layout::Layout;
use super::strategy::Kind;
use super::strategy::{Ask, Device, Mischief, Shape, Unit, Way};

/// Maximum length of a request, bytes.
const MOST: u64 = 64 << 10;

/// The classes of errors.
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

/// A request with all its parameters.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request as it was drawn.
    pub ask: Ask,
    /// The request is a write.
    pub write: bool,
    /// Position in the file.
    pub pos: u64,
    /// Length of the memory, bytes.
    pub len: u64,
    /// Length in the file, bytes: reads end at the end of the file.
    pub count: u64,
    /// Flags of the request.
    pub flags: IoFlags,
    /// Bytes that were transferred before.
    pub done_before: u64,
    /// Memory of the request.
    pub shape: Shape,
    /// Offset from which the memory is inaccessible, unless page faults are allowed and help.
    pub fault: Option<u64>,
    /// Offset from which the memory is inaccessible without page faults.
    pub frail: Option<u64>,
}

impl Request {
    /// Computes the parameters of a drawn request.
    pub fn new(ask: &Ask, layout: &Layout) -> Self {
        let unit = match ask.unit {
            Unit::Block => layout.device_block,
            Unit::FsBlock => layout.block,
            Unit::Byte => 1,
        };
        // Some positions are after the last block.
        let places = (layout.span() + layout.block / 8) / unit + 1;
        let pos = ((u64::from(ask.at) * places) >> 16) * unit;
        // Few bytes test as much as many, if they are near the end of a block.
        let len = match ask.unit {
            Unit::Byte => u64::from(ask.units) * 173,
            _ => u64::from(ask.units) * unit,
        };
        // Most requests end within the blocks of the file.
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

    /// Returns true if a flag is set.
    pub fn has(&self, flag: IoFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Returns true if the memory is borrowed from the caller during the call.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.ask.way, Way::Cursor { .. } | Way::Slice)
    }

    /// Returns true if the data is bounced.
    pub fn is_bounced(&self) -> bool {
        self.is_borrowed() || self.has(IoFlags::BOUNCE) || matches!(self.shape, Shape::Bytes)
    }

    /// Returns true for a read that needs no alignment.
    pub fn any_alignment(&self) -> bool {
        !self.write && (self.is_borrowed() || matches!(self.shape, Shape::Bytes))
    }

    /// Returns true if the caller waits for the request.
    pub fn is_waited(&self) -> bool {
        self.is_borrowed() || matches!(self.ask.way, Way::Execute | Way::OneBuffer)
    }

    /// Returns the position after the last byte.
    pub fn end(&self) -> u64 {
        self.pos + self.count
    }

    /// Returns the offset of the first inaccessible byte.
    pub fn faults_at(&self) -> Option<u64> {
        self.fault.filter(|&at| at < self.count)
    }

    /// Returns the causes that make the request fail in any case, and those that may, apart from
    /// the device.
    pub fn causes(&self, layout: &Layout, device: &Device) -> (Vec<Class>, Vec<Class>) {
        let (mut certain, mut possible) = (Vec::new(), Vec::new());
        // An empty request need not be rejected for invalid parameters.
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

    /// Adds the causes that depend on the file.
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
        // Blocks after a fault are not reached.
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
                // The filesystem must allocate new blocks for the write.
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
            // The length of the first piece is the maximum transfer of a command.
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
