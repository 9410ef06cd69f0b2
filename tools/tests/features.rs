//! `get-feature` and `set-feature` on the emulator in another process, whose `smart` shows the effect.

use crate::common::{Disk, nvio};
use crate::emulate::Server;

use serde_json::json;

#[test]
fn features_are_shown_decoded() {
    let disk = Disk::new(|_| {}, &[]);
    let image = disk.image();
    let server = Server::start(&disk.path("nvme"), [image.to_str().unwrap(), "--queues", "9"]);
    let all = server.run("get-feature", &["--json"]).json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|feature| &feature["name"]).collect();
    assert!(
        names.contains(&&json!("arbitration")) && names.contains(&&json!("keep-alive")),
        "{names:?}"
    );
    // The controller has no write cache.
    assert!(!names.contains(&&json!("write-cache")));
    let text = server.run("get-feature", &["temperature-threshold"]).text();
    let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["0x04", "temperature-threshold", "0x157", "celsius", "70"]);
    let vector = server.run("get-feature", &["interrupt-vector", "--select", "3", "--json"]).json();
    assert_eq!((&vector["value"], &vector["fields"]["vector"]), (&json!(3), &json!("3")));
    // Host Behavior Support has data.
    let host = server.run("get-feature", &["0x16", "--json"]).json();
    assert_eq!((&host["id"], &host["name"]), (&json!(0x16), &json!(null)));
    server.run("get-feature", &["write-cache"]).refused(&["Get Features", "INVALID_FIELD"]);
    server.run("get-feature", &["queues", "--value", "saved"]).refused(&["saved values", "ONCS"]);
    assert_eq!(nvio(["get-feature", "x", "frob"]).code, 2);
}

#[test]
fn features_are_set_and_read_back() {
    let disk = Disk::new(|_| {}, &[]);
    let image = disk.image();
    let image = image.to_str().unwrap();
    let server = Server::start(&disk.path("nvme"), [image, "--writable", "--write-cache", "1M"]);
    let set = server.run("set-feature", &["temperature-threshold", "300", "--json"]).json();
    assert_eq!((&set["value"], &set["fields"]["celsius"]), (&json!(300), &json!("27")));
    let set = server.run("set-feature", &["write-cache", "0"]).text();
    assert!(set.contains("enabled no"), "{set}");
    // Each command resets the controller.
    assert!(server.run("get-feature", &["write-cache"]).text().contains("enabled yes"));
    server
        .run("set-feature", &["power-management", "0x1f"])
        .refused(&["Set Features", "INVALID_FIELD"]);
    server.run("set-feature", &["queues", "0"]).refused(&["depends", "0x07"]);
    server.run("set-feature", &["0x0d", "1"]).refused(&["data structure", "0x0d"]);
    server.run("set-feature", &["arbitration", "1", "--save"]).refused(&["ONCS"]);
    assert_eq!(nvio(["set-feature", "x", "queues"]).code, 2);
}
