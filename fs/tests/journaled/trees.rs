//! Two equal images on which the same names are made, moved and removed: by this crate, and by the kernel.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nvio_ext4::{InodeNumber, JournaledFilesystem, NewFile, RenameMode, SpecialFile};
use nvio_testkit::random::Rng;
use rustix::fs::{CWD, FileType as Kind, Mode, RenameFlags};

use super::open;
use super::recorder::Recorder;
use crate::common::view::{self, View};
use crate::common::{self, Mount, mke2fs};

const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("2k, no flex_bg", "-t ext4 -b 2048 -g 2048 -J size=2 -O ^flex_bg"),
    ("4k", "-t ext4 -b 4096 -J size=4"),
    ("no checksums", "-t ext4 -b 1024 -g 1024 -J size=1 -O ^metadata_csum,^64bit,uninit_bg"),
    ("small inodes", "-t ext4 -b 1024 -I 128 -J size=1"),
    ("orphan file", "-t ext4 -b 4096 -J size=4 -O orphan_file"),
    ("fast commit", "-t ext4 -b 1024 -J size=2,fast_commit_size=256 -O fast_commit"),
];

/// A call, with paths below the root.
#[derive(Clone, Debug)]
enum Call {
    File(PathBuf, u16),
    Dir(PathBuf, u16),
    Symlink(Vec<u8>, PathBuf),
    Special(SpecialFile, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    Rename(PathBuf, PathBuf, RenameMode),
    Write(PathBuf, u64),
    SetGroup(PathBuf),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink(target, path) => write!(f, "Symlink of {} to {path:?}", target.len()),
            call => write!(f, "{call:?}"),
        }
    }
}

/// Returns a path of one to three names. Some of the names are long, and many are not there.
fn path(random: &mut Rng) -> PathBuf {
    let mut path = PathBuf::new();
    for _ in 0..=random.below(3) {
        let name = random.below(8);
        path.push(match random.below(8) {
            0 => format!("{name}-{}", "long".repeat(50)),
            1 => format!("name {}", random.below(60)),
            _ => format!("d{name}"),
        });
    }
    path
}

fn draw(random: &mut Rng) -> Call {
    let permissions = random.below(0o1000) as u16 & 0o755;
    match random.below(20) {
        0..=3 => Call::File(path(random), permissions),
        4..=6 => Call::Dir(path(random), permissions),
        7 => {
            let length = *random.pick(&[1, 58, 59, 60, 61, 500, 1022, 1023, 1024, 4000]);
            Call::Symlink(vec![b'x'; length], path(random))
        }
        8 => Call::Special(
            match random.below(4) {
                0 => SpecialFile::Fifo,
                1 => SpecialFile::Socket,
                2 => SpecialFile::CharDevice(5, random.below(1 << 10) as u32),
                _ => SpecialFile::BlockDevice(random.below(4000) as u32, 7),
            },
            path(random),
        ),
        9 | 10 => Call::Link(path(random), path(random)),
        11..=13 => Call::Unlink(path(random)),
        14 => Call::Rmdir(path(random)),
        15 | 16 => {
            let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
            Call::Rename(path(random), path(random), *random.pick(&modes))
        }
        17 | 18 => Call::Write(path(random), 1 + random.below(20_000)),
        _ => Call::SetGroup(path(random)),
    }
}

/// Returns the directory of a path, and the name in it.
fn split<'a>(fs: &JournaledFilesystem, path: &'a Path) -> io::Result<(InodeNumber, &'a [u8])> {
    let parent = path.parent().unwrap().as_os_str().as_encoded_bytes();
    let parent = fs.lookup([b"/", parent].concat())?;
    let name = path.file_name().unwrap().as_encoded_bytes();
    if !parent.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok((parent.number(), name))
}

impl Call {
    fn here(&self, fs: &JournaledFilesystem) -> io::Result<()> {
        let find =
            |path: &Path| fs.lookup_no_follow([b"/", path.as_os_str().as_encoded_bytes()].concat());
        match self {
            Self::File(path, permissions) => {
                let (parent, name) = split(fs, path)?;
                fs.create_file(parent, name, NewFile::with_permissions(*permissions))?;
            }
            Self::Dir(path, permissions) => {
                let (parent, name) = split(fs, path)?;
                fs.create_dir(parent, name, NewFile::with_permissions(*permissions))?;
            }
            Self::Symlink(target, path) => {
                let (parent, name) = split(fs, path)?;
                fs.create_symlink(target, parent, name, NewFile::default())?;
            }
            Self::Special(special, path) => {
                let (parent, name) = split(fs, path)?;
                fs.create_special(*special, parent, name, NewFile::with_permissions(0o600))?;
            }
            Self::Link(from, to) => {
                let inode = find(from)?;
                let (parent, name) = split(fs, to)?;
                fs.hard_link(inode.number(), parent, name)?;
            }
            Self::Unlink(path) => {
                let (parent, name) = split(fs, path)?;
                fs.remove_file(parent, name)?;
            }
            Self::Rmdir(path) => {
                let (parent, name) = split(fs, path)?;
                fs.remove_dir(parent, name)?;
            }
            Self::Rename(from, to, mode) => {
                let ((from, name), (to, new_name)) = (split(fs, from)?, split(fs, to)?);
                fs.rename(from, name, to, new_name, *mode)?;
            }
            Self::Write(path, length) => {
                let inode = find(path)?;
                if inode.is_file() {
                    fs.write_at(inode.number(), inode.size(), &vec![7; *length as usize])?;
                }
            }
            Self::SetGroup(path) => {
                let inode = find(path)?;
                if inode.is_dir() {
                    fs.set_owner(inode.number(), None, Some(77))?;
                    fs.set_permissions(inode.number(), 0o2755)?;
                }
            }
        }
        Ok(())
    }

