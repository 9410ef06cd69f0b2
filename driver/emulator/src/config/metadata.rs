//! The metadata of a block, and the place of protection information in it (NVM 4.1.5.1, 5.2).

use std::ops::Range;

use nvio_spec::InformationFormat;
use nvio_spec::protection::{ProtectionType, dps};

/// The metadata of each block of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Bytes of each block, not 0.
    pub(crate) bytes: u16,
    /// The metadata is transferred at the end of each block, not in a buffer of its own.
    pub(crate) extended: bool,
    pub(crate) protection: Option<Protection>,
}

/// Type and place of the protection information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) kind: ProtectionType,
    /// The information is the first bytes of the metadata, not the last.
    pub(crate) first: bool,
    pub(crate) format: InformationFormat,
}

impl Metadata {
    /// Returns the bytes of each block.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.bytes)
    }

    /// Returns the place of the protection information in the metadata.
    pub(crate) fn protection_place(&self) -> Option<Range<usize>> {
        let Protection { first, format, .. } = self.protection?;
        let last = self.len().checked_sub(format.size())?;
        let at = if first { 0 } else { last };
        Some(at..at + format.size())
    }

    /// Returns DPS of Identify Namespace.
    pub(crate) fn dps(&self) -> u8 {
        self.protection.map_or(0, |protection| {
            protection.kind.number() | if protection.first { dps::FIRST } else { 0 }
        })
    }

    /// Returns the metadata of a block that was never written (NVM 3.2.3.2.1).
    pub(crate) fn unwritten(&self) -> Box<[u8]> {
        let mut bytes = vec![0; self.len()].into_boxed_slice();
        if let Some(place) = self.protection_place() {
            bytes[place].fill(0xff);
        }
        bytes
    }

    /// Returns true if the metadata is only protection information. With PRACT it is then not
    /// transferred.
    pub(crate) fn is_only_protection(&self) -> bool {
        self.protection.is_some_and(|protection| self.len() == protection.format.size())
    }
}
