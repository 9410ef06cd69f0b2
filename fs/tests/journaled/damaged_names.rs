//! Damaged directories that are to be changed: the change is refused, and then nothing was written, or the
//! damage is not in its way, and then no other name is lost.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use nvio_ext4::{Error, Filesystem, InodeFlags};
use nvio_testkit::random::Rng;

use super::open;
use super::recorder::Recorder;
use crate::common::mke2fs;

const BLOCK: usize = 1024;

/// A filesystem with a directory "d" that has a hash tree of two levels.
struct Base {
    bytes: Vec<u8>,
    /// Byte offsets of the directory's blocks.
    blocks: Vec<usize>,
}

impl Base {
    fn new(dir: &Path, options: &str) -> Self {
        let (image, source) = (dir.join("image"), dir.join("source"));
        fs::create_dir_all(source.join("d")).unwrap();
        fs::write(source.join("a"), "a").unwrap();
        mke2fs(&image, "4M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let device = Recorder::new(fs::read(&image).unwrap());
        let fs = open(&device);
        let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        for at in 0..1200 {
            fs.hard_link(file, directory, format!("{at:0>200}")).unwrap();
        }
        let inode = fs.inode(directory).unwrap();
        assert!(inode.flags().contains(InodeFlags::INDEX));
        let extents = fs.extents(&inode).unwrap().map(|extent| extent.unwrap());
        let blocks = extents.flat_map(|extent| {
            let start = extent.physical as usize;
            (start..start + extent.length as usize).step_by(BLOCK)
        });
        let blocks = blocks.collect();
        fs.close().unwrap();
        Self { bytes: device.bytes(), blocks }
    }

    fn block(&self, index: usize) -> &[u8] {
        &self.bytes[self.blocks[index]..][..BLOCK]
    }

    /// Returns the indices of the nodes below the root.
    fn nodes(&self) -> Vec<usize> {
        let is_node = |&index: &usize| self.block(index)[..8] == [0, 0, 0, 0, 0, 4, 0, 0];
        (1..self.blocks.len()).filter(is_node).collect()
    }

    /// Writes bytes to a block of the directory, and adds names. Returns the number of those that were
    /// refused.
    fn add_to_damaged(&self, index: usize, at: usize, value: &[u8]) -> usize {
        let what = format!("{value:?} at byte {at} of block {index}");
        let mut bytes = self.bytes.clone();
        bytes[self.blocks[index] + at..][..value.len()].copy_from_slice(value);
        let device = Recorder::new(bytes);
        let fs = open(&device);
        let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        let before = listed(&fs);
        let mut refused = 0;
        let mut expected = before.clone();
        for name in 0..12 {
            let name = format!("new-{name}-{:0>180}", 7 * name);
            let calls = device.calls_but_of_superblock();
            match fs.hard_link(file, directory, &name) {
                Ok(_) => drop(expected.insert(name.into_bytes())),
                Err(Error::Corrupt(_)) => {
                    refused += 1;
                    fs.sync().unwrap();
                    assert_eq!(
                        device.calls_but_of_superblock(),
                        calls,
                        "{what}: something was written"
                    );
                }
                Err(error) => panic!("{what}: {error}"),
            }
            fs.sync().unwrap();
        }
        let after = listed(&fs);
        assert!(after.is_superset(&expected), "{what}: names were lost");
        fs.close().unwrap();
        refused
    }
}

/// Returns the names that can be read.
fn listed(fs: &Filesystem) -> BTreeSet<Vec<u8>> {
    let entries = fs.read_dir(&fs.lookup("/d").unwrap()).unwrap();
    entries.filter_map(|entry| Some(entry.ok()?.name)).collect()
}

#[test]
fn damaged_trees_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::new(dir.path(), "-t ext4 -b 1024 -J size=1 -O ^metadata_csum,^64bit");
    let node = base.nodes()[0];
    // Fields of the root that no tree has.
    let fields: &[(usize, u8)] =
        &[(28, 3), (28, 6), (29, 0), (29, 16), (30, 2), (30, 255), (31, 1), (4, 16), (16, 12)];
    for &(at, value) in fields {
        assert_eq!(base.add_to_damaged(0, at, &[value]), 12, "{value} at byte {at}");
    }
    let (mut refused, mut changes) = (0, 0);
    for (block, start, limit) in [(0, 32, 124), (node, 8, 127)] {
        for (at, values) in
            [(start, [0u16, limit - 1, limit + 1]), (start + 2, [0, limit + 1, 999])]
        {
            for value in values {
                let found = base.add_to_damaged(block, at, &value.to_le_bytes());
                assert!(found > 0, "{value} at byte {at} of block {block}");
                assert!(block > 0 || found == 12);
            }
        }
        for entry in 0..base.nodes().len() {
            for value in [0u32, 1, 2, node as u32, 300, 100_000, 0x7000_0002, u32::MAX] {
                for at in [start + 8 * entry + 4, start + 8 * entry] {
                    if at > start {
                        refused += base.add_to_damaged(block, at, &value.to_le_bytes());
                        changes += 1;
                    }
                }
            }
        }
    }
    println!("{changes} changes of hashes and blocks: {refused} names were refused");
    assert!(refused > changes, "{refused} {changes}");
}

#[test]
fn damaged_blocks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::new(dir.path(), "-t ext4 -b 1024 -J size=1");
    let mut random = Rng::new(5);
    let mut damage = |index: usize, range: Range<u64>| {
        let at = (range.start + random.below(range.end - range.start)) as usize;
        let value = base.block(index)[at] ^ (1 << random.below(8));
        base.add_to_damaged(index, at, &[value])
    };
    for _ in 0..30 {
        // The entries in use, with the fields before them.
        assert_eq!(damage(0, 0..40), 12);
    }
    let nodes = base.nodes();
    let refused: usize = nodes.iter().map(|&node| damage(node, 8..40)).sum();
    assert_eq!(refused, 12, "each name has a node");
    let leaves = (1..base.blocks.len()).filter(|index| !nodes.contains(index)).step_by(3);
    let refused: Vec<usize> = leaves.map(|leaf| damage(leaf, 0..BLOCK as u64)).collect();
    assert!(refused.iter().sum::<usize>() > 1 && refused.iter().all(|&refused| refused < 6));
}
