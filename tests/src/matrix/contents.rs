//! The trees of the matrix: made through the kernel on a mounted filesystem, or in a folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::rng::Rng;
use crate::sys;
use crate::tree::{self, Options};

/// What all trees have.
const PLAIN: Options = Options {
    seed: 1,
    big_directory: 300,
    random_files: 20,
    extents: true,
    cluster: 0,
    fragments: 400,
};

/// Everything that is hard for a reader, on a filesystem with extents.
pub fn standard(root: &Path) -> io::Result<()> {
    tree::populate(root, PLAIN)?;
    attributes(root)?;
    flags(root)
}

/// The same where files are mapped by block pointers: ext2 and ext3.
pub fn pointers(root: &Path) -> io::Result<()> {
    tree::populate(root, Options { extents: false, fragments: 0, ..PLAIN })?;
    attributes(root)?;
    flags(root)
}

/// The same in a folder, for mke2fs -d.
pub fn folder(root: &Path) -> io::Result<()> {
    tree::populate(root, Options { extents: false, fragments: 0, ..PLAIN })
}

/// Extended attributes of every namespace and size, POSIX ACLs.
pub fn attributes(root: &Path) -> io::Result<()> {
    let directory = root.join("attributes");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(3);
    let (block, _) = sys::free_blocks(root)?;
    // In the inode, on both sides of what fits there, and in a block of its own.
    for length in [0, 1, 20, 40, 60, 100, 500, block * 3 / 4] {
        let path = directory.join(format!("value-{length}"));
        fs::write(&path, "attributes")?;
        sys::set_xattr(&path, b"user.value", &rng.bytes(length))?;
    }
    let many = directory.join("many");
    fs::write(&many, "attributes")?;
    for index in 0..20 {
        sys::set_xattr(&many, format!("user.name-{index}").as_bytes(), &rng.bytes(index))?;
    }
    sys::set_xattr(&many, b"trusted.of-root", b"trusted")?;
    sys::set_xattr(&many, b"security.something", b"secure")?;
    // Blocks with the same attributes are shared.
    for index in 0..3 {
        let path = directory.join(format!("shared-{index}"));
        fs::write(&path, "attributes")?;
        sys::set_xattr(&path, b"user.shared", &vec![b's'; (block / 2) as usize])?;
    }
    // Names sort by their length and then their bytes; one of the longest.
    let names = directory.join("names");
    fs::create_dir(&names)?;
    for name in ["user.b", "user.a", "user.aa", "user.ab", "user.\u{e9}\n"] {
        sys::set_xattr(&names, name.as_bytes(), name.as_bytes())?;
    }
    sys::set_xattr(&names, format!("user.{}", "n".repeat(250)).as_bytes(), b"long")?;
    acls(&directory)
}

/// POSIX ACLs in the form of the kernel's interface: version 2, then tag, permissions and id.
fn acls(directory: &Path) -> io::Result<()> {
    const UNDEFINED: u32 = u32::MAX;
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    };
    let access = acl(&[
        (0x01, 6, UNDEFINED),
        (0x02, 7, 1000),
        (0x02, 4, 4_000_000_000),
        (0x04, 4, UNDEFINED),
        (0x08, 5, 70_000),
        (0x10, 7, UNDEFINED),
        (0x20, 0, UNDEFINED),
    ]);
    let file = directory.join("acl-file");
    fs::write(&file, "acl")?;
    sys::set_xattr(&file, b"system.posix_acl_access", &access)?;
    let below = directory.join("acl-directory");
    fs::create_dir(&below)?;
    sys::set_xattr(&below, b"system.posix_acl_access", &access)?;
    sys::set_xattr(&below, b"system.posix_acl_default", &access)?;
    fs::write(below.join("inherits"), "acl")
}

/// Inode flags, as chattr sets them.
pub fn flags(root: &Path) -> io::Result<()> {
    let directory = root.join("flags");
    fs::create_dir(&directory)?;
    // secrm, unrm, sync, append, nodump, noatime, immutable with append.
    for flags in [0x1, 0x2, 0x8, 0x20, 0x40, 0x80, 0x30] {
        let path = directory.join(format!("flags-{flags:x}"));
        fs::write(&path, "flags")?;
        sys::add_flags(&File::open(&path)?, flags)?;
    }
    // dirsync, topdir.
    for flags in [0x10000, 0x20000] {
        let path = directory.join(format!("directory-{flags:x}"));
        fs::create_dir(&path)?;
        sys::add_flags(&File::open(&path)?, flags)?;
    }
    Ok(())
}

/// Writes each of `pieces` blocks with a hole before it: an extent each.
pub fn every_second_block(path: &Path, block: u64, pieces: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let mut rng = Rng::new(pieces);
    for index in 0..pieces {
        let bytes = rng.bytes(64);
        file.write_all_at(&bytes, (2 * index + 1) * block + index % (block - 64))?;
    }
    file.sync_all()
}
