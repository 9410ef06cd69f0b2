//! Structures that mke2fs wrote, parsed and encoded again.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zerocopy::{FromBytes, IntoBytes};

use crate::dir;
use crate::dir::htree::root::{self, Root};
use crate::dir::htree::{lookup, node};
use crate::filesystem::Filesystem;
use crate::format::dir_entry::{self, Directory};
use crate::format::dir_hash::Function;
use crate::format::extent::{self, ENTRY_SIZE, RawExtent, RawHeader, RawIndex};
use crate::format::group::{self, GroupDescriptor};
use crate::format::inode::Inode;
use crate::format::raw_superblock::RawSuperblock;
use crate::format::superblock::{self, Superblock};
use crate::format::xattr_entry;
use crate::number::{LogicalBlock, PhysicalBlock};
use crate::xattr;
use crate::xattr::area::{self, Attribute};

/// Filesystems with a tree of files: with and without `64bit`, with each kind of checksums, with
/// small inodes, and with inline data.
fn images() -> Vec<(&'static str, Vec<u8>, Filesystem)> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small"), "Hello").unwrap();
    for at in 0..60 {
        std::fs::write(folder.path().join(format!("{at:0at$}", at = at + 1)), [7; 5000]).unwrap();
    }
    // More extents than fit into the inode.
    let sparse = File::create(folder.path().join("sparse")).unwrap();
    for at in 0..50 {
        sparse.write_all_at(&[5; 100], at * 65_536).unwrap();
    }
    std::os::unix::fs::symlink("small", folder.path().join("link")).unwrap();
    let options = [
        "-b 4096",
        "-b 1024 -g 1024",
        "-b 4096 -O ^64bit,^metadata_csum,uninit_bg",
        "-b 2048 -I 128 -O ^metadata_csum",
        "-b 4096 -O inline_data,project,quota",
    ];
    let image = |options: &'static str| {
        let file = folder.path().with_extension("img");
        let made = std::process::Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .arg(folder.path())
            .args(options.split(' '))
            .arg(&file)
            .arg("16M")
            .status()
            .unwrap();
        assert!(made.success(), "{options}");
        let long = format!("ea_set /sparse user.name {}", "v".repeat(200));
        for set in ["ea_set /small user.name value", &long] {
            let mut debugfs = std::process::Command::new("/sbin/debugfs");
            let output = debugfs.args(["-w", "-R", set]).arg(&file).output().unwrap();
            assert!(output.status.success());
        }
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        let fs = Filesystem::open(bytes.clone()).unwrap();
        (options, bytes, fs)
    };
    options.map(image).into()
}

fn inodes(fs: &Filesystem) -> Vec<Inode> {
    (1..=fs.superblock().inodes_count).filter_map(|number| fs.inode(number).ok()).collect()
}

#[test]
fn superblocks_and_group_descriptors() {
    for (options, bytes, fs) in images() {
        let mut raw = RawSuperblock::read_from_bytes(&bytes[1024..2048]).unwrap();
        let parsed = Superblock::parse(&raw).unwrap();
        raw.checksum = 0.into();
        superblock::set_free(&mut raw, 0, 0);
        superblock::set_free(&mut raw, parsed.free_blocks, parsed.free_inodes);
        superblock::seal(&mut raw);
        assert_eq!(raw.as_bytes(), &bytes[1024..2048], "{options}");

        for group in 0..parsed.groups_count() {
            let (block, offset) = group::location(&parsed, group);
            let at = parsed.address(block) as usize + offset;
            let stored = &bytes[at..][..usize::from(parsed.geometry.descriptor_size)];
            let descriptor = fs.metadata().group(group).unwrap();
            let mut encoded = stored.to_vec();
            // All fields except for the snapshot's bitmap, which is not used.
            encoded[..20].fill(0);
            encoded[24..28].fill(0);
            encoded[30..].fill(0);
            descriptor.encode(&parsed, group, &mut encoded);
            assert_eq!(encoded, stored, "{options}: group {group}");
            GroupDescriptor::verify(&parsed, group, &encoded).unwrap();
            assert_eq!(GroupDescriptor::parse(&parsed, group, &encoded).unwrap(), descriptor);
        }
    }
}

#[test]
fn inodes_of_every_kind() {
    for (options, _, fs) in images() {
        let all = inodes(&fs);
        assert!(all.len() > 60);
        for inode in all {
            let stored = fs.inode_bytes(inode.number()).unwrap();
            let mut encoded = stored.to_vec();
            // Mode to size, times, owners, links, blocks and flags; the map to the attribute block.
            encoded[..20].fill(0);
            encoded[24..36].fill(0);
            encoded[40..108].fill(0);
            inode.encode(fs.superblock(), &mut encoded);
            assert_eq!(encoded[..], stored[..], "{options}: inode {}", inode.number());
        }
    }
}

