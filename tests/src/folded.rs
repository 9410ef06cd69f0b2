//! Directories that ignore case: created by the kernel, and compared between the kernel and nvio.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use nvio_ext4::{Error, Filesystem};

use crate::sys;

/// `FS_CASEFOLD_FL`.
const CASEFOLD: u32 = 0x4000_0000;
/// Number of names in the directory without a hash tree.
const FEW: usize = 40;
/// Number of names in the directory with a hash tree.
const MANY: usize = 2500;

/// A name, and other spellings to look up.
struct Name {
    stored: Vec<u8>,
    asked: Vec<Vec<u8>>,
}

/// Names that are equal by more than a change of case, and names that only look equal.
const SPECIAL: &[(&str, &[&str])] = &[
    ("Stra\u{df}e", &["STRASSE", "stra\u{1e9e}e", "strase"]),
    (
        "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
        &["\u{3c3}\u{38a}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3c3}"],
    ),
    ("\u{130}stanbul", &["i\u{307}STANBUL", "istanbul", "\u{131}stanbul"]),
    ("A\u{301}\u{323}", &["\u{1ea1}\u{301}", "a\u{323}\u{301}", "\u{e1}\u{323}", "a\u{301}"]),
    ("a\u{301}\u{34f}\u{323}-apart", &["A\u{301}\u{323}-apart", "a\u{301}\u{34f}\u{323}-APART"]),
    ("\u{212b}ngstr\u{f6}m", &["a\u{30a}NGSTRO\u{308}M", "\u{e5}ngstr\u{d6}m", "angstrom"]),
    ("\u{d55c}\u{ae00}", &["\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "\u{d55c}"]),
    ("e\u{fb03}cient", &["EFFICIENT", "e\u{fb00}icient", "eficient"]),
    ("\u{ff26}ull", &["\u{ff46}ULL", "full"]),
    ("\u{2460}\u{2163}", &["\u{2460}\u{2173}", "1IV"]),
    ("zero\u{200d}width\u{ad}", &["ZEROWIDTH", "zero\u{feff}width", "zero width"]),
    ("\u{2764}\u{fe0f}", &["\u{2764}", "\u{2764}\u{fe0e}"]),
    ("\u{180e}", &["\u{200b}", "\u{180f}"]),
    ("\u{345}\u{3b1}", &["\u{3b9}\u{391}", "\u{1fbe}\u{3b1}"]),
    ("\u{1f80}", &["\u{1f88}", "\u{1f00}\u{3b9}", "\u{3b1}\u{313}\u{345}"]),
    ("\u{f73}\u{f71}", &["\u{f71}\u{f71}\u{f72}"]),
    ("\u{10400}deseret", &["\u{10428}DESERET"]),
    ("\u{a7c7}-is-new", &["\u{a7c8}-is-new", "\u{a7c7}-IS-NEW"]),
    ("\u{378}-is-nothing", &["\u{378}-IS-NOTHING", "\u{379}-is-nothing"]),
    ("\u{fdd0}\u{10ffff}-Private\u{e000}", &["\u{fdd0}\u{10ffff}-pRIVATE\u{e000}"]),
];

/// Returns the names of a directory, at least `count`.
fn names(count: usize) -> Vec<Name> {
    let bytes = |text: &&str| text.as_bytes().to_vec();
    let mut names: Vec<Name> = SPECIAL
        .iter()
        .map(|(stored, asked)| Name {
            stored: bytes(stored),
            asked: asked.iter().map(bytes).collect(),
        })
        .collect();
    names.push(Name {
        stored: b"Not-UTF8-\xff".to_vec(),
        asked: vec![b"NOT-UTF8-\xff".to_vec(), b"Not-UTF8-".to_vec()],
    });
    // All letters with case, and some without, each with its other case.
    let mut code = 0x80;
    while names.len() < count && code < 0x1_f000 {
        code += 1;
        let Some(letter) = char::from_u32(code).filter(|letter| !letter.is_control()) else {
            continue;
        };
        let upper = letter.to_uppercase().to_string();
        let lower = letter.to_lowercase().to_string();
        if upper == lower && code % 101 != 0 {
            continue;
        }
        let tail = "\u{e9}x".repeat(names.len() % 20);
        let name =
            |prefix: &str, letter: &str| format!("{prefix}-{code:x}-{letter}-{tail}").into_bytes();
        let mut asked = vec![name("NAME", &upper), name("name", &lower)];
        // Only some missing names, because their lookups search all blocks.
        if names.len().is_multiple_of(25) {
            asked.push(name("nAME", &format!("{letter}\u{307}")));
        }
        names.push(Name { stored: name("Name", &letter.to_string()), asked });
    }
    names
}

/// Creates the directories "few" and "many" below `top`.
pub fn make(top: &Path) -> io::Result<()> {
    for (directory, count) in [("few", FEW), ("many", MANY)] {
        let directory = top.join(directory);
        fs::create_dir(&directory)?;
        sys::add_flags(&File::open(&directory)?, CASEFOLD)?;
        for name in names(count) {
            File::create_new(directory.join(OsStr::from_bytes(&name.stored)))?;
        }
    }
    sys::syncfs(&File::open(top)?)
}

/// Looks up all names in all spellings, in the kernel at `mount` and in nvio. Returns the numbers
/// of names that exist and that do not.
pub fn compare(image: &Path, mount: &Path) -> io::Result<(usize, usize)> {
    let fs = Filesystem::open(File::open(image)?).map_err(io::Error::other)?;
    let (mut found, mut not_found) = (0, 0);
    for (directory, count) in [("few", FEW), ("many", MANY)] {
        for Name { stored, asked } in names(count) {
            for name in asked.iter().chain([&stored]) {
                let path = Path::new(directory).join(OsStr::from_bytes(name));
                let theirs = fs::symlink_metadata(mount.join(&path));
                let ours = fs.lookup(path.as_os_str().as_bytes());
                match (&theirs, &ours) {
                    (Ok(theirs), Ok(ours)) if theirs.ino() == u64::from(ours.number()) => {
                        found += 1
                    }
                    (Err(error), Err(Error::NotFound { .. }))
                        if error.kind() == ErrorKind::NotFound && *name != stored =>
                    {
                        not_found += 1;
                    }
                    _ => {
                        let name = name.escape_ascii();
                        let message = format!("{directory}/{name}: {theirs:?}, nvio: {ours:?}");
                        return Err(io::Error::other(message));
                    }
                }
            }
        }
    }
    Ok((found, not_found))
}

/// Compares the listings of the directories with those of the kernel without a key, and looks up
/// each name. Returns the number of names.
pub fn compare_without_key(image: &Path, mount: &Path) -> io::Result<usize> {
    let fs = Filesystem::open(File::open(image)?).map_err(io::Error::other)?;
    let mut count = 0;
    for name in ["few", "many"] {
        let directory = fs.lookup(name.as_bytes()).map_err(io::Error::other)?;
        let mut theirs = BTreeMap::new();
        for entry in fs::read_dir(mount.join(name))? {
            let entry = entry?;
            theirs.insert(entry.file_name().as_bytes().to_vec(), entry.ino());
        }
        let mut ours = BTreeMap::new();
        for entry in fs.read_dir(&directory).map_err(io::Error::other)? {
            let entry = entry.map_err(io::Error::other)?;
            let path = [name.as_bytes(), b"/", &entry.name].concat();
            let found = fs.lookup(&path).map_err(io::Error::other)?;
            assert_eq!(found.number(), entry.inode, "{}", entry.name.escape_ascii());
            ours.insert(entry.name, u64::from(entry.inode));
        }
        assert!(ours == theirs, "{name}: {ours:?}, but the kernel has {theirs:?}");
        count += ours.len();
    }
    Ok(count)
}
