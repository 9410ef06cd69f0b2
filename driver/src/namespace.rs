//! Namespaces: the block devices of a controller.

use std::ops::Deref;
use std::sync::Arc;

use nvio_spec::opcode::nvm;
use nvio_spec::{
    ExtendedFormat, GuardFormat, IdentifyController, IdentifyNamespace, IdentifyNvmNamespace,
    Status,
};

use crate::{Error, Result};

/// Most blocks of one command. NLB could say one more, 0's based; then a check of a length could
/// not be one comparison.
const BLOCKS_MAX: u32 = 0xffff;

/// An active namespace, as it was when it was identified. Cheap to clone. No command that changes
/// it can be given with this type: see [`WritableNamespace`].
#[derive(Clone)]
pub struct Namespace {
    blocks: u64,
    /// The first two dwords of a Read.
    read_head: u64,
    block_shift: u32,
    /// Most blocks of a command that transfers blocks without metadata, on the shortest path; 0
    /// when there is no such command, and when the namespace is smaller.
    plain_blocks: u64,
    /// The LBA up to which `plain_blocks` are inside the namespace.
    plain_end: u64,
    /// Most blocks of any command that transfers data.
    max_blocks: u32,
    nsid: u32,
    guard: GuardFormat,
    storage_tag_bits: u8,
    identify: Arc<IdentifyNamespace>,
}

/// Reads of one length into buffers that begin on a page: all of the command but where. What can
/// be checked before is; see [`QueuePair::read_page`](crate::QueuePair::read_page).
#[derive(Clone, Debug)]
pub struct PageRead {
    pub(crate) bytes: u64,
    /// The first two dwords.
    pub(crate) head: u64,
    /// Blocks, 0's based.
    pub(crate) nlb: u64,
    /// The last LBA from which so many blocks are inside.
    pub(crate) last: u64,
    /// A handle of the namespace, as others are.
    _identify: Arc<IdentifyNamespace>,
}

impl PageRead {
    /// Whether there are such reads.
    pub fn serves(&self) -> bool {
        self.bytes != u64::MAX
    }
}

/// A namespace that can be written to; see
/// [`WritableController::writable_namespace`](crate::WritableController::writable_namespace).
#[derive(Clone, Debug)]
pub struct WritableNamespace(Namespace);

impl WritableNamespace {
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self(namespace)
    }

    /// See [`Namespace::limited_to`].
    #[must_use]
    pub fn limited_to(&self, blocks: u64) -> Self {
        Self(self.0.limited_to(blocks))
    }

    /// The first two dwords of a Write.
    #[inline]
    pub(crate) fn write_head(&self) -> u64 {
        self.0.read_head ^ u64::from(nvm::READ ^ nvm::WRITE)
    }
}

impl Deref for WritableNamespace {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0
    }
}

impl Namespace {
    /// Checks what the controller said of a namespace. `max_transfer` is the controller's limit.
    pub(crate) fn new(nsid: u32, identify: IdentifyNamespace, max_transfer: usize) -> Result<Self> {
        let blocks = identify.nsze.get();
        if blocks == 0 {
            return Err(Error::NoNamespace { nsid });
        }
        let invalid =
            |field, value| Error::Invalid { structure: "Identify Namespace", field, value };
        if identify.format_index() > usize::from(identify.nlbaf.min(63)) {
            return Err(invalid("FLBAS", u64::from(identify.flbas)));
        }
        let format = identify.format();
        let block_shift = u32::from(format.lbads);
        // NVM 4.1.5.1: LBADS below 9 is not allowed. 64 KiB is the most that drives are made with.
        if !(9..=16).contains(&block_shift) {
            return Err(invalid("LBADS", u64::from(format.lbads)));
        }
        if blocks > u64::MAX >> block_shift {
            return Err(invalid("NSZE", blocks));
        }
        let (metadata, protection) = (format.ms.get(), identify.protection_type());
        if protection > 3 || (protection != 0 && metadata < 8) {
            return Err(invalid("DPS", u64::from(identify.dps)));
        }
        // MDTS counts metadata that is transferred with the data (Base figure 275).
        let beside = if identify.extended_metadata() { usize::from(metadata) } else { 0 };
        let each = (1 << block_shift) + beside;
        let max_blocks = (max_transfer / each).min(BLOCKS_MAX as usize);
        if max_blocks == 0 {
            return Err(invalid(
                "LBADS, with blocks above the largest transfer,",
                block_shift.into(),
            ));
        }
        let max_blocks = u32::try_from(max_blocks).unwrap_or(BLOCKS_MAX);
        let most = u64::from(max_blocks);
        let plain_blocks = if metadata == 0 && most <= blocks { most } else { 0 };
        let plain_end = blocks - plain_blocks;
        let read_head = u64::from(nsid) << 32 | u64::from(nvm::READ);
        let identify = Arc::new(identify);
        Ok(Self {
            blocks,
            read_head,
            block_shift,
            plain_blocks,
            plain_end,
            max_blocks,
            nsid,
            guard: GuardFormat::Bits16,
            storage_tag_bits: 0,
            identify,
        })
    }

