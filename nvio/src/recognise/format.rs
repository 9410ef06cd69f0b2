//! A format, and its magic numbers.

/// A format of disks, filesystems or archives.
///
/// # Examples
/// ```
/// let mut bytes = vec![0; 4096];
/// bytes[..4].copy_from_slice(b"QFI\xfb");
/// let error = nvio::Volume::from_bytes(bytes).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "(bytes): not an ext4 filesystem but a qcow2 image of QEMU; convert it with `qemu-img convert \
///      -O raw`"
/// );
/// let nvio::Error::NotExt4 { found, .. } = error else { unreachable!() };
/// assert!(found.format.is_some_and(|format| format.name == "qcow2" && !format.is_ext()));
/// ```
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// Name of the format: `qcow2`, `LVM2`, `xfs`.
    pub name: &'static str,
    /// The object, with an article: `a qcow2 image`.
    pub object: &'static str,
    /// The next step for whoever wants the files in it.
    pub advice: &'static str,
    pub(super) magics: &'static [Magic],
}

/// A magic number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Magic {
    /// Bytes at an offset from the start.
    At(usize, &'static [u8]),
    /// Bytes at an offset from the end.
    BeforeEnd(u64, &'static [u8]),
}

impl Format {
    /// Returns true for ext2, ext3 and ext4.
    ///
    /// See the [example](Self#examples).
    pub fn is_ext(&self) -> bool {
        matches!(self.name, "ext2" | "ext3" | "ext4")
    }
}
