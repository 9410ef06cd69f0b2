//! End-to-end protection made and checked by the host: how data and its protection information lie
//! in memory (NVM 5.2).
//!
//! A guard is made where the data is known to be right, and checked where it is used: what
//! changes on the way is noticed, be it in the controller, on the bus or in this process.
//!
//! ```
//! use nvio_driver::{Address, Controller, Options, ScatterList};
//! use nvio_driver::spec::protection::ProtectionType;
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//! use nvio_iomap::{BadProtection, NamespaceProtection};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = NamespaceConfig::new(Backing::memory(1 << 20));
//! let disk = disk.metadata(8, true).protection(ProtectionType::ONE, false);
//! let emulator = Emulator::builder().namespace(disk).start()?;
//! let address = Address::VfioUser(emulator.socket().to_owned());
//! let options = Options { writable: true, ..Options::default() };
//! let controller = Controller::open_with(&address, options)?;
//! let namespace = controller.writable()?.writable_namespace(1)?;
//! let mut queue = controller.queue_pair(4)?;
//! let protection = NamespaceProtection::of(&namespace).ok_or("it is not protected")?;
//!
//! let (data, lba) = ([7; 1024], 5);
//! let mut buf = controller.alloc(protection.buf_len(data.len()))?;
//! protection.copy_in(&mut buf, data.len(), 0, &data);
//! protection.seal(&mut buf, data.len(), lba);
//! let list = protection.scatter_list(buf, data.len());
//! queue.write_with(&namespace, (lba, 2), list, protection.transfer(lba), ())?;
//! queue.wait(|done| assert!(done.status.is_success()))?;
//!
//! let buf = controller.alloc(protection.buf_len(data.len()))?;
//! let list = protection.scatter_list(buf, data.len());
//! queue.read_with(&namespace, (lba, 2), list, protection.transfer(lba), ())?;
//! let mut read = None;
//! queue.wait(|done| read = ScatterList::from_completed(done.buf).ok())?;
//! let read = read.and_then(ScatterList::into_joined);
//! let (mut buf, mut out) = (read.ok_or("the buffer is lost")?, [0; 1024]);
//! protection.verify(&buf, data.len(), lba)?;
//! protection.copy_out(&buf, data.len(), 0, &mut out);
//! assert_eq!(out, data);
//!
//! // A block and its metadata are 520 bytes.
//! buf[525] ^= 1;
//! let bad = protection.verify(&buf, data.len(), lba).unwrap_err();
//! assert!(matches!(bad, BadProtection::Block { lba: 6, .. }));
//! # Ok(())
//! # }
//! ```

pub(crate) mod bios;
#[cfg(test)]
mod tests;

use std::ops::Range;

use nvio_driver::spec::protection::{CheckError, ProtectionType, prinfo};
use nvio_driver::spec::{ExpectedTags, Information, InformationFormat};
use nvio_driver::{CommandOptions, DmaBuf, Namespace, ScatterList};

/// The application tag of writes. It is not the value that switches checks off.
const APPLICATION_TAG: u16 = 0;

/// Fill byte of metadata before a read: tags that do not switch checks off.
const SPOILT: u8 = 0x5a;

