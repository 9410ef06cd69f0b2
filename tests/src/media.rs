//! The contents of the namespaces for `nvme-check`: a pattern in which all words differ, protection
//! information, and places with faults.
//!
//! The host writes the images, and the test program in the guest knows their expected contents.
//! Checksums are computed here bit by bit, independently of the driver's code, so that each can
//! verify the other.

mod checksum;

pub use checksum::{crc16, crc64};

use nvio_testkit::random::Rng;

/// Size, block size and metadata of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Size of all blocks without metadata, bytes.
    pub bytes: u64,
    /// Block size, bytes.
    pub block_size: u32,
    /// Metadata, if there is any.
    pub metadata: Option<Metadata>,
}

/// The metadata of each block.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    /// Size of the metadata per block, bytes.
    pub bytes: usize,
    /// True if the metadata is transferred at the end of each block, false if in a separate buffer.
    pub extended: bool,
    /// Type of protection information, 1 to 3; 0 for none.
    pub protection: u8,
    /// True if protection information is at the start of the metadata, false if at the end.
    pub first: bool,
    /// True for guards of 64 bits, false for 16 bits.
    pub guard64: bool,
}

const fn metadata(bytes: usize, extended: bool, protection: u8) -> Metadata {
    Metadata { bytes, extended, protection, first: false, guard64: false }
}

impl Layout {
    /// Creates the layout of a namespace without metadata.
    pub const fn plain(bytes: u64, block_size: u32) -> Self {
        Self { bytes, block_size, metadata: None }
    }

    const fn with(block_size: u32, metadata: Metadata) -> Self {
        Self { bytes: 2 << 20, block_size, metadata: Some(metadata) }
    }

    /// Returns the number of blocks of the namespace.
    pub fn blocks(&self) -> u64 {
        self.bytes / u64::from(self.block_size)
    }

    /// Returns the size of the image in bytes. QEMU stores all metadata after all blocks.
    pub fn image_bytes(&self) -> u64 {
        let metadata = self.metadata.map_or(0, |metadata| metadata.bytes as u64);
        self.bytes + self.blocks() * metadata
    }
}

impl Metadata {
    /// Returns the properties of QEMU's namespace.
    pub fn properties(&self) -> String {
        let (extended, first) = (u8::from(self.extended), u8::from(self.first));
        // Format 2 of protection information has a guard of 64 bits.
        let format = if self.guard64 { 2 } else { 0 };
        format!(
            ",ms={},mset={extended},pi={},pil={first},pif={format}",
            self.bytes, self.protection
        )
    }

    /// Returns the size of protection information in bytes; 0 if there is none.
    fn protected_bytes(&self) -> usize {
        match (self.protection, self.guard64) {
            (0, _) => 0,
            (_, false) => 8,
            (_, true) => 16,
        }
    }

    /// Returns the byte offset of protection information in the metadata.
    pub fn offset(&self) -> usize {
        if self.first { 0 } else { self.bytes - self.protected_bytes() }
    }
}

/// 32 MiB of 512-byte blocks.
pub const PLAIN_512: Layout = Layout::plain(32 << 20, 512);
/// 32 MiB of 4096-byte blocks.
pub const PLAIN_4096: Layout = Layout::plain(32 << 20, 4096);
/// The namespaces with metadata, from namespace 1.
pub const PROTECTED: [Layout; 6] = [
    Layout::with(512, metadata(8, false, 1)),
    Layout::with(4096, metadata(8, true, 2)),
    Layout::with(512, metadata(8, false, 3)),
    Layout::with(4096, Metadata { first: true, ..metadata(16, false, 1) }),
    Layout::with(4096, Metadata { guard64: true, ..metadata(16, false, 1) }),
    Layout::with(4096, metadata(64, true, 0)),
];
/// Application tag of every block that the host wrote.
pub const APPLICATION_TAG: u16 = 0x1d0c;
/// The block of each protected namespace with a wrong guard.
pub const WRONG_GUARD: u64 = 200;
/// The block of each protected namespace with a wrong application tag.
pub const WRONG_APPLICATION_TAG: u64 = 201;
/// The block of each protected namespace with a wrong reference tag.
pub const WRONG_REFERENCE_TAG: u64 = 202;

/// The block of the faulty namespace that can never be read.
pub const UNREADABLE: u64 = 4000;
/// The block whose first read fails.
pub const READABLE_AGAIN: u64 = 5000;
/// The block that cannot be written.
pub const UNWRITABLE: u64 = 6000;
/// Returns these faults as properties of QEMU's driver blkdebug, in units of 512 bytes.
pub fn faults() -> String {
    let faults =
        [("read", UNREADABLE, "off"), ("read", READABLE_AGAIN, "on"), ("write", UNWRITABLE, "off")];
    let mut properties = String::new();
    for (index, (kind, block, once)) in faults.into_iter().enumerate() {
        let rule = format!("file.inject-error.{index}");
        properties += &format!(",{rule}.event=none,{rule}.iotype={kind},{rule}.errno=5");
        properties += &format!(",{rule}.sector={block},{rule}.once={once}");
    }
    properties
}

