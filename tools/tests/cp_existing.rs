//! `cp` onto what exists: nothing is lost or overwritten that was not asked for. The oracle is GNU
//! `cp -a`, where it loses nothing.

use crate::common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::{Disk, Outcome, must, pattern};

/// Two directories with files of the same names.
fn fill(folder: &Path) {
    for (directory, text) in [("d1", "1"), ("d2", "2")] {
        fs::create_dir_all(folder.join(directory).join("tree/sub")).unwrap();
        for name in ["file", "tree/file", "tree/sub/file"] {
            fs::write(folder.join(directory).join(name), text).unwrap();
        }
    }
    fs::write(folder.join("d1/linked"), "linked").unwrap();
    fs::hard_link(folder.join("d1/linked"), folder.join("d2/linked")).unwrap();
    fs::write(folder.join("large"), pattern(3_000_000, 1)).unwrap();
}

fn copy(disk: &Disk, sources: &[&str], target: &Path) -> Outcome {
    disk.run("cp", &[&["-r"], sources, &[target.to_str().unwrap()]].concat())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn new_folder(disk: &Disk, name: &str) -> PathBuf {
    fs::create_dir(disk.path(name)).unwrap();
    disk.path(name)
}

/// Fails if a temporary file was left.
fn assert_names(folder: &Path, expected: &[&str]) {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_path_that_is_given_twice_is_copied_once() {
    let disk = Disk::new(fill, &[]);
    let target = new_folder(&disk, "target");
    for paths in
        [["/d1/file", "/d1/file"], ["d1/tree", "/d1//./tree/"], ["/d1/linked", "d1/linked"]]
    {
        let outcome = copy(&disk, &paths, &target);
        assert_eq!(outcome.code, 0, "as GNU cp: {}", outcome.stderr);
        assert!(outcome.stderr.contains("warning: ") && outcome.stderr.lines().count() == 1);
    }
    let found = ["file", "tree/file", "linked"].map(|name| read(target.join(name)));
    assert_eq!(found, ["1", "1", "linked"]);
}

#[test]
fn what_was_just_created_is_not_overwritten() {
    let disk = Disk::new(fill, &[]);
    let target = new_folder(&disk, "target");
    let refused = "will not overwrite just-created";
    copy(&disk, &["/d1/file", "/d2/file"], &target).refused(&[refused, "target/file", "/d2/file"]);
    // Two names of one inode.
    copy(&disk, &["/d1/linked", "/d2/linked"], &target).refused(&[refused, "/d2/linked"]);
    assert_eq!([read(target.join("file")), read(target.join("linked"))], ["1", "linked"]);
    // Directories are merged, the files in them are not overwritten.
    let target = new_folder(&disk, "merged");
    let outcome = copy(&disk, &["/d1/tree", "/d2/tree"], &target);
    assert_eq!((outcome.code, outcome.stderr.matches(refused).count()), (1, 2));
    assert_eq!(["file", "sub/file"].map(|name| read(target.join("tree").join(name))), ["1", "1"]);
    // The entries of the root directory, after a file that one of them has the name of.
    let target = new_folder(&disk, "root");
    copy(&disk, &["/d1/file", "/d1/tree/file", "/"], &target).refused(&[refused]);
    let outcome = copy(&disk, &["/large", "/"], &target);
    assert!(outcome.code == 1 && outcome.stderr.contains("/large"), "{}", outcome.stderr);
    assert_eq!(read(target.join("d2/tree/file")), "2");
    // A later run may replace them.
    copy(&disk, &["/d2/file"], &target).ok();
    assert_eq!(read(target.join("file")), "2");
}

#[test]
fn other_names_of_an_existing_file_keep_its_contents() {
    let disk = Disk::new(fill, &[]);
    let target = new_folder(&disk, "target");
    copy(&disk, &["/d1/linked"], &target).ok();
    fs::hard_link(target.join("linked"), disk.path("snapshot")).unwrap();
    fs::hard_link(target.join("linked"), target.join("file")).unwrap();
    copy(&disk, &["/d2/file", "/d2/linked"], &target).ok();
    assert_eq!(read(target.join("file")), "2");
    assert_eq!(read(target.join("linked")), "linked");
    assert_eq!(read(disk.path("snapshot")), "linked");
    // Names that the source links, and the target too, or not.
    let target = new_folder(&disk, "both");
    for _ in 0..3 {
        copy(&disk, &["/d1", "/d2"], &target).ok();
        let inode = |name: &str| target.join(name).metadata().unwrap().ino();
        assert_eq!(inode("d1/linked"), inode("d2/linked"));
        fs::remove_file(target.join("d2/linked")).unwrap();
        fs::write(target.join("d2/linked"), "of its own").unwrap();
    }
    assert_names(&target.join("d1"), &["file", "linked", "tree"]);
}

#[test]
fn a_source_that_fails_half_way_leaves_what_was_there() {
    let disk = Disk::new(fill, &["-O", "^metadata_csum,^64bit"]);
    // The second half of the file lies past the end of the device.
    disk.debugfs("sif /large block[2] 0x7fff0000");
    disk.debugfs("sif /large flags 0");
    let target = new_folder(&disk, "target");
    fs::write(target.join("large"), "before").unwrap();
    copy(&disk, &["/large"], &target).refused(&["/large"]);
    assert_eq!(read(target.join("large")), "before");
    fs::remove_file(target.join("large")).unwrap();
    copy(&disk, &["/large"], &target).refused(&["/large"]);
    assert_names(&target, &[]);
}

#[test]
fn other_types_are_in_the_way() {
    let disk = Disk::new(fill, &[]);
    let target = new_folder(&disk, "target");
    fs::write(disk.path("precious"), "precious").unwrap();
    symlink(disk.path("precious"), target.join("file")).unwrap();
    fs::create_dir(target.join("linked")).unwrap();
    must("mkfifo", &[target.join("large").as_ref()]);
    copy(&disk, &["/d1/file"], &target).refused(&["symbolic link, which is not followed"]);
    copy(&disk, &["/d1/linked"], &target).refused(&["is a directory"]);
    copy(&disk, &["/large"], &target).refused(&["is a special file"]);
    copy(&disk, &["/large"], Path::new("/dev/null")).refused(&["is a special file"]);
    assert_eq!(read(disk.path("precious")), "precious");
    assert_names(&target, &["file", "large", "linked"]);
}

#[test]
fn a_target_that_must_be_a_directory() {
    let disk = Disk::new(fill, &[]);
    let target = new_folder(&disk, "target");
    fs::write(target.join("there"), "there").unwrap();
    for (name, state) in
        [("none", "none/ does not exist; "), ("there", "there/ is not a directory; ")]
    {
        let path = target.join(name).join("");
        let one = "leave out the slash to copy to that name";
        copy(&disk, &["/d1/file"], &path).refused(&[&format!("{state}{one}")]);
        let several = "several paths can only be copied into a directory";
        copy(&disk, &["/d1/file", "/large"], &path).refused(&[&format!("{state}{several}")]);
    }
    copy(&disk, &["/d1/file", "/large"], &target.join("none")).refused(&["none does not exist"]);
    assert_names(&target, &["there"]);
}

#[test]
fn the_image_that_is_read_is_not_overwritten() {
    let disk = Disk::new(|folder| fs::write(folder.join("disk.img"), "small").unwrap(), &[]);
    let before = fs::read(disk.image()).unwrap();
    copy(&disk, &["/disk.img"], disk.dir.path()).refused(&["it is the image"]);
    copy(&disk, &["/"], disk.dir.path()).refused(&["disk.img", "it is the image"]);
    assert!(fs::read(disk.image()).unwrap() == before);
}

/// The name `bb` of the root directory becomes a second `aa`.
fn name_twice(disk: &Disk) {
    let mut image = fs::read(disk.image()).unwrap();
    let ends: Vec<usize> = (2..image.len() - 2)
        .filter(|&at| image[at] == b'b' && image[at..at + 2] == *b"bb" && image[at - 2] == 2)
        .collect();
    for at in ends {
        image[at..at + 2].copy_from_slice(b"aa");
    }
    fs::write(disk.image(), image).unwrap();
}

#[test]
fn the_first_of_two_entries_of_one_name_is_copied() {
    const OPTIONS: [&str; 2] = ["-O", "^metadata_csum,^dir_index"];
    type Fill = fn(&Path);
    let cases: [(&str, Fill); 4] = [
        ("two files", |folder| fs::write(folder.join("bb"), "second").unwrap()),
        ("one inode", |folder| fs::hard_link(folder.join("aa"), folder.join("bb")).unwrap()),
        ("a directory", |folder| {
            fs::create_dir(folder.join("bb")).unwrap();
            fs::write(folder.join("bb/inside"), "inside").unwrap();
        }),
        ("a link", |folder| symlink("/etc", folder.join("bb")).unwrap()),
    ];
    for (case, second) in cases {
        let disk = Disk::new(
            |folder| {
                fs::write(folder.join("aa"), "first").unwrap();
                second(folder);
            },
            &OPTIONS,
        );
        name_twice(&disk);
        let target = disk.path("copy");
        copy(&disk, &["/"], &target).refused(&["/aa", "second entry of this name"]);
        assert_eq!(read(target.join("aa")), "first", "{case}");
        assert_eq!(disk.run("cat", &["/aa"]).text(), "first", "{case}: as in lookup");
        assert_names(&target, &["aa", "lost+found"]);
    }
}

#[test]
fn many_files_are_copied_in_few_waits() {
    let disk = Disk::new(
        |folder| {
            for number in 0..4000_u32 {
                let path = folder.join(format!("file-{number:04}"));
                fs::write(path, pattern(number as usize % 4000, number)).unwrap();
            }
            let sparse = fs::File::create(folder.join("sparse")).unwrap();
            for piece in 0..100 {
                sparse.write_all_at(&pattern(5000, piece), u64::from(piece) * 100_000).unwrap();
            }
        },
        &[],
    );
    let target = disk.path("copy");
    let outcome = disk.run("cp", &["-r", "-v", "/", target.to_str().unwrap()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for entry in fs::read_dir(disk.folder()).unwrap() {
        let path = entry.unwrap().path();
        let copied = fs::read(target.join(path.file_name().unwrap())).unwrap();
        assert!(copied == fs::read(&path).unwrap(), "{path:?}");
    }
    let line = outcome.stderr.lines().find(|line| line.contains("reads of data")).unwrap();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [reads, waits] = numbers[..] else { panic!("{line}") };
    // A queue of 64 commands needs a device round for 64 reads. The copy takes at most 1.5 times as
    // many, besides those of the walk.
    assert!(reads >= 4000 && waits * 64 * 2 <= reads * 3, "{line}");
}