/// The layout of a namespace's data and its protection information, of types 1 to 3 with a guard of
/// 16, 32 or 64 bits.
///
/// Data and metadata of a command lie in one buffer: in an [extended](Self::is_extended) namespace
/// the metadata follows each block, in another namespace the metadata of all blocks follows the
/// data of all blocks. In the latter they may also lie in two buffers.
///
/// Sizes of data are multiples of the block. The reference tag of a block is the low bits of its
/// LBA, or 0 for type 3, which does not define it. The storage tag is 0; it and the application tag
/// are not checked. Metadata besides is written as zeroes.
///
/// # Examples
/// ```
/// # use nvio_emulator::{Backing, NamespaceConfig};
/// # use nvio_testkit::controller::Served;
/// # let disk = NamespaceConfig::new(Backing::memory(1 << 20)).metadata(8, true);
/// # let disk = disk.protection(nvio_driver::spec::protection::ProtectionType::ONE, false);
/// # let served = Served::new(disk);
/// # let controller = &served.controller;
/// # let namespace = controller.namespace(1)?;
/// use nvio_driver::spec::protection::ProtectionType;
/// use nvio_iomap::NamespaceProtection;
///
/// let protection = NamespaceProtection::of(&namespace).ok_or("not protected")?;
/// assert_eq!((protection.buf_len(1024), protection.metadata_len(1024)), (1040, 16));
///
/// // A buffer of two blocks with their metadata, for blocks 5 and 6.
/// assert!(protection.is_extended(), "metadata follows each block");
/// let mut buf = vec![0; protection.buf_len(1024)];
/// assert_eq!(protection.copy_in(&mut buf, 1024, 0, &[7; 1000]), 1000);
/// assert_eq!(protection.zero(&mut buf, 1024, 1000, 24), 24);
/// protection.seal(&mut buf, 1024, 5);
/// protection.verify(&buf, 1024, 5)?;
/// assert!(protection.verify(&buf, 1024, 6).is_err(), "the reference tags are those of 5 and 6");
/// let mut out = [0; 1000];
/// assert_eq!(protection.copy_out(&buf, 1024, 0, &mut out), 1000);
/// assert_eq!(out, [7; 1000]);
///
/// // Metadata in a buffer of its own.
/// let mut metadata = [0; 16];
/// protection.seal_apart(&[7; 1024], &mut metadata, 5);
/// protection.verify_apart(&[7; 1024], &metadata, 5)?;
///
/// // The arguments of a command on block 5.
/// let options = protection.transfer(5);
/// let list = protection.scatter_list(controller.alloc(1040)?, 1024);
/// assert!(options.protection.check_guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceProtection {
    /// The type; `None` for metadata without protection information.
    kind: Option<ProtectionType>,
    information: InformationFormat,
    block_shift: u32,
    /// Bytes of metadata for each block, at least those of the protection information.
    metadata: usize,
    /// Offset of the protection information in the metadata of a block.
    at: usize,
    extended: bool,
}

/// Data that does not match its protection information.
///
/// See the [example](crate::NamespaceProtection#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadProtection {
    /// A block whose guard or reference tag is wrong.
    #[error("LBA {lba}: {error}")]
    Block {
        /// LBA in the namespace.
        lba: u64,
        /// The field that does not match.
        #[source]
        error: CheckError,
    },
    /// A buffer without room for the metadata of its data, or for the data.
    #[error("{bytes} bytes for blocks that are {needed} with their metadata")]
    Short {
        /// Length of the buffer in bytes.
        bytes: usize,
        /// Length needed, in bytes.
        needed: usize,
    },
}

impl NamespaceProtection {
    /// Returns the protection of `namespace`; `None` if it is not protected.
    ///
    /// See the [example](Self#examples).
    pub fn of(namespace: &Namespace) -> Option<Self> {
        Self::of_metadata(namespace).filter(|layout| layout.kind.is_some())
    }

    /// Returns the layout of a namespace whose blocks have metadata; `None` for other ones.
    pub(crate) fn of_metadata(namespace: &Namespace) -> Option<Self> {
        let kind = ProtectionType::new(namespace.protection_type());
        let (information, metadata) = (namespace.information(), namespace.metadata_size() as usize);
        let needed = if kind.is_some() { information.size() } else { 0 };
        // Not reachable for a protected namespace: the driver rejects such a format.
        let last = metadata.checked_sub(needed).filter(|_| metadata > 0)?;
        Some(Self {
            kind,
            information,
            block_shift: namespace.block_shift(),
            metadata,
            at: if namespace.protection_first() { 0 } else { last },
            extended: namespace.extended_metadata(),
        })
    }

