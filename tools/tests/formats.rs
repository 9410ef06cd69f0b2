//! Files of other formats, given by mistake: one line says what they are and what to do. Each is
//! made by the tool of its format, if that is installed, or from its magic number.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Disk, must, nvio};

fn refused(image: &Path, parts: &[&str]) {
    for verb in ["ls", "fsinfo"] {
        nvio([verb.as_ref(), image.as_os_str()]).refused(parts);
    }
}

#[test]
fn compressed_images() {
    let disk = Disk::new(|folder| fs::write(folder.join("hello"), "hello\n").unwrap(), &[]);
    let image = disk.image();
    for (program, suffix, name) in [
        ("gzip", "gz", "gzip"),
        ("xz", "xz", "xz"),
        ("bzip2", "bz2", "bzip2"),
        ("zstd", "zst", "zstd"),
        ("lz4", "lz4", "lz4"),
    ] {
        let packed = image.with_extension(suffix);
        let script = format!("{program} -c \"$0\" > \"$1\"");
        let made = Command::new("sh").args(["-c", &script]).args([&image, &packed]).output();
        if !made.unwrap().status.success() {
            eprintln!("not run: there is no {program}");
            continue;
        }
        refused(&packed, &["compressed with", name, "decompress it"]);
        // A file that is smaller than a block.
        let packed_small = disk.path("small");
        let script = format!("echo | {program} -c > \"$0\"");
        must("sh", &["-c".as_ref(), script.as_ref(), packed_small.as_ref()]);
        assert!(fs::metadata(&packed_small).unwrap().len() < 512);
        refused(&packed_small, &["compressed with", name, "decompress it"]);
    }
    let tar = disk.path("disk.tar");
    must(
        "tar",
        &["-C".as_ref(), disk.folder().as_ref(), "-cf".as_ref(), tar.as_ref(), ".".as_ref()],
    );
    refused(&tar, &["a tar archive", "tar -xf"]);
}

#[test]
fn other_images_and_filesystems() {
    let disk = Disk::new(|_| (), &[]);
    let image = disk.path("other.img");
    for (at, magic, parts) in [
        (0, &b"QFI\xfb\0\0\0\x03"[..], &["a qcow2 image", "qemu-img convert"][..]),
        (0, b"vhdxfile", &["a VHDX image", "qemu-img convert"]),
        (0, b"LUKS\xba\xbe\0\x02", &["a LUKS encrypted volume", "cryptsetup open"]),
        (512, b"LABELONE", &["an LVM2 physical volume", "vgchange"]),
        (4096, b"gDla", &["Android super image", "lpunpack", "--fs-offset"]),
        (32_769, b"CD001", &["ISO 9660"]),
        (65_600, b"_BHRfS_M", &["a Btrfs filesystem", "mount it"]),
        (3, b"EXFAT   ", &["an exFAT filesystem"]),
        (4096, b"\xfc\x4e\x2b\xa9", &["Linux software RAID", "mdadm"]),
    ] {
        let file = File::create(&image).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(magic, at).unwrap();
        refused(&image, &[&["not an ext4 filesystem but"], parts].concat());
    }
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    must("mkswap", &["-q".as_ref(), image.as_ref()]);
    refused(&image, &["a Linux swap area", "it holds no files"]);
}

/// Byte, magic number with the fields that file(1) tests, its word, and that of the message.
const BY_FILE: [(u64, &[u8], &str, &str); 22] = [
    (0, b"QFI\xfb\0\0\0\x03", "QCOW", "qcow2"),
    (0, b"KDMV\x01\0\0\0", "VMware", "VMDK"),
    (0, &[0x3a, 0xff, 0x26, 0xed, 1, 0, 0, 0], "Android sparse", "Android sparse"),
    (0, b"LUKS\xba\xbe\0\x02", "LUKS", "LUKS"),
    (512, b"LABELONE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0LVM2 001", "LVM2", "LVM2"),
    (0, b"XFSB\0\0\x10\0", "XFS", "XFS"),
    (65_600, b"_BHRfS_M", "BTRFS", "Btrfs"),
    (0, b"hsqs", "Squashfs", "SquashFS"),
    (0, b"-rom1fs-", "romfs", "romfs"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS", "EROFS"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS", "F2FS"),
    (32_769, b"CD001", "ISO 9660", "ISO 9660"),
    (0, b"\x89LZO\0\x0d\x0a\x1a\x0a", "lzop", "lzop"),
    (0, b"PK\x03\x04", "Zip", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-zip", "7z"),
    (0, b"Rar!\x1a\x07\0", "RAR", "RAR"),
    (0, b"UBI#\x01", "UBI", "UBI"),
    (65_588, b"ReIsEr2Fs", "ReiserFS", "ReiserFS"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "EnCase", "EnCase"),
    (32, b"NXSB", "APFS", "APFS"),
    (0, b"MSWIM\0\0\0", "WIM", "WIM"),
    (0, b"070701", "cpio", "cpio"),
];

#[test]
fn file_and_nvio_name_the_same_formats() {
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("other.img");
    for (at, magic, of_file, of_nvio) in BY_FILE {
        let file = File::create(&image).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(magic, at).unwrap();
        let Ok(output) = Command::new("file").arg("-b").arg(&image).output() else {
            eprintln!("not run: there is no file(1)");
            return;
        };
        let described = String::from_utf8_lossy(&output.stdout);
        assert!(described.contains(of_file), "{of_file}: {described}");
        refused(&image, &["not an ext4 filesystem but", of_nvio]);
    }
}

#[test]
fn the_device_of_a_journal() {
    let disk = Disk::new(|_| (), &[]);
    let journal = disk.path("journal.img");
    must(
        "mke2fs",
        &["-q".as_ref(), "-O".as_ref(), "journal_dev".as_ref(), journal.as_ref(), "8M".as_ref()],
    );
    nvio(["ls".as_ref(), journal.as_os_str()])
        .refused(&["the external journal of an ext4 filesystem", "--journal DEVICE"]);
    // Its superblock can be shown.
    nvio(["fsinfo".as_ref(), journal.as_os_str()]).ok();
}

#[test]
fn an_image_that_was_copied_in_part() {
    let disk = Disk::new(|_| (), &[]);
    File::options().write(true).open(disk.image()).unwrap().set_len(5 << 20).unwrap();
    disk.run("ls", &[]).refused(&["truncated", "has 50331648 bytes", "copy it again in full"]);
}

#[test]
fn a_wrong_partition_with_another_format() {
    let disk = Disk::new(|_| (), &[]);
    let file = File::options().write(true).open(disk.image()).unwrap();
    let mut table = [0; 512];
    table[450] = 0x07;
    table[454..462].copy_from_slice(&[0, 8, 0, 0, 0, 16, 0, 0]);
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&[0; 4096], 0).unwrap();
    file.write_all_at(&table, 0).unwrap();
    file.write_all_at(b"NTFS    ", (1 << 20) + 3).unwrap();
    let list = "the MBR has 1 (2M at 1M, NTFS or exFAT, ntfs)";
    disk.run("ls", &["--partition", "1"]).refused(&["an NTFS filesystem", "mount it", list]);
    disk.run("ls", &[]).refused(&[list, "choose a partition with --partition N"]);
}
