//! Damaged filesystems behind a mount: no panic, no hang, and no name that leaves it. `NVIO_MUTANTS` sets the
//! number of them, `NVIO_SEED` selects them. `NVIO_MUTANT` is one alone, as a failure names it: "image, choice".

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nvio::{JournaledVolume, Volume};
use nvio_mount::{Backend, Options};
use nvio_testkit::image;
use nvio_testkit::random::Rng;
use rustix::mount::{UnmountFlags, unmount};

use self::hostile::base::{self, Base, RECIPES};
use self::hostile::campaign;
use self::hostile::mutant::Choice;

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../fs/tests/hostile/mod.rs"]
mod hostile;

/// Maximum time for one mutant, which is only to end a hang.
const HANGS: Duration = Duration::from_secs(60);
/// Files that are visited, because damage may let directories contain each other.
const FILES_MAX: usize = 300;
/// Mounts at once: most of their time is spent waiting for the kernel.
const JOBS: usize = 8;

/// Visits files of all kinds, and reads them. Returns the number of those that are there.
fn read_all(top: &Path) -> usize {
    let (mut found, mut stack, mut buffer) = (0, vec![top.to_owned()], vec![0; 65_536]);
    while let Some(path) = stack.pop().filter(|_| found < FILES_MAX) {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        found += 1;
        let _ = rustix::fs::llistxattr(&path, &mut buffer);
        if metadata.is_symlink() {
            let _ = fs::read_link(&path);
        } else if metadata.is_file() {
            let Ok(mut file) = File::open(&path) else { continue };
            let _ = file.read(&mut buffer);
            let _ = file.read_at(&mut buffer, metadata.len().saturating_sub(60_000));
            let _ = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0));
        } else if metadata.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            for entry in entries.take(FILES_MAX).map_while(Result::ok) {
                let name = entry.file_name();
                let is_inside = name != ".." && name != "." && !name.as_bytes().contains(&b'/');
                assert!(is_inside, "{}: {name:?}", path.display());
                stack.push(entry.path());
            }
        }
    }
    let _ = rustix::fs::statvfs(top);
    found
}

/// Opens a file for writing, without a wait for a reader if it is a FIFO.
fn open_for_writing(path: &Path, create: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().write(true).create(create).truncate(create).custom_flags(flags).open(path)
}

/// Makes changes of each kind in the directories. Returns the number of those that were made.
fn change_all(top: &Path) -> usize {
    let entries = fs::read_dir(top).into_iter().flatten().map_while(Result::ok);
    let all: Vec<PathBuf> = entries.map(|entry| entry.path()).take(20).collect();
    let mut made = 0;
    for (at, path) in all.iter().enumerate() {
        let new = |name: &str| path.join(format!("{name}-{at:0>100}"));
        let other = &all[(at + 1) % all.len()];
        let results = [
            open_for_writing(path, true).and_then(|mut file| file.write_all(&[7; 9000])).is_ok(),
            fs::write(new("new"), [8; 5000]).is_ok(),
            fs::create_dir(new("dir")).is_ok(),
            symlink("target", new("link")).is_ok(),
            fs::rename(new("new"), other.join("moved")).is_ok(),
            fs::hard_link(other, new("second")).is_ok(),
            open_for_writing(path, false).and_then(|file| file.set_len(3000)).is_ok(),
            rustix::fs::lsetxattr(path, "user.a", &[1; 300], rustix::fs::XattrFlags::empty())
                .is_ok(),
            fs::remove_dir(new("dir")).is_ok(),
            fs::remove_file(new("second")).is_ok(),
            fs::rename(path, top.join(format!("renamed-{at}"))).is_ok(),
        ];
        made += results.iter().filter(|&&done| done).count();
    }
    if let Ok(top) = File::open(top) {
        let _ = top.sync_all();
    }
    made
}

/// Mounts an image and visits it. Returns the numbers of files found and of changes made, or `None` if the
/// filesystem was refused.
fn visit(what: &str, image: &Path, mnt: &Path, writable: bool) -> Option<(usize, usize)> {
    let journaled = match writable {
        true => Some(JournaledVolume::open(image).ok()?),
        false => None,
    };
    let backend = match &journaled {
        Some(volume) => Backend::Write(volume.clone()),
        None => Backend::Read(Volume::open(image).ok()?),
    };
    let options = Options {
        device: "image".into(),
        threads: 2,
        direct: false,
        allow_other: false,
        devices: false,
        set_user: false,
        access_times: writable,
    };
    let session = nvio_mount::mount(backend, mnt, &options).unwrap();
    let server = thread::spawn(move || nvio_mount::serve(session));
    let (sender, receiver) = mpsc::channel();
    let top = mnt.to_owned();
    let visitor = thread::spawn(move || {
        let found = read_all(&top);
        let made = if writable { change_all(&top) } else { 0 };
        let _ = sender.send((found, made));
    });
    let seen = receiver.recv_timeout(HANGS);
    // Files that were written are closed by the kernel, which may take a moment.
    unmount(mnt, UnmountFlags::DETACH).unwrap();
    let seen = seen.unwrap_or_else(|error| panic!("{what}: the visitor: {error}"));
    visitor.join().unwrap();
    server.join().unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(volume) = journaled {
        // Damage is an error.
        let _ = volume.close();
    }
    Some(seen)
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn damaged_filesystems_are_mounted_and_visited() {
    let number =
        |name, default| std::env::var(name).map_or(default, |value| value.parse::<u64>().unwrap());
    let long = if std::env::var_os("NVIO_LONG").is_some() { 300_000 } else { 1000 };
    let count = number("NVIO_MUTANTS", long) as usize;
    let folder = base::folder();
    let bases: Vec<Base> =
        RECIPES.iter().filter_map(|recipe| Base::make(recipe, folder.path()).ok()).collect();
    assert!(bases.len() >= 5);
    let chosen = match std::env::var("NVIO_MUTANT") {
        Ok(mutant) => {
            let (name, choice) = mutant.split_once(", ").unwrap();
            let base = bases.iter().find(|base| base.name == name).unwrap();
            // Read, and changed.
            vec![(base, Choice::parse(choice).unwrap()); 2]
        }
        Err(_) => campaign::work(&bases, count, &mut Rng::new(number("NVIO_SEED", 1))),
    };
    let count = chosen.len();
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                let work = image::work_folder("nvio-hostile");
                let (image, mnt) = (work.path().join("image"), work.path().join("mnt"));
                fs::create_dir(&mnt).unwrap();
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(&(base, choice)) = chosen.get(at)
                {
                    let Some(mutant) = base.layout.mutant(choice) else { continue };
                    let what = format!("{}, {choice}: {}", base.name, mutant.what);
                    let mut bytes = base.layout.image.to_vec();
                    for (at, patch) in mutant.patches {
                        bytes[at..at + patch.len()].copy_from_slice(&patch);
                    }
                    fs::write(&image, bytes).unwrap();
                    let visited = visit(&what, &image, &mnt, at % 2 == 1);
                    seen.lock().unwrap().extend(visited);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    let (mounted, found) = (seen.len(), seen.iter().map(|seen| seen.0).sum::<usize>());
    let made: usize = seen.iter().map(|seen| seen.1).sum();
    println!("{mounted} of {count} were mounted: {found} files, {made} changes");
    assert!(mounted * 4 > count && found > mounted && made > 0, "{mounted} {found} {made}");
}
