//! Extended attributes and access control lists that are set and removed here and, on an equal image, by
//! the kernel; both change images each round.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nvio_ext4::{BadAttribute, Error, Filesystem, JournaledFilesystem, Options, XattrMode};
use nvio_testkit::random::Rng;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::recorder::Recorder;
use super::{VARIANTS, check, file, image, open};
use crate::common::compare::compare;
use crate::common::{self, Mount, debugfs, mke2fs, pattern, run};

/// Variants of the filesystem: name, and options of mke2fs.
const LAYOUTS: &[(&str, &str)] = &[
    ("1k, 256", "-b 1024 -I 256"),
    ("1k, 128", "-b 1024 -I 128"),
    ("1k, 512, no checksums", "-b 1024 -I 512 -O ^metadata_csum"),
    ("1k, 1024, orphan file", "-b 1024 -I 1024 -O orphan_file"),
    ("2k, 256, no 64bit", "-b 2048 -I 256 -O ^64bit"),
    ("4k, 256, fast commit", "-b 4096 -I 256 -O fast_commit"),
    ("4k, 128, no checksums", "-b 4096 -I 128 -O ^metadata_csum,^64bit"),
    ("4k, 1024, seed", "-b 4096 -I 1024 -O metadata_csum_seed"),
    ("4k, no extents", "-b 4096 -I 256 -O ^extent,^64bit"),
];

const OBJECTS: [&str; 8] =
    ["file-0", "file-1", "file-2", "file-3", "directory-0", "directory-1", "link", "long-link"];

/// Makes an image with the objects.
fn sample(dir: &Path, name: &str, options: &str) -> PathBuf {
    let (image, source) = (dir.join(name), dir.join("source"));
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        for name in OBJECTS {
            let path = source.join(name);
            match name.split('-').next().unwrap() {
                "file" => fs::write(path, name).unwrap(),
                "directory" => fs::create_dir(path).unwrap(),
                _ => {
                    symlink(if name == "link" { "x".into() } else { "x".repeat(90) }, path).unwrap()
                }
            }
        }
    }
    let options: Vec<&str> = "-t ext4 -J size=4".split(' ').chain(options.split(' ')).collect();
    mke2fs(&image, "24M", &options, Some(&source));
    image
}

/// A change of an object.
enum Change {
    Set(String, Vec<u8>, XattrMode),
    Remove(String),
    Permissions(u16),
}

/// Returns a list in the form that setxattr(2) expects.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for &(tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Draws a list that is valid, most of the time.
fn random_list(random: &mut Rng) -> Vec<u8> {
    let mut bits = || random.below(8) as u16;
    let mut entries = vec![(1, bits(), !0), (4, bits(), !0), (16, bits(), !0), (32, bits(), !0)];
    let users = *random.pick(&[0, 0, 1, 2, 40]);
    let groups = *random.pick(&[0, 0, 1, 30]);
    for id in 0..users {
        entries.insert(1, (2, random.below(8) as u16, 4_000_000_000 - id));
    }
    for id in 0..groups {
        entries.insert(2 + users as usize, (8, random.below(8) as u16, 100 + id));
    }
    match random.below(12) {
        0 => drop(entries.remove(random.below(entries.len() as u64) as usize)),
        1 => entries.swap(0, 1),
        2 => entries[0].1 = 8,
        3 | 4 if users + groups == 0 => drop(entries.remove(2)),
        _ => {}
    }
    let mut bytes = list(&entries);
    match random.below(20) {
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => bytes[0] = 1,
        _ => {}
    }
    bytes
}

