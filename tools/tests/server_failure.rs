//! A vfio-user server in another process that is stopped or killed while commands are in flight.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nvio_driver::spec::{Status, status};
use nvio_driver::{Controller, Error, Options, Wait};
use nvio_testkit::controller::open_at;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const QUEUES: usize = 4;
/// Commands in flight of each queue pair.
const DEPTH: u64 = 8;

/// `nvio emulate` on an empty image; killed when it is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let socket = folder.path().join("nvme");
        let mut child = emulate(&socket, &image).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("serving"), "{ready:?}");
        Self { child, socket, _folder: folder }
    }

    fn open(&self, wait: Wait) -> Controller {
        let options = Options {
            io_timeout: Duration::from_secs(3),
            admin_timeout: Duration::from_secs(2),
            wait,
            ..Options::default()
        };
        open_at(&self.socket, options)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until all threads are stopped or gone: they may still run for a moment after a signal.
    fn wait_until_idle(&self) {
        let is_idle = |thread: std::io::Result<fs::DirEntry>| {
            let stat = thread.and_then(|thread| fs::read_to_string(thread.path().join("stat")));
            // The state is the field after the name, which is in parentheses.
            let running = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
            running.is_none_or(|state| "TtZX".contains(state))
        };
        let threads = format!("/proc/{}/task", self.child.id());
        while !fs::read_dir(&threads).is_ok_and(|mut threads| threads.all(is_idle)) {
            if !Path::new(&threads).exists() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn emulate(socket: &Path, image: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvio"));
    command.arg("emulate").arg("--socket").arg(socket).arg(image).stdout(Stdio::piped());
    command
}

/// What became of the commands that were in flight when the server failed.
struct Ended {
    statuses: Vec<Status>,
    /// From the signal to the end of the last command.
    time: Duration,
    controller: Controller,
}

/// Sends `signal` to a server, with commands of several queue pairs in flight, and waits until all
/// have ended.
fn fail(server: &Server, signal: Signal, wait: Wait) -> Ended {
    let controller = server.open(wait);
    let namespace = controller.namespace(1).unwrap();
    let (ready, failed) = (Barrier::new(QUEUES + 1), Barrier::new(QUEUES + 1));
    let run = || {
        let mut queue = controller.queue_pair::<u64>(64).unwrap();
        queue.read(&namespace, 0, controller.alloc(512).unwrap(), 0).unwrap();
        assert_eq!(queue.wait(|done| assert!(done.status.is_success())).unwrap(), 1);
        ready.wait();
        failed.wait();
        // The server still holds the queues, and executes nothing any more.
        for lba in 0..DEPTH {
            queue.read(&namespace, lba, controller.alloc(512).unwrap(), lba).unwrap();
        }
        let mut statuses = Vec::new();
        while queue.in_flight() > 0 {
            queue.wait(|done| statuses.push(done.status)).unwrap();
        }
        (statuses, Instant::now())
    };
    let (begin, ended) = thread::scope(|scope| {
        let threads: Vec<_> = (0..QUEUES).map(|_| scope.spawn(run)).collect();
        ready.wait();
        server.signal(signal);
        let begin = Instant::now();
        server.wait_until_idle();
        failed.wait();
        (begin, threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    let time = ended.iter().map(|(_, end)| *end - begin).max().unwrap();
    let statuses: Vec<_> = ended.into_iter().flat_map(|(statuses, _)| statuses).collect();
    assert_eq!(statuses.len() as u64, QUEUES as u64 * DEPTH);
    Ended { statuses, time, controller }
}

fn waits() -> [Wait; 2] {
    [Wait::Poll, Wait::Interrupt { spin: Duration::ZERO }]
}

#[test]
fn a_stopped_server_ends_commands_within_the_timeouts() {
    for wait in waits() {
        let server = Server::start();
        let Ended { statuses, time, controller } = fail(&server, Signal::STOP, wait);
        assert!(time < Duration::from_secs(6), "{time:?}");
        assert_eq!(statuses, vec![status::ABORTED_BY_HOST; statuses.len()]);
        assert_eq!(controller.resets().unrequested(), 1);
        // Everything else fails, too, and without another wait.
        let begin = Instant::now();
        assert!(matches!(controller.namespace(1), Err(Error::ResetFailed)));
        drop(controller);
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn an_admin_command_ends_when_the_server_is_stopped() {
    let server = Server::start();
    let controller = server.open(Wait::Poll);
    server.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(50));
    let begin = Instant::now();
    let error = controller.namespace(1).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert!(matches!(error, Error::VfioUserSilent { .. } | Error::Timeout { .. }), "{error}");
}

#[test]
fn a_server_that_continues_can_be_used_after_a_reset() {
    let server = Server::start();
    let Ended { controller, .. } = fail(&server, Signal::STOP, Wait::Poll);
    server.signal(Signal::CONT);
    let begin = Instant::now();
    while let Err(error) = controller.reset() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{error}");
        thread::sleep(Duration::from_millis(50));
    }
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair::<()>(4).unwrap();
    queue.read(&namespace, 0, controller.alloc(512).unwrap(), ()).unwrap();
    assert_eq!(queue.wait(|done| assert!(done.status.is_success())).unwrap(), 1);
}

#[test]
fn a_killed_server_is_a_controller_that_is_gone() {
    for wait in waits() {
        let server = Server::start();
        let Ended { statuses, time, controller } = fail(&server, Signal::KILL, wait);
        assert!(time < Duration::from_secs(1), "{time:?}");
        assert_eq!(statuses, vec![status::HOST_PATHING_ERROR; statuses.len()]);
        assert!(matches!(controller.namespace(1), Err(Error::Gone)));
        assert!(matches!(controller.reset(), Err(Error::Gone)));
    }
}
