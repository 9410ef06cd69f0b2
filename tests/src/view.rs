//! Views of a tree: from the kernel, by walking a mounted filesystem, and from `nvio`, by parsing
//! its JSON. [`differences`] compares two views.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sys::{self, Extent};

/// Maximum size of files whose digest covers all bytes. Larger files are sparse, and their digest
/// skips chunks of zeroes.
const PLAIN_DIGEST_MAX: u64 = 256 << 20;
/// Chunk size in the digest of larger files.
const CHUNK: u64 = 64 << 10;

/// Seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

/// The attributes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Link count.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last access.
    pub atime: Time,
    /// Time of the last change of the contents.
    pub mtime: Time,
    /// Time of the last change of the inode.
    pub ctime: Time,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
}

impl Entry {
    /// Returns true for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// Entries by path below the root, without a leading slash. The root itself is not included.
pub type View = BTreeMap<Vec<u8>, Entry>;

/// Returns the tree below `root` according to stat(2) and readlink(2).
pub fn of_kernel(root: &Path) -> io::Result<View> {
    let mut view = View::new();
    walk(root, &[], &mut view)?;
    Ok(view)
}

fn walk(directory: &Path, prefix: &[u8], view: &mut View) -> io::Result<()> {
    for item in fs::read_dir(directory)? {
        let item = item?;
        let mut path = prefix.to_vec();
        path.extend_from_slice(item.file_name().as_bytes());
        let metadata = item.path().symlink_metadata()?;
        if metadata.is_dir() {
            let mut below = path.clone();
            below.push(b'/');
            walk(&item.path(), &below, view)?;
        }
        view.insert(path, entry_of(&item.path(), &metadata)?);
    }
    Ok(())
}

/// Returns the entry of `path`. `metadata` must not be that of a link's target.
pub fn entry_of(path: &Path, metadata: &Metadata) -> io::Result<Entry> {
    let target = if metadata.is_symlink() {
        Some(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else {
        None
    };
    let time = |seconds, nanoseconds: i64| (seconds, nanoseconds as u32);
    Ok(Entry {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        links: metadata.nlink(),
        inode: metadata.ino(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        target,
    })
}

/// Parses the JSON output of `nvio ls -lR --json`.
pub fn of_json(document: &Value) -> View {
    let mut view = View::new();
    for item in document.as_array().expect("an array of paths") {
        let path = bytes_of(item, "path").expect("a path");
        let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
        if path.is_empty() {
            continue;
        }
        let former = view.insert(path.clone(), entry_of_json(item));
        assert!(former.is_none(), "{} is listed twice", path.escape_ascii());
    }
    view
}

/// Parses one entry in the JSON of `nvio ls` or `nvio stat`.
pub fn entry_of_json(item: &Value) -> Entry {
    let number = |key: &str| item[key].as_u64().unwrap_or_else(|| panic!("no {key} in {item}"));
    let narrow = |key| u32::try_from(number(key)).expect("32 bits");
    let time = |key: &str| {
        let seconds = item[key]["seconds"].as_i64().unwrap_or_else(|| panic!("no {key}: {item}"));
        let nanoseconds = item[key]["nanoseconds"].as_u64().expect("nanoseconds");
        (seconds, u32::try_from(nanoseconds).expect("below one second"))
    };
    let mode = item["mode"].as_str().expect("mode is an octal string");
    Entry {
        mode: u32::from_str_radix(mode, 8).expect("octal digits"),
        uid: narrow("uid"),
        gid: narrow("gid"),
        size: number("size"),
        links: number("links"),
        inode: number("inode"),
        atime: time("atime"),
        mtime: time("mtime"),
        ctime: time("ctime"),
        target: bytes_of(item, "target"),
    }
}

/// Returns the text `key`, or the bytes of `key_hex`, which replaces it if the bytes are not UTF-8.
pub fn bytes_of(item: &Value, key: &str) -> Option<Vec<u8>> {
    if let Some(digits) = item[format!("{key}_hex")].as_str() {
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
        return Some(pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect());
    }
    item[key].as_str().map(|text| text.as_bytes().to_vec())
}

/// Encodes `view` in the form that [`of_json`] parses.
pub fn to_json(view: &View) -> Value {
    let time =
        |(seconds, nanoseconds): Time| json!({"seconds": seconds, "nanoseconds": nanoseconds});
    let item = |(path, entry): (&Vec<u8>, &Entry)| {
        let mut item = json!({
            "path_hex": hex(path),
            "mode": format!("{:07o}", entry.mode),
            "uid": entry.uid,
            "gid": entry.gid,
            "size": entry.size,
            "links": entry.links,
            "inode": entry.inode,
            "atime": time(entry.atime),
            "mtime": time(entry.mtime),
            "ctime": time(entry.ctime),
        });
        if let Some(target) = &entry.target {
            item["target_hex"] = json!(hex(target));
        }
        item
    };
    view.iter().map(item).collect()
}

/// Parses the extents in the JSON of `nvio map`.
pub fn extents_of_json(document: &Value) -> Vec<Extent> {
    let number = |item: &Value, key: &str| item[key].as_u64().unwrap_or_else(|| panic!("{item}"));
    let flag = |item: &Value, key: &str| item[key].as_bool().unwrap_or_else(|| panic!("{item}"));
    let extent = |item: &Value| Extent {
        logical: number(item, "logical"),
        physical: number(item, "physical"),
        length: number(item, "length"),
        unwritten: flag(item, "unwritten"),
        inline: flag(item, "inline"),
        last: flag(item, "last"),
    };
    document["extents"].as_array().expect("extents").iter().map(extent).collect()
}

/// Joins adjacent extents. The kernel's cache joins some of them, depending on the order of reads,
/// but the map on disk is the same.
pub fn joined(extents: &[Extent]) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(before)
                if before.logical + before.length == extent.logical
                    && before.physical + before.length == extent.physical
                    && before.unwritten == extent.unwritten
                    && !before.inline
                    && !extent.inline =>
            {
                before.length += extent.length;
                before.last = extent.last;
            }
            _ => joined.push(*extent),
        }
    }
    joined
}

/// Returns the differences between the kernel's tree and that of `nvio`, one per line.
pub fn differences(kernel: &View, nvio: &View) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, expected) in kernel {
        let name = path.escape_ascii();
        match nvio.get(path) {
            None => lines.push(format!("{name}: nvio does not list it")),
            Some(found) if found != expected => {
                lines.push(format!("{name}:\n  kernel {expected:?}\n  nvio   {found:?}"));
            }
            Some(_) => {}
        }
    }
    for path in nvio.keys().filter(|path| !kernel.contains_key(*path)) {
        lines.push(format!("{}: only nvio lists it", path.escape_ascii()));
    }
    lines
}

