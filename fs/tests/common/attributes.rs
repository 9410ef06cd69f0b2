//! Extended attributes and access control lists of a mounted filesystem, by getfattr and getfacl.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nvio_ext4::{Filesystem, Inode};

use super::run;

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Compares the attributes of everything below `mount`, and returns their number.
pub fn compare(variant: &str, fs: &Filesystem, mount: &Path) -> usize {
    let theirs = getfattr(mount);
    let mut count = 0;
    for path in super::walk(mount) {
        let what = format!("{variant}: /{}", path.display());
        let inode = fs.lookup_no_follow(path.as_os_str().as_bytes()).unwrap();
        let ours = ours(fs, &inode).unwrap_or_else(|error| panic!("{what}: {error}"));
        count += ours.len();
        for (name, value) in &ours {
            assert_eq!(fs.xattr(&inode, name).unwrap().as_ref(), Some(value), "{what}");
        }
        let is_acl = |name: &[u8]| name.starts_with(b"system.posix_acl_");
        assert_eq!(
            fs.has_acl(&inode).unwrap(),
            ours.keys().any(|name| is_acl(name)),
            "{what}: whether it has a list"
        );
        assert_eq!(ours, theirs.get(&path).cloned().unwrap_or_default(), "{what}: attributes");
    }
    count
}

pub fn ours(fs: &Filesystem, inode: &Inode) -> Result<Attributes, nvio_ext4::Error> {
    let mut all = Attributes::new();
    for xattr in fs.xattrs(inode)? {
        let xattr = xattr?;
        assert!(all.insert(xattr.name, xattr.value).is_none(), "twice");
    }
    Ok(all)
}

/// Returns all attributes of everything below `mount`, by path.
pub fn getfattr(mount: &Path) -> BTreeMap<PathBuf, Attributes> {
    let top = mount.to_str().unwrap();
    let output =
        run("getfattr", &["--absolute-names", "-P", "-R", "-h", "-d", "-m", "-", "-e", "hex", top]);
    let mut all = BTreeMap::new();
    let mut current: Option<(PathBuf, Attributes)> = None;
    for line in output.split(|&byte| byte == b'\n') {
        if let Some(path) = line.strip_prefix(b"# file: ") {
            let path = unescape(path);
            let path = Path::new(std::ffi::OsStr::from_bytes(&path));
            let path = path.strip_prefix(mount).unwrap().to_owned();
            all.extend(current.replace((path, Attributes::new())));
        } else if let Some(equals) = line.iter().position(|&byte| byte == b'=') {
            let value = line[equals + 1..].strip_prefix(b"0x").unwrap();
            let value = value.chunks(2).map(|pair| byte(pair, 16)).collect();
            let (_, attributes) = current.as_mut().unwrap();
            attributes.insert(unescape(&line[..equals]), value);
        } else if let Some((_, attributes)) = current.as_mut().filter(|_| !line.is_empty()) {
            attributes.insert(unescape(line), Vec::new());
        }
    }
    all.extend(current);
    all
}

fn byte(digits: &[u8], radix: u32) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), radix).unwrap()
}

/// Decodes the escapes of getfattr: a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(&first) = text.get(at) {
        if first == b'\\' {
            bytes.push(byte(&text[at + 1..at + 4], 8));
            at += 4;
        } else {
            bytes.push(first);
            at += 1;
        }
    }
    bytes
}
