//! Multi-mount protection beside the kernel and e2fsprogs, which use the same block.

use std::process::Command;

use nvio_testkit::image::{self, Loop, Mount, text};

use super::{Mounted, check, mkfs, wait_until};

/// Options of mke2fs for the shortest intervals.
const MMP: [&str; 4] = ["-O", "mmp", "-E", "mmp_update_interval=1"];

/// Returns the sequence that e2fsprogs shows.
fn sequence(image: &std::path::Path) -> String {
    let shown = image::debugfs_bytes(image, &["-R", "dump_mmp"]);
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let line = shown.lines().find(|line| line.starts_with("sequence:"));
    line.unwrap_or_else(|| panic!("{shown}")).to_owned()
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn one_host_at_a_time_changes_a_filesystem() {
    let work = image::work_folder("nvio-protection");
    let disk = work.path().join("disk.img");
    mkfs(&disk, 64, &MMP);
    let clean = sequence(&disk);

    // A mount is renewed, as e2fsprogs sees, and keeps the kernel and e2fsck away.
    let mounted = Mounted::new(&disk, &work.path().join("mnt"), &["--writable"]);
    std::fs::write(mounted.path.join("file"), "text").unwrap();
    let taken = sequence(&disk);
    assert_ne!(taken, clean);
    wait_until("the next update", || sequence(&disk) != taken);
    let status = image::command("e2mmpstatus").arg(&disk).output().unwrap();
    assert!(!status.status.success(), "e2mmpstatus: {status:?}");
    let directory = work.path().join("kernel");
    std::fs::create_dir(&directory).unwrap();
    let device = Loop::new(&disk);
    let mount = |device: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", device]).arg(&directory).output().unwrap().status.success()
    };
    assert!(!mount(device.device()), "the kernel has mounted it, too");
    drop(device);
    mounted.unmount();
    assert_eq!(sequence(&disk), clean);
    check(&disk);

    // The kernel finds it as one that was unmounted; while it has it mounted, nobody else does.
    let kernel = Mount::new(&disk, &directory, "noatime");
    assert_eq!(std::fs::read(directory.join("file")).unwrap(), b"text");
    let device = std::fs::File::options().read(true).write(true).open(&disk).unwrap();
    let options = nvio_ext4::Options::default();
    let error = nvio_ext4::JournaledFilesystem::open(device, options).unwrap_err();
    assert!(matches!(error, nvio_ext4::Error::InUse(_)), "{error}");
    kernel.unmount().unwrap();

    // One that was killed leaves the block, and the next waits for it in vain.
    let mut killed = Mounted::new(&disk, &work.path().join("mnt"), &["--writable"]);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    drop(killed);
    wait_until("the end of the mount", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.contains(text(&work.path().join("mnt")))
    });
    assert_ne!(sequence(&disk), clean);
    Mounted::new(&disk, &work.path().join("mnt"), &["--writable"]).unmount();
    assert_eq!(sequence(&disk), clean);
    check(&disk);
}
