//! The metadata of blocks: a table beside the data, in a file or in memory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vm_memory::VolatileSlice;

use crate::config::metadata::Metadata;
use crate::config::namespace::Backing;
use crate::error::Error;
use crate::media::backing::RawStore;

/// First bytes of the file with the metadata of an image; the version follows.
const MAGIC: [u8; 8] = *b"nviometa";
const VERSION: u8 = 1;
/// Offset of the metadata in that file.
const HEADER: u64 = 4096;

/// The metadata of each block of a namespace.
///
/// The table stores protection information with its bits inverted. Blocks that were never written,
/// which are zeroes in memory and holes in files, then read as all ones, and all ones disable the
/// checks of a block (NVM 3.2.3.2.1).
#[derive(Debug)]
pub(crate) struct MetadataTable {
    store: RawStore,
    /// Offset of the metadata of block 0 in the store.
    base: u64,
    block_shift: u32,
    metadata: Metadata,
}

impl MetadataTable {
    /// Opens the file beside an image file; otherwise allocates memory.
    ///
    /// # Errors
    /// [`Error::Image`] for a file that cannot be opened, and [`Error::MetadataFormat`] for one
    /// that was made with another format; [`Error::Memory`].
    pub(crate) fn open(
        backing: &Backing,
        block_shift: u32,
        blocks: u64,
        metadata: Metadata,
    ) -> Result<Self, Error> {
        let bytes = blocks.saturating_mul(metadata.bytes.into());
        let beside = match backing {
            Backing::Image { path, read_only } if path.is_file() => {
                open_beside(path, *read_only, bytes, block_shift, metadata)?
            }
            _ => None,
        };
        let (store, base) = match beside {
            Some(store) => (store, HEADER),
            None => (RawStore::open(&Backing::Memory(bytes))?.0, 0),
        };
        Ok(Self { store, base, block_shift, metadata })
    }

    /// Reads the metadata of the blocks from `offset` of the data, until `to` is full.
    pub(crate) fn read(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.store.read(self.place(offset), &mut VolatileSlice::from(&mut *to))?;
        self.invert(to);
        Ok(())
    }

    /// Writes the metadata of the blocks from `offset` of the data, until `from` is used up.
    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut inverted = from.to_vec();
        self.invert(&mut inverted);
        self.store.write(self.place(offset), &VolatileSlice::from(&mut inverted[..]))
    }

    /// Makes whole blocks unwritten.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let bytes = (len >> self.block_shift) * u64::from(self.metadata.bytes);
        self.store.zero(self.place(offset), bytes)
    }

    /// Makes every write durable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.store.flush()
    }

    /// Returns the place in the table of the metadata of the block at `offset` of the data.
    fn place(&self, offset: u64) -> u64 {
        self.base + (offset >> self.block_shift) * u64::from(self.metadata.bytes)
    }

    fn invert(&self, bytes: &mut [u8]) {
        let Some(place) = self.metadata.protection_place() else { return };
        for block in bytes.chunks_exact_mut(self.metadata.len()) {
            for byte in &mut block[place.clone()] {
                *byte = !*byte;
            }
        }
    }
}

/// Returns the path of the file with an image's metadata: the image's path and `.meta`.
fn path_beside(image: &Path) -> PathBuf {
    let mut name = OsString::from(image);
    name.push(".meta");
    name.into()
}

/// Opens the metadata of an image, or creates it. `None` if there is none and the image is
/// read-only: all its blocks are then unwritten.
fn open_beside(
    image: &Path,
    read_only: bool,
    bytes: u64,
    block_shift: u32,
    metadata: Metadata,
) -> Result<Option<RawStore>, Error> {
    let path = path_beside(image);
    let failed = |source| Error::Image { path: path.clone(), source };
    if !path.exists() {
        if read_only {
            return Ok(None);
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        file.write_all_at(&header(block_shift, metadata), 0)
            .and_then(|()| file.set_len(HEADER.saturating_add(bytes)))
            .map_err(failed)?;
    }
    let file = File::open(&path).map_err(failed)?;
    let mut found = [0; 16];
    let read = file.read_exact_at(&mut found, 0);
    let long_enough = file.metadata().map_err(failed)?.len() >= HEADER.saturating_add(bytes);
    if read.is_err() || !long_enough || found != header(block_shift, metadata) {
        return Err(Error::MetadataFormat { path });
    }
    let (store, _) = RawStore::open(&Backing::Image { path, read_only })?;
    Ok(Some(store))
}

/// Returns the header of the file, which identifies the format of the table.
fn header(block_shift: u32, metadata: Metadata) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&MAGIC);
    header[8] = VERSION;
    header[9] = block_shift.to_le_bytes()[0];
    header[10..12].copy_from_slice(&metadata.bytes.to_le_bytes());
    header[12] = metadata.dps();
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::metadata::Protection;
    use nvio_spec::protection::ProtectionType;

    fn metadata(bytes: u16) -> Metadata {
        let protection = Protection {
            kind: ProtectionType::TWO,
            first: false,
            format: nvio_spec::InformationFormat::USUAL,
        };
        Metadata { bytes, extended: true, protection: Some(protection) }
    }

    fn open(backing: &Backing, bytes: u16) -> Result<MetadataTable, Error> {
        let (_, size) = RawStore::open(backing).unwrap();
        MetadataTable::open(backing, 9, size >> 9, metadata(bytes))
    }

    #[test]
    fn unwritten_metadata_is_unchecked_and_written_metadata_returns() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 10).unwrap();
        let on_image = Backing::image(image.path(), false);
        for backing in [Backing::memory(64 << 10), Backing::null(64 << 10), on_image.clone()] {
            let mut table = open(&backing, 16).unwrap();
            let mut found = [1; 48];
            table.read(512, &mut found).unwrap();
            let unwritten = [[0; 8], [0xff; 8]].concat();
            assert_eq!(found, unwritten.repeat(3)[..]);
            let written: Vec<u8> = (0..32).collect();
            table.write(1024, &written).unwrap();
            table.read(1024, &mut found[..32]).unwrap();
            assert_eq!(found[..32], written);
            table.zero(1024, 512).unwrap();
            table.read(1024, &mut found[..32]).unwrap();
            assert_eq!(found[..32], [&unwritten[..], &written[16..]].concat());
            table.flush().unwrap();
        }
        // The metadata of an image persists when it is opened again, and is sparse.
        let mut again = open(&on_image, 16).unwrap();
        let mut found = [0; 16];
        again.read(1536, &mut found).unwrap();
        assert_eq!(found[..], (16..32).collect::<Vec<u8>>());
        drop(again);
        assert!(matches!(open(&on_image, 8), Err(Error::MetadataFormat { .. })));
        std::fs::remove_file(path_beside(image.path())).unwrap();
        // A read-only image does not create it.
        let read_only = Backing::image(image.path(), true);
        open(&read_only, 16).unwrap().read(0, &mut found).unwrap();
        assert_eq!(found[8..], [0xff; 8]);
        assert!(!path_beside(image.path()).exists());
    }

    #[test]
    fn a_file_that_is_not_metadata_is_refused() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(4096).unwrap();
        let beside = path_beside(image.path());
        for content in [&b""[..], b"nviometa", &[0; 8192]] {
            std::fs::write(&beside, content).unwrap();
            let opened = open(&Backing::image(image.path(), false), 16);
            assert!(matches!(opened, Err(Error::MetadataFormat { .. })));
        }
        std::fs::remove_file(&beside).unwrap();
    }
}
