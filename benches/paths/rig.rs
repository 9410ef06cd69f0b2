//! A drive, with a queue for each path to it.

use std::time::Duration;

use nvio_driver::{Address, Controller, DmaBuf, Options, QueuePair, WritableNamespace};
use nvio_emulator::{Backing, Emulator, NamespaceConfig, Service};
use nvio_ext4::{File, FileQueue};
use nvio_iomap::{DiskQueue, IoFlags, WritableDisk};

use crate::drive::COPY_DEPTH;
use crate::file::{Flagged, Overwrites, Simple};
use crate::image::{BLOCK, Image, SIZE, Target};
use crate::load::{self, Load, Spent};
use crate::raw::{Copied, Plain, Raw};
use crate::{Result, check};

/// Maximum number of commands in flight.
pub(crate) const DEEPEST: u16 = 256;
/// MDTS for a maximum transfer of 1 MiB.
const MDTS: u8 = 8;
/// Size of the arena, for buffers and bouncing.
const ARENA: usize = 128 << 20;

/// Size of the memory that the caller copies from and to.
const PLAIN: usize = COPY_DEPTH << 20;

/// A path of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Reads of the namespace.
    Raw,
    /// Reads of the namespace, copied by the caller.
    RawCopied,
    /// Writes of the namespace, copied by the caller.
    RawCopiedWrite,
    /// Reads of the file through the simple path.
    Simple,
    /// Reads of the file through the generic path.
    Generic,
    /// Reads of the file with a copy.
    Bounce,
    /// Overwrites of the file without a copy.
    Write,
    /// Overwrites of the file with a copy.
    WriteBounce,
}

impl Way {
    pub(crate) const READS: [Self; 4] = [Self::Raw, Self::Simple, Self::Generic, Self::Bounce];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw | Self::RawCopied | Self::RawCopiedWrite => "raw",
            Self::Simple => "simple",
            Self::Generic => "generic",
            Self::Bounce | Self::WriteBounce => "bounce",
            Self::Write => "zero copy",
        }
    }

    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::WriteBounce | Self::RawCopiedWrite)
    }
}

/// An embedded controller with a namespace, and queues to it.
pub(crate) struct Rig {
    pair: QueuePair<()>,
    queue: FileQueue<WritableDisk>,
    namespace: WritableNamespace,
    controller: Controller,
    /// Ordinary memory.
    plain: Plain,
    _emulator: Emulator,
}

impl Rig {
    /// Starts a drive that holds `image` in memory.
    pub(crate) fn with_data(image: &Image, service: Service) -> Result<Self> {
        let mut rig = Self::new(Backing::memory(SIZE), service)?;
        image.write_to(&mut rig.pair, &rig.namespace)?;
        Ok(rig)
    }

    /// Starts a drive that transfers no data and has no delays.
    pub(crate) fn null() -> Result<Self> {
        Self::new(Backing::null(SIZE), Service::new())
    }

    fn new(backing: Backing, service: Service) -> Result<Self> {
        let namespace = NamespaceConfig::new(backing).block_size(BLOCK as u32);
        let emulator = Emulator::builder().namespace(namespace).mdts(Some(MDTS));
        let emulator = emulator.service(service).start()?;
        let address = Address::VfioUser(emulator.socket().to_owned());
        let options = Options { arena_bytes: ARENA, writable: true, ..Options::default() };
        let controller = Controller::open_with(&address, options)?;
        let namespace = controller.writable()?.writable_namespace(1)?;
        let disk = WritableDisk::whole(&namespace);
        let queue = FileQueue::new(DiskQueue::new(&controller, &disk, DEEPEST)?);
        let pair = controller.queue_pair(DEEPEST)?;
        let plain = Plain::new(PLAIN);
        Ok(Self { pair, queue, namespace, controller, plain, _emulator: emulator })
    }

    pub(crate) fn alloc(&self, bytes: u64) -> Result<DmaBuf> {
        Ok(self.controller.alloc(usize::try_from(bytes)?)?)
    }

    /// Measures one path for a short time.
    pub(crate) fn slice(
        &mut self,
        way: Way,
        file: &mut File,
        load: &mut Load,
        depth: usize,
        time: Duration,
    ) -> Result<Spent> {
        let before = self.queue.counters();
        let Self { pair, queue, namespace, plain, .. } = self;
        let spent = match way {
            Way::Raw => load::run(&mut Raw { pair, namespace }, load, depth, time),
            Way::RawCopied | Way::RawCopiedWrite => {
                let copied = Copied { pair, namespace, plain, write: way.is_write() };
                load::run(&mut { copied }, load, depth, time)
            }
            Way::Simple => load::run(&mut Simple { queue, file }, load, depth, time),
            Way::Generic | Way::Bounce => {
                let flags = if way == Way::Bounce { IoFlags::BOUNCE } else { IoFlags::GENERIC };
                load::run(&mut Flagged { queue, file, flags }, load, depth, time)
            }
            Way::Write | Way::WriteBounce => {
                let bounced = way == Way::WriteBounce;
                let flags = if bounced { IoFlags::BOUNCE } else { IoFlags::empty() };
                load::run(&mut Overwrites { queue, file, flags }, load, depth, time)
            }
        }?;
        let after = self.queue.counters();
        let took = [
            after.simple - before.simple,
            after.generic - before.generic,
            after.bounced - before.bounced,
        ];
        let all = spent.submitted;
        let right = match way {
            Way::Raw | Way::RawCopied | Way::RawCopiedWrite => [0, 0, 0],
            Way::Simple => [all, 0, 0],
            Way::Generic | Way::Write => [0, all, 0],
            Way::Bounce | Way::WriteBounce => [0, all, all],
        };
        match took == right {
            true => Ok(spent),
            false => Err(format!("not all on their way: {way:?} {took:?} of {all}").into()),
        }
    }

    /// Checks that the reads or writes of a path transfer the right data.
    pub(crate) fn check(
        &mut self,
        way: Way,
        file: &mut File,
        targets: &[Target],
        bytes: u64,
    ) -> Result<()> {
        let buf = self.alloc(bytes)?;
        let Self { pair, queue, namespace, .. } = self;
        match way {
            Way::RawCopied | Way::RawCopiedWrite => Ok(()),
            Way::Raw => check::reads(&mut Raw { pair, namespace }, targets, buf),
            Way::Simple => check::reads(&mut Simple { queue, file }, targets, buf),
            Way::Generic | Way::Bounce => {
                let flags = if way == Way::Bounce { IoFlags::BOUNCE } else { IoFlags::GENERIC };
                check::reads(&mut Flagged { queue, file, flags }, targets, buf)
            }
            Way::Write | Way::WriteBounce => {
                let bounced = way == Way::WriteBounce;
                let flags = if bounced { IoFlags::BOUNCE } else { IoFlags::empty() };
                let raw = &mut Raw { pair, namespace };
                check::writes(&mut Overwrites { queue, file, flags }, raw, targets, buf)
            }
        }
        .map_err(|error| format!("{way:?} of {bytes} bytes: {error}").into())
    }
}
