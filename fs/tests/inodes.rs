//! Fields of inodes that programs cannot set: written byte by byte, and compared with the kernel.
//! Needs root and a kernel with loop devices; skipped with a reason otherwise.

use crate::common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::compare::compare;
use common::{Mount, debugfs, mke2fs, run};

/// Bytes to write into an inode, with their offsets.
type Patch = Vec<(u64, Vec<u8>)>;

fn u16_at(offset: u64, value: u16) -> (u64, Vec<u8>) {
    (offset, value.to_le_bytes().to_vec())
}

fn u32_at(offset: u64, value: u32) -> (u64, Vec<u8>) {
    (offset, value.to_le_bytes().to_vec())
}

/// Offsets of the seconds and of the extra field of the times: access, change, modification,
/// creation.
const TIMES: [(u64, u64); 4] = [(0x8, 0x8c), (0xc, 0x84), (0x10, 0x88), (0x90, 0x94)];

#[test]
fn the_kernel_agrees() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    for (options, size) in [
        // Without checksums, so that fields can be changed alone.
        ("-b 1024 -I 256 -O ^metadata_csum", 256),
        ("-b 1024 -I 128 -O ^metadata_csum", 128),
        ("-b 4096 -I 512 -O ^metadata_csum,^huge_file,large_dir", 512),
    ] {
        let all: Vec<&str> = "-t ext4 -N 512".split(' ').chain(options.split(' ')).collect();
        mke2fs(&image, "32M", &all, None);
        let mounted = match Mount::new(&image, &mount, "loop,noatime") {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED {options}: {reason}");
                continue;
            }
        };
        let patches = populate(&mounted.path, size);
        drop(mounted);
        let file = File::options().write(true).open(&image).unwrap();
        let offsets = offsets(&image, patches.keys());
        for (name, patch) in &patches {
            for (offset, bytes) in patch {
                file.write_all_at(bytes, offsets[name] + offset).unwrap();
            }
        }
        if size == 256 {
            // Set afterwards, because not every kernel writes to a filesystem with this feature.
            debugfs(&image, &["feature project"]);
        }
        let mounted = Mount::new(&image, &mount, "loop,ro,noatime").unwrap();
        let count = compare(options, &image, &mounted.path);
        projects(options, &image, &mounted.path);
        drop(mounted);
        assert!(count.paths >= patches.len() && patches.len() >= 20, "{options}: {count:?}");
    }
}

/// Creates files, and returns the patches of their inodes.
fn populate(top: &Path, inode_size: u64) -> BTreeMap<String, Patch> {
    let mut patches = BTreeMap::new();
    let mut file = |name: String, patch: Patch| {
        let path = top.join(&name);
        if !path.exists() {
            fs::write(path, b"data").unwrap();
        }
        patches.insert(name, patch);
    };
    let seconds = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    for (index, seconds) in seconds.into_iter().enumerate() {
        if inode_size == 128 {
            let patch = TIMES[..3].iter().map(|&(at, _)| u32_at(at, seconds)).collect();
            file(format!("time-{index}"), patch);
            continue;
        }
        for epoch in 0..4 {
            let extra = (999_999_999 << 2) | epoch;
            let patch =
                TIMES.iter().flat_map(|&(at, more)| [u32_at(at, seconds), u32_at(more, extra)]);
            file(format!("time-{index}-{epoch}"), patch.collect());
        }
    }
    if inode_size > 128 {
        // Fields that end within this size are valid; 0 means all of them.
        for extra in (0..=40).step_by(4) {
            let mut patch = vec![u16_at(0x80, extra)];
            patch.extend(TIMES.iter().map(|&(_, more)| u32_at(more, (77 << 2) | 1)));
            patch.extend([u32_at(0x90, 0x1234_5678), u32_at(0x9c, 4321)]);
            file(format!("extra-{extra}"), patch);
        }
    }
    file("owner".into(), vec![u16_at(0x2, 1), u16_at(0x18, 2), u16_at(0x78, 3), u16_at(0x7a, 4)]);
    file("blocks".into(), vec![u32_at(0x1c, 0x8765_4321), u16_at(0x74, 0x9)]);
    file("blocks-in-blocks".into(), vec![u32_at(0x1c, 9), u32_at(0x20, 0xc_0000)]);
    file("generation".into(), vec![u32_at(0x64, 0xfedc_ba98)]);
    file("version".into(), vec![u32_at(0x24, 0xfedc_ba98)]);
    file("links".into(), vec![u16_at(0x1a, 65_000)]);
    fs::create_dir(top.join("dir")).unwrap();
    file("dir".into(), vec![u16_at(0x1a, 1)]);
    let devices = [
        (0x0803, 0),
        (0x1234_0803, 0x9999),
        (0, 0x0010_3001),
        (0, 0x1234_5678),
        (0, 0xffff_ffff),
        (0, 0),
    ];
    for (index, (old, new)) in devices.into_iter().enumerate() {
        for kind in ["c", "b"] {
            let name = format!("device-{kind}-{index}");
            run("mknod", &[top.join(&name).to_str().unwrap(), kind, "1", "3"]);
            file(name, vec![u32_at(0x28, old), u32_at(0x2c, new)]);
        }
    }
    for mode in [0o100_000, 0o107_777, 0o010_644, 0o140_755] {
        file(format!("mode-{mode:o}"), vec![u16_at(0, mode)]);
    }
    patches
}

/// Returns the byte offsets of the inodes in the image.
fn offsets<'a>(image: &Path, names: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let names: Vec<&String> = names.collect();
    let script = image.with_extension("imap");
    let lines: Vec<String> = names.iter().map(|name| format!("imap /{name}\n")).collect();
    fs::write(&script, lines.concat()).unwrap();
    let output = run("debugfs", &["-f", script.to_str().unwrap(), image.to_str().unwrap()]);
    let block_size = common::open(image).superblock().block_size();
    let places = String::from_utf8(output).unwrap();
    let places = places.lines().filter_map(|line| line.trim().strip_prefix("located at block "));
    let offset = |place: &str| {
        let (block, offset) = place.split_once(", offset 0x").unwrap();
        let offset = u64::from_str_radix(offset, 16).unwrap();
        block.parse::<u64>().unwrap() * u64::from(block_size) + offset
    };
    let found: BTreeMap<String, u64> =
        names.iter().map(|&name| name.clone()).zip(places.map(offset)).collect();
    assert_eq!(found.len(), names.len());
    found
}

/// Compares project ids with those that lsattr prints.
fn projects(variant: &str, image: &Path, mount: &Path) {
    let fs = common::open(image);
    let output = run("lsattr", &["-p", mount.to_str().unwrap()]);
    let mut count = 0;
    for line in String::from_utf8(output).unwrap().lines() {
        let mut words = line.split_whitespace();
        let project: u32 = words.next().unwrap().parse().unwrap();
        let name = words.nth(1).unwrap().rsplit('/').next().unwrap();
        let inode = fs.lookup(name.as_bytes()).unwrap();
        assert_eq!(inode.project().unwrap_or(0), project, "{variant}: {name}");
        count += 1;
    }
    assert!(count > 10, "{variant}: {count}");
}
