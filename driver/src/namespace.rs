//! Namespaces: the block devices of a controller.

use std::sync::Arc;

use nvio_spec::opcode::nvm;
use nvio_spec::{
    ExtendedFormat, GuardFormat, IdentifyController, IdentifyNamespace, IdentifyNvmNamespace,
    InformationFormat, Status,
};

use crate::dma::{DmaBuf, PAGE_SIZE, PageSpan};
use crate::error::{Error, Result};

/// Maximum number of blocks of one command. NLB could encode one block more, but then the check of
/// a length would need two comparisons.
const BLOCKS_MAX: u32 = 0xffff;

/// An active namespace in the state in which it was identified. Cheap to clone. Commands that
/// change the namespace need a [`WritableNamespace`].
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// # let controller = &served.controller;
/// let namespace = controller.namespace(1)?;
/// assert_eq!((namespace.id(), namespace.blocks(), namespace.block_size()), (1, 32768, 512));
/// assert_eq!((namespace.bytes(), namespace.block_shift()), (16 << 20, 9));
/// assert_eq!(namespace.max_transfer() % 512, 0);
/// println!("{} blocks in use", namespace.identify().nuse);
///
/// // No metadata and no protection information.
/// assert_eq!((namespace.metadata_size(), namespace.protection_type()), (0, 0));
/// assert!(!namespace.extended_metadata() && !namespace.protection_first());
/// println!("{:?}, storage tag of {} bits", namespace.guard(), namespace.storage_tag_bits());
/// assert_eq!(namespace.information().size(), 8);
///
/// // How a transfer of 10,000 blocks is cut, and how many blocks are written atomically.
/// assert_eq!(namespace.blocks_to_boundary(0), None);
/// let first = namespace.blocks_of_command(0, 10_000);
/// assert_eq!(first, 10_000.min(namespace.max_transfer() as u64 / 512));
/// println!("{} blocks", namespace.atomic_blocks_at(controller.identify(), 0));
///
/// // A handle that ends where a partition does, and reads of a page in the fewest instructions.
/// let partition = namespace.limited_to(1000);
/// assert_eq!(partition.blocks(), 1000);
/// let page = namespace.page_read(4096);
/// assert!(page.serves());
/// let mut queue = controller.queue_pair(8)?;
/// queue.read_page(&page, 0, controller.alloc(4096)?, ()).map_err(|_| "rejected")?;
/// queue.wait(|done| assert!(done.status.is_success()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, derive_more::Debug)]
#[debug("Namespace {nsid} ({blocks} blocks of {})", self.block_size())]
pub struct Namespace {
    blocks: u64,
    /// First two dwords of a Read.
    read_head: u64,
    block_shift: u32,
    /// Maximum number of blocks of a command on the shortest path, whose data lies in one memory
    /// page; 0 if blocks have metadata, or if the namespace is smaller than that.
    page_blocks: u64,
    /// Last LBA from which `page_blocks` are inside the namespace.
    page_end: u64,
    /// Rotation of [`DmaBuf::span_in_page`] that makes a number of blocks of it.
    span_rotation: u32,
    /// Maximum number of blocks of a command that transfers data.
    max_blocks: u32,
    nsid: u32,
    information: InformationFormat,
    identify: Arc<IdentifyNamespace>,
}

/// A prepared read of a fixed length into buffers that begin on a page: the command without its
/// LBA, with the checks that do not depend on it done. See
/// [`QueuePair::read_page`](crate::QueuePair::read_page).
///
/// See the [example](Namespace#examples).
#[derive(Clone, Debug)]
pub struct PageRead {
    pub(crate) span: PageSpan,
    /// First two dwords.
    pub(crate) head: u64,
    /// Number of blocks, 0's based.
    pub(crate) nlb: u64,
    /// Last LBA from which the blocks are inside the namespace.
    pub(crate) last: u64,
    /// Counts as a handle of the namespace.
    _identify: Arc<IdentifyNamespace>,
}

