//! `format`, `create-ns`, `attach-ns`, `detach-ns` and `delete-ns` on the emulator in another process.
//! `ns`, which reads the Identify data again, and `read-blocks` show the effect.

use crate::common::{Disk, Outcome, command, nvio, pattern};
use crate::emulate::Server;

use std::fs::{self, File};

use serde_json::{Value, json};

const YES: &str = "--yes-destroy-data";

/// A controller with an image of random bytes as namespace 1, and memory for more namespaces.
fn server(disk: &Disk, options: &[&str]) -> Server {
    fs::write(disk.image(), pattern(8 << 20, 1)).unwrap();
    let image = disk.image();
    let first = [image.to_str().unwrap(), "--writable"];
    Server::start(&disk.path("nvme"), first.iter().chain(options))
}

fn disk() -> Disk {
    Disk::new(|_| {}, &[])
}

fn namespaces(server: &Server) -> Vec<(Value, Value)> {
    let list = server.run("ns", &["--json"]).json();
    let list = list.as_array().unwrap().iter();
    list.map(|ns| (ns["nsid"].clone(), ns["size"].clone())).collect()
}

#[test]
fn a_format_destroys_data_and_changes_the_blocks() {
    let disk = disk();
    // Images have one format only.
    let server = Server::start(&disk.path("nvme"), ["memory:8M", "--writable", "--format-nvm"]);
    fs::write(disk.path("input"), pattern(8 << 20, 1)).unwrap();
    let device = format!("vfio-user:{}", disk.path("nvme").display());
    let mut write = command(["write-blocks", &device, YES]);
    assert!(write.stdin(File::open(disk.path("input")).unwrap()).status().unwrap().success());
    server.run("format", &[]).refused(&["destroys data of vfio-user:", YES]);
    server
        .run("format", &[YES, "--block-size", "8K"])
        .refused(&["8192-byte blocks", "`nvio identify`"]);
    server.run("format", &[YES, "--index", "63"]).refused(&["63"]);
    let before = server.run("read-blocks", &["--length", "4K"]).ok();
    assert!(before == pattern(8 << 20, 1)[..4096]);
    let report = server.run("format", &[YES, "--block-size", "4096", "--json"]).json();
    assert_eq!((&report["block_size"], &report["metadata_size"]), (&json!(4096), &json!(0)));
    let shown = server.run("ns", &["--json"]).json();
    assert_eq!((&shown[0]["lba_size"], &shown[0]["size"]), (&json!(4096), &json!(8 << 20)));
    assert!(server.run("read-blocks", &["--length", "4K"]).ok() == [0; 4096]);
    // Without options the format stays.
    let text = server.run("format", &[YES, "--erase", "user-data"]).text();
    assert!(
        text.starts_with("namespace 1: formatted, 8388608 bytes (8.00 MiB) in blocks of 4096"),
        "{text}"
    );
    server.run("format", &[YES, "--namespace", "2"]).refused(&["namespace 2 is not active"]);
    assert_eq!(nvio(["format", "x", YES, "--erase", "frob"]).code, 2);
    assert_eq!(nvio(["format", "x", YES, "--index", "1", "--block-size", "512"]).code, 2);
}

#[test]
fn a_controller_without_the_commands_is_refused() {
    let disk = disk();
    let server = server(&disk, &[]);
    server.run("format", &[YES]).refused(&["Format NVM", "OACS"]);
    for (verb, rest) in [
        ("create-ns", &["--blocks", "8"][..]),
        ("delete-ns", &["--namespace", "1"]),
        ("attach-ns", &["--namespace", "1"]),
        ("detach-ns", &["--namespace", "1"]),
    ] {
        server.run(verb, &[rest, &[YES]].concat()).refused(&["namespace management", "OACS"]);
        server.run(verb, rest).refused(&[YES]);
    }
    assert!(server.run("read-blocks", &[]).ok() == pattern(8 << 20, 1));
}

#[test]
fn namespaces_are_created_attached_detached_and_deleted() {
    let disk = disk();
    let server = server(&disk, &["--unallocated", "64M"]);
    let first = (json!(1), json!(8 << 20));
    let run = |verb: &str, rest: &[&str]| -> Outcome { server.run(verb, &[rest, &[YES]].concat()) };
    assert_eq!(
        run("create-ns", &["--size", "2M", "--attach"]).text(),
        "namespace 2: created, attached\n"
    );
    assert_eq!(namespaces(&server), [first.clone(), (json!(2), json!(2 << 20))]);
    let report = run("create-ns", &["--blocks", "2048", "--json"]).json();
    assert_eq!(report, json!({ "namespace": 3, "actions": ["created"] }));
    assert_eq!(namespaces(&server).len(), 2);
    assert_eq!(run("attach-ns", &["--namespace", "3"]).text(), "namespace 3: attached\n");
    assert_eq!(namespaces(&server).len(), 3);
    run("attach-ns", &["--namespace", "3"]).refused(&["ALREADY_ATTACHED"]);
    assert_eq!(run("detach-ns", &["--namespace", "2"]).text(), "namespace 2: detached\n");
    assert_eq!(namespaces(&server), [first.clone(), (json!(3), json!(1 << 20))]);
    assert_eq!(run("delete-ns", &["--namespace", "3"]).text(), "namespace 3: deleted\n");
    assert_eq!(
        run("delete-ns", &["--namespace", "2", "--json"]).json()["actions"],
        json!(["deleted"])
    );
    assert_eq!(namespaces(&server), [first]);
    run("delete-ns", &["--namespace", "9"]).refused(&["Namespace Management (delete) failed"]);
    run("delete-ns", &[]).refused(&["--namespace N"]);
    run("create-ns", &["--size", "1000"]).refused(&["1000 bytes", "512"]);
    run("create-ns", &["--size", "1T"]).refused(&["INSUFFICIENT_CAPACITY"]);
    assert_eq!(nvio(["create-ns", "x", YES]).code, 2);
}
