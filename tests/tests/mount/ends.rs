//! The ends of a mount: by a signal, by SIGKILL, and in use.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use nvio_testkit::image;
use nvio_testkit::random::Rng;

use super::{Mounted, check, mkfs, run, wait_until};

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let path = path.to_str().unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(path))
}

fn send(mounted: &Mounted, signal: &str) {
    run("kill", Command::new("kill").arg(signal).arg(mounted.child.id().to_string()));
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn a_signal_unmounts_and_a_mounted_image_is_in_use() {
    let work = image::work_folder("nvio-ends");
    let (image, path) = (work.path().join("image"), work.path().join("mnt"));
    mkfs(&image, 64, &[]);
    let mut mounted = Mounted::new(&image, &path, &["--writable"]);
    fs::write(path.join("file"), "contents").unwrap();
    let refused = Mounted::try_new(&image, &work.path().join("second"), &["--writable"]);
    let refused = refused.err().expect("the image is in use");
    assert!(refused.contains("in use") && refused.lines().count() == 1, "{refused}");
    send(&mounted, "-TERM");
    assert_eq!(mounted.child.wait().unwrap().code(), Some(128 + 15));
    assert!(!is_mounted(&path));
    check(&image);
    let again = Mounted::new(&image, &path, &[]);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"contents");
    // A file that is open keeps it, also after the end of the verb was asked for.
    let file = File::open(path.join("file")).unwrap();
    let busy = Command::new(nvio_tests::nvio::binary()).arg("umount").arg(&path).output().unwrap();
    assert_eq!(busy.status.code(), Some(1));
    drop(file);
    again.unmount();
    let none = Command::new(nvio_tests::nvio::binary()).arg("umount").arg(&path).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn mount_and_users_without_root_mount_too() {
    let work = image::work_folder("nvio-users");
    let (image, path) = (work.path().join("image"), work.path().join("mnt"));
    mkfs(&image, 64, &["-E", "root_owner=65534:65534"]);
    fs::create_dir(&path).unwrap();
    let binary = nvio_tests::nvio::binary();
    let folder = binary.parent().unwrap().display().to_string();

    // As mount(8) calls it.
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/mount.nvio");
    let mut mount = Command::new(helper);
    mount.args([&image, &path]).args(["-o", "rw,threads=2,noauto"]);
    mount.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
    assert!(mount.stdout(Stdio::null()).status().unwrap().success());
    fs::write(path.join("by root"), "contents").unwrap();
    run("nvio umount", Command::new(&binary).arg("umount").arg(&path));
    wait_until("the end of the verb", || {
        let opened = File::options().read(true).write(true).open(&image).unwrap();
        rustix::fs::flock(&opened, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    });

    for path in [work.path(), &path, &image] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        command.args(args);
        command
    };
    // As udev sets it, which containers do not have.
    let fuse = Path::new("/dev/fuse");
    let before = fs::metadata(fuse).unwrap().permissions();
    fs::set_permissions(fuse, fs::Permissions::from_mode(0o666)).unwrap();
    let [image_name, name] = [&image, &path].map(|path| path.to_str().unwrap());
    let mut mount = as_nobody(&["mount", image_name, name, "--writable"]);
    let mut mount = mount.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(mount.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(" is mounted on "), "{line}");
    // Root is another user.
    assert_eq!(fs::read_dir(&path).unwrap_err().kind(), ErrorKind::PermissionDenied);
    run("nvio umount", &mut as_nobody(&["umount", name]));
    assert_eq!(mount.wait().unwrap().code(), Some(0));
    // The threads of the mount open /dev/fuse, some of them after the line was printed.
    fs::set_permissions(fuse, before).unwrap();
    check(&image);
}

/// Writes files, and makes each durable, until that fails. Notes the last one that is durable.
fn load(root: &File, seed: u64, synced: &Mutex<u64>) {
    let mut random = Rng::new(seed);
    // The directory of the mount, also after it was unmounted: by its path, files would then be made in the
    // directory below.
    let top = Path::new("/proc/self/fd").join(root.as_raw_fd().to_string());
    for at in 0.. {
        let (name, bytes) = (format!("file-{at}"), random.bytes(1 + at % 5 * 3000));
        let temporary = top.join("temporary");
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, top.join(name))?;
            root.sync_all()
        });
        // The mount is gone.
        if written.is_err() {
            return;
        }
        *synced.lock().unwrap() = at + 1;
        if at % 7 == 6 {
            let _ = fs::remove_file(top.join(format!("file-{}", at - 5)));
        }
    }
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn a_killed_mount_loses_nothing_that_was_synced() {
    let rounds = if std::env::var_os("NVIO_LONG").is_some() { 200 } else { 8 };
    let work = image::work_folder("nvio-killed");
    let (image, path) = (work.path().join("image"), work.path().join("mnt"));
    let (mut random, mut total) = (Rng::new(5), 0);
    for round in 0..rounds {
        mkfs(&image, 64, &["-J", "size=4"]);
        let mut mounted = Mounted::new(&image, &path, &["--writable"]);
        let synced = Mutex::new(0);
        let root = File::open(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| load(&root, round, &synced));
            let least = 1 + random.below(150);
            wait_until("a durable file", || *synced.lock().unwrap() >= least);
            mounted.child.kill().unwrap();
            mounted.child.wait().unwrap();
        });
        drop(root);
        wait_until("the end of the mount", || !is_mounted(&path));
        let synced = *synced.lock().unwrap();
        total += synced;
        let again = Mounted::new(&image, &path, &["--writable"]);
        let mut model = Rng::new(round);
        for at in 0..synced {
            let bytes = model.bytes(1 + at % 5 * 3000);
            let name = format!("file-{at}");
            // The removal of the last ones may be durable or not.
            let is_removed = (at + 5) % 7 == 6 && at + 5 <= synced;
            match fs::read(path.join(&name)) {
                Ok(found) => assert!(found == bytes, "round {round}: {name} of {synced}"),
                Err(error) => assert!(is_removed, "round {round}: {name} of {synced}: {error}"),
            }
        }
        again.unmount();
        check(&image);
    }
    println!("{total} files in {rounds} rounds");
}