/// The source of a [`digest`]: a file that can be read at any offset, and whose holes can be
/// skipped.
pub trait Content {
    /// Fills `buffer` with the bytes at `offset`; the range is within the file.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Returns the first offset from `offset` on that is not in a hole, or `None`.
    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>>;
}

impl Content for File {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        sys::seek_data(self, offset)
    }
}

/// Returns the SHA-256 of a file's bytes in hexadecimal. Above 256 MiB it covers the chunks that
/// are not all zero and their offsets, so that large sparse files have a digest, too.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    digest_content(&mut file, size)
}

/// Like [`digest`], for any content of `size` bytes.
pub fn digest_content(content: &mut impl Content, size: u64) -> io::Result<String> {
    let mut hasher = Sha256::new();
    if size <= PLAIN_DIGEST_MAX {
        let mut buffer = vec![0; (1 << 20).min(size as usize)];
        let mut offset = 0;
        while offset < size {
            let len = (size - offset).min(buffer.len() as u64);
            let part = &mut buffer[..len as usize];
            content.read(offset, part)?;
            hasher.update(part);
            offset += len;
        }
        return Ok(hex(&hasher.finalize()));
    }
    let mut buffer = vec![0; CHUNK as usize];
    let mut offset = 0;
    while let Some(data) = content.next_data(offset)?.filter(|data| *data < size) {
        offset = data / CHUNK * CHUNK;
        let len = (size - offset).min(CHUNK);
        let chunk = &mut buffer[..len as usize];
        content.read(offset, chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            hasher.update(offset.to_le_bytes());
            hasher.update(&*chunk);
        }
        offset += len;
    }
    hasher.update(size.to_le_bytes());
    Ok(hex(&hasher.finalize()))
}

/// Returns the SHA-256 of `bytes` in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Joins `root` and a path of a view.
pub fn join(root: &Path, path: &[u8]) -> std::path::PathBuf {
    root.join(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entry() -> Entry {
        Entry {
            mode: 0o100_644,
            uid: 1,
            gid: 70_000,
            size: 5,
            links: 1,
            inode: 12,
            atime: (-1, 999_999_999),
            mtime: (10_000_000_000, 0),
            ctime: (1, 2),
            target: None,
        }
    }

    #[test]
    fn a_view_survives_json() {
        let link = Entry { target: Some(b"to \xff".to_vec()), ..entry() };
        let view = View::from([(b"a\xfe/b\n".to_vec(), entry()), (b"link".to_vec(), link)]);
        assert_eq!(of_json(&to_json(&view)), view);
    }

    #[test]
    fn each_difference_is_found() {
        let kernel = View::from([(b"a".to_vec(), entry()), (b"b".to_vec(), entry())]);
        assert_eq!(differences(&kernel, &kernel), Vec::<String>::new());
        let later = Entry { mtime: (10_000_000_000, 1), ..entry() };
        let nvio = View::from([(b"a".to_vec(), later), (b"c".to_vec(), entry())]);
        assert_eq!(differences(&kernel, &nvio).len(), 3);
    }

    #[test]
    fn only_true_neighbours_are_joined() {
        let extent = |logical, physical, unwritten, last| Extent {
            logical,
            physical,
            length: 10,
            unwritten,
            inline: false,
            last,
        };
        let extents = [
            extent(0, 100, false, false),
            extent(10, 110, false, false),
            extent(20, 120, true, false),
            extent(30, 140, true, false),
            extent(50, 150, true, true),
        ];
        let all = joined(&extents);
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], Extent { length: 20, ..extents[0] });
        assert_eq!(all[1..], extents[2..]);
    }

    #[test]
    fn digests_tell_contents_apart() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(file.path()).unwrap(), known);
        assert_eq!(digest_of(b"abc"), known);
        // In a large file, the digest depends on the data and its offset, not on its storage.
        let large = |offset: u64, bytes: &[u8]| {
            file.as_file().set_len(0).unwrap();
            file.as_file().set_len(1 << 30).unwrap();
            file.as_file().write_all_at(bytes, offset).unwrap();
            digest(file.path()).unwrap()
        };
        let data = large(1 << 29, b"data");
        assert_eq!(large(1 << 29, b"data\0\0\0"), data);
        assert_ne!(large((1 << 29) + 1, b"data"), data);
        assert_ne!(large((1 << 29) + CHUNK, b"data"), data);
        assert_ne!(large(1 << 29, b"Data"), data);
    }
}
