//! The strategy that draws sequences. A failing sequence shrinks to fewer and simpler steps on a
//! simpler file and device.

use nvio_iomap::{IoFlags, MappingFlags};
use proptest::collection::vec;
use proptest::prelude::*;

/// The kind of a block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block with data.
    Mapped,
    /// An allocated block without data.
    Unwritten,
    /// A hole.
    Hole,
    /// A block that is reserved but not allocated yet.
    Delalloc,
}

/// A sequence: everything that a run does.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The device.
    pub device: Device,
    /// The file.
    pub file: File,
    /// Depth of the queue, commands.
    pub depth: u16,
    /// Rates of the faults of commands.
    pub rates: Trouble,
    /// Seed for the controller's progress and for the choice of faulty commands.
    pub seed: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A device to create.
#[derive(Clone, Debug)]
pub struct Device {
    /// Base-2 logarithm of the logical block size in bytes.
    pub block_shift: u32,
    /// MDTS.
    pub mdts: Option<u8>,
    /// Base-2 logarithm of the maximum transfer in bytes, an option of the driver.
    pub most_shift: u32,
    /// Optimal I/O boundary in blocks; 0 for none.
    pub boundary: u16,
    /// The device has a volatile write cache.
    pub cached: bool,
    /// Maximum number of blocks in an atomic write.
    pub atomic: u32,
    /// Commands complete in another order than they were submitted.
    pub jitter: bool,
    /// The device supports SGLs.
    pub sgl: bool,
}

/// A file to create.
#[derive(Clone, Debug)]
pub struct File {
    /// Base-2 logarithm of the device's blocks in a block of the filesystem.
    pub over: u32,
    /// The extents of the file.
    pub extents: Vec<Extent>,
    /// Part of the last two blocks that is after the end of the file, in units of 1/65,536.
    pub cut: u16,
    /// The file has inline data instead of extents.
    pub inline: bool,
    /// Seed for the places of the extents on the device.
    pub scatter: u64,
}

/// A range of blocks of one kind.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Kind of the blocks.
    pub kind: Kind,
    /// Length in blocks of the filesystem.
    pub blocks: u8,
    /// Gap before the extent on the device, in blocks of the filesystem.
    pub gap: u8,
    /// Flags of the mapping.
    pub flags: MappingFlags,
}

/// Rates of the faults of commands, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Trouble {
    pub status: u32,
    pub late: u32,
    pub lost: u32,
    pub duplicate: u32,
    pub stale_id: u32,
    pub fatal: u32,
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    /// Submit a request.
    Ask(Ask),
    /// Ring the doorbell.
    Ring,
    /// Poll this number of results at most.
    Poll(usize),
    /// Wait for a result.
    Wait,
    /// Advance the clock by this number of microseconds, while the controller processes this number
    /// of commands.
    Pass(u16, usize),
    /// Enable or disable the simple path.
    Simple(bool),
    /// Reset the controller.
    Reset,
    /// Cut the power.
    PowerCut,
    /// Limit allocations of DMA memory to this number of bytes from now on.
    Shortage(usize),
    /// Make the filesystem's end hook fail from now on, or no longer.
    EndHook(bool),
    /// Make the file have dirty cached data.
    Dirty,
}

/// The call that submits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By `submit_read_with` or `submit_write_with`.
    Submit,
    /// By `submit_read`, which has no flags; for writes this is [`Way::Submit`].
    Short,
    /// By `read_with` or `write_with`.
    Execute,
    /// By `read_dma` or `write_dma`.
    OneBuffer,
    /// By `read_into` or `write_from`.
    Cursor {
        /// Offset from which the memory is inaccessible, in units of 1/65,536 of the request.
        fault: Option<u16>,
        /// The memory is accessible if page faults are allowed.
        soft: bool,
        /// Bytes before the cursor.
        before: u16,
    },
    /// By `read_at` or `write_at`.
    Slice,
}

/// The unit of positions and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A block of the device.
    Block,
    /// A block of the filesystem.
    FsBlock,
    /// A byte.
    Byte,
}

/// The memory of a request.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One DMA buffer at this offset in its first page.
    Dma(u16),
    /// Several DMA buffers, with the lengths in blocks of all but the last, and the offset of the
    /// first in its page.
    Vectored(Vec<u8>, u16),
    /// Several DMA buffers, one of which is not a multiple of the block size.
    Odd,
    /// Ordinary memory.
    Bytes,
}

