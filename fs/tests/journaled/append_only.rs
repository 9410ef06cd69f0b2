//! An append-only directory gets names and loses none, as on a mount by the kernel.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nvio_ext4::{JournaledFilesystem, NewFile, RenameMode};
use nvio_testkit::image::work_folder;

use super::recorder::Recorder;
use super::{check, open};
use crate::common::{self, Mount, debugfs, mke2fs};

#[derive(Clone, Copy, Debug)]
enum Op {
    Create(&'static str),
    Mkdir(&'static str),
    Symlink(&'static str),
    Link(&'static str, &'static str),
    Rename(&'static str, &'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
}

/// Changes of the directory "logs", which is append-only.
const OPS: &[Op] = &[
    Op::Create("logs/new"),
    Op::Create("logs/old"),
    Op::Mkdir("logs/directory"),
    Op::Symlink("logs/link"),
    Op::Link("file", "logs/file"),
    Op::Link("logs/old", "old"),
    Op::Rename("other", "logs/other"),
    Op::Rename("third", "logs/old"),
    Op::Rename("logs/old", "logs/older"),
    Op::Rename("logs/old", "older"),
    Op::Unlink("logs/old"),
    Op::Rmdir("logs/sub"),
    Op::Create("logs/sub/inside"),
    Op::Unlink("logs/sub/inside"),
];

impl Op {
    fn by_kernel(self, top: &Path) -> io::Result<()> {
        let at = |path: &str| top.join(path);
        match self {
            Self::Create(path) => fs::File::create_new(at(path)).map(drop),
            Self::Mkdir(path) => fs::create_dir(at(path)),
            Self::Symlink(path) => symlink("target", at(path)),
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Unlink(path) => fs::remove_file(at(path)),
            Self::Rmdir(path) => fs::remove_dir(at(path)),
        }
    }

    fn by_nvio(self, fs: &JournaledFilesystem) -> Result<(), nvio_ext4::Error> {
        let new = NewFile::with_permissions(0o755);
        let at = |path: &'static str| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            (fs.lookup(format!("/{parent}")).unwrap().number(), name)
        };
        match self {
            Self::Create(path) => fs.create_file(at(path).0, at(path).1, new).map(drop),
            Self::Mkdir(path) => fs.create_dir(at(path).0, at(path).1, new).map(drop),
            Self::Symlink(path) => {
                fs.create_symlink("target", at(path).0, at(path).1, new).map(drop)
            }
            Self::Link(from, to) => {
                let inode = fs.lookup(format!("/{from}")).unwrap().number();
                fs.hard_link(inode, at(to).0, at(to).1).map(drop)
            }
            Self::Rename(from, to) => {
                fs.rename(at(from).0, at(from).1, at(to).0, at(to).1, RenameMode::Replace)
            }
            Self::Unlink(path) => fs.remove_file(at(path).0, at(path).1),
            Self::Rmdir(path) => fs.remove_dir(at(path).0, at(path).1),
        }
    }
}

#[test]
fn an_append_only_directory_gets_names_and_loses_none() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = work_folder("append-only");
    let (source, image) = (dir.path().join("source"), dir.path().join("image"));
    fs::create_dir_all(source.join("logs/sub")).unwrap();
    for name in ["logs/old", "file", "other", "third"] {
        fs::write(source.join(name), name).unwrap();
    }
    mke2fs(&image, "8M", &["-t", "ext4", "-b", "1024"], Some(&source));
    debugfs(&image, &["set_inode_field /logs flags 0x80020"]);
    let device = Recorder::new(fs::read(&image).unwrap());
    let fs = open(&device);
    let mount = Mount::new(&image, &dir.path().join("mnt"), "loop").unwrap();
    let mut refused = 0;
    for &op in OPS {
        let ours = op.by_nvio(&fs).map_err(|error| error.kind());
        let theirs = op.by_kernel(&mount.path).map_err(|error| error.kind());
        assert_eq!(ours, theirs, "{op:?}");
        refused += usize::from(ours == Err(io::ErrorKind::PermissionDenied));
    }
    assert_eq!(refused, 5);
    drop(mount);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}
