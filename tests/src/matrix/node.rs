//! All properties of one path, and the comparison of two views.

use std::collections::BTreeMap;

use crate::sys::{Extent, Xattrs};
use crate::view::{self, Entry, Time};

/// The inode flags that the kernel shows (`EXT4_FL_USER_VISIBLE`, fs/ext4/ext4.h).
const VISIBLE_FLAGS: u32 = 0x725b_dfff;
/// Maximum number of listed differences per image.
const SHOWN: usize = 12;

/// The properties of one path. A property of `None` is unknown, and is not compared.
#[derive(Debug, Clone)]
pub struct Node {
    /// Fields of `ls -l`.
    pub entry: Entry,
    /// Creation time.
    pub crtime: Option<Time>,
    /// Allocated blocks of 512 bytes.
    pub blocks: Option<u64>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Inode flags.
    pub flags: Option<u32>,
    /// Project id.
    pub project: Option<u32>,
    /// Extended attributes, as getxattr(2) returns them.
    pub xattrs: Option<Xattrs>,
    /// Extents of a file or a directory.
    pub extents: Option<Vec<Extent>>,
    /// Digest of a file's contents.
    pub digest: Option<String>,
}

/// Nodes by path below the root, without a leading slash. The root is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Returns the differences, one per line.
pub fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, expected) in expected {
        let path_text = path.escape_ascii();
        match found.get(path) {
            None => lines.push(format!("/{path_text}: not found")),
            Some(found) => {
                let differs = |line| lines.push(format!("/{path_text}: {line}"));
                compare(expected, found).into_iter().for_each(differs);
            }
        }
    }
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        lines.push(format!("/{}: should not be there", path.escape_ascii()));
    }
    lines
}

fn compare(expected: &Node, found: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |what: &str, expected: String, found: String| {
        if expected != found {
            lines.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    differ("entry", format!("{:?}", expected.entry), format!("{:?}", found.entry));
    if expected.crtime.is_some() {
        differ("creation", format!("{:?}", expected.crtime), format!("{:?}", found.crtime));
    }
    if expected.blocks.is_some() {
        differ("blocks", format!("{:?}", expected.blocks), format!("{:?}", found.blocks));
    }
    differ("device", format!("{:?}", expected.rdev), format!("{:?}", found.rdev));
    if let Some(flags) = expected.flags {
        let found = found.flags.unwrap_or_default();
        differ(
            "flags",
            format!("{:#x}", flags & VISIBLE_FLAGS),
            format!("{:#x}", found & VISIBLE_FLAGS),
        );
    }
    if let Some(project) = expected.project {
        differ("project", project.to_string(), found.project.unwrap_or(0).to_string());
    }
    if let (Some(expected), Some(found)) = (&expected.xattrs, &found.xattrs) {
        differ("xattrs", xattrs_text(expected), xattrs_text(found));
    }
    if let (Some(expected), Some(found)) = (&expected.extents, &found.extents) {
        let (expected, found) = (view::joined(expected), view::joined(found));
        if expected != found {
            lines.push(format!("extents: {}", first_of(&expected, &found)));
        }
    }
    if expected.digest != found.digest {
        let digests = (&expected.digest, &found.digest);
        lines.push(format!("content: expected {:?}, found {:?}", digests.0, digests.1));
    }
    lines
}

/// Describes the first difference of two maps.
fn first_of(expected: &[Extent], found: &[Extent]) -> String {
    let same = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    format!(
        "{} expected, {} found; number {same} expected {:?}, found {:?}",
        expected.len(),
        found.len(),
        expected.get(same),
        found.get(same)
    )
}

/// Formats attributes on one line. Long values are shown as length and digest.
fn xattrs_text(xattrs: &Xattrs) -> String {
    let text = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let name = name.escape_ascii();
        if value.len() <= 64 {
            return format!("{name}={}", value.escape_ascii());
        }
        format!("{name}={} bytes, {}", value.len(), &view::digest_of(value)[..16])
    };
    format!("{{{}}}", xattrs.iter().map(text).collect::<Vec<_>>().join(", "))
}

/// Joins lines to one message of limited length.
pub fn report(lines: &[String]) -> String {
    let mut text = lines.iter().take(SHOWN).map(|line| format!("  {line}\n")).collect::<String>();
    if lines.len() > SHOWN {
        text.push_str(&format!("  and {} more\n", lines.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let entry = Entry {
            mode: 0o100_644,
            uid: 1,
            gid: 2,
            size: 3,
            links: 1,
            inode: 12,
            atime: (0, 0),
            mtime: (0, 0),
            ctime: (0, 0),
            target: None,
        };
        let extent = Extent {
            logical: 0,
            physical: 8,
            length: 4,
            unwritten: false,
            inline: false,
            last: true,
        };
        Node {
            entry,
            crtime: Some((1, 1)),
            blocks: Some(8),
            rdev: None,
            flags: Some(0x80000),
            project: Some(0),
            xattrs: Some(Xattrs::from([(b"user.a".to_vec(), b"b".to_vec())])),
            extents: Some(vec![extent]),
            digest: Some("00".to_owned()),
        }
    }

    #[test]
    fn each_field_is_compared() {
        let changes: [fn(&mut Node); 9] = [
            |node| node.entry.mode += 1,
            |node| node.crtime = None,
            |node| node.blocks = Some(16),
            |node| node.rdev = Some((1, 2)),
            |node| node.flags = Some(0x80010),
            |node| node.project = Some(7),
            |node| node.xattrs = Some(Xattrs::new()),
            |node| node.extents.as_mut().unwrap()[0].unwritten = true,
            |node| node.digest = Some("01".to_owned()),
        ];
        let expected = Tree::from([(b"a".to_vec(), node())]);
        assert_eq!(differences(&expected, &expected), Vec::<String>::new());
        for (index, change) in changes.into_iter().enumerate() {
            let mut found = expected.clone();
            change(found.get_mut(&b"a"[..]).unwrap());
            let lines = differences(&expected, &found);
            assert_eq!(lines.len(), 1, "change {index}: {lines:?}");
        }
        let other = Tree::from([(b"b".to_vec(), node())]);
        assert_eq!(differences(&expected, &other).len(), 2);
    }
}