    /// Returns true if metadata follows each block, so that data cannot be transferred without it.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Returns the number of bytes of a buffer for `data_bytes` of data with their metadata.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn buf_len(&self, data_bytes: usize) -> usize {
        data_bytes.saturating_add(self.metadata_len(data_bytes))
    }

    /// Returns the number of bytes of metadata of `data_bytes` of data.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn metadata_len(&self, data_bytes: usize) -> usize {
        (data_bytes >> self.block_shift).saturating_mul(self.metadata)
    }

    /// Returns the memory of a command for `bytes` of data, of a buffer with data and metadata.
    ///
    /// See the [example](Self#examples).
    pub fn scatter_list(&self, buf: DmaBuf, bytes: usize) -> ScatterList {
        match self.extended {
            true => ScatterList::from(buf),
            false => ScatterList::split_at(buf, bytes),
        }
    }

    /// Returns the transfer options of a command at block `lba`: the metadata is the host's, and
    /// the controller checks guard and reference tag.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn transfer(&self, lba: u64) -> CommandOptions {
        let Some(kind) = self.kind else { return CommandOptions::default() };
        let protection = nvio_driver::Protection {
            check_guard: true,
            // With type 3 the reference tag must not be checked (NVM 5.2.3).
            check_reference: kind != ProtectionType::THREE,
            reference: self.reference(kind, lba),
            ..Default::default()
        };
        CommandOptions { protection, ..CommandOptions::default() }
    }

    /// Copies `data` to byte `at` of the `data_bytes` of data that `buf` is for, and gives the
    /// bytes that were there to be copied to.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn copy_in(&self, buf: &mut [u8], data_bytes: usize, at: usize, data: &[u8]) -> usize {
        let mut left = data;
        for run in self.runs(data_bytes, at, data.len()) {
            let Some((now, rest)) = left.split_at_checked(run.len()) else { break };
            let Some(to) = buf.get_mut(run) else { break };
            to.copy_from_slice(now);
            left = rest;
        }
        data.len() - left.len()
    }

    /// Zeroes `length` bytes at byte `at` of the `data_bytes` of data that `buf` is for, and gives
    /// the bytes that were there to be zeroed.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn zero(&self, buf: &mut [u8], data_bytes: usize, at: usize, length: usize) -> usize {
        let mut done = 0;
        for run in self.runs(data_bytes, at, length) {
            let bytes = run.len();
            let Some(to) = buf.get_mut(run) else { break };
            to.fill(0);
            done += bytes;
        }
        done
    }

    /// Copies to `out` from byte `at` of the `data_bytes` of data in `buf`, and gives the bytes
    /// that were there.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn copy_out(&self, buf: &[u8], data_bytes: usize, at: usize, out: &mut [u8]) -> usize {
        let mut done = 0;
        for run in self.runs(data_bytes, at, out.len()) {
            let bytes = run.len();
            let to = out.get_mut(done..done + bytes);
            let (Some(to), Some(from)) = (to, buf.get(run)) else { break };
            to.copy_from_slice(from);
            done += bytes;
        }
        done
    }

    /// Writes the metadata of all blocks in `buf`, which has `data_bytes` of data from block `lba`
    /// on. Blocks that the buffer has no room for are left out.
    ///
    /// See the [example](Self#examples).
    pub fn seal(&self, buf: &mut [u8], data_bytes: usize, lba: u64) {
        if !self.extended {
            if let Some((data, metadata)) = buf.split_at_mut_checked(data_bytes) {
                self.seal_apart(data, metadata, lba);
            }
            return;
        }
        let mut left = buf;
        for lba in self.lbas(data_bytes, lba) {
            let Some((data, rest)) = left.split_at_mut_checked(self.block()) else { return };
            let Some((metadata, rest)) = rest.split_at_mut_checked(self.metadata) else { return };
            self.seal_block(data, metadata, lba);
            left = rest;
        }
    }

    /// Seals blocks as [`seal`](Self::seal) does, with the metadata in a buffer of its own.
    ///
    /// See the [example](Self#examples).
    pub fn seal_apart(&self, data: &[u8], metadata: &mut [u8], lba: u64) {
        let (mut data, mut metadata) = (data, metadata);
        for lba in self.lbas(data.len(), lba) {
            let Some((block, rest)) = data.split_at_checked(self.block()) else { return };
            let Some((own, others)) = metadata.split_at_mut_checked(self.metadata) else { return };
            self.seal_block(block, own, lba);
            (data, metadata) = (rest, others);
        }
    }

    /// Makes protection information that fits no data, so that what a device says it has read, and
    /// has not, is not taken for what was there before.
    pub(crate) fn poison(&self, buf: &mut [u8], data_bytes: usize) {
        if !self.extended {
            return self.poison_apart(buf.get_mut(data_bytes..).unwrap_or_default());
        }
        let mut left = buf;
        for _ in self.lbas(data_bytes, 0) {
            let Some((_, rest)) = left.split_at_mut_checked(self.block()) else { return };
            let Some((metadata, rest)) = rest.split_at_mut_checked(self.metadata) else { return };
            self.poison_apart(metadata);
            left = rest;
        }
    }

    /// Poisons metadata as [`poison`](Self::poison) does, in a buffer of its own.
    pub(crate) fn poison_apart(&self, metadata: &mut [u8]) {
        metadata.fill(SPOILT);
    }

    /// Checks guards and reference tags of all blocks in `buf`, which has `data_bytes` of data from
    /// block `lba` on. Blocks whose tags switch checks off are not checked (NVM 5.2.3): those
    /// that were never written have such.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The first block that is wrong, or that the buffer is too short.
    pub fn verify(&self, buf: &[u8], data_bytes: usize, lba: u64) -> Result<(), BadProtection> {
        let (bytes, needed) = (buf.len(), self.buf_len(data_bytes));
        let short = BadProtection::Short { bytes, needed };
        if !self.extended {
            let (data, metadata) = buf.split_at_checked(data_bytes).ok_or(short)?;
            return self.verify_apart(data, metadata, lba);
        }
        let mut left = buf;
        for lba in self.lbas(data_bytes, lba) {
            let (data, rest) = left.split_at_checked(self.block()).ok_or(short)?;
            let (metadata, rest) = rest.split_at_checked(self.metadata).ok_or(short)?;
            self.verify_block(data, metadata, lba)?;
            left = rest;
        }
        Ok(())
    }

    /// Verifies blocks as [`verify`](Self::verify) does, with the metadata in a buffer of its own.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_apart(
        &self,
        data: &[u8],
        metadata: &[u8],
        lba: u64,
    ) -> Result<(), BadProtection> {
        let bytes = data.len().saturating_add(metadata.len());
        let short = BadProtection::Short { bytes, needed: self.buf_len(data.len()) };
        let (mut data, mut metadata) = (data, metadata);
        for lba in self.lbas(data.len(), lba) {
            let (block, rest) = data.split_at_checked(self.block()).ok_or(short)?;
            let (own, others) = metadata.split_at_checked(self.metadata).ok_or(short)?;
            self.verify_block(block, own, lba)?;
            (data, metadata) = (rest, others);
        }
        Ok(())
    }

    /// Returns the number of bytes of data in a block.
    fn block(&self) -> usize {
        1 << self.block_shift
    }

    /// Returns the LBAs of `data_bytes` of data.
    fn lbas(&self, data_bytes: usize, lba: u64) -> impl Iterator<Item = u64> + use<> {
        (0..(data_bytes >> self.block_shift) as u64).map(move |index| lba.wrapping_add(index))
    }

    /// Returns the places in a buffer of the `length` bytes from byte `at` of its data, as far as
    /// they are among the `data_bytes` of it.
    fn runs(
        &self,
        data_bytes: usize,
        at: usize,
        length: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let (block, shift) = (self.block(), self.block_shift);
        // Metadata that is behind all of the data interrupts it nowhere.
        let (gap, longest) = if self.extended { (self.metadata, block) } else { (0, usize::MAX) };
        let end = at.saturating_add(length).min(data_bytes);
        let mut at = at;
        std::iter::from_fn(move || {
            let lead = at & (block - 1);
            let bytes = end.checked_sub(at)?.min(longest.saturating_sub(lead));
            let start = at.checked_add((at >> shift).checked_mul(gap)?)?;
            at += bytes;
            (bytes > 0).then(|| start..start.saturating_add(bytes))
        })
    }

    /// Returns the reference tag of a block.
    fn reference(&self, kind: ProtectionType, lba: u64) -> u64 {
        match kind {
            ProtectionType::THREE => 0,
            kind => self.information.ref_tag(kind, lba, 0),
        }
    }

    /// Returns the guard of a block: of its data, and of the metadata before the information.
    fn guard(&self, data: &[u8], metadata: &[u8]) -> u64 {
        self.information.guard_of(data, metadata.get(..self.at).unwrap_or_default())
    }

    fn seal_block(&self, data: &[u8], metadata: &mut [u8], lba: u64) {
        metadata.fill(0);
        let Some(kind) = self.kind else { return };
        let information = Information {
            guard: self.guard(data, metadata),
            app_tag: APPLICATION_TAG,
            storage_tag: 0,
            ref_tag: self.reference(kind, lba),
        };
        if let Some(place) = metadata.get_mut(self.at..) {
            let _written = self.information.write(&information, place);
        }
    }

    fn verify_block(&self, data: &[u8], metadata: &[u8], lba: u64) -> Result<(), BadProtection> {
        let Some(kind) = self.kind else { return Ok(()) };
        let place = metadata.get(self.at..).unwrap_or(&[]);
        let Some(found) = self.information.read(place) else {
            return Err(BadProtection::Short { bytes: metadata.len(), needed: self.metadata });
        };
        let checks = prinfo::PRCHK_GUARD | prinfo::PRCHK_REF_TAG;
        let needed = self.information.needs_guard(&found, kind, checks);
        let expected = ExpectedTags {
            guard: if needed { self.guard(data, metadata) } else { 0 },
            app_tag: 0,
            app_mask: 0,
            ref_tag: self.reference(kind, lba),
        };
        let checked = self.information.check(&found, kind, checks, &expected);
        checked.map_err(|error| BadProtection::Block { lba, error })
    }
}
