//! Extended attributes and access control lists, compared with the kernel. Needs root and a kernel
//! with loop devices; skipped with a reason otherwise.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use common::compare::compare;
use common::{Mount, debugfs, mke2fs, pattern, run};
use nvio_ext4::{AclTag, Error, Filesystem, StructureKind};
use rustix::fs::XattrFlags;

/// Options of mke2fs.
const VARIANTS: &[&str] = &[
    "-b 4096 -I 256",
    "-b 1024 -I 128",
    "-b 1024 -I 256 -O ea_inode,^metadata_csum",
    "-b 4096 -I 128 -O ea_inode",
    "-b 2048 -I 512 -O metadata_csum_seed,ea_inode",
    "-b 4096 -I 1024 -O ^metadata_csum,^64bit,^extent",
    "-b 4096 -I 4096 -O ea_inode,inline_data -J size=16",
    "-b 4096 -I 256 -O bigalloc,ea_inode -C 16384",
];

#[test]
fn the_kernel_agrees() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    for name in VARIANTS {
        let options: Vec<&str> = "-t ext4 -N 4096".split(' ').chain(name.split(' ')).collect();
        mke2fs(&image, "128M", &options, None);
        let mounted = match Mount::new(&image, &mount, "loop,noatime,data=writeback") {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED {name}: {reason}");
                continue;
            }
        };
        populate(&mounted.path);
        drop(mounted);
        // An attribute that programs cannot set.
        debugfs(&image, &["ea_set /plain gnu.author hurd"]);
        let mounted = Mount::new(&image, &mount, "loop,ro,noatime").unwrap();
        let count = compare(name, &image, &mounted.path);
        let lists = compare_lists(name, &common::open(&image), &mounted.path);
        drop(mounted);
        println!("{name}: {count:?}, {lists} lists");
        assert!(count.attributes >= 150 && lists >= 20, "{name}: {count:?}, {lists} lists");
    }
}

/// Sets an attribute. Returns false if the kernel has no space for it.
fn set(path: &Path, name: &[u8], value: &[u8]) -> bool {
    let name = OsStr::from_bytes(name);
    match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::RANGE) => false,
        Err(error) => panic!("{}: {}: {error}", path.display(), name.display()),
    }
}

