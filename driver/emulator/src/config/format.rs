//! LBA formats, and the settings of a namespace after a format (NVM 4.1.2, 4.1.5.1).

use nvio_spec::namespace::FormatSettings;
use nvio_spec::{LbaFormat, Status, status};
use zerocopy::little_endian::U16;

use crate::config::metadata::Protection;
use crate::config::namespace::NamespaceConfig;

/// The size of a block and of its metadata, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockFormat {
    pub(crate) size: u32,
    pub(crate) metadata: u16,
}

/// Formats of namespaces that are not images.
pub(crate) const FORMATS: [BlockFormat; 5] = [
    BlockFormat { size: 512, metadata: 0 },
    BlockFormat { size: 512, metadata: 8 },
    BlockFormat { size: 4096, metadata: 0 },
    BlockFormat { size: 4096, metadata: 8 },
    BlockFormat { size: 4096, metadata: 64 },
];

/// Largest block size of [`FORMATS`], in bytes.
pub(crate) const LARGEST: u32 = 4096;

impl BlockFormat {
    /// Encodes the format for Identify Namespace.
    pub(crate) fn describe(self) -> LbaFormat {
        let lbads = self.size.trailing_zeros().to_le_bytes()[0];
        LbaFormat { ms: U16::new(self.metadata), lbads, rp: 0 }
    }
}

impl NamespaceConfig {
    /// Returns the block size and metadata size.
    pub(crate) fn block_format(&self) -> BlockFormat {
        BlockFormat { size: self.block_size, metadata: self.metadata }
    }

    /// Returns the settings of the namespace in another of these formats.
    ///
    /// # Errors
    /// Invalid Format for an index beyond the formats, and for protection of a reserved type, in
    /// metadata without room for it, or in the first bytes where that is not allowed.
    pub(crate) fn formatted(
        &self,
        settings: FormatSettings,
        formats: &[BlockFormat],
        allows_first: bool,
    ) -> Result<Self, Status> {
        let invalid = status::INVALID_FORMAT;
        let format = *formats.get(usize::from(settings.index)).ok_or(invalid)?;
        let first = settings.first;
        let protection = match settings.protection {
            0 => None,
            _ => {
                let kind = settings.protection_type().ok_or(invalid)?;
                Some(Protection { kind, first, format: self.information })
            }
        };
        let fits = usize::from(format.metadata) >= self.information.size();
        if protection.is_some() && (!fits || first && !allows_first) {
            return Err(invalid);
        }
        // The boundary stays at its place if the new block size can express it.
        let boundary = u64::from(self.noiob) * u64::from(self.block_size);
        let size = u64::from(format.size);
        let noiob = if boundary.is_multiple_of(size) { boundary / size } else { 0 };
        Ok(Self {
            block_size: format.size,
            metadata: format.metadata,
            extended: settings.extended && format.metadata > 0,
            protection,
            noiob: u16::try_from(noiob).unwrap_or(0),
            ..self.clone()
        })
    }

    /// Returns true if block size and metadata are equal.
    pub(crate) fn has_same_format(&self, other: &Self) -> bool {
        self.block_size == other.block_size && self.blocks_metadata() == other.blocks_metadata()
    }
}