/// Fills `bytes` with the pattern of namespace `nsid` from byte `offset` on. Both must be multiples
/// of 8 long.
pub fn fill(nsid: u32, offset: u64, bytes: &mut [u8]) {
    for (word, place) in (offset / 8..).zip(bytes.chunks_exact_mut(8)) {
        let value = Rng::new(u64::from(nsid) << 48 | word).next_u64();
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Returns the byte offset of the first byte in `bytes` that differs from the pattern.
pub fn mismatch(nsid: u32, offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(nsid, offset, &mut expected);
    let at = bytes.iter().zip(&expected).position(|(found, wanted)| found != wanted)?;
    Some(offset + at as u64)
}

/// Returns the metadata of block `lba` with the data `block`, as a host computes it.
pub fn block_metadata(nsid: u32, layout: Metadata, lba: u64, block: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; layout.bytes];
    fill(nsid, u64::MAX / 16 + lba * 64, &mut bytes);
    if layout.protection == 0 {
        return bytes;
    }
    let at = layout.offset();
    // The guard also covers the metadata before protection information (NVM 5.2).
    let covered = [block, &bytes[..at]].concat();
    // The reference tag of type 3 is arbitrary.
    let reference = lba & 0xffff_ffff;
    let tuple = if layout.guard64 {
        let mut tuple = crc64(&covered).to_be_bytes().to_vec();
        tuple.extend(APPLICATION_TAG.to_be_bytes());
        // 48 bits of reference tag, without a storage tag.
        tuple.extend(&reference.to_be_bytes()[2..]);
        tuple
    } else {
        let mut tuple = crc16(&covered).to_be_bytes().to_vec();
        tuple.extend(APPLICATION_TAG.to_be_bytes());
        tuple.extend(&reference.to_be_bytes()[4..]);
        tuple
    };
    bytes[at..at + tuple.len()].copy_from_slice(&tuple);
    bytes
}

/// Returns the image of a namespace: its blocks and its metadata, with the errors listed above.
pub fn image(nsid: u32, layout: &Layout) -> Vec<u8> {
    let mut image = vec![0; usize::try_from(layout.bytes).expect("an image fits in memory")];
    fill(nsid, 0, &mut image);
    let Some(metadata) = layout.metadata else { return image };
    let mut behind = Vec::new();
    for (lba, block) in (0..).zip(image.chunks_exact(layout.block_size as usize)) {
        let mut bytes = block_metadata(nsid, metadata, lba, block);
        let guard = if metadata.guard64 { 8 } else { 2 };
        let wrong = match lba {
            WRONG_GUARD => Some(0),
            WRONG_APPLICATION_TAG => Some(guard),
            WRONG_REFERENCE_TAG => Some(metadata.protected_bytes().saturating_sub(1)),
            _ => None,
        };
        if let (Some(at), true) = (wrong, metadata.protection != 0) {
            bytes[metadata.offset() + at] ^= 1;
        }
        behind.extend(bytes);
    }
    image.extend(behind);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_tells_namespaces_and_places_apart() {
        let mut bytes = [0; 4096];
        fill(1, 8192, &mut bytes);
        assert_eq!(mismatch(1, 8192, &bytes), None);
        assert_eq!(mismatch(2, 8192, &bytes), Some(8192));
        assert_eq!(mismatch(1, 8184, &bytes), Some(8184));
        bytes[4000] ^= 1;
        assert_eq!(mismatch(1, 8192, &bytes), Some(8192 + 4000));
    }

    #[test]
    fn images_have_metadata_behind_the_blocks() {
        for (nsid, layout) in (1..).zip(&PROTECTED) {
            let image = image(nsid, layout);
            assert_eq!(image.len() as u64, layout.image_bytes());
            let metadata = layout.metadata.unwrap();
            let block = layout.block_size as usize;
            let behind = usize::try_from(layout.bytes).unwrap();
            let at = |lba: usize| behind + lba * metadata.bytes;
            let expected = |lba: u64, start: usize| {
                block_metadata(nsid, metadata, lba, &image[start..start + block])
            };
            assert_eq!(image[at(3)..at(4)], expected(3, 3 * block));
            let wrong = image[at(200)..at(201)] != expected(200, 200 * block);
            assert_eq!(wrong, metadata.protection != 0);
        }
    }
}
