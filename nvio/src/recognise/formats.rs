//! The formats that are recognised, the more specific magic numbers first.

use super::format::Format;
use super::format::Magic::{self, At, BeforeEnd};

const QEMU: &str = "convert it with `qemu-img convert -O raw`";
const MOUNT: &str = "nvio reads ext2, ext3 and ext4: mount it with the kernel";
const NO_FILES: &str = "it holds no files";
const ARCHIVE: &str = "unpack it first";

/// Magic number of a RAID superblock, little-endian.
pub(super) const MD_MAGIC: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

const fn format(
    name: &'static str,
    object: &'static str,
    advice: &'static str,
    magics: &'static [Magic],
) -> Format {
    Format { name, object, advice, magics }
}

pub(super) static EXT2: Format = format("ext2", "an ext2 filesystem", "", &[]);
pub(super) static EXT3: Format = format("ext3", "an ext3 filesystem", "", &[]);
pub(super) static EXT4: Format = format("ext4", "an ext4 filesystem", "", &[]);
pub(super) static EXT_JOURNAL: Format = format(
    "ext4 journal",
    "the external journal of an ext4 filesystem (journal_dev)",
    "open the device of the filesystem instead",
    &[],
);
pub(super) static ZFS: Format =
    format("zfs", "a member of a ZFS pool", "import the pool with `zpool import`", &[]);
pub(super) static MD_RAID: Format = format(
    "Linux RAID",
    "a member of a Linux software RAID",
    "assemble it with `mdadm --assemble` and read the array",
    &[At(0, MD_MAGIC), At(4096, MD_MAGIC)],
);