impl Change {
    fn draw(random: &mut Rng) -> Self {
        let long = ["user.", &"n".repeat(1 + random.below(252) as usize)].concat();
        let names = [
            "user.a",
            "user.a",
            "user.bb",
            "user.b",
            "trusted.a",
            "security.other",
            "user.\u{df}",
            "system.posix_acl_access",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "user.",
            "system.data",
            "other.name",
            "trusted.bb",
            &long,
        ];
        let name = (*random.pick(&names)).to_owned();
        match random.below(8) {
            0 => Self::Permissions(random.below(0o10000) as u16),
            1 | 2 => Self::Remove(name),
            // The kernel ignores the mode of lists.
            _ if name.starts_with("system.posix") => {
                Self::Set(name, random_list(random), XattrMode::Either)
            }
            // Values that several inodes have, in blocks that the kernel shares.
            3 => Self::Set("user.shared".into(), pattern(1, 700), XattrMode::Either),
            _ => {
                let most = *random.pick(&[4, 60, 60, 300, 1100, 4100, 70_000]);
                let length = random.below(most);
                let mode = [XattrMode::Either, XattrMode::Create, XattrMode::Replace];
                Self::Set(name, random.bytes(length), *random.pick(&mode))
            }
        }
    }

    fn here(&self, fs: &JournaledFilesystem, object: &str) -> Result<(), Error> {
        let number = fs.lookup_no_follow(object).unwrap().number();
        match self {
            Self::Set(name, value, mode) => fs.set_xattr(number, name, value, *mode),
            Self::Remove(name) => fs.remove_xattr(number, name),
            Self::Permissions(mode) => fs.set_permissions(number, *mode),
        }
        .map(drop)
    }

    fn by_kernel(&self, path: &Path) -> Result<(), Errno> {
        match self {
            Self::Set(name, value, mode) => {
                let flags = match mode {
                    XattrMode::Create => XattrFlags::CREATE,
                    XattrMode::Replace => XattrFlags::REPLACE,
                    _ => XattrFlags::empty(),
                };
                rustix::fs::lsetxattr(path, name.as_str(), value, flags)
            }
            Self::Remove(name) => rustix::fs::lremovexattr(path, name.as_str()),
            Self::Permissions(mode) => {
                fs::set_permissions(path, fs::Permissions::from_mode((*mode).into())).unwrap();
                Ok(())
            }
        }
    }
}

/// Returns the number of the error that the kernel has for ours.
fn errno(error: &Error) -> Errno {
    let Error::BadAttribute { why, .. } = error else { panic!("{error}") };
    match why {
        BadAttribute::NameTooLong { .. } => Errno::RANGE,
        BadAttribute::Name | BadAttribute::ListOfLink => Errno::OPNOTSUPP,
        BadAttribute::ValueTooLong { .. } => Errno::TOOBIG,
        BadAttribute::Exists => Errno::EXIST,
        BadAttribute::Missing => Errno::NODATA,
        BadAttribute::NoRoom => Errno::NOSPC,
        BadAttribute::UserOfOther => Errno::PERM,
        BadAttribute::DefaultOfOther => Errno::ACCESS,
        BadAttribute::List => Errno::INVAL,
        other => panic!("{other}"),
    }
}

/// Compares the outcomes of a change. Returns true if it was made.
fn compare_outcomes(
    what: &str,
    change: &Change,
    ours: Result<(), Error>,
    theirs: Result<(), Errno>,
) -> bool {
    let name = match change {
        Change::Set(name, ..) | Change::Remove(name) => name.as_str(),
        Change::Permissions(_) => "",
    };
    let is_list = name.starts_with("system.posix");
    match (ours.map_err(|error| errno(&error)), theirs) {
        (ours, theirs) if ours == theirs => ours.is_ok(),
        // The kernel looks at the file first.
        (Err(Errno::OPNOTSUPP), Err(Errno::INVAL | Errno::PERM)) if name == "user." => false,
        // Wrong values for a file that can have no list: the kernel looks at the value first.
        (Err(_), Err(Errno::INVAL | Errno::OPNOTSUPP)) if is_list => false,
        // To the kernel, a list that is not there is removed.
        (Err(Errno::NODATA), Ok(())) if is_list && matches!(change, Change::Remove(_)) => false,
        (ours, theirs) => panic!("{what}: {ours:?}, by the kernel {theirs:?}"),
    }
}

