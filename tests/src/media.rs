//! What is on the namespaces that `nvme-check` is run against: a pattern that tells each word
//! from each other, protection information, and places with faults.
//!
//! The host writes the images, the test program in the guest knows what they must hold. Checksums
//! are computed here bit by bit, apart from the driver's, so that one can be judged by the other.

mod checksum;

pub use checksum::{crc16, crc64};

use nvio_testkit::random::Rng;

/// Bytes, blocks and metadata of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes of all blocks, without metadata.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Metadata, if there is any.
    pub metadata: Option<Metadata>,
}

/// Metadata of each block.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    /// Bytes for each block.
    pub bytes: usize,
    /// Whether it travels at the end of each block rather than in a buffer of its own.
    pub extended: bool,
    /// Type of protection information, 0 to 3; 0 is none.
    pub protection: u8,
    /// Whether protection information comes first in the metadata, rather than last.
    pub first: bool,
    /// Whether the guard has 64 bits rather than 16.
    pub guard64: bool,
}

const fn metadata(bytes: usize, extended: bool, protection: u8) -> Metadata {
    Metadata { bytes, extended, protection, first: false, guard64: false }
}

impl Layout {
    /// A namespace without metadata.
    pub const fn plain(bytes: u64, block_size: u32) -> Self {
        Self { bytes, block_size, metadata: None }
    }

    const fn with(block_size: u32, metadata: Metadata) -> Self {
        Self { bytes: 2 << 20, block_size, metadata: Some(metadata) }
    }

    /// Blocks of the namespace.
    pub fn blocks(&self) -> u64 {
        self.bytes / u64::from(self.block_size)
    }

    /// Bytes of the image: QEMU keeps all metadata behind all blocks.
    pub fn image_bytes(&self) -> u64 {
        let metadata = self.metadata.map_or(0, |metadata| metadata.bytes as u64);
        self.bytes + self.blocks() * metadata
    }
}

impl Metadata {
    /// The properties of QEMU's namespace.
    pub fn properties(&self) -> String {
        let (extended, first) = (u8::from(self.extended), u8::from(self.first));
        // Format 2 of protection information is the one with a guard of 64 bits.
        let format = if self.guard64 { 2 } else { 0 };
        format!(
            ",ms={},mset={extended},pi={},pil={first},pif={format}",
            self.bytes, self.protection
        )
    }

    /// Bytes of protection information; 0 without any.
    fn protected_bytes(&self) -> usize {
        match (self.protection, self.guard64) {
            (0, _) => 0,
            (_, false) => 8,
            (_, true) => 16,
        }
    }

    /// Where protection information is in the metadata.
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
/// The application tag of every block that the host wrote.
pub const APPLICATION_TAG: u16 = 0x1d0c;
/// A block of each protected namespace whose guard the host got wrong.
pub const WRONG_GUARD: u64 = 200;
/// A block of each protected namespace whose application tag is another.
pub const WRONG_APPLICATION_TAG: u64 = 201;
/// A block of each protected namespace whose reference tag is not its LBA.
pub const WRONG_REFERENCE_TAG: u64 = 202;

/// A block of the faulty namespace that can never be read.
pub const UNREADABLE: u64 = 4000;
/// A block that cannot be read the first time.
pub const READABLE_AGAIN: u64 = 5000;
/// A block that cannot be written.
pub const UNWRITABLE: u64 = 6000;
/// These, as properties of QEMU's driver blkdebug, which counts in blocks of 512 bytes.
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

/// Fills `bytes` with the pattern of namespace `nsid` from byte `offset`; both multiples of 8.
pub fn fill(nsid: u32, offset: u64, bytes: &mut [u8]) {
    for (word, place) in (offset / 8..).zip(bytes.chunks_exact_mut(8)) {
        let value = Rng::new(u64::from(nsid) << 48 | word).next_u64();
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// The byte offset of the first word in `bytes` that is not the pattern's.
pub fn mismatch(nsid: u32, offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(nsid, offset, &mut expected);
    let at = bytes.iter().zip(&expected).position(|(found, wanted)| found != wanted)?;
    Some(offset + at as u64)
}

/// The metadata of block `lba` with the data `block`, as a host that knows the rules makes it.
pub fn block_metadata(nsid: u32, layout: Metadata, lba: u64, block: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; layout.bytes];
    fill(nsid, u64::MAX / 16 + lba * 64, &mut bytes);
    if layout.protection == 0 {
        return bytes;
    }
    let at = layout.offset();
    // The guard covers what comes before protection information in the metadata too (NVM 5.2).
    let covered = [block, &bytes[..at]].concat();
    // Type 3 has no rule for the reference tag.
    let reference = lba & 0xffff_ffff;
    let tuple = if layout.guard64 {
        let mut tuple = crc64(&covered).to_be_bytes().to_vec();
        tuple.extend(APPLICATION_TAG.to_be_bytes());
        // 48 bits of reference tag, of which no storage tag takes any.
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

/// The image of a namespace: its blocks, and its metadata, with the mistakes named above.
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
