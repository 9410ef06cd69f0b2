//! A client of `nvio emulate` that waits by interrupts: its process has no thread besides, and the
//! waits hardly poll.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nvio_driver::{Options, QueuePair, Wait};
use nvio_testkit::controller::open_at;

/// Number of threads of this process.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// The only test of this program, because it counts the threads of its process.
#[test]
fn a_process_that_reads_now_and_then_hardly_polls() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("disk.img"), folder.path().join("socket"));
    fs::write(&image, vec![0x5a; 1 << 20]).unwrap();
    let mut server = common::command(["emulate".as_ref(), image.as_os_str()])
        .arg("--socket")
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(socket.exists(), "{said}");

    let before = threads();
    let wait = Wait::Interrupt { spin: Duration::ZERO };
    let options = Options { wait, ..Options::default() };
    let controller = open_at(&socket, options);
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair = controller.queue_pair(1).unwrap();
    assert_eq!(threads(), before, "a thread that could use the processor");
    for lba in 0..100 {
        queue.read(&namespace, lba, controller.alloc(512).unwrap(), lba).unwrap();
        let ended = queue.wait(|done| {
            assert!(done.status.is_success());
            assert!(done.buf.iter().all(|&byte| byte == 0x5a));
        });
        assert_eq!(ended.unwrap(), 1);
        thread::sleep(Duration::from_millis(1));
    }
    let counters = queue.counters();
    assert_eq!(counters.missed_interrupts, 0);
    assert!(counters.sleeps > 0 && counters.sleeps <= 200, "{counters:?}");
    // A wait polls 64 times before each sleep and after the last one.
    assert!(counters.polls <= 65 * (counters.sleeps + 100), "{counters:?}");
    assert_eq!(threads(), before);

    drop((queue, controller));
    server.kill().unwrap();
    server.wait().unwrap();
}
