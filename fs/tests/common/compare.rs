//! Comparison of a mounted filesystem with this crate's view of its image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nvio_ext4::{FileType, Filesystem, Inode};

use super::{kind_of, run};

/// The numbers of compared items.
#[derive(Debug, Default)]
pub struct Count {
    pub paths: usize,
    pub files: usize,
    pub bytes: u64,
    pub extents: usize,
    pub inline: usize,
    pub attributes: usize,
}

/// Compares everything below `mount` with the image.
pub fn compare(variant: &str, image: &Path, mount: &Path) -> Count {
    compare_with(variant, &super::open(image), image, mount)
}

/// Compares everything below `mount` with the open filesystem `fs` on `image`.
pub fn compare_with(variant: &str, fs: &Filesystem, image: &Path, mount: &Path) -> Count {
    let device = File::open(image).unwrap();
    let mut count = Count::default();
    let mut with_extents = Vec::new();
    for path in super::walk(mount) {
        let what = format!("{variant}: /{}", path.display());
        let kernel_path = mount.join(&path);
        let metadata = kernel_path.symlink_metadata().unwrap();
        let inode = fs
            .lookup_no_follow(path.as_os_str().as_bytes())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        compare_metadata(&what, &metadata, &inode);
        count.paths += 1;
        match inode.kind() {
            FileType::Regular => {
                compare_contents(&what, fs, &device, &kernel_path, &inode);
                count.files += 1;
                count.bytes += inode.size();
                with_extents.push((path, inode));
            }
            FileType::Directory => {
                compare_names(&what, fs, &kernel_path, &inode);
                with_extents.push((path, inode));
            }
            FileType::Symlink => {
                let target = fs::read_link(&kernel_path).unwrap();
                let ours = fs.read_link(&inode).unwrap();
                assert_eq!(ours, target.as_os_str().as_bytes(), "{what}");
            }
            _ => (),
        }
    }
    (count.extents, count.inline) = compare_extents(variant, fs, mount, &with_extents);
    count.attributes = super::attributes::compare(variant, fs, mount);
    count
}

fn compare_metadata(what: &str, kernel: &fs::Metadata, inode: &Inode) {
    assert_eq!(u64::from(inode.number()), kernel.ino(), "{what}: number");
    assert_eq!(inode.kind(), kind_of(kernel), "{what}: kind");
    assert_eq!(u32::from(inode.mode()), kernel.mode(), "{what}: mode");
    assert_eq!((inode.uid(), inode.gid()), (kernel.uid(), kernel.gid()), "{what}: owner");
    assert_eq!(inode.size(), kernel.size(), "{what}: size");
    assert_eq!(u64::from(inode.links()), kernel.nlink(), "{what}: links");
    assert_eq!(inode.blocks_512(), kernel.blocks(), "{what}: blocks");
    let times = [inode.atime(), inode.mtime(), inode.ctime()]
        .map(|time| (time.seconds, i64::from(time.nanoseconds)));
    let expected = [
        (kernel.atime(), kernel.atime_nsec()),
        (kernel.mtime(), kernel.mtime_nsec()),
        (kernel.ctime(), kernel.ctime_nsec()),
    ];
    assert_eq!(times, expected, "{what}: times");
    let created = inode.crtime().map(|time| time.to_system_time().unwrap());
    assert_eq!(created, kernel.created().ok(), "{what}: creation");
    let rdev = kernel.rdev();
    let major = ((rdev >> 8) & 0xfff) as u32;
    let minor = ((rdev & 0xff) | ((rdev >> 12) & 0xf_ff00)) as u32;
    let device = matches!(inode.kind(), FileType::CharDevice | FileType::BlockDevice);
    assert_eq!(inode.rdev(), device.then_some((major, minor)), "{what}: device number");
}

fn compare_contents(what: &str, fs: &Filesystem, device: &File, path: &Path, inode: &Inode) {
    if inode.size() < 1 << 27 {
        let ours = super::read_file(fs, device, inode);
        assert!(ours == fs::read(path).unwrap(), "{what}: contents");
        return;
    }
    // The file is too large for memory: compare only its extents and their data.
    let kernel = File::open(path).unwrap();
    for extent in fs.file(inode).unwrap().extents() {
        let extent = extent.unwrap();
        let length = extent.length.min(inode.size().saturating_sub(extent.logical));
        let mut theirs = vec![0; length as usize];
        kernel.read_exact_at(&mut theirs, extent.logical).unwrap();
        let mut ours = vec![0; length as usize];
        if !extent.unwritten {
            device.read_exact_at(&mut ours, extent.physical).unwrap();
        }
        assert!(ours == theirs, "{what}: contents at {}", extent.logical);
    }
}