impl PageRead {
    /// Returns true if the namespace supports such reads.
    ///
    /// See the [example](Namespace#examples).
    pub fn serves(&self) -> bool {
        self.span != PageSpan::NONE
    }
}

/// A namespace for commands that change it; see
/// [`WritableController::writable_namespace`](crate::WritableController::writable_namespace).
///
/// See the [example](crate::WritableController#examples).
#[derive(Clone, Debug, derive_more::Deref)]
pub struct WritableNamespace(Namespace);

impl WritableNamespace {
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self(namespace)
    }

    /// Returns the namespace limited to its first `blocks`; see [`Namespace::limited_to`].
    ///
    /// See the [example](Namespace#examples).
    #[must_use]
    pub fn limited_to(&self, blocks: u64) -> Self {
        Self(self.0.limited_to(blocks))
    }

    /// Returns the first two dwords of a Write.
    #[inline]
    pub(crate) fn write_head(&self) -> u64 {
        self.0.read_head ^ u64::from(nvm::READ ^ nvm::WRITE)
    }
}

impl Namespace {
    /// Checks the Identify data of a namespace. `max_transfer` is the limit of the controller,
    /// bytes.
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
        // NVM 4.1.5.1: LBADS below 9 is not allowed. No drive has blocks above 64 KiB.
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
        // MDTS includes metadata that is interleaved with the data (Base figure 275).
        let beside = if identify.extended_metadata() { usize::from(metadata) } else { 0 };
        let each = (1 << block_shift) + beside;
        let max_blocks = (max_transfer / each).min(BLOCKS_MAX as usize);
        if max_blocks == 0 {
            let field = "LBADS, with blocks above the largest transfer,";
            return Err(invalid(field, block_shift.into()));
        }
        let whole = Self {
            blocks,
            read_head: u64::from(nsid) << 32 | u64::from(nvm::READ),
            block_shift,
            page_blocks: 0,
            page_end: blocks,
            span_rotation: DmaBuf::SPAN_SHIFT + block_shift,
            max_blocks: u32::try_from(max_blocks).unwrap_or(BLOCKS_MAX),
            nsid,
            information: InformationFormat::USUAL,
            identify: Arc::new(identify),
        };
        // Sets the blocks of a page.
        Ok(whole.limited_to(blocks))
    }

    /// Adds the Identify data of the namespace's protection information.
    pub(crate) fn extended(mut self, more: &IdentifyNvmNamespace) -> Result<Self> {
        let format = more.elbaf.get(self.identify.format_index()).copied();
        let format: ExtendedFormat = format.unwrap_or_default();
        let invalid = |field, value| {
            let structure = "Identify Namespace of the NVM command set";
            Error::Invalid { structure, field, value }
        };
        let guard = format.guard().ok_or_else(|| invalid("PIF", format.pif().into()))?;
        let has_room = self.metadata_size() as usize >= guard.information_size();
        if self.protection_type() != 0 && !has_room {
            return Err(invalid("PIF, with metadata that is too short,", guard.bits().into()));
        }
        let bits = format.storage_tag_bits();
        let information = InformationFormat::new(guard, bits);
        self.information = information.ok_or_else(|| invalid("STS", bits.into()))?;
        Ok(self)
    }

    /// Returns the namespace ID.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn id(&self) -> u32 {
        self.nsid
    }

    /// Returns the number of logical blocks.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns a handle that can access only the first `blocks`, for a partition: the blocks up to
    /// its end.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn limited_to(&self, blocks: u64) -> Self {
        let blocks = blocks.min(self.blocks);
        let most = u64::from(self.max_blocks).min(PAGE_SIZE as u64 >> self.block_shift);
        let has_pages = self.metadata_size() == 0 && most <= blocks;
        let page_blocks = if has_pages { most } else { 0 };
        Self { blocks, page_blocks, page_end: blocks - page_blocks, ..self.clone() }
    }

    /// Prepares reads of `bytes`, a multiple of the block size and at most a page. For other
    /// lengths, and for blocks with metadata, the result does not [serve](PageRead::serves) any
    /// read.
    ///
    /// See the [example](Self#examples).
    pub fn page_read(&self, bytes: u32) -> PageRead {
        let nlb = u64::from(bytes >> self.block_shift).wrapping_sub(1);
        let last = self.blocks.checked_sub(nlb.wrapping_add(1));
        let whole = bytes != 0 && bytes.is_multiple_of(self.block_size());
        let page = bytes as usize <= PAGE_SIZE.min(self.max_transfer());
        let (span, last) = match last {
            Some(last) if whole && page && self.metadata_size() == 0 => {
                (PageSpan::new(bytes), last)
            }
            _ => (PageSpan::NONE, 0),
        };
        PageRead { span, head: self.read_head, nlb, last, _identify: Arc::clone(&self.identify) }
    }

    /// Returns the number of bytes of data in a logical block, 512 to 65,536.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Returns log2 of the bytes of data in a logical block, 9 to 16.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Returns the size in bytes, without metadata.
    ///
    /// See the [example](Self#examples).
    pub fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }

    /// Returns the maximum number of bytes of data of one command, a multiple of the block size:
    /// the smaller of the limits of the controller (MDTS) and of
    /// [`Options::max_transfer`](crate::Options::max_transfer).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn max_transfer(&self) -> usize {
        (self.max_blocks as usize) << self.block_shift
    }

    /// Returns the number of blocks from `lba` to the next optimal I/O boundary, which commands
    /// should not cross (NOIOB, NVM 4.1.5.1); `None` if the namespace has none.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn blocks_to_boundary(&self, lba: u64) -> Option<u64> {
        let boundary = u64::from(self.identify.noiob.get());
        // Usually a power of two, but not always. The division is not on the path of a page.
        (boundary != 0).then(|| boundary - lba % boundary)
    }

    /// Returns the number of blocks of the next command of a transfer with `left` blocks from `lba`
    /// on. The command respects the limits and the optimal boundary. 0 only if `left` is 0.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn blocks_of_command(&self, lba: u64, left: u64) -> u64 {
        let most = left.min(u64::from(self.max_blocks));
        self.blocks_to_boundary(lba).map_or(most, |boundary| most.min(boundary))
    }

    /// Returns the number of bytes of metadata of a block; 0 for none.
    ///
    /// See the [example](Self#examples).
    pub fn metadata_size(&self) -> u32 {
        u32::from(self.identify.format().ms.get())
    }

    /// Returns true if the metadata follows each block in the data buffer, false if it is in a
    /// buffer of its own.
    ///
    /// See the [example](Self#examples).
    pub fn extended_metadata(&self) -> bool {
        self.metadata_size() != 0 && self.identify.extended_metadata()
    }

    /// Returns the type of end-to-end protection, 1 to 3; 0 for none (NVM 5.2).
    ///
    /// See the [example](Self#examples).
    pub fn protection_type(&self) -> u8 {
        self.identify.protection_type()
    }

    /// Returns true if the protection information is at the start of the metadata, false if it is
    /// at the end.
    ///
    /// See the [example](Self#examples).
    pub fn protection_first(&self) -> bool {
        self.identify.dps & 1 << 3 != 0
    }

    /// Returns the maximum number of blocks from `lba` on that one write stores atomically, also
    /// across a power failure (NVM 2.1.4); at least 1. `controller` is the controller of the
    /// namespace.
    ///
    /// See the [example](Self#examples).
    pub fn atomic_blocks_at(&self, controller: &IdentifyController, lba: u64) -> u64 {
        let of_all = u64::from(controller.awupf.get()) + 1;
        // NSFEAT bit 1: NAWUPF and the other fields of the namespace are valid.
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

    /// Returns the format of the guard in protection information (NVM 5.2.1).
    ///
    /// See the [example](Self#examples).
    pub fn guard(&self) -> GuardFormat {
        self.information.guard()
    }

    /// Returns the number of high bits of the reference tag that are a storage tag; usually 0 (NVM
    /// 5.2.1.4).
    ///
    /// See the [example](Self#examples).
    pub fn storage_tag_bits(&self) -> u8 {
        self.information.storage_tag_bits()
    }

    /// Returns the format of the protection information (NVM 5.2.1).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn information(&self) -> InformationFormat {
        self.information
    }

    /// Returns true if the metadata is protection information alone, so that a command with
    /// [`Protection::action`](crate::Protection::action) transfers no metadata.
    pub(crate) fn is_only_protection(&self) -> bool {
        self.protection_type() != 0 && self.metadata_size() as usize == self.information.size()
    }

    /// Returns the Identify Namespace data structure (NVM 4.1.5.1).
    ///
    /// See the [example](Self#examples).
    pub fn identify(&self) -> &IdentifyNamespace {
        &self.identify
    }

    /// Returns the allocation that all handles of the namespace share.
    pub(crate) fn shared(&self) -> &Arc<IdentifyNamespace> {
        &self.identify
    }

    /// Returns the first two dwords of a Read.
    #[inline]
    pub(crate) fn read_head(&self) -> u64 {
        self.read_head
    }

    /// Converts a [`DmaBuf::span_in_page`] at `lba` to a 0's based number of blocks, if one
    /// command can transfer it without metadata, and the buffer is not longer than a page and
    /// begins on one. `None` also near the end of the namespace, where [`check`](Self::check)
    /// decides.
    #[inline]
    pub(crate) fn blocks_in_page(&self, lba: u64, span: u64) -> Option<u64> {
        // First, because the compiler then checks both conditions by branches.
        if lba > self.page_end {
            return None;
        }
        // The rotation makes a number of blocks of the length, and high bits of the low bits of a
        // length that is not a multiple of the block size. An offset in the page is above the
        // length, and 0 less one is the largest number: one comparison for four conditions.
        let nlb = span.rotate_right(self.span_rotation).wrapping_sub(1);
        (nlb < self.page_blocks).then_some(nlb)
    }

    /// Checks that `blocks` at `lba` exist, and that one command can transfer them.
    pub(crate) fn check_blocks(&self, lba: u64, blocks: u32) -> Result<()> {
        if blocks == 0 || blocks > self.max_blocks {
            let bytes = (blocks as usize) << self.block_shift;
            return Err(Error::TransferSize { bytes, max: self.max_transfer() });
        }
        self.check_range(lba, blocks)
    }

    /// Checks that `blocks` at `lba` exist, in any number of commands.
    pub(crate) fn check_range(&self, lba: u64, blocks: impl Into<u64>) -> Result<()> {
        let blocks = blocks.into();
        match self.blocks.checked_sub(lba) {
            Some(left) if blocks <= left => Ok(()),
            _ => Err(self.out_of_range(lba, blocks)),
        }
    }

    /// Converts `bytes` at `lba` to a number of blocks, which exist, in any number of commands.
    pub(crate) fn check_bytes(&self, lba: u64, bytes: u64) -> Result<u64> {
        let blocks = self.whole_blocks(bytes)?;
        self.check_range(lba, blocks).map(|()| blocks)
    }

    fn whole_blocks(&self, bytes: u64) -> Result<u64> {
        match u64::from(self.block_size()) {
            align if bytes.is_multiple_of(align) => Ok(bytes >> self.block_shift),
            align => Err(Error::Misaligned { value: bytes, align }),
        }
    }

    /// Checks that `bytes` at byte `offset` exist.
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
        self.check_range(lba, blocks)?;
        let (mut at, end) = (lba, lba + blocks);
        Ok(std::iter::from_fn(move || {
            let count = u32::try_from(end - at).unwrap_or(u32::MAX).min(BLOCKS_MAX);
            let lba = at;
            at += u64::from(count);
            (count > 0).then_some((lba, count))
        }))
    }

    /// Returns the error of a Write Zeroes command that completed with `status`, if it is one.
    pub(crate) fn check_write_zeroes(&self, lba: u64, blocks: u32, status: Status) -> Result<()> {
        let (command, nsid, blocks) = ("Write Zeroes", self.nsid, blocks.into());
        match status.is_success() {
            true => Ok(()),
            false => Err(Error::Io { command, nsid, lba, blocks, status }),
        }
    }

    fn out_of_range(&self, lba: u64, blocks: u64) -> Error {
        Error::OutOfRange { lba, blocks, size: self.blocks, nsid: self.nsid }
    }

    /// Converts `bytes` at `lba` to a number of blocks, which exist and which one command can
    /// transfer.
    pub(crate) fn check(&self, lba: u64, bytes: usize) -> Result<u32> {
        let too_large = Error::TransferSize { bytes, max: self.max_transfer() };
        let blocks = self.whole_blocks(bytes as u64)?;
        let blocks = u32::try_from(blocks).map_err(|_| too_large)?;
        self.check_blocks(lba, blocks).map(|()| blocks)
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

    /// The span of a buffer of `bytes` that begins on a page.
    fn span(bytes: u32) -> u64 {
        u64::from(bytes) << DmaBuf::SPAN_SHIFT
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
        assert!(wide.is_only_protection() && !with(20, 1 << 7 | 16).unwrap().is_only_protection());
        let refused = |metadata, elbaf| with(metadata, elbaf).unwrap_err().to_string();
        assert!(refused(16, 1 << 7).contains("STS is 0"), "a guard of 32 bits has a storage tag");
        assert!(refused(16, 3 << 7).contains("PIF is 3"));
        assert!(refused(12, 2 << 7).contains("too short"));
        let bare = Namespace::new(1, identify(100, 12, 0), 1 << 20).unwrap();
        assert!(!bare.is_only_protection());
    }

    #[test]
    fn only_what_one_command_can_carry_passes() {
        let namespace = Namespace::new(1, identify(100, 12, 0), 64 << 10).unwrap();
        assert_eq!((namespace.bytes(), namespace.max_transfer()), (409_600, 65_536));
        assert_eq!(namespace.blocks_in_page(99, span(4096)), Some(0));
        assert_eq!(namespace.check(99, 4096).unwrap(), 1);
        assert_eq!(namespace.check(84, 65_536).unwrap(), 16);
        assert_eq!(namespace.blocks_in_page(84, span(8192)), None, "two pages");
        let refused = |lba, bytes: u32| {
            assert_eq!(namespace.blocks_in_page(lba, span(bytes)), None);
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
        // 113 blocks of 576 bytes are 65,088 bytes; 114 blocks exceed 64 KiB.
        assert_eq!(namespace.max_transfer(), 113 << 9);
    }

    #[test]
    fn the_one_comparison_agrees_with_all_conditions() {
        for shift in 9..=16 {
            let namespace = Namespace::new(1, identify(1 << 20, shift, 0), usize::MAX).unwrap();
            let lengths = (0..1 << 18).chain((1 << 20..u32::MAX).step_by(0x7fe3));
            for bytes in lengths.chain([u32::MAX, 0xffff << shift.min(15)]) {
                let checked = namespace.check(0, bytes as usize).ok();
                let checked = checked.filter(|_| bytes as usize <= PAGE_SIZE);
                let checked = checked.map(|blocks| u64::from(blocks) - 1);
                let found = namespace.blocks_in_page(0, span(bytes));
                assert_eq!(found, checked, "{bytes} bytes, shift {shift}");
            }
            for offset in 1..4096 {
                let span = span(4096) | offset << 52;
                assert_eq!(namespace.blocks_in_page(0, span), None, "offset {offset}");
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
        assert_eq!(limited.blocks_in_page(49, span(4096)), Some(0));
        assert_eq!(limited.blocks_in_page(50, span(4096)), None);
        assert!(limited.check(49, 4096).is_ok());
        assert!(matches!(limited.check(50, 4096), Err(Error::OutOfRange { .. })));
        assert_eq!(namespace.limited_to(0).blocks_in_page(0, span(4096)), None);
        let small = Namespace::new(1, identify(100, 9, 0), 64 << 10).unwrap().limited_to(7);
        assert_eq!(small.blocks_in_page(0, span(512)), None, "less than a page");
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
        // A command transfers one block of 4,096 bytes.
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