/// The behaviour of the filesystem during one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// No fault.
    None,
    /// The n-th call of the mapper's `begin` fails; if the flag is set, with the filesystem's
    /// EAGAIN.
    Begin(u8, bool),
    /// The n-th call of the mapper's `end` fails.
    End(u8),
    /// The n-th mapping is invalid, in one of four ways.
    Bad(u8, u8),
    /// The submit hook of the n-th command fails.
    Submit(u8),
    /// Cached data cannot be invalidated.
    Pinned,
    /// Cached data cannot be written back.
    WriteBack,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The request is a write.
    pub write: bool,
    /// The call that submits the request.
    pub way: Way,
    /// Unit of position and length.
    pub unit: Unit,
    /// Position, in units of 1/65,536 of a range that is slightly longer than the file.
    pub at: u16,
    /// Length in units.
    pub units: u8,
    /// Memory of the request.
    pub shape: Shape,
    /// Flags of the request.
    pub flags: IoFlags,
    /// Bytes that were transferred before.
    pub done_before: u16,
    /// Behaviour of the filesystem.
    pub mischief: Mischief,
    /// Maximum number of blocks in a mapping after the position; 0 for no limit.
    pub trim: u8,
    /// Mappings begin at the position and not before.
    pub late: bool,
}

/// Returns the strategy that draws sequences.
pub fn sequences() -> impl Strategy<Value = Sequence> {
    let depth = prop_oneof![1 => Just(1), 1 => Just(2), 2 => 1..=32u16, 1 => Just(32)];
    let parts = (device(), file(), depth, trouble(), any::<u64>().no_shrink());
    (parts, vec(step(), 1..=40)).prop_map(|((device, file, depth, rates, seed), steps)| Sequence {
        device,
        file,
        depth,
        rates,
        seed,
        steps,
    })
}

