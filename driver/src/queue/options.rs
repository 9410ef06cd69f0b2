//! Options of commands: durability and end-to-end protection (NVM 3.2.4, 3.2.6, 5.2).

use nvio_spec::Sqe;
use zerocopy::little_endian::U32;

use crate::dma::{DmaBuf, ScatterList};
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// Force Unit Access, in CDW12.
pub(super) const FUA: u32 = 1 << 30;

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
    /// higher. With type 1 it is the low 32 bits of the LBA.
    pub reference: u32,
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
            reference: (lba & 0xffff_ffff) as u32,
            ..Self::default()
        }
    }
}

impl CommandOptions {
    /// Sets CDW12, CDW14 and CDW15 of a command.
    pub(super) fn apply(&self, sqe: &mut Sqe) {
        let bit = |set: bool, at: u32| u32::from(set) << at;
        let Protection { action, check_guard, check_application, check_reference, .. } =
            self.protection;
        let flags = bit(self.limited_retry, 31)
            | if self.fua { FUA } else { 0 }
            | bit(action, 29)
            | bit(check_guard, 28)
            | bit(check_application, 27)
            | bit(check_reference, 26);
        sqe.cdw12 = U32::new(sqe.cdw12.get() | flags);
        sqe.cdw14 = U32::new(self.protection.reference);
        let Protection { application, application_mask, .. } = self.protection;
        sqe.cdw15 = U32::new(u32::from(application_mask) << 16 | u32::from(application));
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
