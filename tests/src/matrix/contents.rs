//! The trees of the matrix, created by the kernel on a mounted filesystem, or in a folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::sys;
use crate::tree::{self, Options};
use nvio_testkit::image;
use nvio_testkit::random::Rng;

/// Options of all trees.
const PLAIN: Options = Options {
    seed: 1,
    big_directory: 300,
    random_files: 20,
    extents: true,
    cluster: 0,
    fragments: 400,
};

/// Creates a tree with every difficult case for a reader, on a filesystem with extents.
pub fn standard(root: &Path) -> io::Result<()> {
    tree::populate(root, PLAIN)?;
    attributes(root)?;
    flags(root)
}

/// Creates a tree with every difficult case on a filesystem with block pointers: ext2 and ext3.
pub fn pointers(root: &Path) -> io::Result<()> {
    tree::populate(root, Options { extents: false, fragments: 0, ..PLAIN })?;
    attributes(root)?;
    flags(root)
}

/// Creates a tree with every difficult case in a folder, for mke2fs -d.
pub fn folder(root: &Path) -> io::Result<()> {
    tree::populate(root, Options { extents: false, fragments: 0, ..PLAIN })
}

/// Creates extended attributes of every namespace and size, and POSIX ACLs.
pub fn attributes(root: &Path) -> io::Result<()> {
    let directory = root.join("attributes");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(3);
    let (block, _) = sys::free_blocks(root)?;
    // Sizes that fit into the inode, that just do not, and that need a block.
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
    // Files with the same attributes share a block of attributes.
    for index in 0..3 {
        let path = directory.join(format!("shared-{index}"));
        fs::write(&path, "attributes")?;
        sys::set_xattr(&path, b"user.shared", &vec![b's'; (block / 2) as usize])?;
    }
    // Names are sorted by length and then by bytes. One has the maximum length.
    let names = directory.join("names");
    fs::create_dir(&names)?;
    for name in ["user.b", "user.a", "user.aa", "user.ab", "user.\u{e9}\n"] {
        sys::set_xattr(&names, name.as_bytes(), name.as_bytes())?;
    }
    sys::set_xattr(&names, format!("user.{}", "n".repeat(250)).as_bytes(), b"long")?;
    acls(&directory)
}

/// Creates POSIX ACLs in the form of the kernel's interface: version 2, then tag, permissions and
/// id.
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

/// Sets inode flags like chattr.
pub fn flags(root: &Path) -> io::Result<()> {
    let directory = root.join("flags");
    fs::create_dir(&directory)?;
    // secrm, unrm, sync, append, nodump, noatime, and immutable with append.
    for flags in [0x1, 0x2, 0x8, 0x20, 0x40, 0x80, 0x30] {
        let path = directory.join(format!("flags-{flags:x}"));
        fs::write(&path, "flags")?;
        sys::add_flags(&File::open(&path)?, flags)?;
    }
    // dirsync and topdir.
    for flags in [0x10000, 0x20000] {
        let path = directory.join(format!("directory-{flags:x}"));
        fs::create_dir(&path)?;
        sys::add_flags(&File::open(&path)?, flags)?;
    }
    Ok(())
}

/// Writes `pieces` blocks with a hole before each, so that each is an extent.
pub fn every_second_block(path: &Path, block: u64, pieces: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let mut rng = Rng::new(pieces);
    for index in 0..pieces {
        let bytes = rng.bytes(64);
        file.write_all_at(&bytes, (2 * index + 1) * block + index % (block - 64))?;
    }
    file.sync_all()
}

/// Creates a tree with every difficult case on a filesystem with clusters.
pub fn bigalloc(root: &Path) -> io::Result<()> {
    tree::populate(root, Options { cluster: 64 << 10, fragments: 0, ..PLAIN })?;
    // Several extents in one cluster, written and unwritten.
    let (block, _) = sys::free_blocks(root)?;
    every_second_block(&root.join("pieces"), block, 100)?;
    preallocated_pieces(&root.join("preallocated-pieces"))?;
    attributes(root)?;
    flags(root)
}

