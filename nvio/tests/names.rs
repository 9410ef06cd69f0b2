//! Names that are created, renamed and removed by path; e2fsck looks at each image.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{ErrorKind, Read, Seek, Write};
use std::path::PathBuf;

use nvio::ext4::{InodeNumber, NewFile, RenameMode};
use nvio::{Error, FileOptions, JournaledVolume};
use nvio_testkit::image;
use tempfile::TempDir;

struct Disk {
    _work: TempDir,
    image: PathBuf,
}

/// An empty filesystem.
fn disk(mebibytes: u64, options: &[&str]) -> (Disk, JournaledVolume) {
    let work = image::work_folder("names");
    let image = work.path().join("disk.img");
    image::mkfs(&image, mebibytes << 20, options);
    let volume = JournaledVolume::open(&image).unwrap();
    (Disk { _work: work, image }, volume)
}

impl Disk {
    /// Closes the volume, and checks the image.
    fn check(&self, volume: JournaledVolume) {
        volume.close().unwrap();
        image::tool("e2fsck", &["-fn", image::text(&self.image)]);
    }
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.kind(),
    }
}

fn free(volume: &JournaledVolume) -> (u64, u64) {
    let statfs = volume.filesystem().statfs().unwrap();
    (statfs.free_blocks, statfs.free_files)
}

fn is_there(volume: &JournaledVolume, path: &[u8]) -> bool {
    volume.lookup_no_follow(path).is_ok()
}

#[test]
fn paths_with_dots_slashes_and_links() {
    let (disk, volume) = disk(16, &[]);
    assert!(volume.create_dir_all("a/./b/../c//d/").unwrap().is_dir());
    for path in ["/a", "/a/b", "/a/c/d"] {
        assert!(is_there(&volume, path.as_bytes()), "{path}");
    }
    assert!(volume.create_dir_all("/").unwrap().number() == InodeNumber::ROOT);
    volume.symlink("/a/c", "/link").unwrap();
    volume.create_dir_all("/link/d/e").unwrap();
    assert!(is_there(&volume, b"/a/c/d/e"));
    volume.write("/file", "x").unwrap();
    assert_eq!(kind(volume.create_dir_all("/file/b")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.create_dir("/file/")), ErrorKind::AlreadyExists);
    assert_eq!(kind(volume.create_dir("/")), ErrorKind::AlreadyExists);
    assert_eq!(kind(volume.create_dir("/none/b")), ErrorKind::NotFound);
    for path in ["/", "", "/a/.", "/a/..", "."] {
        assert_eq!(kind(volume.remove_dir(path)), ErrorKind::InvalidInput, "{path}");
        assert_eq!(kind(volume.remove_dir_all(path)), ErrorKind::InvalidInput, "{path}");
    }
    // A slash after a name is only for a directory.
    assert_eq!(kind(volume.remove_file("/file/")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.rename("/file/", "/other")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.rename("/file", "/other/")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.create("/new/")), ErrorKind::NotADirectory);
    volume.rename("/a/", "/z/").unwrap();
    assert_eq!(kind(volume.remove_file("/z")), ErrorKind::IsADirectory);
    assert_eq!(kind(volume.remove_dir("/link")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.remove_dir_all("/file")), ErrorKind::NotADirectory);
    assert_eq!(kind(volume.rename("/z", "/z/c/d/z")), ErrorKind::InvalidInput);
    disk.check(volume);
}