#[test]
fn extent_trees() {
    let again = |node: &[u8]| {
        let (header, rest) = RawHeader::ref_from_prefix(node).unwrap();
        let (entries, max, depth) = (header.entries.get(), header.max.get(), header.depth.get());
        let mut encoded = RawHeader::new(entries, max, depth).as_bytes().to_vec();
        let mut children = Vec::new();
        for entry in rest.chunks(ENTRY_SIZE).take(entries.into()) {
            if depth == 0 {
                let extent = RawExtent::ref_from_bytes(entry).unwrap();
                let (logical, count, physical, unwritten) = extent.parts();
                let extent = RawExtent::new(logical, count as u16, physical, unwritten).unwrap();
                encoded.extend(extent.as_bytes());
            } else {
                let index = RawIndex::ref_from_bytes(entry).unwrap();
                children.push(index.child());
                let index = RawIndex::new(index.logical.into(), index.child()).unwrap();
                encoded.extend(index.as_bytes());
            }
        }
        assert_eq!(encoded, node[..encoded.len()]);
        (encoded, children)
    };
    let mut blocks = 0;
    for (options, bytes, fs) in images() {
        for inode in inodes(&fs).iter().filter(|inode| extent::is_root(&inode.block)) {
            let (_, children) = again(&inode.block);
            for child in children {
                let at = fs.superblock().address(child) as usize;
                let stored = &bytes[at..][..fs.superblock().block_size() as usize];
                let (node, _) = again(stored);
                let mut encoded = stored.to_vec();
                encoded[..node.len()].copy_from_slice(&node);
                if fs.superblock().has_metadata_csum() {
                    let max = RawHeader::ref_from_prefix(stored).unwrap().0.max.get();
                    let tail = ENTRY_SIZE * (usize::from(max) + 1);
                    encoded[tail..tail + 4].fill(0);
                    extent::seal(inode.checksum_seed, &mut encoded);
                }
                assert_eq!(encoded, stored, "{options}: block {child}");
                blocks += 1;
            }
        }
    }
    assert!(blocks > 3, "{blocks}");
    let start = LogicalBlock::START;
    let new = |count, physical: u64, unwritten| {
        RawExtent::new(start, count, physical.into(), unwritten).is_some()
    };
    assert!(!new(0, 1, false) && !new(1, 1 << 48, false));
    assert!(!new(32_769, 1, false) && !new(32_768, 1, true));
    let seven = LogicalBlock::or_end(7);
    let longest = RawExtent::new(seven, 32_767, (1 << 40).into(), true).unwrap();
    assert_eq!(longest.parts(), (seven, 32_767, (1 << 40).into(), true));
    assert!(RawIndex::new(start, u64::MAX.into()).is_none());
}

#[test]
fn directory_blocks() {
    for (options, bytes, fs) in images() {
        let superblock = fs.superblock();
        let size = superblock.block_size() as usize;
        for inode in inodes(&fs).iter().filter(|inode| inode.is_dir() && !inode.has_inline_data()) {
            let directory = Directory::new(superblock, inode);
            for extent in fs.extents(inode).unwrap() {
                let extent = extent.unwrap();
                let blocks = &bytes[extent.physical as usize..][..extent.length as usize];
                for (index, stored) in blocks.chunks(size).enumerate() {
                    let mut encoded = stored.to_vec();
                    let mut offset = 0;
                    while let Some(entry) = directory.entry(stored, 0, offset).unwrap() {
                        let length = entry.next - offset;
                        encoded[offset..offset + 8 + entry.name.len()].fill(0);
                        let parts = (entry.inode, entry.file_type, entry.name);
                        dir_entry::write(&mut encoded, offset, length, parts).unwrap();
                        offset = entry.next;
                    }
                    if superblock.has_metadata_csum() {
                        encoded[size - 12..].fill(0);
                        dir::checksum::seal(inode.checksum_seed, &mut encoded);
                    }
                    assert_eq!(encoded, stored, "{options}: inode {} {index}", inode.number());
                }
            }
        }
    }
    for block_size in [1024, 4096, 65_536] {
        for length in (12..=block_size).step_by(4) {
            let raw = dir_entry::encode_rec_len(length, block_size).unwrap();
            assert_eq!(dir_entry::decode_rec_len(raw, block_size), length, "{block_size}");
        }
        assert_eq!(dir_entry::encode_rec_len(block_size + 4, block_size), None);
    }
    assert_eq!(dir_entry::encode_rec_len(13, 1024), None);
    assert!(dir_entry::write(&mut [0; 64], 56, 12, (12.into(), 1, b"a")).is_none());
    assert!(dir_entry::write(&mut [0; 64], 0, 12, (12.into(), 1, b"longer")).is_none());
}

/// Indexes the directories of an image, which mke2fs leaves as lists.
fn with_indexes(bytes: &[u8]) -> Vec<u8> {
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), bytes).unwrap();
    let mut e2fsck = std::process::Command::new("/sbin/e2fsck");
    let output = e2fsck.args(["-f", "-y", "-D"]).arg(image.path()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    std::fs::read(image.path()).unwrap()
}