/// Creates a smaller tree with other contents, for later changes of an image.
pub fn second_tree(root: &Path) -> io::Result<()> {
    let directory = root.join("second");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(17);
    for index in 0..60 {
        let below = directory.join(format!("directory-{}", index % 13));
        fs::create_dir_all(&below)?;
        let length = rng.range(0, 150_000);
        fs::write(below.join(format!("file-{index}")), rng.bytes(length))?;
    }
    std::os::unix::fs::symlink("s".repeat(300), directory.join("symlink"))?;
    sys::syncfs(&File::open(root)?)
}

/// Creates directories below the root, which the kernel spreads over all groups: some are after
/// block 2^32, with their inodes and usually with their data.
pub fn scattered_directories(root: &Path) -> io::Result<()> {
    let mut rng = Rng::new(5);
    let mut far = 0;
    let told = image::tool("stat", &["-f", "-c", "%b %c", image::text(root)]);
    let numbers = told.trim().split_once(' ').and_then(|(blocks, inodes)| {
        Some((blocks.parse::<u128>().ok()?, inodes.parse::<u128>().ok()?))
    });
    let (blocks, inodes) = numbers.ok_or_else(|| io::Error::other("no count of inodes"))?;
    // The kernel chooses the group of a directory at random.
    for index in 0.. {
        match index {
            30.. if far > 1 => break,
            500.. => return Err(io::Error::other("no file is past block 2^32")),
            _ => {}
        }
        let directory = root.join(format!("directory-{index}"));
        fs::create_dir(&directory)?;
        let path = directory.join("file");
        fs::write(&path, rng.bytes(20_000))?;
        let file = File::open(&path)?;
        file.sync_all()?;
        every_second_block(&directory.join("pieces"), 4096, 20)?;
        std::os::unix::fs::symlink("far".repeat(100), directory.join("symlink"))?;
        sys::set_xattr(&path, b"user.far", &rng.bytes(1000))?;
        let data = sys::fiemap(&file)?.iter().any(|extent| extent.physical >> 44 != 0);
        // The place of an inode is proportional to its number.
        let inode = u128::from(file.metadata()?.ino()) * blocks / inodes;
        far += usize::from(data || inode > 1 << 32);
    }
    Ok(())
}

/// Creates extent trees of up to three levels of index blocks, with written and unwritten extents.
pub fn deep_trees(root: &Path) -> io::Result<()> {
    let (block, _) = sys::free_blocks(root)?;
    for pieces in [4, 5, 84, 85, 400, 7000, 29_000] {
        every_second_block(&root.join(format!("pieces-{pieces}")), block, pieces)?;
    }
    preallocated_pieces(&root.join("unwritten"))
}

/// Creates a file with alternating written and unwritten extents, some after its end.
pub fn preallocated_pieces(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 300 * 4096)?;
    let mut rng = Rng::new(11);
    for index in 0..60 {
        file.write_all_at(&rng.bytes(4096), index * 3 * 4096)?;
    }
    file.sync_all()
}

/// Creates a file with data up to the last block that a file can have.
pub fn last_block(root: &Path) -> io::Result<()> {
    let (block, _) = sys::free_blocks(root)?;
    let mut rng = Rng::new(12);
    let last = u64::from(u32::MAX) - 1;
    let file = File::create(root.join("last"))?;
    for index in [0, 1 << 31, last - 5, last] {
        file.write_all_at(&rng.bytes(block), index * block)?;
    }
    file.sync_all()?;
    let file = File::create(root.join("partly"))?;
    file.write_all_at(&rng.bytes(77), last * block + 3)?;
    file.sync_all()?;
    let file = File::create(root.join("unwritten"))?;
    sys::fallocate(&file, 0, (last - 100) * block, 101 * block)?;
    file.write_all_at(&rng.bytes(77), (last - 50) * block + 3)?;
    file.sync_all()?;
    File::create(root.join("hole"))?.set_len((last + 1) * block)
}

