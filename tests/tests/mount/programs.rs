//! Programs that people run on a filesystem, on a writable mount.

use std::fs;
use std::path::Path;
use std::process::Command;

use nvio_testkit::image;

use super::{Mounted, assert_same, by_kernel, check, listing, mkfs, run, run_in};

/// Runs programs in a directory, of which each checks its own data.
fn use_it(top: &Path, work: &Path) {
    // A repository is made, cloned and checked.
    let repository = top.join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=nvio", "-c", "user.email=nvio@localhost"];
        run_in(&repository, "git", &[&identity[..], args].concat())
    };
    git(&["init", "--quiet", "."]);
    for at in 0..200 {
        fs::write(repository.join(format!("file-{at}")), vec![b'a' + (at % 26) as u8; at * 100])
            .unwrap();
        if at % 50 == 49 {
            git(&["add", "."]);
            git(&["commit", "--quiet", "-m", &at.to_string()]);
        }
    }
    git(&["gc", "--quiet"]);
    run_in(top, "git", &["clone", "--quiet", "repository", "clone"]);
    run_in(&top.join("clone"), "git", &["fsck", "--full", "--strict"]);

    // A database, with a rollback journal and with a log.
    for mode in ["delete", "wal"] {
        let script = format!(
            "pragma journal_mode={mode}; create table t{mode}(a integer primary key, b blob);\
             with recursive n(i) as (select 1 union all select i+1 from n where i<3000)\
             insert into t{mode} select i, randomblob(200) from n;\
             delete from t{mode} where a % 3 = 0; vacuum; pragma integrity_check;"
        );
        let output = run_in(top, "sqlite3", &["database", &script]);
        assert!(String::from_utf8_lossy(&output).lines().any(|line| line == "ok"), "{mode}");
    }

    // A tree with everything, there and back.
    let (tree, back) = (work.join("tree"), work.join("back"));
    let to = format!("{}/", top.join("copy").display());
    let flags = ["-aHAX", "--sparse"];
    run("rsync", Command::new("rsync").args(flags).arg(format!("{}/", tree.display())).arg(&to));
    run("rsync", Command::new("rsync").args(flags).arg(&to).arg(&back));
    assert_same("rsync", &listing(&back), &listing(&tree));
    fs::remove_dir_all(back).unwrap();

    // Four jobs that verify what they wrote.
    let jobs = [
        "--name=verify",
        "--rw=randrw",
        "--bs=4k",
        "--size=4m",
        "--numjobs=4",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--ioengine=psync",
        "--fallocate=none",
        "--group_reporting",
    ];
    run_in(top, "fio", &jobs);
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn programs_find_their_data_and_the_kernel_finds_the_tree() {
    let work = image::work_folder("nvio-programs");
    let (image, tree) = (work.path().join("image"), work.path().join("tree"));
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for at in 0..100 {
        fs::write(tree.join(format!("a/file-{at}")), vec![at as u8; at * 777]).unwrap();
    }
    fs::hard_link(tree.join("a/file-9"), tree.join("a/b/second")).unwrap();
    std::os::unix::fs::symlink("a/file-1", tree.join("link")).unwrap();
    run("mkfifo", Command::new("mkfifo").arg(tree.join("pipe")));
    run("truncate", Command::new("truncate").args(["-s", "20M"]).arg(tree.join("hole")));
    run("setfattr", Command::new("setfattr").args(["-n", "user.a", "-v", "b"]).arg(&tree));
    run("setfacl", Command::new("setfacl").args(["-m", "u:77:r"]).arg(tree.join("a/file-3")));
    run("setfacl", Command::new("setfacl").args(["-d", "-m", "g:78:rwx"]).arg(tree.join("a/b")));
    for options in [&["--writable"][..], &["--writable", "--direct"]] {
        mkfs(&image, 256, &[]);
        let mounted = Mounted::new(&image, &work.path().join("mnt"), options);
        use_it(&mounted.path, work.path());
        let ours = listing(&mounted.path);
        mounted.unmount();
        check(&image);
        let theirs = by_kernel(&image, &work.path().join("kernel"));
        assert_same(&format!("{options:?}"), &ours, &theirs);
    }
}