fn populate(top: &Path) {
    let file = |name: &str| {
        let path = top.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    file("plain");
    // As many attributes as fit into the inode and a block.
    for count in [1, 2, 5, 10, 20, 40] {
        let path = file(&format!("many-{count}"));
        for index in 0..count {
            let value = pattern(index, (index * 13 % 50) as usize);
            set(&path, format!("user.number-{index}").as_bytes(), &value);
        }
        // Replace some of them.
        for index in (0..count).step_by(3) {
            let name = format!("user.number-{index}");
            let _ = rustix::fs::lremovexattr(&path, name.as_str());
        }
        set(&path, b"user.number-1", &pattern(99, 31));
    }
    for size in [0, 1, 3, 4, 5, 60, 100, 250, 500, 900, 1000, 2000, 3000, 3900] {
        set(&file(&format!("value-{size}")), b"user.value", &pattern(size, size as usize));
    }
    // Values that are stored only with the feature `ea_inode`.
    for size in [4000, 4096, 4097, 10_000, 30_000, 65_535, 65_536] {
        let path = file(&format!("large-{size}"));
        set(&path, b"user.large", &pattern(size, size as usize));
        set(&path, "user.gro\u{df}".as_bytes(), &pattern(size + 1, size as usize - 1));
        set(&path, b"user.\xff\x80", &pattern(size, size as usize));
    }
    for length in [1, 2, 3, 4, 5, 100, 249, 250] {
        let name = ["user.", &"n".repeat(length)].concat();
        set(&file(&format!("name-{length}")), name.as_bytes(), name.as_bytes());
    }
    // Blocks that several inodes share.
    for index in 0..30 {
        let path = file(&format!("shared-{index}"));
        set(&path, b"user.shared", &pattern(1, 700));
        set(&path, b"trusted.shared", &pattern(2, 40));
    }
    let dir = top.join("dir");
    fs::create_dir(&dir).unwrap();
    symlink("target", top.join("short-link")).unwrap();
    symlink("t".repeat(90), top.join("long-link")).unwrap();
    let fifo = top.join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    for path in [&dir, &top.join("short-link"), &top.join("long-link"), &fifo, &file("kinds")] {
        for name in ["trusted.overlay.opaque", "trusted.x", "security.label", "security.ima"] {
            set(path, name.as_bytes(), name.as_bytes());
            set(path, format!("{name}.large").as_bytes(), &pattern(3, 300));
        }
    }
    lists(top);
}

fn lists(top: &Path) {
    let dir = top.join("lists");
    fs::create_dir(&dir).unwrap();
    let setfacl = |list: &str, path: &Path| {
        run("setfacl", &["-m", list, path.to_str().unwrap()]);
    };
    let all = [
        "u:1000:rw",
        "g:2000:r",
        "u:0:rwx,u:65535:r,u:4000000000:x",
        "u:1:---,g:1:r-x,m::r",
        "o::---",
        "u::r,g::w,o::x",
    ];
    for (index, list) in all.into_iter().enumerate() {
        let path = dir.join(format!("file-{index}"));
        fs::write(&path, b"list").unwrap();
        setfacl(list, &path);
        let path = dir.join(format!("dir-{index}"));
        fs::create_dir(&path).unwrap();
        let defaults: Vec<String> = list.split(',').map(|entry| format!("d:{entry}")).collect();
        setfacl(&defaults.join(","), &path);
        fs::write(path.join("inherits"), b"list").unwrap();
        fs::create_dir(path.join("inherits-dir")).unwrap();
        setfacl(list, &path);
        run("chmod", &["0640", path.join("inherits").to_str().unwrap()]);
    }
    let long: Vec<String> = (0..25).map(|id| format!("u:{id}:r,g:{id}:w")).collect();
    let path = dir.join("long");
    fs::write(&path, b"list").unwrap();
    setfacl(&long.join(","), &path);
}

/// Compares access control lists with the output of getfacl.
fn compare_lists(variant: &str, fs: &Filesystem, mount: &Path) -> usize {
    let mut count = 0;
    for path in common::walk(&mount.join("lists")) {
        let kernel_path = mount.join("lists").join(&path);
        let inode = fs.lookup(Path::new("lists").join(&path).as_os_str().as_bytes()).unwrap();
        let mut ours = String::new();
        if let Some(acl) = fs.acl(&inode).unwrap() {
            ours += &format!("{acl}\n");
            count += 1;
            let owners = acl.entries().iter().filter(|entry| entry.tag == AclTag::Owner);
            assert_eq!(owners.count(), 1, "{variant}: {}", path.display());
        }
        if let Some(acl) = fs.default_acl(&inode).unwrap() {
            ours.extend(acl.entries().iter().map(|entry| format!("default:{entry}\n")));
            count += 1;
        }
        if ours.is_empty() {
            continue;
        }
        let arguments = ["-n", "-p", "-c", "-E", kernel_path.to_str().unwrap()];
        let theirs = String::from_utf8(run("getfacl", &arguments)).unwrap();
        let defaults_only = !ours.starts_with("user");
        let theirs: String = theirs
            .lines()
            .filter(|line| !line.is_empty() && (!defaults_only || line.starts_with("default")))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(ours, theirs, "{variant}: {}", path.display());
    }
    count
}

/// Every byte of an attribute block, of an inode with attributes, and of a value's inode is covered
/// by a checksum or a hash, so a changed byte is always detected.
#[test]
fn no_changed_byte_goes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    mke2fs(&image, "8M", &["-t", "ext4", "-b", "1024", "-I", "256"], None);
    let value = dir.path().join("value");
    fs::write(&value, pattern(1, 600)).unwrap();
    fs::write(dir.path().join("data"), b"data").unwrap();
    debugfs(
        &image,
        &[
            &format!("write {} file", dir.path().join("data").display()),
            "ea_set file user.small text",
            &format!("ea_set -f {} file user.block", value.display()),
        ],
    );
    let good = fs::read(&image).unwrap();
    let shown = |bytes: &[u8]| {
        let fs = Filesystem::open(bytes.to_vec())?;
        let inode = fs.lookup(b"file")?;
        fs.xattrs(&inode)?.collect::<Result<Vec<_>, Error>>()
    };
    let expected = shown(&good).unwrap();
    assert_eq!(expected.len(), 2);
    assert_eq!(expected[1].value, pattern(1, 600));
    let stat = run("debugfs", &["-R", "stat file", image.to_str().unwrap()]);
    let stat = String::from_utf8(stat).unwrap();
    let block = stat.lines().find_map(|line| line.strip_prefix("File ACL: ")).unwrap();
    let block: usize = block.trim().parse().unwrap();
    for at in 0..1024 {
        let mut bytes = good.clone();
        bytes[block * 1024 + at] ^= 0x10;
        match shown(&bytes).unwrap_err() {
            Error::Corrupt(corrupt) => {
                assert_eq!(corrupt.structure(), StructureKind::Attributes, "byte {at}");
                assert_eq!(corrupt.block(), Some((block as u64).into()));
            }
            other => panic!("byte {at}: {other}"),
        }
    }
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0xff], block as u64 * 1024 + 40).unwrap();
    let output = std::process::Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap();
    assert!(!output.status.success(), "e2fsck sees it, too");
}
