//! Tables that sfdisk writes.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn sfdisk_agrees() {
    for (label, script, expected) in [
        ("gpt", "start=2048,size=4096\nstart=8192,size=100\n", [(1, 2048, 4096), (2, 8192, 100)]),
        (
            "dos",
            "start=2048,size=4096\nstart=8192,type=5\nstart=10240,size=300\n",
            [(1, 2048, 4096), (5, 10240, 300)],
        ),
    ] {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(16 << 20).unwrap();
        let child = Command::new("sfdisk")
            .args(["--quiet", "--label", label])
            .arg(image.path())
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("not run: there is no sfdisk");
            return;
        };
        child.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        let bytes = std::fs::read(image.path()).unwrap();
        let expected = expected.map(|(number, first, blocks)| (number, first * 512, blocks * 512));
        assert_eq!(listed(&bytes, 512), expected, "{label}");
    }
}