#[test]
fn errors_name_the_path_that_they_concern() {
    let (disk, volume) = disk(16, &[]);
    volume.create_dir_all("/full/sub").unwrap();
    volume.create_dir("/empty").unwrap();
    volume.write("/file", "x").unwrap();
    let line = |result: Result<(), Error>| result.unwrap_err().to_string();
    let link = |from, to| volume.hard_link(from, to).map(drop);
    for (error, expected) in [
        (line(volume.rename("/none", "/x")), "/none: no such file or directory"),
        (line(volume.rename("/file", "/none/x")), "/none/x: no such file or directory"),
        (line(volume.rename_with("/file", "/x", RenameMode::Exchange)), "/x: no such file"),
        (line(volume.rename_with("/file", "/empty", RenameMode::NoReplace)), "/empty: exists"),
        (line(volume.rename("/file", "/empty")), "/empty: "),
        (line(volume.rename("/empty", "/file")), "/file: "),
        (line(volume.rename("/empty", "/full")), "/full: directory, inode"),
        (line(link("/none", "/x")), "/none: no such file"),
        (line(link("/empty", "/x")), "/empty: inode"),
        (line(link("/file", "/empty")), "/empty: exists already"),
        (line(volume.remove_dir("/full")), "/full: directory, inode"),
        (line(volume.symlink("", "/x").map(drop)), "/x: \"\": not a possible name"),
    ] {
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
    disk.check(volume);
}

#[test]
fn options_of_open_files() {
    let (disk, volume) = disk(16, &[]);
    let with = FileOptions::new;
    for options in [
        with(),
        with().read(true).create(true),
        with().read(true).truncate(true),
        with().append(true).truncate(true),
    ] {
        assert_eq!(kind(options.open(&volume, "/file")), ErrorKind::InvalidInput);
    }
    assert_eq!(kind(with().write(true).open(&volume, "/file")), ErrorKind::NotFound);
    // A link without a target gets it.
    volume.create_dir("/dir").unwrap();
    volume.symlink("dir/second", "/first").unwrap();
    volume.symlink("../third", "/dir/second").unwrap();
    let new = with().write(true).create_new(true);
    assert_eq!(kind(new.open(&volume, "/first")), ErrorKind::AlreadyExists);
    volume.write("/first", "text").unwrap();
    assert_eq!(volume.lookup_no_follow("/third").unwrap().size(), 4);
    volume.symlink("loop", "/loop").unwrap();
    assert_eq!(kind(volume.create("/loop")), ErrorKind::InvalidInput);
    volume.symlink("none/x", "/dangling").unwrap();
    assert_eq!(kind(volume.create("/dangling")), ErrorKind::NotFound);

    let mut reader = with().read(true).open(&volume, "/third").unwrap();
    assert_eq!(reader.write(b"x").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(kind(reader.set_len(0)), ErrorKind::PermissionDenied);
    assert_eq!(kind(reader.punch_hole(0, 1)), ErrorKind::PermissionDenied);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    // The data of a new file takes the place of the old one.
    volume.write("/third", "new").unwrap();
    reader.rewind().unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "new");
    drop(reader);
    disk.check(volume);
}

#[test]
fn threads_that_append_and_create() {
    const THREADS: usize = 4;
    const LINES: usize = 200;
    let (disk, volume) = disk(32, &[]);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let volume = &volume;
            scope.spawn(move || {
                volume.create_dir_all("/same/path").unwrap();
                let options = FileOptions::new().append(true).create(true);
                let mut log = options.open(volume, "/same/log").unwrap();
                for line in 0..LINES {
                    log.write_all(format!("{thread} {line:4}\n").as_bytes()).unwrap();
                    let path = format!("/same/path/{thread}.{line}");
                    volume.write(&path, path.as_bytes()).unwrap();
                    if line % 2 == 0 {
                        volume.remove_file(&path).unwrap();
                    }
                }
            });
        }
    });
    let mut log = String::new();
    volume.open_file("/same/log").unwrap().read_to_string(&mut log).unwrap();
    for thread in 0..THREADS {
        let prefix = format!("{thread} ");
        let lines: Vec<&str> = log.lines().filter(|line| line.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..LINES).map(|line| format!("{thread} {line:4}")).collect();
        assert_eq!(lines, expected);
    }
    assert_eq!(log.lines().count(), THREADS * LINES);
    let names = volume.read_dir(&volume.lookup("/same/path").unwrap()).unwrap().count();
    assert_eq!(names, THREADS * LINES / 2);
    disk.check(volume);
}

#[test]
fn a_tree_is_removed_whatever_its_depth_and_width() {
    const DEPTH: usize = 2500;
    const WIDTH: usize = 6000;
    let (disk, volume) = disk(64, &["-N", "16000"]);
    let before = free(&volume);
    volume.write("/outside", "stays").unwrap();
    let fs = volume.filesystem();
    let new = NewFile::with_permissions(0o755);
    let top = fs.create_dir(InodeNumber::ROOT, "top", new).unwrap().number();
    // Deeper than a removal remembers, and than a path can name.
    let mut here = top;
    for level in 0..DEPTH {
        fs.create_symlink("/outside", here, "link", new).unwrap();
        here = fs.create_dir(here, format!("level {level}"), new).unwrap().number();
    }
    let wide = fs.create_dir(top, "wide", new).unwrap().number();
    for entry in 0..WIDTH {
        let name = format!("entry {entry}");
        match entry % 3 {
            0 => fs.create_dir(wide, name, new).unwrap(),
            _ => fs.create_file(wide, [name.as_bytes(), b"\xff\n"].concat(), new).unwrap(),
        };
    }
    volume.remove_dir_all("/top").unwrap();
    assert!(!is_there(&volume, b"/top") && is_there(&volume, b"/outside"));
    volume.symlink("/outside", "/link").unwrap();
    volume.remove_dir_all("/link").unwrap();
    volume.remove_file("/outside").unwrap();
    assert_eq!(free(&volume), before);
    disk.check(volume);
}

