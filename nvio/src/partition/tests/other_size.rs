//! Tables that were written for a device with blocks of another size.

use super::make::{Gpt, ext4_superblock, record};
use super::*;

#[test]
fn a_gpt_of_the_other_block_size() {
    for (written, device) in [(4096, 512), (512, 4096)] {
        let image = Gpt { block_size: written, ..Gpt::default() }.make();
        let error = look(&image, 1, device).unwrap_err();
        let Error::OtherBlockSize { table } = &error else { panic!("{error}") };
        assert_eq!((table.block_size as usize, table.device_block_size), (written, device));
        assert!(table.is_for_other_blocks());
        assert_eq!(table.partitions[0].start, 40 * written as u64);
        let text = format!("written for {written}-byte blocks, but the device has {device}-byte");
        assert!(error.to_string().contains(&text), "{error}");
        assert!(list(&image, device).unwrap().warnings[0].contains(&text));
    }
    // Only the backup is left.
    let mut image = Gpt { block_size: 4096, ..Gpt::default() }.make();
    image[4096] = 0;
    let table = list(&image, 512).unwrap();
    assert_eq!((table.block_size, table.warnings.len()), (4096, 2));
}

/// An MBR does not say for which blocks it was written. The contents of the partitions do.
#[test]
fn an_mbr_of_the_other_block_size() {
    for (written, device) in [(4096u32, 512u32), (512, 4096)] {
        let mut image = vec![0; 4 << 20];
        image[..512].copy_from_slice(&record(&[(0x83, 16, 64)]));
        let start = 16 * written as usize;
        image[start..start + 4096].copy_from_slice(&ext4_superblock());
        let table = list(&image, device).unwrap();
        assert_eq!((table.block_size, table.device_block_size), (written, device));
        assert_eq!(table.partitions[0].start, start as u64);
        assert!(table.warnings[0].contains("the MBR was written for"), "{:?}", table.warnings);
        assert!(!list(&image, written).unwrap().is_for_other_blocks());
        // Without contents, nothing speaks against the blocks of the device.
        image[start..].fill(0);
        assert!(!list(&image, device).unwrap().is_for_other_blocks());
    }
}