fn compare_names(what: &str, fs: &Filesystem, path: &Path, inode: &Inode) {
    let theirs: BTreeMap<Vec<u8>, (u64, fs::FileType)> = fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let ino = std::os::unix::fs::DirEntryExt::ino(&entry);
            (entry.file_name().into_vec(), (ino, entry.file_type().unwrap()))
        })
        .collect();
    let mut ours = BTreeMap::new();
    for entry in fs.read_dir(inode).unwrap() {
        let entry = entry.unwrap();
        if let Some(kind) = entry.kind {
            let theirs = theirs[&entry.name].1;
            assert_eq!(
                (kind == FileType::Directory, kind == FileType::Regular, kind == FileType::Symlink),
                (theirs.is_dir(), theirs.is_file(), theirs.is_symlink()),
                "{what}: {entry:?}"
            );
        }
        assert!(ours.insert(entry.name, u64::from(entry.inode)).is_none(), "{what}: twice");
    }
    let theirs: BTreeMap<Vec<u8>, u64> =
        theirs.into_iter().map(|(name, (ino, _))| (name, ino)).collect();
    assert_eq!(ours, theirs, "{what}: names");
}

/// Logical address, physical address and length in bytes, and the flags unwritten and inline.
type Record = (u64, u64, u64, (bool, bool));

/// Compares all extents with the kernel's (FIEMAP). Adjacent extents are joined on both sides,
/// because the kernel joins those in its cache.
fn compare_extents(
    variant: &str,
    fs: &Filesystem,
    mount: &Path,
    files: &[(PathBuf, Inode)],
) -> (usize, usize) {
    let (mut all, mut inline) = (0, 0);
    for chunk in files.chunks(200) {
        let paths: Vec<PathBuf> = chunk.iter().map(|(path, _)| mount.join(path)).collect();
        // Each file is passed through a link, so that its name cannot disturb the output.
        let theirs = filefrag(&paths);
        for ((path, inode), theirs) in chunk.iter().zip(theirs) {
            let records: Vec<_> =
                fs.extents(inode).unwrap().map(|extent| extent.unwrap()).collect();
            let last = records.iter().filter(|extent| extent.last).count();
            assert_eq!(last, usize::from(!records.is_empty()), "{variant}: {}", path.display());
            let ours = join(records.iter().map(|extent| {
                let flags = (extent.unwritten, extent.inline);
                (extent.logical, extent.physical, extent.length, flags)
            }));
            all += ours.len();
            inline += records.iter().filter(|extent| extent.inline).count();
            assert_eq!(ours, join(theirs.into_iter()), "{variant}: {}", path.display());
        }
    }
    (all, inline)
}

fn join(records: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for record in records {
        match joined.last_mut() {
            Some(last)
                if last.0 + last.2 == record.0
                    && last.1 + last.2 == record.1
                    && last.3 == record.3 =>
            {
                last.2 += record.2;
            }
            _ => joined.push(record),
        }
    }
    joined
}

/// Returns the extents of each file in bytes, from the output of filefrag -v.
fn filefrag(paths: &[PathBuf]) -> Vec<Vec<Record>> {
    let mut arguments = vec!["-b1", "-v"];
    let dir = tempfile::tempdir().unwrap();
    // Links with plain names, because filefrag prints the names.
    let links: Vec<PathBuf> =
        (0..paths.len()).map(|index| dir.path().join(index.to_string())).collect();
    for (link, path) in links.iter().zip(paths) {
        symlink(path, link).unwrap();
    }
    arguments.extend(links.iter().map(|link| link.to_str().unwrap()));
    let output = String::from_utf8(run("filefrag", &arguments)).unwrap();
    let mut files: Vec<Vec<Record>> = Vec::new();
    for line in output.lines() {
        if line.starts_with("File size of ") {
            files.push(Vec::new());
        }
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if fields.len() < 4 || fields[0].parse::<u64>().is_err() {
            continue;
        }
        let start = |range: &str| range.split("..").next().unwrap().trim().parse::<u64>().unwrap();
        let flags = (line.contains("unwritten"), line.contains("inline"));
        let record = (start(fields[1]), start(fields[2]), fields[3].parse().unwrap(), flags);
        files.last_mut().unwrap().push(record);
    }
    assert_eq!(files.len(), paths.len(), "{output}");
    files
}