fn device() -> impl Strategy<Value = Device> {
    let block_shift = prop_oneof![2 => Just(9), 1 => Just(12)];
    let boundary = prop_oneof![3 => Just(0), 1 => prop::sample::select(vec![3, 8, 16, 24])];
    let most_shift = prop_oneof![1 => Just(12), 1 => 12..=17u32];
    let atomic = prop_oneof![1 => Just(1), 1 => 1..=16u32];
    (
        (block_shift, prop::option::of(1..=5u8), most_shift, boundary),
        (any::<bool>(), atomic, any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((block_shift, mdts, most_shift, boundary), (cached, atomic, jitter, sgl))| Device {
                block_shift,
                mdts,
                most_shift,
                boundary,
                cached,
                atomic,
                jitter,
                sgl,
            },
        )
}

fn file() -> impl Strategy<Value = File> {
    let cut = prop_oneof![1 => Just(0), 2 => any::<u16>()];
    let inline = prop::bool::weighted(0.05);
    (0..=5u32, vec(extent(), 1..=8), cut, inline, any::<u64>().no_shrink()).prop_map(
        |(over, extents, cut, inline, scatter)| File { over, extents, cut, inline, scatter },
    )
}

fn extent() -> impl Strategy<Value = Extent> {
    let kind = prop_oneof![
        30 => Just(Kind::Mapped),
        12 => Just(Kind::Unwritten),
        3 => Just(Kind::Hole),
        1 => Just(Kind::Delalloc),
    ];
    let flag = prop::sample::select(vec![
        MappingFlags::NEW,
        MappingFlags::DIRTY,
        MappingFlags::SHARED,
        MappingFlags::MERGED,
        MappingFlags::BOUNDARY,
        MappingFlags::INTEGRITY,
        MappingFlags::ANON_WRITE,
    ]);
    let flags = prop_oneof![3 => Just(MappingFlags::empty()), 1 => flag];
    (kind, 1..=4u8, 0..=2u8, flags).prop_map(|(kind, blocks, gap, flags)| Extent {
        kind,
        blocks,
        gap,
        flags,
    })
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let rate = |most: u32| prop_oneof![1 => Just(0), 1 => 0..=most];
    let some =
        ((rate(150_000), rate(100_000), rate(20_000)), (rate(100_000), rate(100_000), rate(4_000)));
    let some = some.prop_map(|((status, late, lost), (duplicate, stale_id, fatal))| Trouble {
        status,
        late,
        lost,
        duplicate,
        stale_id,
        fatal,
    });
    prop_oneof![1 => Just(Trouble::default()), 1 => some]
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop::sample::select(vec![1, 2, 8, usize::MAX]);
    let budget = prop::sample::select(vec![1, 4, usize::MAX]);
    let least = prop::sample::select(vec![usize::MAX, 0, 4096, 8192, 16384, usize::MAX]);
    prop_oneof![
        60 => ask().prop_map(Step::Ask),
        8 => Just(Step::Ring),
        10 => limit.prop_map(Step::Poll),
        4 => Just(Step::Wait),
        12 => (0..200u16, budget).prop_map(|(time, budget)| Step::Pass(time, budget)),
        2 => any::<bool>().prop_map(Step::Simple),
        1 => Just(Step::Reset),
        1 => Just(Step::PowerCut),
        2 => least.prop_map(Step::Shortage),
        1 => any::<bool>().prop_map(Step::EndHook),
        1 => Just(Step::Dirty),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let unit = prop_oneof![6 => Just(Unit::Block), 3 => Just(Unit::FsBlock), 3 => Just(Unit::Byte)];
    let units = prop_oneof![1 => Just(0), 12 => Just(1), 12 => 1..=8u8, 4 => 1..=64u8];
    let done_before = prop_oneof![9 => Just(0), 1 => 1..=5000u16];
    let place = (unit, any::<u16>(), units);
    let served = (shape(), flags(), done_before, mischief(), 0..=4u8, any::<bool>());
    // Requests that are rejected at once test little, so most are made valid.
    let strict = prop::bool::weighted(0.95);
    (any::<bool>(), way(), place, served, strict).prop_map(
        |(write, way, (unit, at, units), served, strict)| {
            let (shape, mut flags, done_before, mischief, trim, late) = served;
            let borrowed = matches!(way, Way::Cursor { .. } | Way::Slice);
            let copied = borrowed || matches!(shape, Shape::Bytes);
            let mut unit = unit;
            if strict {
                if !write {
                    flags.remove(IoFlags::DSYNC | IoFlags::ATOMIC);
                }
                if copied || flags.contains(IoFlags::BOUNCE) {
                    flags.remove(IoFlags::NOWAIT);
                }
                if flags.contains(IoFlags::FSBLOCK_ALIGNED) {
                    unit = Unit::FsBlock;
                } else if unit == Unit::Byte && (write || !copied) {
                    unit = Unit::Block;
                }
            }
            Ask { write, way, unit, at, units, shape, flags, done_before, mischief, trim, late }
        },
    )
}

fn way() -> impl Strategy<Value = Way> {
    let fault = prop::option::of(any::<u16>());
    let cursor = (fault, any::<bool>(), prop_oneof![1 => Just(0), 1 => 0..=300u16])
        .prop_map(|(fault, soft, before)| Way::Cursor { fault, soft, before });
    prop_oneof![
        12 => Just(Way::Submit),
        6 => Just(Way::Short),
        3 => Just(Way::Execute),
        1 => Just(Way::OneBuffer),
        3 => cursor,
        1 => Just(Way::Slice),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let pad = prop_oneof![8 => Just(0), 3 => (1..8u16).prop_map(|n| 512 * n),
        2 => (1..1024u16).prop_map(|n| 4 * n), 1 => (0..1024u16).prop_map(|n| 4 * n + 2)];
    let other = prop_oneof![4 => Just(0), 1 => (1..8u16).prop_map(|n| 512 * n)];
    prop_oneof![
        10 => pad.prop_map(Shape::Dma),
        5 => (vec(0..=4u8, 0..=5), other).prop_map(|(cuts, pad)| Shape::Vectored(cuts, pad)),
        5 => Just(Shape::Bytes),
        1 => Just(Shape::Odd),
    ]
}

fn flags() -> impl Strategy<Value = IoFlags> {
    let flag = |percent: f64, flag: IoFlags| {
        prop::bool::weighted(percent / 100.0)
            .prop_map(move |on| if on { flag } else { IoFlags::empty() })
    };
    let all = (
        (flag(10.0, IoFlags::NOWAIT), flag(30.0, IoFlags::DSYNC), flag(8.0, IoFlags::ATOMIC)),
        (flag(15.0, IoFlags::BOUNCE), flag(25.0, IoFlags::PARTIAL), flag(8.0, IoFlags::FORCE_WAIT)),
        (flag(8.0, IoFlags::FSBLOCK_ALIGNED), flag(15.0, IoFlags::NOFAULT)),
        (flag(40.0, IoFlags::HOOKS), flag(10.0, IoFlags::GENERIC), flag(5.0, IoFlags::DONTCACHE)),
    );
    let all = all.prop_map(|((a, b, c), (d, e, f), (g, h), (i, j, k))| {
        a | b | c | d | e | f | g | h | i | j | k
    });
    prop_oneof![1 => Just(IoFlags::empty()), 2 => all]
}

fn mischief() -> impl Strategy<Value = Mischief> {
    let nth = 0..3u8;
    let some = prop_oneof![
        3 => (nth.clone(), any::<bool>()).prop_map(|(n, again)| Mischief::Begin(n, again)),
        2 => nth.clone().prop_map(Mischief::End),
        2 => (nth.clone(), 0..4u8).prop_map(|(n, how)| Mischief::Bad(n, how)),
        1 => nth.prop_map(Mischief::Submit),
        1 => Just(Mischief::Pinned),
        1 => Just(Mischief::WriteBack),
    ];
    prop_oneof![10 => Just(Mischief::None), 1 => some]
}