#[test]
fn a_tree_is_removed_from_a_full_filesystem() {
    let (disk, volume) = disk(8, &[]);
    volume.create_dir_all("/full/a").unwrap();
    let filled = (0..).find_map(|file| {
        let path = format!("/full/a/{file}");
        volume.write(path, vec![7; 50_000]).err()
    });
    assert_eq!(filled.unwrap().kind(), ErrorKind::StorageFull);
    let rest = (0..).find_map(|file| volume.write(format!("/full/{file}"), [7; 1000]).err());
    assert_eq!(rest.unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(free(&volume).0, 0);
    volume.remove_dir_all("/full").unwrap();
    volume.write("/new", vec![7; 3_000_000]).unwrap();
    disk.check(volume);
}

#[test]
fn a_removal_that_fails_names_the_entry() {
    let work = image::work_folder("names");
    let image = work.path().join("disk.img");
    let folder = work.path().join("folder");
    std::fs::create_dir_all(folder.join("top/sub")).unwrap();
    std::fs::write(folder.join("top/sub/file"), "x").unwrap();
    image::mkfs_of_folder(&image, 16 << 20, &folder, &[]);
    // Immutable, with extents.
    image::debugfs(&image, &["set_inode_field top/sub/file flags 0x80010"]);
    let volume = JournaledVolume::open(&image).unwrap();
    let error = volume.remove_dir_all("/top/").unwrap_err().to_string();
    assert!(error.starts_with("/top/sub/file: "), "{error}");
    assert!(is_there(&volume, b"/top/sub/file"));
    volume.close().unwrap();
}

#[test]
fn a_directory_in_itself_ends_a_removal() {
    let (disk, volume) = disk(16, &[]);
    volume.create_dir_all("/a/b/c").unwrap();
    volume.close().unwrap();
    image::debugfs(&disk.image, &["link a a/b/c/again"]);
    let volume = JournaledVolume::open(&disk.image).unwrap();
    let error = volume.remove_dir_all("/a").unwrap_err().to_string();
    assert!(error.starts_with("/a/b/c/again: ") && error.contains("nested"), "{error}");
}

#[test]
fn each_kind_of_read_records_the_time_of_access() {
    let modes: [fn(&mut nvio::JournaledFile) -> usize; 4] = [
        |file| file.read_at(0, &mut [0; 4]).unwrap(),
        |file| file.read_at_with(nvio::IoMode::Direct, 0, &mut [0; 4]).unwrap(),
        |file| file.read_at_then(0, 4, <[u8]>::len).unwrap(),
        |file| file.read(&mut [0; 4]).unwrap(),
    ];
    let (disk, volume) = disk(16, &[]);
    let old = nvio::ext4::Timestamp { seconds: 1_000_000_000, nanoseconds: 0 };
    let atime = |volume: &JournaledVolume| volume.filesystem().lookup("/file").unwrap().atime();
    volume.write("/file", "text").unwrap();
    for mode in modes {
        volume.set_times("/file", Some(old), None).unwrap();
        let mut file = volume.open_file("/file").unwrap();
        assert_eq!(mode(&mut file), 4);
        drop(file);
        assert!(atime(&volume) > old);
    }
    volume.set_times("/file", Some(old), None).unwrap();
    volume.open_file("/file").unwrap().write_at(0, b"text").unwrap();
    assert_eq!(atime(&volume), old, "it was written only");
    disk.check(volume);

    let options = nvio::OpenOptions::new().access_times(false);
    let volume = options.open_journaled(&disk.image).unwrap();
    for mode in modes {
        assert_eq!(mode(&mut volume.open_file("/file").unwrap()), 4);
    }
    assert_eq!(atime(&volume), old);
    disk.check(volume);
}