    /// The same namespace, with what the controller said of its protection information.
    pub(crate) fn extended(mut self, more: &IdentifyNvmNamespace) -> Result<Self> {
        let format = more.elbaf.get(self.identify.format_index()).copied();
        let format: ExtendedFormat = format.unwrap_or_default();
        let invalid = |field, value| {
            let structure = "Identify Namespace of the NVM command set";
            Error::Invalid { structure, field, value }
        };
        self.guard = format.guard().ok_or_else(|| invalid("PIF", format.pif().into()))?;
        if self.protection_type() != 0 && !self.has_room(self.guard) {
            let bits = self.guard.bits();
            return Err(invalid("PIF, with metadata that is too short,", bits.into()));
        }
        self.storage_tag_bits = format.storage_tag_bits();
        Ok(self)
    }

    /// Whether the metadata is long enough for protection information with such a guard.
    fn has_room(&self, guard: GuardFormat) -> bool {
        self.metadata_size() as usize >= guard.information_size()
    }

    /// Namespace ID.
    #[inline]
    pub fn id(&self) -> u32 {
        self.nsid
    }

    /// Logical blocks.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The same namespace, of which only the first `blocks` can be accessed: those of a partition
    /// and what is before it.
    #[must_use]
    pub fn limited_to(&self, blocks: u64) -> Self {
        let blocks = blocks.min(self.blocks);
        let most = u64::from(self.max_blocks);
        let has_plain = self.metadata_size() == 0 && most <= blocks;
        let plain_blocks = if has_plain { most } else { 0 };
        Self { blocks, plain_blocks, plain_end: blocks - plain_blocks, ..self.clone() }
    }

    /// Reads of `bytes` each, a multiple of the block size and at most a page. If that is not so,
    /// or if blocks have metadata, what is given serves no read.
    pub fn page_read(&self, bytes: u32) -> PageRead {
        let nlb = u64::from(bytes >> self.block_shift).wrapping_sub(1);
        let last = self.blocks.checked_sub(nlb.wrapping_add(1));
        let whole = bytes != 0 && bytes.is_multiple_of(self.block_size());
        let page = bytes as usize <= crate::PAGE_SIZE.min(self.max_transfer());
        let (bytes, last) = match last {
            Some(last) if whole && page && self.metadata_size() == 0 => (u64::from(bytes), last),
            // No buffer is as long.
            _ => (u64::MAX, 0),
        };
        PageRead { bytes, head: self.read_head, nlb, last, _identify: Arc::clone(&self.identify) }
    }

    /// Bytes of data in a logical block, 512 to 65,536.
    #[inline]
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Bytes in a logical block, as a power of two, 9 to 16.
    #[inline]
    pub fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Most bytes of data of one command: what the controller (MDTS) and
    /// [`Options::max_transfer`](crate::Options::max_transfer) allow, a multiple of the block size.
    #[inline]
    pub fn max_transfer(&self) -> usize {
        (self.max_blocks as usize) << self.block_shift
    }

