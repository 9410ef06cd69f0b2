//! A client of `nvio emulate` that waits by interrupts: what its whole process costs.

use crate::common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nvio_driver::{Address, Controller, Options, QueuePair, Wait};

/// Processor time of all threads of this process.
fn processor_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let nanos = threads.map(|thread| -> u64 {
        let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap();
        schedstat.split(' ').next().unwrap().parse().unwrap()
    });
    Duration::from_nanos(nanos.sum())
}

/// The only test of this file, as it measures its process.
#[test]
fn a_process_that_reads_now_and_then_uses_hardly_any_of_a_processor() {
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

    let wait = Wait::Interrupt { spin: Duration::from_micros(20) };
    let options = Options { wait, ..Options::default() };
    let controller = Controller::open_with(&Address::VfioUser(socket), options).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair = controller.queue_pair(1).unwrap();
    let (begin, used) = (Instant::now(), processor_time());
    for lba in 0..100 {
        queue.read(&namespace, lba, controller.alloc(512).unwrap(), lba).unwrap();
        let ended = queue.wait(|done| {
            assert!(done.status.is_success());
            assert!(done.buf.iter().all(|&byte| byte == 0x5a));
        });
        assert_eq!(ended.unwrap(), 1);
        thread::sleep(Duration::from_millis(10));
    }
    let share = (processor_time() - used).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share < 0.05, "{share} of a processor");
    assert_eq!(queue.counters().missed_interrupts, 0);
    assert!(queue.counters().sleeps > 0);

    drop((queue, controller));
    server.kill().unwrap();
    server.wait().unwrap();
}
