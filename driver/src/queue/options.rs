//! How a command transfers blocks: durability and end-to-end protection (NVM 3.2.4, 3.2.6, 5.2).

use nvio_spec::Sqe;
use zerocopy::little_endian::U32;

use crate::dma::{DmaBuf, ScatterList};
use crate::namespace::Namespace;
use crate::{Error, Result};

/// Force Unit Access, in CDW12.
pub(super) const FUA: u32 = 1 << 30;

/// How a Read, Write or Compare transfers its blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Force Unit Access: a write is durable when it completes, a read comes from the media.
    pub fua: bool,
    /// Limited Retry: the controller should not try for long.
    pub limited_retry: bool,
    /// What the controller does about protection information.
    pub protection: Protection,
}

/// End-to-end protection of one command (NVM 5.2). As the default, nothing is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// PRACT: the controller makes the protection information of a write, and takes it away after
    /// a read; if it is all of the metadata, the command transfers none.
    pub action: bool,
    /// PRCHK: check the guard.
    pub check_guard: bool,
    /// PRCHK: check the application tag, where `application_mask` has ones.
    pub check_application: bool,
    /// PRCHK: check the reference tag.
    pub check_reference: bool,
    /// The first block's reference tag; for types 1 and 2 each following block's is one more. Of
    /// type 1, it must be the low 32 bits of the LBA.
    pub reference: u32,
    /// The application tag of all blocks.
    pub application: u16,
    /// The bits of the application tag that are checked.
    pub application_mask: u16,
}

impl Protection {
    /// The controller makes the protection information and checks all of it: what protects a host
    /// that has none of its own. `lba` is the command's.
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

    /// Bytes that `blocks` of the namespace transfer, whose number was checked: those that the data
    /// pointer describes, and those of metadata in a place of its own.
    pub(super) fn lengths(&self, namespace: &Namespace, blocks: u32) -> (usize, usize) {
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

    /// Whether `parts` are what `blocks` of the namespace need.
    pub(super) fn check(
        &self,
        namespace: &Namespace,
        blocks: u32,
        parts: &ScatterList,
    ) -> Result<()> {
        let (data, metadata) = self.lengths(namespace, blocks);
        let given = parts.metadata().map_or(0, DmaBuf::len);
        if given != metadata {
            return Err(Error::MetadataSize { bytes: given, needed: metadata });
        }
        match parts.data_len() {
            bytes if bytes == data => Ok(()),
            bytes => Err(Error::TransferSize { bytes, max: data }),
        }
    }
}
