//! The view of debugfs, for images that this kernel cannot mount. Contents, link targets and
//! attributes are those of the folder that the image was created from, if it contains the path.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::node::{Node, Tree};
use crate::sys::{self, Extent};
use crate::view::{self, Entry, Time};
use nvio_testkit::image;

const ROOT: u64 = 2;

/// Returns the tree in `image` according to debugfs and the folder `source`.
pub fn tree(image: &Path, source: &Path) -> io::Result<Tree> {
    let mut paths = BTreeMap::from([(Vec::new(), ROOT)]);
    below(image, &[], ROOT, &mut paths);
    let stats = stats(image, paths.values())?;
    let block_size = image::block_size(image)?;
    let node = |(path, inode): (Vec<u8>, u64)| {
        let mut node = node(inode, &stats[&inode], block_size);
        let host = view::join(source, &path);
        match host.symlink_metadata() {
            Ok(metadata) if source.exists() => {
                let kind = |mode| mode & libc::S_IFMT;
                let theirs = view::entry_of(&host, &metadata)?;
                assert_eq!(kind(theirs.mode), kind(node.entry.mode), "{}", host.display());
                node.entry.target = theirs.target;
                node.xattrs = Some(sys::xattrs(&host)?);
                // mke2fs omits the hole at the end of some files with inline_data.
                if node.entry.is_file() && theirs.size == node.entry.size {
                    node.digest = Some(view::digest(&host)?);
                } else if node.entry.is_file() {
                    node.digest = Some(dumped(image, inode)?);
                }
            }
            _ if node.entry.is_file() => node.digest = Some(dumped(image, inode)?),
            _ => {}
        }
        Ok((path, node))
    };
    paths.into_iter().map(node).collect()
}

/// Adds the contents of the directory `inode`, recursively.
fn below(image: &Path, path: &[u8], inode: u64, paths: &mut BTreeMap<Vec<u8>, u64>) {
    let listed = image::debugfs_bytes(image, &["-R", &format!("ls -p <{inode}>")]);
    // "/INODE/MODE/UID/GID/NAME/SIZE/" and a newline. A name contains no slash, but may contain
    // newlines.
    let fields: Vec<&[u8]> = listed.split(|&byte| byte == b'/').skip(1).collect();
    for record in fields.chunks_exact(7) {
        let number = |field: &[u8], radix| {
            let text = std::str::from_utf8(field).expect("digits");
            u64::from_str_radix(text, radix).unwrap_or_else(|_| panic!("a number: {text}"))
        };
        let (inode, mode, name) = (number(record[0], 10), number(record[1], 8), record[4]);
        if inode == 0 || name == b"." || name == b".." {
            continue;
        }
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let name = [path, slash, name].concat();
        if mode & u64::from(libc::S_IFMT) == u64::from(libc::S_IFDIR) {
            below(image, &name, inode, paths);
        }
        paths.insert(name, inode);
    }
}

/// Returns the output of `stat` in debugfs, by inode.
fn stats<'a>(
    image: &Path,
    inodes: impl Iterator<Item = &'a u64>,
) -> io::Result<BTreeMap<u64, String>> {
    let script = image.with_extension("stat");
    let lines: Vec<String> = inodes.map(|inode| format!("stat <{inode}>")).collect();
    fs::write(&script, lines.join("\n"))?;
    let output = image::debugfs_bytes(image, &["-f", image::text(&script)]);
    let text = String::from_utf8_lossy(&output);
    let parts = text.split("debugfs: stat <").skip(1);
    let stat = |part: &str| {
        let (inode, rest) = part.split_once('>').expect("a number in brackets");
        (inode.parse().expect("a number"), rest.to_owned())
    };
    Ok(parts.map(stat).collect())
}

fn dumped(image: &Path, inode: u64) -> io::Result<String> {
    let dump = image.with_extension("dump");
    image::debugfs_bytes(image, &["-R", &format!("dump <{inode}> {}", image::text(&dump))]);
    let digest = view::digest(&dump);
    fs::remove_file(&dump)?;
    digest
}

/// Returns the word after `label`.
fn field<'a>(stat: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = stat.split_once(label)?;
    rest.split_whitespace().next()
}

fn number(stat: &str, label: &str) -> u64 {
    let text = field(stat, label).unwrap_or_else(|| panic!("no {label} in {stat}"));
    text.parse().unwrap_or_else(|_| panic!("{label} {text}"))
}