    /// Blocks from `lba` to the next boundary that a command had better not cross (NOIOB, NVM
    /// 4.1.5.1); `None` without one.
    #[inline]
    pub fn blocks_to_boundary(&self, lba: u64) -> Option<u64> {
        let boundary = u64::from(self.identify.noiob.get());
        // A power of two as a rule, but it need not be; and this is not asked for each block.
        (boundary != 0).then(|| boundary - lba % boundary)
    }

    /// How many of the `left` blocks from `lba` on the next command should transfer: no more than
    /// it can carry, and none beyond the optimal boundary. 0 only when none are left.
    #[inline]
    pub fn blocks_of_command(&self, lba: u64, left: u64) -> u64 {
        let most = left.min(u64::from(self.max_blocks));
        self.blocks_to_boundary(lba).map_or(most, |boundary| most.min(boundary))
    }

    /// Bytes of metadata for each block, 0 for none.
    pub fn metadata_size(&self) -> u32 {
        u32::from(self.identify.format().ms.get())
    }

    /// Whether metadata follows each block in the data buffer, rather than being in a buffer of
    /// its own.
    pub fn extended_metadata(&self) -> bool {
        self.metadata_size() != 0 && self.identify.extended_metadata()
    }

    /// Type of end-to-end protection, 1 to 3; 0 for none (NVM 5.2).
    pub fn protection_type(&self) -> u8 {
        self.identify.protection_type()
    }

    /// Whether the 8 bytes of protection information are the first of the metadata, rather than
    /// the last.
    pub fn protection_first(&self) -> bool {
        self.identify.dps & 1 << 3 != 0
    }

    /// How many blocks from `lba` on one write stores all or not at all, also when the power fails
    /// (NVM 2.1.4); `controller` is the namespace's. At least 1.
    pub fn atomic_blocks_at(&self, controller: &IdentifyController, lba: u64) -> u64 {
        let of_all = u64::from(controller.awupf.get()) + 1;
        // NSFEAT bit 1: the fields of the namespace are in use.
        if self.identify.nsfeat & 1 << 1 == 0 {
            return of_all;
        }
        let own = u64::from(self.identify.nawupf.get()) + 1;
        let boundary = u64::from(self.identify.nabspf.get());
        if boundary == 0 {
            return own.max(of_all);
        }
        let (boundary, offset) = (boundary + 1, u64::from(self.identify.nabo.get()));
        let left = match lba.checked_sub(offset) {
            Some(behind) => boundary - behind % boundary,
            None => offset - lba,
        };
        own.min(left).max(of_all)
    }

    /// How wide the guards of protection information are (NVM 5.2.1).
    pub fn guard(&self) -> GuardFormat {
        self.guard
    }

    /// How many of the reference tag's high bits are a storage tag, which is checked as the
    /// controller is told elsewhere; 0 as a rule (NVM 5.2.1.4).
    pub fn storage_tag_bits(&self) -> u8 {
        self.storage_tag_bits
    }

    /// Whether the metadata is protection information and nothing else, so that a command with
    /// [`Protection::action`](crate::Protection::action) transfers none.
    pub(crate) fn is_only_protection(&self) -> bool {
        self.protection_type() != 0
            && self.metadata_size() as usize == self.guard.information_size()
    }

    /// All that the controller said (NVM 4.1.5.1).
    pub fn identify(&self) -> &IdentifyNamespace {
        &self.identify
    }

    /// What clones of this handle have in common.
    pub(crate) fn shared(&self) -> &Arc<IdentifyNamespace> {
        &self.identify
    }

    /// The first two dwords of a Read.
    #[inline]
    pub(crate) fn read_head(&self) -> u64 {
        self.read_head
    }

    /// How many blocks, less one, `bytes` at `lba` are, if one command can carry them without
    /// metadata, and if they are not near the end of the namespace: then [`check`](Self::check)
    /// knows.
    #[inline]
    pub(crate) fn plain(&self, lba: u64, bytes: u32) -> Option<u64> {
        // What is not a multiple of the block size has low bits that become high ones, and 0 less
        // one is the largest number: one comparison for three conditions.
        let nlb = u64::from(bytes.rotate_right(self.block_shift).wrapping_sub(1));
        (nlb < self.plain_blocks && lba <= self.plain_end).then_some(nlb)
    }