pub(super) static FORMATS: &[Format] = &[
    // Images of virtual disks.
    format("qcow2", "a qcow2 image of QEMU", QEMU, &[At(0, b"QFI\xfb")]),
    format("QED", "a QED image of QEMU", QEMU, &[At(0, b"QED\0")]),
    format("VHDX", "a VHDX image of Hyper-V", QEMU, &[At(0, b"vhdxfile")]),
    format("VHD", "a VHD image", QEMU, &[At(0, b"conectix")]),
    format(
        "VMDK",
        "a VMDK image of VMware",
        QEMU,
        &[At(0, b"KDMV"), At(0, b"COWD"), At(0, b"SESparse"), At(0, b"# Disk DescriptorFile")],
    ),
    format("VDI", "a VDI image of VirtualBox", QEMU, &[At(64, &[0x7f, 0x10, 0xda, 0xbe])]),
    format(
        "Parallels",
        "a Parallels image",
        QEMU,
        &[At(0, b"WithoutFreeSpace"), At(0, b"WithouFreSpacExt")],
    ),
    format("DMG", "a DMG image of macOS", "convert it with `dmg2img`", &[BeforeEnd(512, b"koly")]),
    format(
        "EWF",
        "an EWF (EnCase) image",
        "export it with `ewfexport -f raw`",
        &[At(0, b"EVF\x09\x0d\x0a\xff\0"), At(0, b"EVF2\x0d\x0a\x81\0")],
    ),
    format("WIM", "a WIM archive", ARCHIVE, &[At(0, b"MSWIM\0\0\0")]),
    // Android, and images of firmware.
    format(
        "Android sparse",
        "an Android sparse image",
        "convert it with `simg2img`",
        &[At(0, &[0x3a, 0xff, 0x26, 0xed])],
    ),
    format(
        "Android super",
        "an Android super image (dynamic, logical partitions)",
        "unpack it with `lpunpack`, or give the byte offset of a logical partition",
        &[At(4096, b"gDla"), At(8192, b"gDla")],
    ),
    format(
        "Android boot",
        "an Android boot image",
        "unpack it with `unpack_bootimg`",
        &[At(0, b"ANDROID!"), At(0, b"VNDRBOOT")],
    ),
    format(
        "Android OTA",
        "an Android OTA payload",
        "unpack it with `payload-dumper`",
        &[At(0, b"CrAU")],
    ),
    format(
        "U-Boot",
        "a U-Boot image",
        "unpack it with `dumpimage`",
        &[At(0, &[0x27, 0x05, 0x19, 0x56])],
    ),
    format(
        "UBI",
        "a UBI image of raw flash",
        "unpack it with `ubireader_extract_images`",
        &[At(0, b"UBI#")],
    ),
    // Layers of block devices.
    format(
        "LUKS",
        "a LUKS encrypted volume",
        "open it with `cryptsetup open` and read the mapped device",
        &[At(0, b"LUKS\xba\xbe"), At(0, b"SKUL\xba\xbe"), At(16384, b"SKUL\xba\xbe")],
    ),
    format(
        "BitLocker",
        "a BitLocker encrypted volume",
        "open it with `cryptsetup bitlkOpen` and read the mapped device",
        &[At(3, b"-FVE-FS-")],
    ),
    format(
        "LVM2",
        "an LVM2 physical volume",
        "activate its volume group with `vgchange -ay` and read a logical volume",
        &[At(0, b"LABELONE"), At(512, b"LABELONE"), At(1024, b"LABELONE"), At(1536, b"LABELONE")],
    ),
    format(
        "Linux RAID",
        "a member of a Linux software RAID",
        "assemble it with `mdadm --assemble` and read the array",
        &[At(0, MD_MAGIC), At(4096, MD_MAGIC)],
    ),
    format(
        "bcachefs",
        "a bcachefs filesystem",
        MOUNT,
        &[At(
            4120,
            &[
                0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d,
                0xf7, 0xef,
            ],
        )],
    ),
    format(
        "bcache",
        "a bcache device, or an old bcachefs filesystem",
        "register it with the kernel and read the bcache device",
        &[At(
            4120,
            &[
                0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba,
                0x6d, 0x81,
            ],
        )],
    ),
    format(
        "Stratis",
        "a member of a Stratis pool",
        "start the pool with `stratis pool start`",
        &[At(516, b"!Stra0tis\x86\xff\x02^\x41rh")],
    ),
    format(
        "Ceph",
        "a Ceph BlueStore device",
        "export its objects with Ceph",
        &[At(0, b"bluestore block device\n")],
    ),
    format("dm-verity", "a hash device of dm-verity", NO_FILES, &[At(0, b"verity\0\0")]),
    format(
        "dm-integrity",
        "a dm-integrity device",
        "open it with `integritysetup open` and read the mapped device",
        &[At(0, b"integrt\0")],
    ),
    // Filesystems, and swap.
    format("xfs", "an XFS filesystem", MOUNT, &[At(0, b"XFSB")]),
    format("btrfs", "a Btrfs filesystem", MOUNT, &[At(65600, b"_BHRfS_M")]),
    format("f2fs", "an F2FS filesystem", MOUNT, &[At(1024, &[0x10, 0x20, 0xf5, 0xf2])]),
    format("erofs", "an EROFS filesystem", MOUNT, &[At(1024, &[0xe2, 0xe1, 0xf5, 0xe0])]),
    format(
        "squashfs",
        "a SquashFS filesystem",
        "unpack it with `unsquashfs`",
        &[At(0, b"hsqs"), At(0, b"sqsh")],
    ),
    format("iso9660", "an ISO 9660 image", MOUNT, &[At(32769, b"CD001")]),
    format("udf", "a UDF filesystem", MOUNT, &[At(32769, b"BEA01"), At(34817, b"NSR0")]),
    format("ntfs", "an NTFS filesystem", MOUNT, &[At(3, b"NTFS    ")]),
    format("exfat", "an exFAT filesystem", MOUNT, &[At(3, b"EXFAT   ")]),
    format("refs", "a ReFS filesystem", "read it with Windows", &[At(3, b"ReFS\0\0\0\0")]),
    format(
        "vfat",
        "a FAT filesystem",
        MOUNT,
        &[At(54, b"FAT12   "), At(54, b"FAT16   "), At(54, b"FAT     "), At(82, b"FAT32   ")],
    ),
    format("apfs", "an APFS container", "read it with macOS", &[At(32, b"NXSB")]),
    format("jfs", "a JFS filesystem", MOUNT, &[At(32768, b"JFS1")]),
    format(
        "reiserfs",
        "a ReiserFS filesystem",
        "read it with an older kernel",
        &[
            At(65588, b"ReIsErFs"),
            At(65588, b"ReIsEr2Fs"),
            At(65588, b"ReIsEr3Fs"),
            At(65536, b"ReIsEr4"),
        ],
    ),
    format("gfs2", "a GFS2 filesystem", MOUNT, &[At(65536, &[0x01, 0x16, 0x19, 0x70])]),
    format(
        "ocfs2",
        "an OCFS2 filesystem",
        MOUNT,
        &[At(1024, b"OCFSV2"), At(2048, b"OCFSV2"), At(4096, b"OCFSV2"), At(8192, b"OCFSV2")],
    ),
    format(
        "ufs",
        "a UFS filesystem",
        MOUNT,
        &[At(9564, &[0x54, 0x19, 0x01, 0x00]), At(66908, &[0x19, 0x01, 0x54, 0x19])],
    ),
    format(
        "cramfs",
        "a cramfs filesystem",
        MOUNT,
        &[At(0, &[0x45, 0x3d, 0xcd, 0x28]), At(512, &[0x45, 0x3d, 0xcd, 0x28])],
    ),
    format("romfs", "a romfs filesystem", MOUNT, &[At(0, b"-rom1fs-")]),
    format(
        "ubifs",
        "a UBIFS filesystem",
        "unpack it with `ubireader_extract_files`",
        &[At(0, &[0x31, 0x18, 0x10, 0x06])],
    ),
    format(
        "swap",
        "a Linux swap area",
        NO_FILES,
        &[
            At(4086, b"SWAPSPACE2"),
            At(4086, b"SWAP-SPACE"),
            At(8182, b"SWAPSPACE2"),
            At(16374, b"SWAPSPACE2"),
            At(32758, b"SWAPSPACE2"),
            At(65526, b"SWAPSPACE2"),
            At(4086, b"S1SUSPEND"),
            At(4086, b"S2SUSPEND"),
            At(4086, b"LINHIB0001"),
        ],
    ),
    // Compressed files, archives, and backups of filesystems.
    format(
        "gzip",
        "a file compressed with gzip",
        "decompress it with `gunzip`",
        &[At(0, b"\x1f\x8b\x08")],
    ),
    format("xz", "a file compressed with xz", "decompress it with `unxz`", &[At(0, b"\xfd7zXZ\0")]),
    format(
        "bzip2",
        "a file compressed with bzip2",
        "decompress it with `bunzip2`",
        &[At(4, b"1AY&SY"), At(4, &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90])],
    ),
    format(
        "zstd",
        "a file compressed with zstd",
        "decompress it with `unzstd`",
        &[At(0, &[0x28, 0xb5, 0x2f, 0xfd]), At(1, &[0x2a, 0x4d, 0x18])],
    ),
    format(
        "lz4",
        "a file compressed with lz4",
        "decompress it with `unlz4`",
        &[At(0, &[0x04, 0x22, 0x4d, 0x18]), At(0, &[0x02, 0x21, 0x4c, 0x18])],
    ),
    format(
        "lzop",
        "a file compressed with lzop",
        "decompress it with `lzop -d`",
        &[At(0, b"\x89LZO\0\x0d\x0a\x1a\x0a")],
    ),
    format(
        "lzip",
        "a file compressed with lzip",
        "decompress it with `lzip -d`",
        &[At(0, b"LZIP\x01")],
    ),
    format(
        "lzma",
        "a file compressed with lzma",
        "decompress it with `unlzma`",
        &[At(0, &[0x5d, 0x00, 0x00, 0x80, 0x00])],
    ),
    format(
        "zip",
        "a zip archive",
        "unpack it with `unzip`",
        &[At(0, b"PK\x03\x04"), At(0, b"PK\x05\x06"), At(0, b"PK\x07\x08PK")],
    ),
    format("7z", "a 7z archive", "unpack it with `7z x`", &[At(0, b"7z\xbc\xaf\x27\x1c")]),
    format("rar", "a RAR archive", "unpack it with `unrar x`", &[At(0, b"Rar!\x1a\x07")]),
    format("tar", "a tar archive", "unpack it with `tar -xf`", &[At(257, b"ustar")]),
    format(
        "cpio",
        "a cpio archive",
        "unpack it with `cpio -i`",
        &[At(0, b"070701"), At(0, b"070702"), At(0, b"070707")],
    ),
    format(
        "partclone",
        "a partclone backup",
        "restore it with `partclone.restore --restore_raw_file`",
        &[At(0, b"partclone-image")],
    ),
    format(
        "partimage",
        "a Partimage backup",
        "restore it with `partimage restore`",
        &[At(0, b"PaRtImAgE-VoLuMe")],
    ),
    format(
        "fsarchiver",
        "an FSArchiver backup",
        "restore it with `fsarchiver restfs`",
        &[At(0, b"FsA0")],
    ),
    // Magic numbers of two bytes.
    format(
        "hfs",
        "an HFS or HFS+ filesystem",
        MOUNT,
        &[At(1024, b"H+\0\x04"), At(1024, b"HX\0\x05"), At(1024, b"BD")],
    ),
    format("nilfs2", "a NILFS2 filesystem", MOUNT, &[At(1030, &[0x34, 0x34])]),
    format(
        "compress",
        "a file compressed with compress",
        "decompress it with `uncompress`",
        &[At(0, &[0x1f, 0x9d])],
    ),
];
