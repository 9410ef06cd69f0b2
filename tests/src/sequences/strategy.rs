//! What a sequence is, and how one is drawn. It shrinks to fewer and plainer steps on a plainer
//! file and device.

use nvio_iomap::{IoFlags, MappingFlags};
use proptest::collection::vec;
use proptest::prelude::*;

use super::layout::Kind;

/// Everything that a run does.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The device.
    pub device: Device,
    /// The file.
    pub file: File,
    /// Commands that the queue has room for.
    pub depth: u16,
    /// How often commands go wrong.
    pub rates: Trouble,
    /// Decides when the controller works, and which commands go wrong.
    pub seed: u64,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// A device to be.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its logical block, as a power of two.
    pub block_shift: u32,
    /// MDTS.
    pub mdts: Option<u8>,
    /// Most bytes of a command as the driver is told, as a power of two.
    pub most_shift: u32,
    /// Optimal I/O boundary in blocks, 0 for none.
    pub boundary: u16,
    /// Whether it has a volatile write cache.
    pub cached: bool,
    /// Blocks that are written all or not at all.
    pub atomic: u32,
    /// Whether commands end in another order than they are taken in.
    pub jitter: bool,
    /// Whether it takes SGLs.
    pub sgl: bool,
}

/// A file to be.
#[derive(Clone, Debug)]
pub struct File {
    /// The filesystem's block, in powers of two of the device's.
    pub over: u32,
    /// What it is made of.
    pub extents: Vec<Extent>,
    /// What of the last two blocks is behind the end of the file, in parts of 65,536.
    pub cut: u16,
    /// Whether it is inline data instead.
    pub inline: bool,
    /// Where on the device the extents are.
    pub scatter: u64,
}

/// Blocks of a file of one kind.
#[derive(Clone, Debug)]
pub struct Extent {
    /// What is there.
    pub kind: Kind,
    /// Blocks of the filesystem.
    pub blocks: u8,
    /// Blocks of the filesystem that are left out on the device in front of it.
    pub gap: u8,
    /// What else the filesystem says of it.
    pub flags: MappingFlags,
}

/// How often what goes wrong with a command, in parts per million.
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

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request.
    Ask(Ask),
    /// The doorbell.
    Ring,
    /// Results are taken, so many at most.
    Poll(usize),
    /// A result is waited for.
    Wait,
    /// Time passes, in microseconds, and the controller works on so many commands.
    Pass(u16, usize),
    /// The simple path is switched on or off.
    Simple(bool),
    /// The controller is reset.
    Reset,
    /// The power is cut.
    PowerCut,
    /// From now on there is no DMA memory in pieces of more bytes.
    Shortage(usize),
    /// From now on the filesystem's hook of the end fails.
    EndHook(bool),
    /// The file has dirty cached data.
    Dirty,
}

/// How a request is given to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `submit_read_with` and `submit_write_with`.
    Submit,
    /// `read`, without flags; of a write the same as [`Way::Submit`].
    Short,
    /// `read_with` and `write_with`.
    Execute,
    /// `read_dma` and `write_dma`.
    OneBuffer,
    /// `read_into` and `write_from`.
    Cursor {
        /// Where the memory ends to be accessible, in parts of 65,536 of the request.
        fault: Option<u16>,
        /// Whether it is accessible where faulting in is allowed.
        soft: bool,
        /// Bytes in front of the cursor.
        before: u16,
    },
    /// `read_at` and `write_at`.
    Slice,
}

/// What positions and lengths are multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The device's block.
    Block,
    /// The filesystem's.
    FsBlock,
    /// Nothing.
    Byte,
}

/// What memory a request has.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One DMA buffer, so many bytes after the start of a page.
    Dma(u16),
    /// Several, of which each but the last has so many blocks; with bytes in front of the first.
    Vectored(Vec<u8>, u16),
    /// Several, one of which is not whole blocks.
    Odd,
    /// Ordinary memory.
    Bytes,
}

/// How the filesystem behaves towards one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Well.
    None,
    /// The n-th mapping cannot be had: for now, or at all.
    Begin(u8, bool),
    /// The end of the n-th mapping fails.
    End(u8),
    /// The n-th mapping is none that was asked for, in one of four ways.
    Bad(u8, u8),
    /// The hook of the n-th command fails.
    Submit(u8),
    /// Cached data cannot be dropped.
    Pinned,
    /// Cached data cannot be written back.
    WriteBack,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whether it is a write.
    pub write: bool,
    /// How it is given to the queue.
    pub way: Way,
    /// What position and length are multiples of.
    pub unit: Unit,
    /// Where it begins, in parts of 65,536 of the file and a little more.
    pub at: u16,
    /// Units.
    pub units: u8,
    /// Its memory.
    pub shape: Shape,
    /// How it is to be served.
    pub flags: IoFlags,
    /// Bytes that were moved before.
    pub done_before: u16,
    /// How the filesystem behaves.
    pub mischief: Mischief,
    /// Blocks that a mapping has at most after the position; 0 for all there are.
    pub trim: u8,
    /// Whether mappings begin where the position is, rather than before.
    pub late: bool,
}

/// Sequences.
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
    // What is refused at once teaches little: that is seldom.
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
