//! Every magic number, and images that the tools of other formats make.

use super::*;

use crate::image::ImagePart;

fn part(image: &[u8], start: u64, size: u64) -> Option<&'static Format> {
    at(&ImagePart::from_bytes(image.into()), start, size)
}

fn recognised(image: &[u8]) -> Option<&'static str> {
    part(image, 0, image.len() as u64).map(|format| format.name)
}

#[test]
fn each_magic_number_is_the_first_that_matches() {
    for format in FORMATS.iter().chain([&MD_RAID]) {
        assert!(!format.magics.is_empty() && !format.advice.is_empty(), "{}", format.name);
        for magic in format.magics {
            let mut image = vec![0; 1 << 20];
            let (place, bytes) = match *magic {
                Magic::At(place, bytes) => (place, bytes),
                Magic::BeforeEnd(before, bytes) => {
                    (image.len() - usize::try_from(before).unwrap(), bytes)
                }
            };
            image[place..place + bytes.len()].copy_from_slice(bytes);
            assert_eq!(recognised(&image), Some(format.name), "{magic:?}");
            // In a partition, and cut off within the magic number.
            let shifted = [vec![0x5a; 512], image.clone()].concat();
            let found = part(&shifted, 512, image.len() as u64).map(|format| format.name);
            assert_eq!(found, Some(format.name));
            if matches!(magic, Magic::At(..)) {
                assert_eq!(recognised(&image[..place + bytes.len() - 1]), None, "{magic:?}");
            }
        }
    }
}

#[test]
fn nothing_is_recognised_in_nothing() {
    for image in [vec![], vec![0; 1], vec![0; 100_000], vec![0xff; 300_000], vec![0; 1 << 20]] {
        assert_eq!(recognised(&image), None);
    }
    assert_eq!(part(&[0; 10], 11, 5), None);
    assert_eq!(part(&[0; 10], u64::MAX, u64::MAX), None);
}

/// A device whose blocks past the first 4 KiB cannot be read.
struct Broken;

impl BlockSource for Broken {
    fn size(&self) -> u64 {
        1 << 30
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), nvio_ext4::SourceError> {
        if offset + buf.len() as u64 > SHORT_BYTES {
            return Err("a bad block".into());
        }
        buf.fill(0);
        buf[..4].copy_from_slice(b"XFSB");
        Ok(())
    }
}

#[test]
fn a_bad_block_hides_only_the_magic_numbers_in_it() {
    assert_eq!(at(&Broken, 0, 1 << 30).map(|format| format.name), Some("xfs"));
}

#[test]
fn superblocks_at_the_end_and_in_arrays() {
    let place = |at: usize, bytes: &[u8]| {
        let mut image = vec![0; (1 << 20) + 3000];
        image[at..at + bytes.len()].copy_from_slice(bytes);
        recognised(&image)
    };
    // The size rounded down to 64 KiB, less 64 KiB; 8 KiB before the end, rounded down to 4 KiB.
    assert_eq!(place((1 << 20) - (64 << 10), formats::MD_MAGIC), Some("Linux RAID"));
    assert_eq!(place((1 << 20) - (8 << 10), formats::MD_MAGIC), Some("Linux RAID"));
    assert_eq!(place((128 << 10) + 5 * 1024, &0x00ba_b10c_u64.to_le_bytes()), Some("zfs"));
    assert_eq!(place(255 << 10, &0x00ba_b10c_u64.to_be_bytes()), Some("zfs"));
    assert_eq!(place((128 << 10) + 5 * 1024 + 8, &0x00ba_b10c_u64.to_le_bytes()), None);
}

#[test]
fn the_ext_filesystems_differ_by_their_features() {
    let work = nvio_testkit::image::work_folder("recognise");
    for (kind, options) in [
        ("ext4", &[][..]),
        ("ext4", &["-O", "^has_journal"]),
        ("ext4", &["-O", "none,extents"]),
        ("ext3", &["-O", "none,has_journal,filetype,sparse_super"]),
        ("ext2", &["-O", "none,filetype"]),
        ("ext4 journal", &["-O", "journal_dev", "-b", "1024"]),
        ("ext4 journal", &["-O", "journal_dev", "-b", "4096"]),
    ] {
        let image = work.path().join("disk.img");
        nvio_testkit::image::mkfs(&image, 8 << 20, options);
        let image = std::fs::read(&image).unwrap();
        assert_eq!(recognised(&image), Some(kind), "{options:?}");
        let format = part(&image, 0, image.len() as u64).unwrap();
        assert_eq!(format.is_ext(), kind != "ext4 journal");
    }
}