/// Returns an id, which debugfs prints as a signed number.
fn owner(stat: &str, label: &str) -> u32 {
    let text = field(stat, label).unwrap_or_else(|| panic!("no {label} in {stat}"));
    text.parse::<i64>().unwrap_or_else(|_| panic!("{label} {text}")) as u32
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("hex {text}"))
}

/// Parses "0xSECONDS:EXTRA". Small inodes have no extra part.
fn time(stat: &str, label: &str) -> Option<Time> {
    let text = field(stat, label)?;
    let (seconds, extra) = text.split_once(':').unwrap_or((text, "0"));
    let (seconds, extra) = (hex(seconds).cast_signed(), hex(extra));
    Some((i64::from(seconds) + (i64::from(extra & 3) << 32), extra >> 2))
}

fn node(inode: u64, stat: &str, block_size: u64) -> Node {
    let kind = match field(stat, "Type:").expect("a type") {
        "regular" => libc::S_IFREG,
        "directory" => libc::S_IFDIR,
        "symlink" => libc::S_IFLNK,
        "character" => libc::S_IFCHR,
        "block" => libc::S_IFBLK,
        "FIFO" => libc::S_IFIFO,
        "socket" => libc::S_IFSOCK,
        other => panic!("type {other}"),
    };
    let mode = u32::from_str_radix(field(stat, "Mode:").expect("a mode"), 8).expect("octal");
    let fast = stat
        .split_once("Fast link dest: \"")
        .map(|(_, rest)| rest.split_once('"').expect("a closing quote").0.as_bytes().to_vec());
    let rdev = stat.split_once("Device major/minor number: ").map(|(_, rest)| {
        let (major, rest) = rest.split_once(':').expect("two numbers");
        let minor = rest.split_whitespace().next().expect("a number");
        (major.parse().expect("a number"), minor.parse().expect("a number"))
    });
    let mapped = matches!(kind, libc::S_IFREG | libc::S_IFDIR);
    // As in the kernel's stat, because programs use the block count to find data.
    let is_inline = kind == libc::S_IFREG && stat.contains("Size of inline data");
    let inline_blocks = if is_inline { number(stat, "Size:").div_ceil(512) } else { 0 };
    Node {
        entry: Entry {
            mode: kind | mode,
            uid: owner(stat, "User:"),
            gid: owner(stat, "Group:"),
            size: number(stat, "Size:"),
            links: number(stat, "Links:"),
            inode,
            atime: time(stat, "atime:").expect("a time"),
            mtime: time(stat, "mtime:").expect("a time"),
            ctime: time(stat, "ctime:").expect("a time"),
            target: fast,
        },
        crtime: time(stat, "crtime:"),
        blocks: Some(number(stat, "Blockcount:") + inline_blocks),
        rdev,
        flags: Some(hex(field(stat, "Flags:").expect("flags"))),
        project: field(stat, "Project:").map(|text| text.parse().expect("a number")),
        xattrs: None,
        extents: mapped.then(|| extents(stat, block_size)).flatten(),
        digest: None,
    }
}

/// Parses the map after "EXTENTS:" or "BLOCKS:": "(0-3):100-103, (4[u]):200, (ETB0):7".
fn extents(stat: &str, block_size: u64) -> Option<Vec<Extent>> {
    if stat.contains("Size of inline data") {
        return None;
    }
    let Some((_, rest)) = stat.split_once("EXTENTS:\n").or_else(|| stat.split_once("BLOCKS:\n"))
    else {
        return Some(Vec::new());
    };
    let mut extents = Vec::new();
    for item in rest.lines().next().unwrap_or_default().split(", ") {
        let Some((logical, physical)) = item.trim().split_once("):") else { continue };
        let logical = logical.trim_start_matches('(');
        let unwritten = logical.ends_with("[u]");
        let (start, last) = range(logical.trim_end_matches("[u]"));
        let Some(start) = start else { continue };
        let Some(first) = range(physical).0 else { continue };
        let blocks = last.unwrap_or(start) - start + 1;
        extents.push(Extent {
            logical: start * block_size,
            physical: first * block_size,
            length: blocks * block_size,
            unwritten,
            inline: false,
            last: false,
        });
    }
    if let Some(last) = extents.last_mut() {
        last.last = true;
    }
    Some(extents)
}

/// Parses "3-7" or "3".
fn range(text: &str) -> (Option<u64>, Option<u64>) {
    match text.split_once('-') {
        Some((first, last)) => (first.parse().ok(), last.parse().ok()),
        None => (text.parse().ok(), None),
    }
}