/// Creates files and directories inside inodes: of all sizes up to those that do not fit, with
/// attributes that use the space, and with contents that have outgrown the inode.
pub fn inline(root: &Path) -> io::Result<()> {
    let mut rng = Rng::new(13);
    let directory = root.join("inline");
    fs::create_dir(&directory)?;
    for length in (0..170).chain([300, 500, 800, 900, 1000, 2000]) {
        fs::write(directory.join(format!("file-{length}")), rng.bytes(length))?;
    }
    // One file that grows while its data is inline.
    let grown = directory.join("grown");
    for length in [1, 59, 60, 61, 100, 150, 200, 5000] {
        let file = File::options().create(true).truncate(false).write(true).open(&grown)?;
        file.write_all_at(&rng.bytes(length), 0)?;
        file.sync_all()?;
    }
    for length in [0, 10, 60, 70, 150] {
        let path = directory.join(format!("with-attributes-{length}"));
        fs::write(&path, rng.bytes(length))?;
        sys::set_xattr(&path, b"user.value", &rng.bytes(30))?;
        sys::set_xattr(&path, b"user.large", &rng.bytes(500))?;
        let sparse = File::create(directory.join(format!("sparse-{length}")))?;
        sparse.set_len(length)?;
        let cut = directory.join(format!("cut-{length}"));
        fs::write(&cut, rng.bytes(150))?;
        File::options().write(true).open(&cut)?.set_len(length)?;
    }
    for entries in [0, 1, 2, 3, 5, 8, 12, 20, 100] {
        let below = directory.join(format!("directory-{entries}"));
        fs::create_dir(&below)?;
        for index in 0..entries {
            File::create(below.join(format!("name-{index}")))?;
        }
        for index in (0..entries).step_by(3) {
            fs::remove_file(below.join(format!("name-{index}")))?;
        }
    }
    for length in [20, 59, 60, 61, 100, 140, 1000] {
        std::os::unix::fs::symlink("l".repeat(length), directory.join(format!("link-{length}")))?;
    }
    standard(root)
}

/// Creates directories with hash trees, with bytes above 127 in names.
pub fn big_directories(root: &Path) -> io::Result<()> {
    let inodes = Links::new(root)?;
    for (name, entries) in [("large", 6000), ("medium", 700), ("small", 60)] {
        let directory = root.join(name);
        fs::create_dir(&directory)?;
        for index in 0..entries {
            inodes.link(&directory, &odd_name(index))?;
        }
        for index in (0..entries).step_by(5) {
            fs::remove_file(directory.join(os(&odd_name(index))))?;
        }
    }
    Ok(())
}

/// Returns a name of any length. Half of its bytes are above 127.
fn odd_name(index: u64) -> Vec<u8> {
    let mut name = format!("{index:x}-").into_bytes();
    let length = index % 40;
    name.extend(
        Rng::new(index).bytes(length).into_iter().filter(|&byte| byte != b'/' && byte != 0),
    );
    name
}

fn os(name: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name)
}

/// Inodes for many names: one for each thousand.
struct Links {
    folder: std::path::PathBuf,
    made: std::cell::Cell<u64>,
}

impl Links {
    fn new(root: &Path) -> io::Result<Self> {
        let folder = root.join("inodes");
        fs::create_dir(&folder)?;
        Ok(Self { folder, made: 0.into() })
    }

    fn link(&self, directory: &Path, name: &[u8]) -> io::Result<()> {
        let count = self.made.replace(self.made.get() + 1);
        let inode = self.folder.join((count / 1000).to_string());
        if count.is_multiple_of(1000) {
            File::create(&inode)?;
        }
        fs::hard_link(inode, directory.join(os(name)))
    }
}