/// Everything that the kernel sees of the objects: mode, blocks, attributes.
fn view(mount: &Path) -> Vec<(u32, u64, String)> {
    let of = |name: &&str| {
        let path = mount.join(name);
        let metadata = path.symlink_metadata().unwrap();
        let arguments = ["-h", "--absolute-names", "-d", "-m", "-", "-e", "hex"];
        let attributes = run("getfattr", &[&arguments[..], &[path.to_str().unwrap()]].concat());
        let attributes = String::from_utf8(attributes).unwrap();
        let mut lines: Vec<&str> = attributes.lines().skip(1).collect();
        lines.sort_unstable();
        (metadata.mode(), metadata.blocks(), lines.join("\n"))
    };
    OBJECTS.iter().map(of).collect()
}

#[test]
fn random_changes_are_those_of_the_kernel() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rounds = if std::env::var_os("NVIO_LONG").is_some() { 50 } else { 4 };
    let (mut made, mut failed) = (0, 0);
    for (seed, &(name, options)) in (0..).zip(LAYOUTS) {
        let mut random = Rng::new(seed);
        let mut images = ["one", "other"].map(|image| sample(dir.path(), image, options));
        for round in 0..rounds {
            let [ours, theirs] = &images;
            let mount = Mount::new(theirs, &dir.path().join("mnt"), "loop,noatime").unwrap();
            let device = File::options().read(true).write(true).open(ours).unwrap();
            let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
            for step in 0..90 {
                let object = *random.pick(&OBJECTS);
                let change = Change::draw(&mut random);
                if object.contains("link") && matches!(change, Change::Permissions(_)) {
                    continue;
                }
                let what = format!("{name}, round {round}, step {step}: {object}");
                let (ours, theirs) =
                    (change.here(&fs, object), change.by_kernel(&mount.path.join(object)));
                let is_made = compare_outcomes(&what, &change, ours, theirs);
                *if is_made { &mut made } else { &mut failed } += 1;
            }
            fs.close().unwrap();
            let expected = view(&mount.path);
            drop(mount);
            images.iter().for_each(|image| common::assert_clean(image));
            let mount = Mount::new(&images[0], &dir.path().join("mnt"), "loop,ro").unwrap();
            assert_eq!(view(&mount.path), expected, "{name}, round {round}");
            compare(name, &images[0], &mount.path);
            drop(mount);
            images.reverse();
        }
    }
    println!("{made} changes, {failed} errors");
    assert!(made > 1000 && failed > 300, "{made} {failed}");
}

