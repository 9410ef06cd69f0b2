//! The types of partitions, and their names.

use std::fmt;

/// The type of a partition.
///
/// [`Display`](fmt::Display) prints its name, or the [`code`](Self::code) of an unknown type.
///
/// # Examples
/// ```
/// use nvio::PartitionKind;
///
/// assert_eq!(PartitionKind::Mbr(0x83).to_string(), "Linux");
/// assert_eq!(PartitionKind::Mbr(0x7f).to_string(), "0x7f");
/// assert_eq!(PartitionKind::Mbr(0x83).code(), "0x83");
/// assert!(PartitionKind::Mbr(0x05).is_extended());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// The type byte of an MBR.
    Mbr(u8),
    /// The type GUID of a GPT, in the order of its bytes on the disk.
    Gpt([u8; 16]),
}

impl PartitionKind {
    /// Returns the number of the type: `0x83`, or `0fc63daf-8483-4772-8e79-3d69d8477de4`.
    ///
    /// See the [example](Self#examples).
    pub fn code(self) -> String {
        match self {
            Self::Mbr(kind) => format!("{kind:#x}"),
            Self::Gpt(guid) => guid_text(guid),
        }
    }

    /// Returns true for an extended partition of an MBR, which holds the logical partitions.
    ///
    /// See the [example](Self#examples).
    pub fn is_extended(self) -> bool {
        matches!(self, Self::Mbr(0x05 | 0x0f | 0x85))
    }
}

impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        let name = match self {
            Self::Mbr(kind) => MBR.iter().find(|(known, _)| known == kind).map(|row| row.1),
            Self::Gpt(_) => GPT.iter().find(|(known, _)| *known == code).map(|row| row.1),
        };
        f.write_str(name.unwrap_or(&code))
    }
}

/// Formats a GUID. Its first three fields are little-endian (UEFI, appendix A).
fn guid_text(guid: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let (first, second, third) =
        (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (fourth, fifth) = rest.split_at(4);
    format!("{first:08x}-{second:04x}-{third:04x}-{fourth}-{fifth}")
}

const MBR: [(u8, &str); 33] = [
    (0x00, "empty"),
    (0x01, "FAT12"),
    (0x04, "FAT16 (small)"),
    (0x05, "extended"),
    (0x06, "FAT16"),
    (0x07, "NTFS or exFAT"),
    (0x0b, "FAT32"),
    (0x0c, "FAT32 (LBA)"),
    (0x0e, "FAT16 (LBA)"),
    (0x0f, "extended (LBA)"),
    (0x11, "hidden FAT12"),
    (0x16, "hidden FAT16"),
    (0x17, "hidden NTFS"),
    (0x1b, "hidden FAT32"),
    (0x1c, "hidden FAT32 (LBA)"),
    (0x27, "Windows recovery"),
    (0x42, "Windows dynamic disk"),
    (0x63, "Unix System V"),
    (0x81, "Minix"),
    (0x82, "Linux swap"),
    (0x83, "Linux"),
    (0x85, "Linux extended"),
    (0x8e, "Linux LVM"),
    (0xa5, "FreeBSD"),
    (0xa6, "OpenBSD"),
    (0xa8, "Darwin UFS"),
    (0xa9, "NetBSD"),
    (0xaf, "HFS or HFS+"),
    (0xbf, "Solaris"),
    (0xda, "data without filesystem"),
    (0xee, "GPT protective"),
    (0xef, "EFI system"),
    (0xfd, "Linux RAID"),
];

const GPT: [(&str, &str); 31] = [
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux filesystem"),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "Linux server data"),
    ("4d21b016-b534-45c2-a9fb-5c16e091fd2d", "Linux variable data"),
    ("8da63339-0007-60c0-c436-083ac8230908", "Linux reserved"),
    ("44479540-f297-41b2-9af7-d131d5f0458a", "Linux root (x86)"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"),
    ("69dad710-2ce4-4e3c-b16c-21a1d49abed3", "Linux root (ARM)"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM-64)"),
    ("72ec70a6-cf74-40e6-bd49-4bda08e8f224", "Linux root (RISC-V-64)"),
    ("8484680c-9521-48c6-9c11-b0720656f69e", "Linux usr (x86-64)"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"),
    ("ca7d7ccb-63ed-4c53-861c-1742536059cc", "LUKS"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
    ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "Windows LDM metadata"),
    ("af9b60a0-1431-4f62-bc68-3311714a69ad", "Windows LDM data"),
    ("48465300-0000-11aa-aa11-00306543ecac", "Apple HFS+"),
    ("7c3457ef-0000-11aa-aa11-00306543ecac", "Apple APFS"),
    ("516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD UFS"),
    ("516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"),
    ("6a898cc3-1dd2-11b2-99a6-080020736631", "Solaris usr or ZFS"),
    ("cef5a9ad-73bc-4601-89f3-cdeeeee321a1", "QNX6"),
    ("fe3a2a5d-4f32-41a7-b725-accc3285a309", "ChromeOS kernel"),
    ("3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec", "ChromeOS root"),
];
