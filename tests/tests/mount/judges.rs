//! Suites that test any POSIX filesystem: pjdfstest and fsx, which cargo installs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nvio_testkit::image;
use nvio_tests::nvio;

use super::{Mounted, check, mkfs, run};

/// Returns a program of a crate, which is installed beside the build.
fn installed(name: &str, version: &str) -> PathBuf {
    let root = nvio::binary().parent().unwrap().join("judges");
    let program = root.join("bin").join(name);
    if !program.exists() {
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "--version", version, "--root"]);
        run("cargo install", install.arg(&root).arg(name));
    }
    program
}

/// Features that Linux has, and two users. Their names are in every Debian.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Runs pjdfstest in a directory. Returns the tests that passed and those that failed.
fn pjdfstest(work: &Path, directory: &Path) -> [BTreeSet<String>; 2] {
    let config = work.join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST).unwrap();
    let mut command = Command::new(installed("pjdfstest", "0.2.2"));
    // Its exit code tells of failures, which may be those of the kernel, too.
    let output = command.current_dir("/").arg("-c").arg(config).arg("-p").arg(directory).output();
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    ["ok", "FAILED"].map(|result| {
        let tests = text.lines().filter_map(|line| line.strip_suffix(result));
        tests.map(|name| name.trim().to_owned()).filter(|name| name.contains("::")).collect()
    })
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn pjdfstest_finds_what_it_finds_on_the_kernels_ext4() {
    let work = image::work_folder("nvio-pjdfstest");
    let (ours, theirs) = (work.path().join("ours"), work.path().join("theirs"));
    mkfs(&ours, 128, &[]);
    fs::copy(&ours, &theirs).unwrap();
    let kernel = image::Mount::new(&theirs, &work.path().join("kernel"), "loop,dev,suid");
    let [_, theirs] = pjdfstest(work.path(), kernel.path());
    kernel.unmount().unwrap();
    for direct in [&[][..], &["--direct"]] {
        let options = [&["--writable", "--allow-other", "--dev", "--suid"], direct].concat();
        let mounted = Mounted::new(&ours, &work.path().join("mnt"), &options);
        let [passed, failed] = pjdfstest(work.path(), &mounted.path);
        println!("{options:?}: {} passed, {} failed", passed.len(), failed.len());
        assert!(passed.len() > 350, "{}", passed.len());
        let only_ours: Vec<&String> = failed.difference(&theirs).collect();
        assert!(only_ours.is_empty(), "{options:?}: {only_ours:?}");
        mounted.unmount();
        check(&ours);
    }
}

/// All kinds of calls of fsx.
const FSX: &str = "
flen = 1048576
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 3
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn fsx_finds_each_byte() {
    let (seeds, calls) =
        if std::env::var_os("NVIO_LONG").is_some() { (20, "100000") } else { (3, "10000") };
    let work = image::work_folder("nvio-fsx");
    let (image, config) = (work.path().join("image"), work.path().join("fsx.toml"));
    fs::write(&config, FSX).unwrap();
    for (block, direct) in [("4096", &[][..]), ("4096", &["--direct"]), ("1024", &[])] {
        mkfs(&image, 64, &["-b", block]);
        let options = [&["--writable"], direct].concat();
        let mounted = Mounted::new(&image, &work.path().join("mnt"), &options);
        for seed in 1..=seeds {
            let mut fsx = Command::new(installed("fsx", "0.3.2"));
            fsx.arg("-f").arg(&config).arg("-P").arg(work.path());
            fsx.args(["-N", calls, "-S", &seed.to_string()]);
            let what = format!("fsx, seed {seed}, {options:?}, blocks of {block}");
            run(&what, fsx.arg(mounted.path.join(format!("file-{seed}"))));
        }
        mounted.unmount();
        check(&image);
    }
}
