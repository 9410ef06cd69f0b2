//! Processing of protection information (NVM 5.2).

use nvio_spec::protection::{ProtectionType, prinfo};
use nvio_spec::{ExpectedTags, Information, InformationFormat, Sqe, Status, status};

use crate::config::metadata::{Metadata, Protection};

/// The processing of protection information: PRINFO and the tags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    metadata: Metadata,
    protection: Protection,
    /// Offset of the information in the metadata.
    at: usize,
    prinfo: u32,
    /// Storage tag and reference tag of the first block.
    tags: (u64, u64),
    app_tag: u16,
    app_mask: u16,
}

/// The protection fields of a command and its first LBA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Bits of [`prinfo`].
    pub(crate) prinfo: u32,
    pub(crate) slba: u64,
    /// Storage tag and reference tag of the first block.
    pub(crate) tags: (u64, u64),
    pub(crate) app_tag: u16,
    pub(crate) app_mask: u16,
}

impl Checks {
    /// Decodes the fields of a command on blocks, such as Read and Write, with tags of this format.
    pub(crate) fn of(sqe: &Sqe, format: InformationFormat) -> Self {
        Self {
            prinfo: sqe.prinfo(),
            slba: sqe.slba(),
            tags: format.tags_of(sqe),
            app_tag: sqe.app_tag(),
            app_mask: sqe.app_mask(),
        }
    }

    /// Returns the processing for blocks with this metadata; `None` without protection, because the
    /// fields are then ignored. `inserts` is true if PRACT inserts protection information.
    ///
    /// # Errors
    /// Invalid Protection Information for a check that the type of protection does not have, and
    /// with type 1 for a reference tag that differs from the LBA (NVM 5.2.3).
    pub(crate) fn action(
        self,
        metadata: Metadata,
        inserts: bool,
    ) -> Result<Option<Action>, Status> {
        let (Some(protection), Some(place)) = (metadata.protection, metadata.protection_place())
        else {
            return Ok(None);
        };
        let checks_ref_tag = self.prinfo & prinfo::PRCHK_REF_TAG != 0;
        let uses_ref_tag = checks_ref_tag || inserts && self.prinfo & prinfo::PRACT != 0;
        let Protection { kind, format, .. } = protection;
        let good = format.allows_initial_ref_tag(kind, self.tags.1, self.slba);
        if uses_ref_tag && !good || checks_ref_tag && kind == ProtectionType::THREE {
            return Err(status::INVALID_PROTECTION_INFORMATION);
        }
        let Self { prinfo, tags, app_tag, app_mask, .. } = self;
        let at = place.start;
        Ok(Some(Action { metadata, protection, at, prinfo, tags, app_tag, app_mask }))
    }
}

impl Action {
    /// Returns true if protection information is inserted or stripped.
    pub(crate) fn is_pract(&self) -> bool {
        self.prinfo & prinfo::PRACT != 0
    }

    /// Returns true if there is a check to perform.
    pub(crate) fn checks(&self) -> bool {
        self.prinfo & prinfo::PRCHK != 0
    }

    /// Returns true if the metadata is not transferred (NVM 5.2.2.1, 5.2.2.2).
    pub(crate) fn keeps_metadata(&self) -> bool {
        self.is_pract() && self.metadata.is_only_protection()
    }

    /// Checks blocks, of which the first is `index` blocks into the command.
    ///
    /// # Errors
    /// The status of the first check that fails.
    pub(crate) fn check(
        &self,
        index: u32,
        block_size: usize,
        data: &[u8],
        metadata: &[u8],
    ) -> Result<(), Status> {
        if !self.checks() {
            return Ok(());
        }
        let Protection { kind, format, .. } = self.protection;
        let blocks = data.chunks_exact(block_size).zip(metadata.chunks_exact(self.metadata.len()));
        for (index, (data, metadata)) in (index..).zip(blocks) {
            let Some(info) = format.read(&metadata[self.at..]) else { continue };
            let needed = format.needs_guard(&info, kind, self.prinfo);
            let expected = ExpectedTags {
                guard: if needed { self.guard(data, metadata) } else { 0 },
                app_tag: self.app_tag,
                app_mask: self.app_mask,
                ref_tag: format.ref_tag(kind, self.tags.1, index),
            };
            format.check(&info, kind, self.prinfo, &expected).map_err(|error| {
                log::debug!("block {index} of a command: {error}");
                error.status()
            })?;
        }
        Ok(())
    }