#[test]
fn blocks_that_the_kernel_shares() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    const FILES: usize = 1100;
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path(), "image", "-b 1024 -I 256 -N 2000");
    let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,noatime").unwrap();
    for at in 0..FILES {
        let path = mount.path.join(format!("shared-{at}"));
        fs::write(&path, "").unwrap();
        rustix::fs::setxattr(&path, "user.large", &pattern(1, 700), XattrFlags::empty()).unwrap();
    }
    drop(mount);
    let free = |image: &Path| common::open(image).statfs().unwrap().free_blocks;
    let before = free(&image);
    let device = File::options().read(true).write(true).open(&image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    let number = |at: usize| fs.lookup(format!("/shared-{at}")).unwrap().number();
    let set = |at, value: &[u8]| fs.set_xattr(number(at), "user.large", value, XattrMode::Replace);
    for at in 0..10 {
        let inode = set(at, &pattern(at as u64, 600)).unwrap();
        assert_eq!(inode.blocks_512(), 2, "a block as before");
        // A block of its own now, which is changed in place.
        assert_eq!(set(at, &pattern(at as u64, 500)).unwrap().blocks_512(), 2);
    }
    for at in 10..20 {
        assert_eq!(fs.remove_xattr(number(at), "user.large").unwrap().blocks_512(), 0);
        fs.remove_xattr(number(at), "user.large").unwrap_err();
    }
    fs.close().unwrap();
    common::assert_clean(&image);
    assert_eq!(free(&image), before - 10, "only copies need blocks");
    let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,ro").unwrap();
    compare("shared", &image, &mount.path);
    drop(mount);
    let device = File::options().read(true).write(true).open(&image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    for at in (0..10).chain(20..FILES) {
        let number = fs.lookup(format!("/shared-{at}")).unwrap().number();
        fs.remove_xattr(number, "user.large").unwrap();
    }
    fs.close().unwrap();
    common::assert_clean(&image);
    // The kernel had two blocks, because one has at most 1024 users.
    assert_eq!(free(&image), before + 2);
}

/// The kernel finds an equal block by the hash of all its attributes.
#[test]
fn the_kernel_shares_our_blocks() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path(), "image", "-b 1024 -I 128");
    let device = File::options().read(true).write(true).open(&image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    let all = [("user.b", 300), ("user.\u{df}", 3), ("trusted.long", 101), ("user.a", 0)];
    for (name, length) in all {
        let number = fs.lookup("/file-0").unwrap().number();
        fs.set_xattr(number, name, pattern(1, length), XattrMode::Create).unwrap();
    }
    fs.close().unwrap();
    let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,noatime").unwrap();
    run("getfattr", &["-d", "-m", "-", mount.path.join("file-0").to_str().unwrap()]);
    let free = || rustix::fs::statvfs(&mount.path).unwrap().f_bfree;
    let before = free();
    for (name, length) in all {
        let path = mount.path.join("file-1");
        rustix::fs::setxattr(path, name, &pattern(1, length), XattrFlags::empty()).unwrap();
    }
    assert_eq!(free(), before, "the block is shared");
    drop(mount);
    common::assert_clean(&image);
    let before = common::open(&image).statfs().unwrap().free_blocks;
    let device = File::options().read(true).write(true).open(&image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    fs.remove_xattr(fs.lookup("/file-1").unwrap().number(), "user.b").unwrap();
    fs.close().unwrap();
    common::assert_clean(&image);
    assert_eq!(common::open(&image).statfs().unwrap().free_blocks, before - 1, "a copy");
}

#[test]
fn a_full_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let (filler, number) = (file(&fs, 0).number(), file(&fs, 1).number());
    fs.set_xattr(number, "user.inside", "x", XattrMode::Create).unwrap();
    assert!(matches!(fs.allocate(filler, 0, 64 << 20, true), Err(Error::NoSpace)));
    fs.sync().unwrap();
    let calls = device.calls();
    let set = |length: u64| {
        fs.set_xattr(number, "user.x", pattern(1, length as usize), XattrMode::Either)
    };
    assert!(matches!(set(600), Err(Error::NoSpace)));
    let why = |result| match result {
        Err(Error::BadAttribute { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(set(1000)), BadAttribute::NoRoom);
    assert_eq!(why(set(65_536)), BadAttribute::NoRoom);
    fs.sync().unwrap();
    assert_eq!(device.calls(), calls, "nothing was changed, so nothing is written");
    // The inode has room, and removing needs none.
    set(20).unwrap();
    fs.remove_xattr(number, "user.inside").unwrap();
    fs.truncate(filler, 0).unwrap();
    set(600).unwrap();
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn errors_by_name_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flags");
    fs::write(&path, image(dir.path(), VARIANTS[2].1)).unwrap();
    debugfs(&path, &["set_inode_field /file-1 flags 0x80010", "symlink /link x"]);
    let device = Recorder::new(fs::read(&path).unwrap());
    let fs = open(&device);
    let calls = device.calls();
    let number = file(&fs, 0).number();
    let link = fs.lookup_no_follow("/link").unwrap().number();
    let set = |inode, name: &str, value: &[u8]| match fs
        .set_xattr(inode, name, value, XattrMode::Either)
        .unwrap_err()
    {
        Error::BadAttribute { why, .. } => why,
        other => panic!("{other}"),
    };
    let long = ["user.", &"n".repeat(251)].concat();
    assert_eq!(set(number, &long, b""), BadAttribute::NameTooLong { length: 256 });
    for name in ["", "user", "user.", "system.data", "system.posix_acl_access.", "users.x"] {
        assert_eq!(set(number, name, b""), BadAttribute::Name, "{name}");
    }
    assert_eq!(set(number, "user.x", &[0; 65_537]), BadAttribute::ValueTooLong { length: 65_537 });
    assert_eq!(set(link, "user.x", b""), BadAttribute::UserOfOther);
    let minimal = list(&[(1, 7, !0), (4, 5, !0), (32, 0, !0)]);
    assert_eq!(set(link, "system.posix_acl_access", &minimal), BadAttribute::ListOfLink);
    assert_eq!(set(number, "system.posix_acl_default", &minimal), BadAttribute::DefaultOfOther);
    assert_eq!(set(number, "system.posix_acl_access", &minimal[..20]), BadAttribute::List);
    let protected = fs.set_xattr(file(&fs, 1).number(), "user.x", "", XattrMode::Either);
    assert!(matches!(protected, Err(Error::Protected { .. })), "{protected:?}");
    let own = fs.set_xattr(8, "user.x", "", XattrMode::Either);
    assert!(matches!(own, Err(Error::Protected { .. })), "{own:?}");
    let free = fs.superblock().inodes_count;
    assert!(matches!(fs.remove_xattr(free, "user.x"), Err(Error::InodeNotInUse { .. })));
    fs.sync().unwrap();
    assert_eq!(device.calls(), calls, "nothing was changed, so nothing is written");
    // A value that is there already is no change, either.
    fs.set_xattr(number, "user.x", "1", XattrMode::Create).unwrap();
    fs.sync().unwrap();
    let (calls, ctime) = (device.calls(), fs.inode(number).unwrap().ctime());
    assert_eq!(fs.set_xattr(number, "user.x", "1", XattrMode::Replace).unwrap().ctime(), ctime);
    fs.sync().unwrap();
    assert_eq!(device.calls(), calls);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

/// Lists by getfacl, after changes of the permissions.
#[test]
fn permissions_change_with_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[2].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    let entries = [(1, 6, !0), (2, 7, 1000), (4, 4, !0), (16, 5, !0), (32, 1, !0)];
    let name = "system.posix_acl_access";
    let inode = fs.set_xattr(number, name, list(&entries), XattrMode::Create).unwrap();
    assert_eq!(inode.permissions(), 0o651);
    let inode = fs.set_permissions(number, 0o4732).unwrap();
    assert_eq!(inode.permissions(), 0o4732);
    let lines = |fs: &Filesystem| fs.acl(&file_of(fs)).unwrap().unwrap().to_string();
    let expected = "user::rwx\nuser:1000:rwx\ngroup::r--\nmask::-wx\nother::-w-";
    assert_eq!(lines(&fs), expected);
    fs.sync().unwrap();
    let recovered = Filesystem::open(device.bytes()).unwrap();
    assert_eq!((lines(&recovered).as_str(), file_of(&recovered).permissions()), (expected, 0o4732));
    // A list that says no more than the mode is not stored, and the mode changes.
    let minimal = list(&[(1, 5, !0), (4, 3, !0), (32, 1, !0)]);
    let inode = fs.set_xattr(number, name, &minimal, XattrMode::Replace).unwrap();
    assert_eq!((inode.permissions(), fs.has_acl(&inode).unwrap()), (0o4531, false));
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

fn file_of(fs: &Filesystem) -> nvio_ext4::Inode {
    fs.lookup("/file-0").unwrap()
}
