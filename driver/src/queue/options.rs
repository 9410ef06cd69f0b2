//! Options of commands: durability and end-to-end protection (NVM 3.2.4, 3.2.6, 5.2).

use nvio_spec::Sqe;
use nvio_spec::protection::prinfo;
use zerocopy::little_endian::U32;

use crate::dma::{DmaBuf, ScatterList};
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// Limited Retry, in CDW12.
const LIMITED_RETRY: u32 = 1 << 31;

/// Options of a Read, Write or Compare.
///
/// See the [example](Protection#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Force Unit Access: a write is durable when it completes, a read comes from the media.
    pub fua: bool,
    /// Limited Retry: the controller limits its retries.
    pub limited_retry: bool,
    /// End-to-end protection of the command.
    pub protection: Protection,
}

/// End-to-end protection of one command (NVM 5.2). The default checks nothing.
///
/// # Examples
/// ```
/// # use nvio_emulator::{Backing, NamespaceConfig};
/// # let disk = NamespaceConfig::new(Backing::memory(1 << 20)).metadata(8, false);
/// # let disk = disk.protection(nvio_driver::spec::protection::ProtectionType::ONE, false);
/// # let served = nvio_testkit::controller::Served::new(disk);
/// # let namespace = served.controller.namespace(1)?;
/// use nvio_driver::{CommandOptions, Protection};
///
/// // The controller makes and checks protection information; the host has none.
/// let protection = Protection::by_controller(&namespace, 8);
/// let options = CommandOptions { protection, ..CommandOptions::default() };
/// assert!(options.protection.action && options.protection.check_guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// PRACT: the controller generates the protection information of a write, and removes it after
    /// a read. If it is all of the metadata, the command transfers no metadata.
    pub action: bool,
    /// PRCHK: check the guard.
    pub check_guard: bool,
    /// PRCHK: check the application tag in the bits of `application_mask`.
    pub check_application: bool,
    /// PRCHK: check the reference tag.
    pub check_reference: bool,
    /// Reference tag of the first block. With types 1 and 2 the tag of each following block is one
    /// higher. With type 1 it is the low bits of the LBA, usually 32
    /// ([`InformationFormat::ref_tag_bits`](crate::spec::InformationFormat::ref_tag_bits)). Higher
    /// bits than the tag has are ignored.
    pub reference: u64,
    /// Application tag of all blocks.
    pub application: u16,
    /// Mask of the bits of the application tag that are checked.
    pub application_mask: u16,
}

impl Protection {
    /// Returns the protection of a command at block `lba` for a host without protection
    /// information: the controller generates all of it and checks guard and reference tag.
    ///
    /// See the [example](Self#examples).
    pub fn by_controller(namespace: &Namespace, lba: u64) -> Self {
        let protection = namespace.protection_type();
        Self {
            action: true,
            check_guard: true,
            check_reference: protection < 3,
            reference: lba,
            ..Self::default()
        }
    }
}

impl CommandOptions {
    /// Returns a command on `blocks` at `lba`, which were checked.
    pub(super) fn command(&self, opcode: u8, namespace: &Namespace, lba: u64, blocks: u32) -> Sqe {
        let protection = &self.protection;
        let flags = [
            (self.limited_retry, LIMITED_RETRY),
            (self.fua, Sqe::FUA),
            (protection.action, prinfo::PRACT),
            (protection.check_guard, prinfo::PRCHK_GUARD),
            (protection.check_application, prinfo::PRCHK_APP_TAG),
            (protection.check_reference, prinfo::PRCHK_REF_TAG),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
        let Protection { reference, application, application_mask, .. } = self.protection;
        let mut sqe = Sqe { opcode, ..Sqe::read(namespace.id(), lba, blocks) };
        sqe.cdw12 = U32::new(sqe.cdw12.get() | flags);
        let tags = (0, reference);
        namespace.information().with_tags(sqe, tags, application, application_mask)
    }

    /// Returns the numbers of bytes that a command of `blocks` transfers by its data pointer and by
    /// its metadata pointer. The number of blocks was checked.
    fn lengths(&self, namespace: &Namespace, blocks: u32) -> (usize, usize) {
        // At most 64 Ki blocks of at most 128 KiB.
        let count = blocks as usize;
        let kept = self.protection.action && namespace.is_only_protection();
        let metadata = if kept { 0 } else { count * namespace.metadata_size() as usize };
        let data = count << namespace.block_shift();
        match namespace.extended_metadata() {
            true => (data + metadata, 0),
            false => (data, metadata),
        }
    }

    /// Checks that the buffers of `list` have the lengths that a command of `blocks` transfers, and
    /// begin at multiples of 4 bytes.
    pub(super) fn check(
        &self,
        namespace: &Namespace,
        blocks: u32,
        list: &ScatterList,
    ) -> Result<()> {
        let (data, metadata) = self.lengths(namespace, blocks);
        list.data().iter().chain(list.metadata()).try_for_each(DmaBuf::check_alignment)?;
        let given = list.metadata().map_or(0, DmaBuf::len);
        if given != metadata {
            return Err(Error::MetadataSize { bytes: given, needed: metadata });
        }
        match list.data_len() {
            bytes if bytes == data => Ok(()),
            bytes => Err(Error::TransferSize { bytes, max: data }),
        }
    }
}