/// Creates a directory of 60,000 names.
pub fn entries_60_000(root: &Path) -> io::Result<()> {
    let inodes = Links::new(root)?;
    let directory = root.join("entries");
    fs::create_dir(&directory)?;
    for index in 0..60_000 {
        inodes.link(&directory, format!("entry-{index}").as_bytes())?;
    }
    Ok(())
}

/// Creates a hash tree of three levels. The names are so long that a block holds three.
pub fn three_levels(root: &Path) -> io::Result<()> {
    let inodes = Links::new(root)?;
    let directory = root.join("entries");
    fs::create_dir(&directory)?;
    for index in 0..44_000 {
        inodes.link(&directory, format!("{index:0>250}").as_bytes())?;
    }
    Ok(())
}

/// Creates more subdirectories than the link count can represent.
pub fn subdirectories_65_000(root: &Path) -> io::Result<()> {
    let directory = root.join("many");
    fs::create_dir(&directory)?;
    for index in 0..65_010 {
        fs::create_dir(directory.join(index.to_string()))?;
    }
    Ok(())
}

/// Creates names for directories that ignore case.
pub fn casefolded(root: &Path) -> io::Result<()> {
    folder(root)?;
    for (name, count) in [("folded", 5), ("folded-large", 400)] {
        let directory = root.join(name);
        fs::create_dir(&directory)?;
        for name in ["Stra\u{df}e", "\u{c4}PFEL", "Caf\u{e9}", "cafe\u{301}s", "\u{130}stanbul"] {
            fs::write(directory.join(name), name)?;
        }
        for index in 0..count {
            fs::write(directory.join(format!("MixedCase-{index}")), "folded")?;
        }
    }
    Ok(())
}

/// Creates an encrypted directory next to unencrypted files.
pub fn encrypted(root: &Path) -> io::Result<()> {
    second_tree(root)?;
    let directory = root.join("encrypted");
    fs::create_dir(&directory)?;
    sys::encrypt(&File::open(&directory)?)?;
    let mut rng = Rng::new(14);
    for length in [0, 1, 5000] {
        fs::write(directory.join(format!("secret-{length}")), rng.bytes(length))?;
    }
    fs::write(directory.join("n".repeat(100)), "long name")?;
    fs::create_dir(directory.join("below"))?;
    fs::write(directory.join("below/inner"), "inner")
}

/// Creates attributes with values in inodes of their own.
pub fn large_attributes(root: &Path) -> io::Result<()> {
    standard(root)?;
    let directory = root.join("large-attributes");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(15);
    for length in [1000, 2047, 4000, 4097, 20_000, 65_536] {
        let path = directory.join(format!("value-{length}"));
        fs::write(&path, "large")?;
        sys::set_xattr(&path, b"user.large", &rng.bytes(length))?;
        sys::set_xattr(&path, b"user.small", b"small")?;
    }
    // Equal values share an inode.
    for index in 0..3 {
        let path = directory.join(format!("same-{index}"));
        fs::write(&path, "large")?;
        sys::set_xattr(&path, b"user.same", &[b'v'; 30_000])?;
    }
    let many = directory.join("many");
    fs::create_dir(&many)?;
    for index in 0..8 {
        sys::set_xattr(&many, format!("user.{index}").as_bytes(), &rng.bytes(3000 + index))?;
    }
    for index in 0..4 {
        sys::remove_xattr(&many, format!("user.{index}").as_bytes())?;
    }
    std::os::unix::fs::symlink("to", directory.join("symlink"))?;
    sys::set_xattr(&directory.join("symlink"), b"trusted.large", &rng.bytes(9000))
}

