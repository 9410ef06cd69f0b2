//! Devices in use, on a fake tree and on a real loop device.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::super::fake::Fake;
use super::super::{Error, UseKind};

const DEVICE: &str = "0000:02:00.0";

fn machine() -> Fake {
    let fake = Fake::new();
    fake.nvme(DEVICE, 0, Some("nvme"));
    fake.block(DEVICE, "nvme0", "nvme0n1", "259:0", 2048);
    for (number, name) in ["nvme0n1p1", "nvme0n1p2"].iter().enumerate() {
        let dev = format!("259:{}", number + 1);
        fake.partition(DEVICE, "nvme0", "nvme0n1", name, &dev, 1024);
    }
    fake
}

/// Returns the error of a bind that is rejected, and checks that the kernel received no write.
fn refusal(fake: &Fake) -> String {
    let error = fake.sysfs().bind(DEVICE.parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(fake.behaviour.lock().unwrap().writes.is_empty());
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("nvme"));
    error.to_string()
}

#[test]
fn mounted_by_number() {
    let fake = machine();
    fake.file(
        "proc/self/mountinfo",
        "30 22 259:2 / /mnt/a\\040b rw shared:1 - ext4 /dev/root rw\n",
    );
    let text = refusal(&fake);
    assert_eq!(text, "0000:02:00.0 is in use: nvme0n1p2 is mounted at /mnt/a b; unmount it first");
}

#[test]
fn mounted_by_source_alone_as_btrfs_is() {
    let fake = machine();
    fake.file("proc/self/mountinfo", "30 22 0:44 / /data rw - btrfs /dev/nvme0n1p1 rw\n");
    assert!(refusal(&fake).contains("nvme0n1p1 is mounted at /data"));
}

#[test]
fn mounted_elsewhere_only() {
    let fake = machine();
    for (process, namespace) in
        [("self", "mnt:[1]"), ("7", "mnt:[1]"), ("8", "mnt:[2]"), ("9", "mnt:[2]")]
    {
        fake.file(&format!("proc/{process}/mountinfo"), "");
        std::fs::create_dir(fake.path(&format!("proc/{process}/ns"))).unwrap();
        symlink(namespace, fake.path(&format!("proc/{process}/ns/mnt"))).unwrap();
    }
    let line = "30 22 259:0 / /container rw - xfs /dev/nvme0n1 rw\n";
    fake.file("proc/8/mountinfo", line);
    fake.file("proc/9/mountinfo", line);
    let text = refusal(&fake);
    assert!(
        text.contains("nvme0n1 is mounted at /container (in the mount namespace of process 8);"),
        "{text}"
    );
}

#[test]
fn process_1_counts_even_if_its_namespace_is_hidden() {
    let fake = machine();
    fake.file("proc/1/mountinfo", "30 22 259:1 / /boot rw - ext4 /dev/nvme0n1p1 rw\n");
    assert!(refusal(&fake).contains("/boot (in the mount namespace of process 1)"));
}

#[test]
fn swap_under_any_name() {
    let fake = machine();
    fake.file("dev/nvme0n1p2", "");
    std::fs::create_dir_all(fake.path("dev/disk/by-label")).unwrap();
    symlink("../../nvme0n1p2", fake.path("dev/disk/by-label/my swap")).unwrap();
    for name in ["/dev/nvme0n1p2", "/dev/disk/by-label/my\\040swap"] {
        fake.file(
            "proc/swaps",
            &format!("Filename Type Size Used Priority\n{name}\tpartition\t1\t0\t-2\n"),
        );
        let text = refusal(&fake);
        assert!(text.contains("nvme0n1p2 is swap; switch the swap off (swapoff) first"), "{text}");
    }
}

#[test]
fn held_by_lvm_and_md() {
    let fake = machine();
    let dir = "sys/block/nvme0n1";
    fake.file(&format!("{dir}/nvme0n1p1/holders/dm-3"), "");
    fake.file("sys/block/dm-3/dm/name", "vg-root\n");
    fake.file("sys/block/dm-3/dm/uuid", "LVM-abcdef\n");
    fake.file(&format!("{dir}/holders/md127"), "");
    let text = refusal(&fake);
    assert!(
        text.contains("nvme0n1 is held by md127, nvme0n1p1 is held by dm-3 (LVM vg-root);"),
        "{text}"
    );
}

#[test]
fn several_uses_are_all_named() {
    let fake = machine();
    fake.file(
        "proc/self/mountinfo",
        "30 22 259:1 / /boot rw - ext4 x rw\n31 22 259:1 /sub /boot2 rw - ext4 x rw\n30 22 259:1 / /boot rw - ext4 x rw\n",
    );
    fake.file("proc/swaps", "Filename\n/dev/nvme0n1p2 partition 1 0 -2\n");
    assert_eq!(
        refusal(&fake),
        "0000:02:00.0 is in use: nvme0n1p1 is mounted at /boot, nvme0n1p1 is mounted at /boot2, \
         nvme0n1p2 is swap; unmount it and switch the swap off (swapoff) first"
    );
}

#[test]
fn other_devices_uses_are_not_ours() {
    let fake = machine();
    fake.file("proc/self/mountinfo", "30 22 259:10 / / rw - ext4 /dev/nvme0n1p11 rw\n31 22 0:5 / /nvme0n1 rw - tmpfs nvme0n1 rw\n");
    fake.file("proc/swaps", "Filename\n/swap/nvme0n1p1 file 1 0 -2\n");
    fake.sysfs().bind(DEVICE.parse().unwrap()).unwrap();
}

/// Checks the kernel's exclusive open on a loop device in place of the namespace.
#[test]
fn an_exclusive_opener_is_noticed() {
    use std::fs::OpenOptions;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::process::Command;

    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let made = Command::new("losetup").arg("--find").arg("--show").arg(image.path()).output();
    let Some(node) = made.ok().filter(|made| made.status.success()) else {
        eprintln!("not run: losetup needs root");
        return;
    };
    let node = String::from_utf8(node.stdout).unwrap().trim().to_owned();
    struct Detach(String);
    impl Drop for Detach {
        fn drop(&mut self) {
            let _ = Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }
    let _detach = Detach(node.clone());
    let rdev = std::fs::metadata(&node).unwrap().rdev();
    let fake = machine();
    let number = format!("{}:{}\n", libc::major(rdev), libc::minor(rdev));
    fake.file("sys/block/nvme0n1/dev", &number);
    symlink(&node, fake.path("dev/nvme0n1")).unwrap();

    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&node).unwrap();
    let exclusive = open(libc::O_EXCL);
    let text = refusal(&fake);
    assert!(text.contains("nvme0n1 is opened exclusively by another program"), "{text}");
    drop(exclusive);

    let _shared = open(0);
    let sysfs = fake.sysfs();
    let device = sysfs.nvme_device(DEVICE.parse().unwrap()).unwrap();
    // A process that another test starts shares the descriptors until it executes its program.
    let soon = |step: &mut dyn FnMut() -> bool| {
        assert!((0..500).any(|_| step() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
    };
    let mut claims = None;
    soon(&mut || {
        claims = sysfs.claims(&device).ok();
        claims.is_some()
    });
    assert!(matches!(sysfs.uses(&device).unwrap()[0].kind, UseKind::Claimed));
    drop(claims);
    soon(&mut || sysfs.bind(DEVICE.parse().unwrap()).is_ok());
}