#[test]
fn hash_trees() {
    let mut found = 0;
    for (options, bytes, _) in images() {
        let bytes = with_indexes(&bytes);
        let fs = Filesystem::open(bytes.clone()).unwrap();
        let superblock = fs.superblock();
        for inode in inodes(&fs).iter().filter(|inode| lookup::has_tree(superblock, inode)) {
            let first = fs.extents(inode).unwrap().next().unwrap().unwrap();
            let size = superblock.block_size() as usize;
            let stored = &bytes[first.physical as usize..][..size];
            let parsed = Root::parse(superblock, stored.into(), false).unwrap();
            let start = dir::checksum::ROOT_START;
            let entries: Vec<(u32, u32)> = (0..)
                .map_while(|at| Some((parsed.node.hash(at)?, parsed.node.child(at)?)))
                .collect();
            let mut encoded = stored.to_vec();
            encoded[24..start + 8 * entries.len()].fill(0);
            let limit = node::limit(superblock, size - start);
            root::write(&mut encoded, parsed.function, parsed.levels).unwrap();
            node::write(&mut encoded, start, limit, &entries).unwrap();
            if superblock.has_metadata_csum() {
                encoded[size - 4..].fill(0);
                dir::checksum::seal_node(inode.checksum_seed, &mut encoded, start);
            }
            assert_eq!(encoded, stored, "{options}: inode {}", inode.number());
            found += 1;
        }
    }
    assert!(found >= 2, "{found}");
    assert!(node::write(&mut [0; 64], 8, 2, &[(0, 1), (2, 3), (4, 5)]).is_none());
    assert!(node::write(&mut [0; 64], 8, 2, &[]).is_none());
    assert!(root::write(&mut [0; 31], Function::Tea, 0).is_none());
    for function in [Function::Legacy, Function::HalfMd4, Function::Tea, Function::SipHash] {
        assert_eq!(Function::from_raw(function.to_raw()), Some(function));
    }
}

#[test]
fn attribute_blocks() {
    for (options, bytes, fs) in images() {
        let number = fs.lookup("/sparse").unwrap().attribute_block;
        assert_ne!(number, PhysicalBlock::default(), "{options}");
        let at = fs.superblock().address(number) as usize;
        let stored = &bytes[at..][..fs.superblock().block_size() as usize];
        let mut encoded = stored.to_vec();
        encoded[..32].fill(0);
        let field = |at: usize| u32::from_le_bytes(stored[at..at + 4].try_into().unwrap());
        xattr::block::seal(fs.superblock(), number, (field(4), field(12)), &mut encoded);
        assert_eq!(encoded, stored, "{options}");

        let found = xattr::block_entries(fs.superblock(), number, stored).unwrap();
        let attributes = Attribute::copy_all(found).unwrap();
        // debugfs does not compute the hash of the block.
        let (mut encoded, _) = area::in_block(&attributes, stored.len()).unwrap();
        xattr::block::seal(fs.superblock(), number, (field(4), field(12)), &mut encoded);
        assert_eq!(encoded, stored, "{options}");
    }
}

#[test]
fn attributes() {
    let mut found = 0;
    for (options, _, fs) in images() {
        let inode = fs.lookup("/small").unwrap();
        let bytes = fs.inode_bytes(inode.number()).unwrap();
        let stored = inode.attribute_space(&bytes).get(4..).unwrap_or_default();
        let mut encoded = stored.to_vec();
        let mut at = 0;
        while stored.get(at..at + 4).is_some_and(|next| next != [0; 4]) {
            let field =
                |from: usize| u32::from_le_bytes(stored[at + from..][..4].try_into().unwrap());
            let name = &stored[at + 16..][..usize::from(stored[at])];
            let value = (field(0).to_le_bytes()[2..].try_into().map(u16::from_le_bytes)).unwrap();
            encoded[at..at + 16 + name.len()].fill(0);
            let (size, hash) = (field(8), field(12));
            let entry = (stored[at + 1], name);
            at =
                xattr_entry::write(&mut encoded, at, entry, (value, size, field(4)), hash).unwrap();
            found += 1;
        }
        assert_eq!(encoded, stored, "{options}");
    }
    assert!(found >= 4, "{found}");
    assert!(xattr_entry::write(&mut [0; 19], 0, (1, b"abcd"), (0, 0, 0), 0).is_none());
}

#[test]
fn times() {
    use crate::format::time::Timestamp;
    for seconds in [-1 << 31, -1, 0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) + 5, 15_032_385_535] {
        let time = Timestamp { seconds, nanoseconds: 999_999_999 };
        let (low, extra) = time.encode();
        assert_eq!(Timestamp::decode(low, Some(extra)), time);
    }
    let late = Timestamp { seconds: i64::MAX, nanoseconds: 0 }.encode();
    assert_eq!(Timestamp::decode(late.0, Some(late.1)).seconds, 15_032_385_535);
}