    /// Whether `blocks` at `lba` exist, and one command can carry them.
    pub(crate) fn check_blocks(&self, lba: u64, blocks: u32) -> Result<()> {
        if blocks == 0 || blocks > self.max_blocks {
            let bytes = (blocks as usize) << self.block_shift;
            return Err(Error::TransferSize { bytes, max: self.max_transfer() });
        }
        self.check_range(lba, blocks)
    }

    /// Whether `blocks` at `lba` exist.
    pub(crate) fn check_range(&self, lba: u64, blocks: u32) -> Result<()> {
        self.check_block_range(lba, u64::from(blocks))
    }

    /// Whether so many blocks at `lba` exist, however many commands they are.
    pub(crate) fn check_block_range(&self, lba: u64, blocks: u64) -> Result<()> {
        match self.blocks.checked_sub(lba) {
            Some(left) if blocks <= left => Ok(()),
            _ => Err(self.out_of_range(lba, blocks)),
        }
    }

    /// How many blocks `bytes` at `lba` are, however many commands they are.
    pub(crate) fn check_bytes(&self, lba: u64, bytes: u64) -> Result<u64> {
        let align = u64::from(self.block_size());
        if !bytes.is_multiple_of(align) {
            return Err(Error::Misaligned { value: bytes, align });
        }
        let blocks = bytes >> self.block_shift;
        self.check_block_range(lba, blocks).map(|()| blocks)
    }

