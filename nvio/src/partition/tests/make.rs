//! Makes partition tables.

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;

/// The type of a Linux filesystem.
pub(super) const LINUX: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

/// Makes a boot record of up to four records: type, first block, blocks.
pub(super) fn record(entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (index, (kind, first, count)) in entries.iter().enumerate() {
        let at = 446 + 16 * index;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Makes a device of 1 MiB with boot records at some blocks.
pub(super) fn mbr(records: &[(usize, [u8; 512])]) -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    for (block, sector) in records {
        image[block * 512..block * 512 + 512].copy_from_slice(sector);
    }
    image
}

/// An entry of a GPT: number, first and last block, name.
pub(super) type Entry = (usize, u64, u64, &'static str);

/// A GPT with both copies.
pub(super) struct Gpt {
    pub(super) block_size: usize,
    pub(super) blocks: u64,
    pub(super) header_bytes: usize,
    pub(super) entry_bytes: usize,
    pub(super) count: usize,
    pub(super) entries: Vec<Entry>,
    /// Slot of the protective record in the MBR.
    pub(super) protective: usize,
    /// Changes both headers before their checksums.
    pub(super) change: fn(&mut [u8]),
}

impl Default for Gpt {
    fn default() -> Self {
        Self {
            block_size: 512,
            blocks: 8192,
            header_bytes: 92,
            entry_bytes: 128,
            count: 128,
            entries: vec![(1, 40, 99, "x"), (3, 100, 1000, "")],
            protective: 0,
            change: |_| (),
        }
    }
}

impl Gpt {
    pub(super) fn make(&self) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(self.blocks).unwrap() * self.block_size];
        let mut records = vec![(0, 0, 0); self.protective];
        records.push((0xee, 1, u32::try_from(self.blocks - 1).unwrap()));
        image[..512].copy_from_slice(&record(&records));
        let array = self.array();
        let array_blocks = array.len().div_ceil(self.block_size) as u64;
        let backup = self.blocks - 1;
        for (at, other, entries) in [(1, backup, 2), (backup, 1, backup - array_blocks)] {
            let place = usize::try_from(entries).unwrap() * self.block_size;
            image[place..place + array.len()].copy_from_slice(&array);
            let usable = (2 + array_blocks, backup - array_blocks - 1);
            let header = self.header(at, other, entries, usable, &array);
            let place = usize::try_from(at).unwrap() * self.block_size;
            image[place..place + header.len()].copy_from_slice(&header);
        }
        image
    }

    fn array(&self) -> Vec<u8> {
        let mut array = vec![0; self.count * self.entry_bytes];
        for &(number, first, last, name) in &self.entries {
            let entry = &mut array[(number - 1) * self.entry_bytes..];
            entry[..16].copy_from_slice(&LINUX);
            entry[16] = u8::try_from(number % 251).unwrap() + 1;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (index, unit) in name.encode_utf16().enumerate() {
                entry[56 + 2 * index..58 + 2 * index].copy_from_slice(&unit.to_le_bytes());
            }
        }
        array
    }

    /// The fields in the order of UEFI 5.3.2.
    fn header(
        &self,
        at: u64,
        other: u64,
        entries: u64,
        usable: (u64, u64),
        array: &[u8],
    ) -> Vec<u8> {
        let crc = |bytes: &[u8]| {
            u32::try_from(crc_fast::checksum(Crc32IsoHdlc, bytes)).unwrap().to_le_bytes()
        };
        let mut header = b"EFI PART\0\0\x01\0".to_vec();
        header.extend(u32::try_from(self.header_bytes).unwrap().to_le_bytes());
        header.extend([0; 8]);
        for lba in [at, other, usable.0, usable.1] {
            header.extend(lba.to_le_bytes());
        }
        header.extend([9; 16]);
        header.extend(entries.to_le_bytes());
        for value in [self.count, self.entry_bytes] {
            header.extend(u32::try_from(value).unwrap().to_le_bytes());
        }
        header.extend(crc(array));
        header.resize(self.header_bytes.max(92), 0);
        (self.change)(&mut header);
        let size = u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize;
        let sum = crc(&header[..size.min(header.len())]);
        header[16..20].copy_from_slice(&sum);
        header
    }
}

/// The first 4 KiB of an ext4 filesystem, as far as they are recognised.
pub(super) fn ext4_superblock() -> [u8; 4096] {
    let mut head = [0; 4096];
    head[1080..1082].copy_from_slice(&[0x53, 0xef]);
    // Incompatible feature: extents.
    head[1120] = 0x40;
    head
}