/// Makes every kind of change to a tree. The committed changes are in the journal, and some are
/// nowhere else.
pub fn changes(root: &Path) -> io::Result<Vec<File>> {
    let directory = root.join("changed");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(16);
    for index in 0..80 {
        let path = directory.join(format!("file-{index}"));
        let length = rng.range(0, 30_000);
        fs::write(&path, rng.bytes(length))?;
        if index % 10 == 0 {
            File::open(&path)?.sync_all()?;
        }
    }
    for index in 0..80 {
        let path = directory.join(format!("file-{index}"));
        match index % 8 {
            0 => fs::remove_file(path)?,
            1 => fs::rename(&path, directory.join(format!("renamed-{index}")))?,
            2 => File::options().write(true).open(path)?.set_len(index * 100)?,
            3 => fs::hard_link(path, directory.join(format!("link-{index}")))?,
            4 => sys::set_xattr(&path, b"user.later", &rng.bytes(index))?,
            5 => sys::set_times(&path, (index as i64, 5), (-5, 6))?,
            6 => fs::rename(&path, directory.join(format!("file-{}", index + 1)))?,
            _ => {}
        }
        if index % 16 == 0 {
            File::open(&directory)?.sync_all()?;
        }
    }
    for index in 0..30 {
        let below = directory.join(format!("directory-{index}"));
        fs::create_dir(&below)?;
        std::os::unix::fs::symlink("x".repeat(index * 7 + 1), below.join("symlink"))?;
        if index % 3 == 0 {
            fs::remove_file(below.join("symlink"))?;
            fs::remove_dir(below)?;
        }
    }
    let last = File::create(directory.join("last"))?;
    last.write_all_at(&rng.bytes(100_000), 5000)?;
    last.sync_all()?;
    // This change is not committed.
    fs::write(directory.join("too-late"), "lost")?;
    Ok(Vec::new())
}

/// Makes so many transactions that the journal wraps several times.
pub fn changes_through_a_small_journal(root: &Path) -> io::Result<Vec<File>> {
    standard(root)?;
    let mut rng = Rng::new(18);
    for round in 0..60 {
        let directory = root.join(format!("round-{round}"));
        fs::create_dir(&directory)?;
        for index in 0..20 {
            let length = rng.range(0, 3000);
            fs::write(directory.join(format!("file-{index}")), rng.bytes(length))?;
        }
        File::open(&directory)?.sync_all()?;
        if round >= 5 && round % 2 == 0 {
            fs::remove_dir_all(root.join(format!("round-{}", round - 5)))?;
        }
    }
    changes(root)
}