    /// Whether `bytes` at byte `offset` exist.
    pub(crate) fn check_byte_range(&self, offset: u64, bytes: u64) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes() => Ok(()),
            _ => {
                let blocks = bytes.div_ceil(u64::from(self.block_size()));
                Err(self.out_of_range(offset >> self.block_shift, blocks))
            }
        }
    }

    /// Splits `blocks` at `lba` into the ranges of Write Zeroes commands, which transfer no data.
    pub(crate) fn zero_ranges(
        &self,
        lba: u64,
        blocks: u64,
    ) -> Result<impl Iterator<Item = (u64, u32)> + use<>> {
        self.check_block_range(lba, blocks)?;
        let (mut at, end) = (lba, lba + blocks);
        Ok(std::iter::from_fn(move || {
            let count = u32::try_from(end - at).unwrap_or(u32::MAX).min(BLOCKS_MAX);
            let lba = at;
            at += u64::from(count);
            (count > 0).then_some((lba, count))
        }))
    }

    /// The error of a Write Zeroes command that failed.
    pub(crate) fn write_zeroes_error(&self, lba: u64, blocks: u32, status: Status) -> Error {
        let (command, nsid) = ("Write Zeroes", self.nsid);
        Error::Io { command, nsid, lba, blocks: blocks.into(), status }
    }

    fn out_of_range(&self, lba: u64, blocks: u64) -> Error {
        Error::OutOfRange { lba, blocks, size: self.blocks, nsid: self.nsid }
    }

    /// How many blocks `bytes` at `lba` are, if one command can carry them.
    pub(crate) fn check(&self, lba: u64, bytes: usize) -> Result<u32> {
        let block = u64::from(self.block_size());
        if !(bytes as u64).is_multiple_of(block) {
            return Err(Error::Misaligned { value: bytes as u64, align: block });
        }
        let too_large = Error::TransferSize { bytes, max: self.max_transfer() };
        let blocks = u32::try_from(bytes >> self.block_shift).map_err(|_| too_large)?;
        self.check_blocks(lba, blocks).map(|()| blocks)
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Namespace {} ({} blocks of {})", self.nsid, self.blocks, self.block_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_spec::LbaFormat;
    use zerocopy::FromZeros;
    use zerocopy::little_endian::{U16, U64};

    fn identify(blocks: u64, lbads: u8, ms: u16) -> IdentifyNamespace {
        let mut identify = IdentifyNamespace::new_zeroed();
        identify.nsze = U64::new(blocks);
        identify.lbaf[0] = LbaFormat { ms: U16::new(ms), lbads, rp: 0 };
        identify
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let refused = |identify| Namespace::new(1, identify, 1 << 20).unwrap_err().to_string();
        assert!(refused(identify(0, 9, 0)).contains("not active"));
        assert!(refused(identify(1, 8, 0)).contains("LBADS"));
        assert!(refused(identify(1, 200, 0)).contains("LBADS"));
        assert!(refused(identify(u64::MAX, 12, 0)).contains("NSZE"));
        let mut protected = identify(1, 12, 4);
        protected.dps = 1;
        assert!(refused(protected).contains("DPS"));
        let mut index = identify(1, 9, 0);
        index.flbas = 3;
        assert!(refused(index).contains("FLBAS"));
    }

    #[test]
    fn guards_are_as_wide_as_the_command_set_says() {
        let with = |metadata, elbaf: u32| {
            let mut protected = identify(100, 12, metadata);
            protected.dps = 1;
            let mut more = IdentifyNvmNamespace::new_zeroed();
            more.elbaf[0].0.set(elbaf);
            Namespace::new(1, protected, 1 << 20).unwrap().extended(&more)
        };
        let usual = with(8, 0).unwrap();
        assert_eq!((usual.guard(), usual.storage_tag_bits()), (GuardFormat::Bits16, 0));
        assert!(usual.is_only_protection() && !with(16, 0).unwrap().is_only_protection());
        let wide = with(16, 2 << 7 | 5).unwrap();
        assert_eq!((wide.guard(), wide.storage_tag_bits()), (GuardFormat::Bits64, 5));
        assert!(wide.is_only_protection() && !with(20, 1 << 7).unwrap().is_only_protection());
        let refused = |metadata, elbaf| with(metadata, elbaf).unwrap_err().to_string();
        assert!(refused(16, 3 << 7).contains("PIF is 3"));
        assert!(refused(12, 2 << 7).contains("too short"));
        let bare = Namespace::new(1, identify(100, 12, 0), 1 << 20).unwrap();
        assert!(!bare.is_only_protection());
    }

    #[test]
    fn only_what_one_command_can_carry_passes() {
        let namespace = Namespace::new(1, identify(100, 12, 0), 64 << 10).unwrap();
        assert_eq!((namespace.bytes(), namespace.max_transfer()), (409_600, 65_536));
        assert_eq!((namespace.plain(84, 4096), namespace.check(99, 4096).unwrap()), (Some(0), 1));
        assert_eq!(namespace.plain(84, 65_536), Some(15));
        let refused = |lba, bytes: u32| {
            assert_eq!(namespace.plain(lba, bytes), None);
            namespace.check(lba, bytes as usize).unwrap_err()
        };
        assert!(matches!(refused(0, 0), Error::TransferSize { .. }));
        assert!(matches!(refused(0, 69_632), Error::TransferSize { .. }));
        assert!(matches!(refused(0, 512), Error::Misaligned { .. }));
        assert!(matches!(refused(100, 4096), Error::OutOfRange { .. }));
        assert!(matches!(refused(85, 65_536), Error::OutOfRange { .. }));
        assert!(matches!(refused(u64::MAX, 4096), Error::OutOfRange { .. }));
    }

    #[test]
    fn metadata_in_the_data_counts_as_transferred() {
        let mut extended = identify(1 << 20, 9, 64);
        assert_eq!(Namespace::new(1, extended.clone(), 64 << 10).unwrap().max_transfer(), 64 << 10);
        extended.flbas = 1 << 4;
        let namespace = Namespace::new(1, extended, 64 << 10).unwrap();
        // 113 blocks of 576 bytes are 65,088; one more would be too much.
        assert_eq!(namespace.max_transfer(), 113 << 9);
    }

    #[test]
    fn the_one_comparison_agrees_with_all_conditions() {
        for shift in 9..=16 {
            let namespace = Namespace::new(1, identify(1 << 20, shift, 0), usize::MAX).unwrap();
            let lengths = (0..1 << 18).chain((1 << 20..u32::MAX).step_by(0x7fe3));
            for bytes in lengths.chain([u32::MAX, 0xffff << shift.min(15)]) {
                let checked =
                    namespace.check(0, bytes as usize).ok().map(|blocks| u64::from(blocks) - 1);
                assert_eq!(namespace.plain(0, bytes), checked, "{bytes} bytes, shift {shift}");
            }
        }
    }

    #[test]
    fn reads_of_a_page_are_whole_blocks_without_metadata() {
        let namespace = Namespace::new(1, identify(100, 9, 0), 64 << 10).unwrap();
        let read = namespace.page_read(4096);
        assert!(read.serves() && (read.nlb, read.last) == (7, 92));
        assert_eq!(namespace.page_read(512).last, 99);
        for bytes in [0, 100, 8192] {
            assert!(!namespace.page_read(bytes).serves());
        }
        let small = Namespace::new(1, identify(7, 9, 0), 64 << 10).unwrap();
        assert!(!small.page_read(4096).serves());
        let large = Namespace::new(1, identify(100, 13, 0), 64 << 10).unwrap();
        assert!(!large.page_read(4096).serves() && !large.page_read(8192).serves());
        let metadata = Namespace::new(1, identify(100, 12, 8), 64 << 10).unwrap();
        assert!(!metadata.page_read(4096).serves());
    }

    #[test]
    fn a_limit_is_an_end() {
        let namespace = Namespace::new(1, identify(100, 12, 0), 64 << 10).unwrap();
        let limited = namespace.limited_to(50);
        assert_eq!((limited.blocks(), namespace.limited_to(500).blocks()), (50, 100));
        assert_eq!((limited.plain(34, 65_536), limited.plain(35, 4096)), (Some(15), None));
        assert!(limited.check(49, 4096).is_ok());
        assert!(matches!(limited.check(50, 4096), Err(Error::OutOfRange { .. })));
        assert_eq!(namespace.limited_to(8).plain(0, 4096), None, "less than a transfer");
    }

    #[test]
    fn atomic_writes_end_at_the_atomic_boundary() {
        let mut controller = IdentifyController::new_zeroed();
        controller.awupf = U16::new(1);
        let mut own = identify(100, 12, 0);
        own.nawupf = U16::new(15);
        let at = |own: &IdentifyNamespace, lbas: [u64; 4]| {
            let namespace = Namespace::new(1, own.clone(), 1 << 20).unwrap();
            lbas.map(|lba| namespace.atomic_blocks_at(&controller, lba))
        };
        assert_eq!(at(&own, [0, 1, 2, 50]), [2; 4], "the fields are not in use");
        own.nsfeat = 1 << 1;
        assert_eq!(at(&own, [0, 1, 2, 50]), [16; 4]);
        (own.nabspf, own.nabo) = (U16::new(19), U16::new(4));
        assert_eq!(at(&own, [0, 3, 4, 20]), [4, 2, 16, 4]);
    }

    #[test]
    fn commands_end_at_the_optimal_boundary() {
        let mut with_boundary = identify(100, 12, 0);
        assert_eq!(
            Namespace::new(1, with_boundary.clone(), 4096).unwrap().blocks_to_boundary(5),
            None
        );
        with_boundary.noiob = U16::new(24);
        let namespace = Namespace::new(1, with_boundary, 4096).unwrap();
        assert_eq!(
            [0, 5, 23, 24].map(|lba| namespace.blocks_to_boundary(lba)),
            [24, 19, 1, 24].map(Some)
        );
        // One block of 4096 is what a command carries.
        assert_eq!(namespace.blocks_of_command(5, 9), 1);
        let mut with_boundary = identify(100, 12, 0);
        with_boundary.noiob = U16::new(24);
        let namespace = Namespace::new(1, with_boundary, 10 << 12).unwrap();
        let mut commands = Vec::new();
        while let at @ ..100 = 5 + commands.iter().sum::<u64>() {
            commands.push(namespace.blocks_of_command(at, 55u64.saturating_sub(at)));
            if commands.last() == Some(&0) {
                break;
            }
        }
        assert_eq!(commands, [10, 9, 10, 10, 4, 7, 0]);
    }
}
