//! NVMe commands by io_uring: `struct nvme_uring_cmd` of `linux/nvme_ioctl.h`.

/// The command NVME_URING_CMD_IO: `_IOWR('N', 0x80, struct nvme_uring_cmd)`.
pub(crate) const NVME_URING_CMD_IO: u32 = 0xc048_4e80;
const READ: u8 = 0x02;
const WRITE: u8 = 0x01;

/// A Read or Write of the NVM command set.
pub(crate) struct Transfer {
    pub(crate) nsid: u32,
    pub(crate) write: bool,
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    pub(crate) lba: u64,
    /// Number of blocks, at least 1.
    pub(crate) blocks: u32,
}

impl Transfer {
    /// Returns the bytes of the command in a submission entry.
    pub(crate) fn encode(&self) -> [u8; 80] {
        let mut command = [0; 80];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = command.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &[if self.write { WRITE } else { READ }]);
        put(4, &self.nsid.to_ne_bytes());
        put(24, &self.address.to_ne_bytes());
        put(36, &self.bytes.to_ne_bytes());
        // CDW10 and CDW11: the first block; CDW12: the number of blocks, 0's based.
        put(40, &self.lba.to_le_bytes());
        put(48, &self.blocks.saturating_sub(1).to_ne_bytes());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_at_the_places_of_the_kernels_structure() {
        let transfer = Transfer {
            nsid: 0x0102_0304,
            write: false,
            address: 0x1111_2222_3333_4444,
            bytes: 4096,
            lba: 0x5_0000_0006,
            blocks: 8,
        };
        let bytes = transfer.encode();
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        assert_eq!(
            (bytes[0], word(4), word(24), word(28)),
            (2, 0x0102_0304, 0x3333_4444, 0x1111_2222)
        );
        assert_eq!((word(36), word(40), word(44), word(48)), (4096, 6, 5, 7));
        assert!(bytes[52..].iter().all(|&byte| byte == 0));
    }
}
