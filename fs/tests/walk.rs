//! Walks, compared with a recursion without read-ahead.

use crate::common;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Rng, debugfs, mke2fs};
use nvio_ext4::{
    BlockSource, Filesystem, Inode, InodeNumber, Options, ReadRange, SourceError, Walk, WalkEvent,
    WalkOrder,
};

/// An expected step of a walk: event, path, name, inode, depth.
type Step = (WalkEvent, Vec<u8>, Vec<u8>, InodeNumber, usize);

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Returns the path, name and inode of each entry, sorted by name.
fn entries(fs: &Filesystem, path: &[u8], directory: &Inode) -> Vec<(Vec<u8>, Vec<u8>, Inode)> {
    let mut names: Vec<(Vec<u8>, InodeNumber)> = fs
        .read_dir(directory)
        .unwrap()
        .map(|entry| entry.map(|entry| (entry.name, entry.inode)).unwrap())
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|(name, number)| (join(path, &name), name, fs.inode(number).unwrap()))
        .collect()
}

fn expected(
    fs: &Filesystem,
    order: WalkOrder,
    (path, name, inode): (&[u8], &[u8], &Inode),
    depth: usize,
    steps: &mut Vec<Step>,
) {
    let step = |event| (event, path.to_vec(), name.to_vec(), inode.number(), depth);
    steps.push(step(WalkEvent::Enter));
    let entries = entries(fs, path, inode);
    for (path, name, inode) in &entries {
        steps.push((WalkEvent::Entry, path.clone(), name.clone(), inode.number(), depth + 1));
        if order == WalkOrder::DepthFirst && inode.is_dir() {
            expected(fs, order, (path, name, inode), depth + 1, steps);
        }
    }
    steps.push(step(WalkEvent::Leave));
    if order == WalkOrder::ByDirectory {
        for (path, name, inode) in entries.iter().filter(|(.., inode)| inode.is_dir()) {
            expected(fs, order, (path, name, inode), depth + 1, steps);
        }
    }
}

fn steps(mut walk: Walk) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(visit) = walk.step() {
        let visit = visit.unwrap();
        let (path, name) = (visit.path.to_vec(), visit.name.to_vec());
        steps.push((visit.event, path, name, visit.inode.number(), visit.depth));
    }
    assert!(walk.step().is_none());
    steps
}

/// A source that counts calls.
struct Counted {
    image: File,
    asked: Arc<AtomicUsize>,
}