/// Journals data, with blocks that begin with the magic number of log blocks.
pub fn escaped(root: &Path) -> io::Result<Vec<File>> {
    let (block, _) = sys::free_blocks(root)?;
    let mut rng = Rng::new(19);
    let mut bytes = rng.bytes(20 * block + 100);
    for start in (0..bytes.len()).step_by(3 * block as usize) {
        bytes[start..start + 4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
    }
    let file = File::create(root.join("escaped"))?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    // Overwrites existing blocks.
    let file = File::options().write(true).open(root.join("sizes/medium"))?;
    file.write_all_at(&bytes, 5 * block)?;
    file.write_all_at(&bytes, 400_000)?;
    file.sync_all()?;
    let file = File::options().write(true).open(root.join("fragmented/scattered"))?;
    file.write_all_at(&bytes, 7 * block + 1)?;
    file.sync_all()?;
    changes(root)
}

/// Frees metadata blocks that become data in the same journal. Replaying them would destroy the
/// data.
pub fn revoked(root: &Path) -> io::Result<Vec<File>> {
    let mut rng = Rng::new(20);
    for round in 0..6 {
        let directory = root.join("revoked");
        fs::create_dir(&directory)?;
        for index in 0..200 {
            let name = format!("{index}-{}", "r".repeat(100));
            std::os::unix::fs::symlink("t".repeat(200), directory.join(name))?;
        }
        File::open(&directory)?.sync_all()?;
        fs::remove_dir_all(&directory)?;
        File::open(root)?.sync_all()?;
        let file = File::create(root.join(format!("taken-{round}")))?;
        file.write_all_at(&rng.bytes(400_000), 0)?;
        file.sync_all()?;
    }
    changes(root)
}

/// Returns open files that have been deleted.
pub fn orphans(root: &Path) -> io::Result<Vec<File>> {
    let mut open = changes(root)?;
    let mut rng = Rng::new(21);
    for index in 0..40 {
        let path = root.join(format!("orphan-{index}"));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.write_all_at(&rng.bytes(10_000), index * 5000)?;
        fs::remove_file(&path)?;
        open.push(file);
    }
    let directory = root.join("orphan-directory");
    fs::create_dir(&directory)?;
    let held = File::open(&directory)?;
    fs::remove_dir(&directory)?;
    open.push(held);
    let last = File::create(root.join("after-orphans"))?;
    last.sync_all()?;
    Ok(open)
}

/// Changes files inside inodes.
pub fn inline_changes(root: &Path) -> io::Result<Vec<File>> {
    inline(root)?;
    let directory = root.join("inline");
    for length in [10, 40, 59, 60, 61, 100, 130] {
        let file = File::options().write(true).open(directory.join(format!("file-{length}")))?;
        file.write_all_at(&vec![b'c'; length], length as u64 / 2)?;
        file.sync_all()?;
    }
    changes(root)
}

/// Makes changes that are committed one by one as fast commits.
pub fn fast_commits(root: &Path) -> io::Result<Vec<File>> {
    let directory = root.join("fast");
    fs::create_dir(&directory)?;
    let mut rng = Rng::new(22);
    for index in 0..30 {
        let length = rng.range(0, 20_000);
        fs::write(directory.join(format!("before-{index}")), rng.bytes(length))?;
    }
    // All further commits are fast commits.
    sys::syncfs(&File::open(root)?)?;
    let commit = |path: &Path| File::open(path)?.sync_all();
    for index in 0..30 {
        let path = directory.join(format!("before-{index}"));
        match index % 6 {
            0 => fs::remove_file(&path)?,
            1 => fs::rename(&path, directory.join(format!("renamed-{index}")))?,
            2 => fs::hard_link(&path, directory.join(format!("linked-{index}")))?,
            3 => File::options().write(true).open(&path)?.set_len(index * 50)?,
            4 => File::options().write(true).open(&path)?.write_all_at(&rng.bytes(9000), 15_000)?,
            _ => fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o751))?,
        }
        let created = directory.join(format!("created-{index}"));
        fs::write(&created, rng.bytes(index * 400))?;
        commit(&created)?;
        if index % 6 >= 2 {
            commit(&path)?;
        }
        if index % 10 == 0 {
            let below = directory.join(format!("directory-{index}"));
            fs::create_dir(&below)?;
            std::os::unix::fs::symlink("f".repeat(index as usize + 1), below.join("symlink"))?;
            fs::write(below.join("file"), rng.bytes(5000))?;
            commit(&below.join("file"))?;
        }
    }
    // Overwrites data, fills a hole, and punches a hole.
    let file = File::options().write(true).open(root.join("sparse/every-kind"))?;
    file.write_all_at(&rng.bytes(10_000), 30_000)?;
    file.sync_all()?;
    let file = File::options().write(true).open(root.join("sizes/medium"))?;
    file.set_len(3_000_001)?;
    file.sync_all()?;
    fast_committed(root)?;
    Ok(Vec::new())
}

/// Checks that the kernel has made fast commits.
fn fast_committed(root: &Path) -> io::Result<()> {
    let device = nvio_testkit::image::tool(
        "findmnt",
        &["-n", "-o", "SOURCE", nvio_testkit::image::text(root)],
    );
    let name = device.trim().trim_start_matches("/dev/");
    let told = fs::read_to_string(format!("/proc/fs/ext4/{name}/fc_info"))?;
    let commits = told.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    match commits {
        Some(commits) if commits > 10 => Ok(()),
        _ => Err(io::Error::other(format!("no fast commits: {told}"))),
    }
}