    /// Inserts the protection information of blocks, of which the first is `index` blocks into the
    /// command.
    pub(crate) fn insert(&self, index: u32, block_size: usize, data: &[u8], metadata: &mut [u8]) {
        let Protection { kind, format, .. } = self.protection;
        let (storage_tag, initial) = self.tags;
        let blocks =
            data.chunks_exact(block_size).zip(metadata.chunks_exact_mut(self.metadata.len()));
        for (index, (data, metadata)) in (index..).zip(blocks) {
            let (guard, app_tag) = (self.guard(data, metadata), self.app_tag);
            let ref_tag = format.ref_tag(kind, initial, index);
            let info = Information { guard, app_tag, storage_tag, ref_tag };
            // `Config` was checked: the metadata of a block has room for it.
            format.write(&info, &mut metadata[self.at..]);
        }
    }

    /// Returns the guard of a block: of its data and the metadata before the information.
    fn guard(&self, data: &[u8], metadata: &[u8]) -> u64 {
        self.protection.format.guard_of(data, &metadata[..self.at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(bytes: u16, kind: u8, first: bool) -> Metadata {
        let protection = ProtectionType::new(kind).map(|kind| Protection {
            kind,
            first,
            format: InformationFormat::USUAL,
        });
        Metadata { bytes, extended: false, protection }
    }

    fn request(prinfo: u32, ref_tag: u64) -> Checks {
        Checks { prinfo, slba: 100, tags: (0, ref_tag), app_tag: 0x1234, app_mask: 0xffff }
    }

    #[test]
    fn inserted_protection_passes_its_checks_and_covers_the_right_bytes() {
        for first in [false, true] {
            for bytes in [8, 16, 64] {
                let metadata = metadata(bytes, 1, first);
                let at = metadata.protection_place().unwrap().start;
                assert_eq!(at, if first { 0 } else { usize::from(bytes) - 8 });
                let action = request(prinfo::PRCHK, 100).action(metadata, true).unwrap().unwrap();
                let (mut data, mut meta) = ([7u8; 1024], vec![9u8; 2 * metadata.len()]);
                action.insert(0, 512, &data, &mut meta);
                assert_eq!(action.check(0, 512, &data, &meta), Ok(()));
                let moved = action.check(1, 512, &data, &meta);
                assert_eq!(moved, Err(status::REFERENCE_TAG_CHECK_ERROR));
                data[1023] ^= 1;
                let found = action.check(0, 512, &data, &meta);
                assert_eq!(found, Err(status::GUARD_CHECK_ERROR));
                data[1023] ^= 1;
                if bytes > 8 {
                    // The guard covers metadata before the information, and no metadata after it.
                    let other = if first { 8 } else { 0 };
                    meta[other] ^= 1;
                    assert_eq!(action.check(0, 512, &data, &meta).is_ok(), first);
                }
            }
        }
    }

    #[test]
    fn settings_that_the_type_does_not_have_are_refused() {
        let invalid = Some(status::INVALID_PROTECTION_INFORMATION);
        for (kind, prinfo, ref_tag, inserts, expected) in [
            (1, prinfo::PRCHK_REF_TAG, 100, false, None),
            (1, prinfo::PRCHK_REF_TAG, 99, false, invalid),
            (1, prinfo::PRCHK_GUARD, 99, false, None),
            (1, prinfo::PRACT, 99, false, None),
            (1, prinfo::PRACT, 99, true, invalid),
            (2, prinfo::PRCHK_REF_TAG, 99, false, None),
            (3, prinfo::PRCHK_REF_TAG, 100, false, invalid),
            (3, prinfo::PRACT | prinfo::PRCHK_GUARD, 99, true, None),
        ] {
            let action = request(prinfo, ref_tag).action(metadata(8, kind, false), inserts);
            assert_eq!(action.err(), expected, "type {kind} {prinfo:#x} {ref_tag}");
        }
        let none = request(u32::MAX, 0).action(metadata(8, 0, false), true);
        assert!(none.unwrap().is_none());
    }
}
