//! Extended attributes, access control lists and inline data, as the command shows and copies them.

use crate::common;

use std::fs;
use std::path::Path;

use common::{Disk, pattern};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;
use serde_json::{Value, json};

/// user::rw-, user:1000:r--, group::r--, mask::r--, other::---, as setxattr takes it.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// Small files and directories are inside of their inodes; `file` has attributes and a list, `dir`
/// a list for what is made in it.
fn disk() -> Disk {
    let fill = |folder: &Path| {
        fs::create_dir(folder.join("dir")).unwrap();
        fs::write(folder.join("dir/inline"), pattern(500, 1)).unwrap();
        fs::write(folder.join("file"), "file").unwrap();
        fs::write(folder.join("plain"), pattern(100_000, 2)).unwrap();
    };
    let disk = Disk::new(fill, &["-O", "inline_data,ea_inode", "-I", "1024"]);
    let value = |name: &str, bytes: &[u8]| {
        let path = disk.path(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (acl, large) = (value("acl", &ACL), value("large", &pattern(900, 3)));
    for (path, name) in [("/file", "system.posix_acl_access"), ("/dir", "system.posix_acl_default")]
    {
        disk.debugfs(&format!("ea_set -f {acl} {path} {name}"));
    }
    disk.debugfs("ea_set /file user.note \"some text\"");
    disk.debugfs(&format!("ea_set -f {large} /file user.large"));
    disk.debugfs("ea_set /file trusted.note secret");
    disk
}

#[test]
fn stat_and_ls_show_them() {
    let disk = disk();
    let text = disk.run("stat", &["/file"]).text();
    for line in [
        "     Acl: user::rw-\n     Acl: user:1000:r--\n     Acl: group::r--\n",
        "   Xattr: user.note=\"some text\"\n",
        "   Xattr: trusted.note=\"secret\"\n",
        "   Xattr: user.large=0x",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert!(!text.contains("posix_acl"), "{text}");
    let text = disk.run("stat", &["/dir"]).text();
    assert!(text.contains(" Default: user:1000:r--\n"), "{text}");

    let long = disk.run("ls", &["-l", "/"]).text();
    let mark = |name: &str| {
        let line = long.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        line.as_bytes()[10]
    };
    assert_eq!([mark("file"), mark("dir"), mark("plain")], [b'+', b'+', b' ']);

    let one = disk.run("stat", &["--json", "/file"]).json();
    let lines = ["user::rw-", "user:1000:r--", "group::r--", "mask::r--", "other::---"];
    assert_eq!(one["acl"], json!(lines));
    let value = |list: &Value, name: &str| {
        let all = list["xattrs"].as_array().unwrap();
        all.iter().find(|xattr| xattr["name"] == name).cloned().unwrap()
    };
    assert_eq!(value(&one, "user.note")["value"], "some text");
    let hex: String = pattern(900, 3).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(value(&one, "user.large")["value_hex"] == *hex);

    let all = disk.run("ls", &["-lR", "--json", "--xattrs", "/"]).json();
    let entry = |path: &str| {
        let all = all.as_array().unwrap();
        all.iter().find(|entry| entry["path"] == path).cloned().unwrap()
    };
    assert_eq!(value(&entry("/file"), "user.note"), value(&one, "user.note"));
    assert_eq!(entry("/dir")["default_acl"], json!(lines));
    assert_eq!(entry("/plain")["xattrs"], json!([]));
    let brief = disk.run("ls", &["-lR", "--json", "/"]).json();
    assert!(brief.as_array().unwrap().iter().all(|entry| entry.get("xattrs").is_none()));
}

#[test]
fn inline_files_are_read_and_mapped() {
    let disk = disk();
    assert_eq!(disk.run("cat", &["/dir/inline"]).ok(), pattern(500, 1));
    let part = disk.run("cat", &["/dir/inline", "--offset", "77", "--length", "200"]).ok();
    assert_eq!(part, pattern(500, 1)[77..277]);
    let map = disk.run("map", &["--json", "/dir/inline"]).json();
    let extents = map["extents"].as_array().unwrap();
    let extent = &extents[0];
    assert_eq!((extents.len(), &extent["length"]), (1, &json!(500)));
    assert_eq!((&extent["inline"], &extent["last"]), (&json!(true), &json!(true)));
    // The data starts where the map says.
    let image = fs::read(disk.image()).unwrap();
    let start = usize::try_from(extent["physical"].as_u64().unwrap()).unwrap();
    assert_eq!(image[start..start + 60], pattern(500, 1)[..60]);
    assert!(disk.run("map", &["/dir/inline"]).text().contains("last,inline,eof"));
}

#[test]
fn cp_takes_them_along() {
    let disk = disk();
    let out = disk.path("out");
    let outcome = disk.run("cp", &["-r", "/", out.to_str().unwrap()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(fs::read(out.join("dir/inline")).unwrap(), pattern(500, 1));
    let get = |name: &str| {
        let mut value = vec![0; 65_536];
        let length = lgetxattr(out.join("file"), name, &mut value[..])?;
        value.truncate(length);
        Ok::<_, Errno>(value)
    };
    let probe = disk.path("probe");
    fs::write(&probe, "").unwrap();
    if lsetxattr(&probe, "user.note", b"x", XattrFlags::empty()).is_err() {
        assert!(outcome.stderr.contains("user.note is not copied"), "{}", outcome.stderr);
        println!("SKIPPED: the temporary folder takes no attributes");
        return;
    }
    assert_eq!(get("user.note").unwrap(), b"some text");
    assert!(get("user.large").unwrap() == pattern(900, 3));
    match lsetxattr(&probe, "trusted.note", b"x", XattrFlags::empty()) {
        Ok(()) => assert_eq!(get("trusted.note").unwrap(), b"secret"),
        Err(_) => assert!(outcome.stderr.contains("trusted.note is not copied")),
    }
    if lsetxattr(&probe, "system.posix_acl_access", &ACL, XattrFlags::empty()).is_ok() {
        assert_eq!(get("system.posix_acl_access").unwrap(), ACL);
    }
}
