//! Files, directories and links inside inodes, compared with the kernel. Needs root and a kernel
//! with loop devices; skipped with a reason otherwise.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use common::compare::compare;
use common::{Mount, mke2fs, pattern, run};

/// Block size, inode size, and other options of mke2fs.
const VARIANTS: &[(u32, u32, &str)] = &[
    (4096, 256, ""),
    (1024, 256, "^metadata_csum"),
    (1024, 1024, ""),
    (2048, 512, "ea_inode"),
    (4096, 512, "^metadata_csum,^extent,^64bit"),
    (4096, 2048, "metadata_csum_seed"),
    (4096, 4096, "ea_inode"),
];

#[test]
fn the_kernel_agrees() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    for &(block, inode, features) in VARIANTS {
        let name = format!("blocks of {block}, inodes of {inode}, {features}");
        let features = format!("inline_data,{features}");
        let (block, inode) = (block.to_string(), inode.to_string());
        let options =
            ["-t", "ext4", "-b", &block, "-I", &inode, "-J", "size=16", "-N", "8192", "-O"];
        let options: Vec<&str> = options.into_iter().chain([&features[..]]).collect();
        mke2fs(&image, "96M", &options, None);
        // Not ordered, because kernels can hang with ordered data and a small journal.
        let mounted = match Mount::new(&image, &mount, "loop,noatime,data=writeback") {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED {name}: {reason}");
                continue;
            }
        };
        populate(&mounted.path);
        drop(mounted);
        // Mount again, so that the kernel reads everything from the image.
        let mounted = Mount::new(&image, &mount, "loop,ro,noatime").unwrap();
        let count = compare(&name, &image, &mounted.path);
        drop(mounted);
        println!("{name}: {count:?}");
        assert!(count.inline >= 100 && count.attributes >= 20, "{name}: {count:?}");
    }
}

fn populate(top: &Path) {
    files(top);
    links(top);
    directories(top);
}

fn files(top: &Path) {
    let dir = top.join("files");
    fs::create_dir(&dir).unwrap();
    let sizes = (0..200).chain([220, 255, 300, 420, 500, 511, 700, 900, 950, 1000, 1024]);
    let sizes = sizes.chain((1800..2000).step_by(23)).chain((3700..4200).step_by(37));
    for size in sizes {
        let contents = pattern(size, usize::try_from(size).unwrap());
        fs::write(dir.join(format!("size-{size}")), &contents).unwrap();
        let open = |name: &str| {
            let path = dir.join(format!("{name}-{size}"));
            fs::write(&path, &contents).unwrap();
            File::options().read(true).write(true).open(path).unwrap()
        };
        if size % 10 != 0 {
            continue;
        }
        open("cut").set_len(size / 3).unwrap();
        open("emptied").set_len(0).unwrap();
        let file = open("cut-and-grown");
        file.set_len(size / 2).unwrap();
        file.set_len(size).unwrap();
        open("grown").set_len(size + 100_000).unwrap();
        open("appended").write_all_at(&contents, size).unwrap();
        open("patched").write_all_at(b"patch", size / 2).unwrap();
        open("far").write_all_at(b"far", size + 20_000).unwrap();
        let file = open("shrunk");
        file.write_all_at(&pattern(7, 9000), size).unwrap();
        file.sync_all().unwrap();
        file.set_len(20).unwrap();
        // Attributes that use the space for data, and data that uses the space for attributes.
        drop(open("with-attribute"));
        let path = dir.join(format!("with-attribute-{size}"));
        let value = "v".repeat(usize::try_from(size).unwrap() % 50);
        run("setfattr", &["-n", "user.note", "-v", &value, path.to_str().unwrap()]);
        let path = dir.join(format!("attribute-first-{size}"));
        fs::write(&path, b"").unwrap();
        run("setfattr", &["-n", "user.first", "-v", &value, path.to_str().unwrap()]);
        fs::write(&path, &contents).unwrap();
    }
}

fn links(top: &Path) {
    let dir = top.join("links");
    fs::create_dir(&dir).unwrap();
    for length in (1..200).chain([400, 1000, 1023, 2000, 2047, 4000, 4095]) {
        // The kernel rejects targets longer than a block.
        let _ = symlink("t".repeat(length), dir.join(format!("to-{length}")));
    }
}

fn directories(top: &Path) {
    let dirs = top.join("dirs");
    fs::create_dir(&dirs).unwrap();
    for count in (0..20).chain([25, 30, 50, 100, 200]) {
        let dir = dirs.join(format!("with-{count}"));
        fs::create_dir(&dir).unwrap();
        for index in 0..count {
            let name = format!("{index}{}", "n".repeat(index * 7 % 40));
            match index % 3 {
                0 => fs::create_dir(dir.join(name)).unwrap(),
                1 => symlink("target", dir.join(name)).unwrap(),
                _ => fs::write(dir.join(name), b"x").unwrap(),
            }
        }
        // Free space between entries, at the start, and at the end.
        let gone = dirs.join(format!("gone-{count}"));
        fs::create_dir(&gone).unwrap();
        for index in 0..count {
            fs::write(gone.join(format!("{index}-name")), b"").unwrap();
        }
        for index in (0..count).filter(|index| index % 2 == 0 || index + 2 > count) {
            fs::remove_file(gone.join(format!("{index}-name"))).unwrap();
        }
    }
    let moved = dirs.join("moved");
    fs::create_dir(dirs.join("with-0/inner")).unwrap();
    fs::rename(dirs.join("with-0/inner"), &moved).unwrap();
    fs::write(moved.join("file"), b"moved").unwrap();
    for name in ["with-1", "with-5", "moved"] {
        let path = dirs.join(name);
        run("setfacl", &["-m", "d:u:1000:rw", path.to_str().unwrap()]);
        fs::write(path.join("inherits"), b"acl").unwrap();
    }
}