    fn by_kernel(&self, mount: &Path) -> io::Result<()> {
        let at = |path: &Path| mount.join(path);
        match self {
            Self::File(path, permissions) => {
                let file = File::create_new(at(path))?;
                file.set_permissions(fs::Permissions::from_mode((*permissions).into()))
            }
            Self::Dir(path, permissions) => {
                Ok(rustix::fs::mkdir(at(path), Mode::from((*permissions) as u32))?)
            }
            Self::Symlink(target, path) => {
                Ok(rustix::fs::symlink(&String::from_utf8_lossy(target)[..], at(path))?)
            }
            Self::Special(special, path) => {
                let (kind, (major, minor)) = match *special {
                    SpecialFile::Fifo => (Kind::Fifo, (0, 0)),
                    SpecialFile::Socket => (Kind::Socket, (0, 0)),
                    SpecialFile::CharDevice(major, minor) => {
                        (Kind::CharacterDevice, (major, minor))
                    }
                    SpecialFile::BlockDevice(major, minor) => (Kind::BlockDevice, (major, minor)),
                };
                let device = rustix::fs::makedev(major, minor);
                Ok(rustix::fs::mknodat(CWD, at(path), kind, Mode::from(0o600), device)?)
            }
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Unlink(path) => fs::remove_file(at(path)),
            Self::Rmdir(path) => fs::remove_dir(at(path)),
            Self::Rename(from, to, mode) => {
                let flags = match mode {
                    RenameMode::Replace => RenameFlags::empty(),
                    RenameMode::NoReplace => RenameFlags::NOREPLACE,
                    RenameMode::Exchange => RenameFlags::EXCHANGE,
                };
                Ok(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags)?)
            }
            Self::Write(path, length) => {
                let meta = at(path).symlink_metadata()?;
                if meta.is_file() {
                    let file = File::options().write(true).open(at(path))?;
                    let data = vec![7; *length as usize];
                    std::os::unix::fs::FileExt::write_all_at(&file, &data, meta.size())?;
                }
                Ok(())
            }
            Self::SetGroup(path) => {
                if at(path).symlink_metadata()?.is_dir() {
                    std::os::unix::fs::chown(at(path), None, Some(77))?;
                    fs::set_permissions(at(path), fs::Permissions::from_mode(0o2755))?;
                }
                Ok(())
            }
        }
    }
}

/// Leaves out of a view the fields that depend on places and times. The size of a directory does, too,
/// because blocks with free entries are found in another order.
fn comparable(view: View) -> View {
    let mut view = view::settled(view);
    for entry in view.values_mut() {
        entry.number = 0;
        if entry.mode & 0o170_000 == 0o040_000 {
            entry.size = 0;
        }
        entry.times = Default::default();
        entry.extents.clear();
    }
    view
}

/// Each call has the same result, and in the end the trees are the same.
#[test]
fn random_calls_are_those_of_the_kernel() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let seed = std::env::var("NVIO_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (rounds, batch) =
        if std::env::var_os("NVIO_LONG").is_some() { (40, 2000) } else { (2, 400) };
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
    for (seed, &(name, options)) in (seed..).zip(VARIANTS) {
        mke2fs(&theirs, "24M", &options.split(' ').collect::<Vec<_>>(), None);
        let device = Recorder::new(fs::read(&theirs).unwrap());
        let mut random = Rng::new(seed);
        for round in 0..rounds {
            let what = format!("NVIO_SEED={seed}: {name}, round {round}");
            let fs = open(&device);
            let mount = Mount::new(&theirs, &dir.path().join("mnt"), "loop,noatime").unwrap();
            let mut made = 0;
            for at in 0..batch {
                let call = draw(&mut random);
                let [here, there] = [call.here(&fs), call.by_kernel(&mount.path)];
                let kind = |result: &io::Result<()>| result.as_ref().err().map(io::Error::kind);
                assert_eq!(kind(&here), kind(&there), "{what}, {at}: {call}\n{here:?}\n{there:?}");
                made += usize::from(here.is_ok());
            }
            assert!(made > batch / 10, "{what}: {made} calls");
            fs.close().unwrap();
            fs::write(&ours, device.bytes()).unwrap();
            common::assert_clean(&ours);
            let their_view = view::of_kernel(&mount.path);
            drop(mount);
            let our_view = view::of_image(&ours);
            view::assert_same(
                &what,
                &comparable(our_view.clone()),
                &comparable(their_view),
                |_| false,
            );
            let mount = Mount::new(&ours, &dir.path().join("mnt"), "loop,ro,noatime").unwrap();
            view::assert_same(&what, &our_view, &view::of_kernel(&mount.path), |_| false);
        }
    }
}