impl BlockSource for Counted {
    fn size(&self) -> u64 {
        BlockSource::size(&self.image)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        BlockSource::read(&self.image, offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.image.read_many(ranges);
    }
}

fn counted(image: &Path, options: Options) -> (Filesystem, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Counted { image: File::open(image).unwrap(), asked: Arc::clone(&asked) };
    let fs = Filesystem::open_with(source, options).unwrap();
    (fs, asked)
}

/// Creates nested directories, some of them large, with files whose names are not in order.
fn grow(root: &Path) {
    let mut rng = Rng::new(5);
    let mut next = |most: u64| rng.below(most);
    let mut directories = vec![root.to_path_buf()];
    fs::create_dir(root).unwrap();
    for index in 0..300 {
        let parent = directories[next(directories.len() as u64) as usize].clone();
        let directory = parent.join(format!("d{:04}-{index}", next(10_000)));
        fs::create_dir(&directory).unwrap();
        for _ in 0..next(20) {
            let _ = File::create(directory.join(format!("f{}", next(1_000_000)))).unwrap();
        }
        directories.push(directory);
    }
    let large = root.join("large");
    fs::create_dir(&large).unwrap();
    for index in 0..2500u64 {
        let name = index * 7919 % 2500;
        match index % 50 {
            0 => fs::create_dir(large.join(format!("{name:09}-directory"))).unwrap(),
            _ => drop(File::create(large.join(format!("{name:09}-a longer name"))).unwrap()),
        }
    }
}

const VARIANTS: &[&str] = &[
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -I 128 -g 2048 -O ^flex_bg",
    "-t ext2 -b 2048 -O ^filetype,^dir_index",
    "-t ext4 -b 65536 -N 12000",
];

#[test]
fn every_order_with_caches_of_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    grow(&source);
    let image = dir.path().join("image");
    for options in VARIANTS {
        println!("{options}");
        let size = if options.contains("-b 65536") { "256M" } else { "64M" };
        mke2fs(&image, size, &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let (reference, _) = counted(&image, Options::default().read_ahead(0));
        let root = reference.root().unwrap();
        for order in [WalkOrder::DepthFirst, WalkOrder::ByDirectory] {
            let mut want = Vec::new();
            expected(&reference, order, (b"/", b"", &root), 0, &mut want);
            assert!(want.len() > 4000);
            let caches = [(0, 4 << 20), (8192, 4096), (1 << 20, 4 << 20), (16 << 20, 4096)];
            let mut asked_times = Vec::new();
            for (cache, ahead) in caches.into_iter().chain([(16 << 20, 0), (16 << 20, 4 << 20)]) {
                let options = Options::default().cache_bytes(cache).read_ahead(ahead);
                let (fs, asked) = counted(&image, options);
                assert!(steps(fs.walk(b"/", &root).order(order)) == want, "{cache} {ahead}");
                asked_times.push(asked.load(Ordering::Relaxed));
            }
            // 350 directories, each of which needs its parent first.
            let [.., without, with] = asked_times[..] else { panic!("two and more") };
            assert!(
                without > 350 && with * 2 < without,
                "{order:?}: {with} calls with read-ahead, {without} without"
            );
        }
    }
}

#[test]
fn parts_of_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("a/b/c")).unwrap();
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("a/b/file"), "").unwrap();
    fs::write(source.join("a/z"), "").unwrap();
    let image = dir.path().join("image");
    mke2fs(&image, "4M", &["-t", "ext4"], Some(&source));
    let fs = common::open(&image);
    let root = fs.root().unwrap();
    let told = |mut walk: Walk, skipped: &[u8]| {
        let mut told = Vec::new();
        while let Some(visit) = walk.step() {
            let visit = visit.unwrap();
            let skip = visit.path == skipped;
            if visit.event == WalkEvent::Entry {
                told.push(String::from_utf8(visit.path.to_vec()).unwrap());
            }
            if skip {
                walk.skip();
            }
        }
        told.retain(|path| !path.ends_with("lost+found"));
        told
    };
    let depth_first = || fs.walk(b"", &root);
    let by_directory = || fs.walk(b"", &root).order(WalkOrder::ByDirectory);
    let all = ["/a", "/a/b", "/a/b/c", "/a/b/file", "/a/z", "/d"];
    assert_eq!(told(depth_first(), b""), all);
    let all = ["/a", "/d", "/a/b", "/a/z", "/a/b/c", "/a/b/file"];
    assert_eq!(told(by_directory(), b""), all);
    for skipped in [&b"/a"[..], b"/a/b"] {
        let left = if skipped == b"/a" { &["/a", "/d"][..] } else { &["/a", "/a/b", "/a/z", "/d"] };
        assert_eq!(told(depth_first(), skipped), left);
        let mut found = told(by_directory(), skipped);
        found.sort();
        assert_eq!(found, left);
    }
    assert_eq!(told(depth_first().max_depth(0), b""), ["/a", "/d"]);
    assert_eq!(told(by_directory().max_depth(1), b""), ["/a", "/d", "/a/b", "/a/z"]);
    let file = fs.lookup(b"/a/z").unwrap();
    assert_eq!(told(fs.walk(b"given", &file), b""), ["given"]);
}

#[test]
fn walk_reports_damage_and_continues() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    for name in ["a/below", "b", "c", "d"] {
        fs::create_dir_all(source.join(name)).unwrap();
        fs::write(source.join(name).join("file"), "").unwrap();
    }
    let image = dir.path().join("image");
    mke2fs(&image, "4M", &["-t", "ext4"], Some(&source));
    debugfs(
        &image,
        // A cycle; a directory with two names; a name of a free inode; a directory that cannot be
        // read.
        &["link /a /a/below/up", "link /b /c/again", "clri /d/file", "sif /b mode 040755"],
    );
    let whole = "corrupt directory";
    for order in [WalkOrder::DepthFirst, WalkOrder::ByDirectory] {
        let fs = common::open(&image);
        let mut walk = fs.walk(b"/", &fs.root().unwrap()).order(order);
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        loop {
            match walk.step() {
                None => break,
                Some(Ok(visit)) if visit.event == WalkEvent::Entry => {
                    told.push(String::from_utf8(visit.path.to_vec()).unwrap());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    assert!(error.to_string().starts_with(whole), "{error}");
                    failed.push(String::from_utf8(walk.path().to_vec()).unwrap());
                }
            }
        }
        told.sort();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let expected = [
            "/a",
            "/a/below",
            "/a/below/file",
            "/a/below/up",
            "/b",
            "/b/file",
            "/c",
            "/c/again",
            "/c/file",
            "/d",
            "/lost+found",
        ];
        assert_eq!(told, expected, "{order:?}");
        failed.sort();
        assert_eq!(failed, ["/a/below/up", "/c/again", "/d/file"], "{order:?}");
    }
}
