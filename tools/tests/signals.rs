//! SIGINT, SIGTERM and SIGHUP end verbs at any moment: nothing is left, and the controller is shut
//! down.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Disk, command, pattern};
use nvio_testkit::random::Rng;
use rustix::process::{Pid, Signal, kill_process};

/// Signals sent to each verb.
const MOMENTS: u32 = 50;

fn disk() -> Disk {
    let fill = |folder: &Path| {
        for directory in 0..10 {
            let directory = folder.join(format!("directory-{directory}"));
            fs::create_dir(&directory).unwrap();
            for file in 0..20 {
                fs::write(directory.join(format!("{file}")), pattern(9000 + file, 1)).unwrap();
            }
        }
        fs::write(folder.join("large"), pattern(4 << 20, 2)).unwrap();
    };
    Disk::new(fill, &["-b", "4096"])
}

fn send(child: &Child, signal: Signal) {
    // A child that has ended is not reaped yet, so that the signal goes nowhere.
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A controller in another process, which counts the clients that leave without a shutdown.
struct Server {
    child: Child,
    device: String,
}

impl Server {
    fn start(socket: &Path, args: &[&OsStr]) -> Self {
        let mut server = command(["emulate", "--socket"]);
        let server = server.arg(socket).args(args).stdout(Stdio::piped()).spawn();
        let mut server = Self { child: server.unwrap(), device: String::new() };
        let mut said = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        server.device = said.trim_end().rsplit(' ').next().unwrap().to_owned();
        server
    }

    fn unsafe_shutdowns(&self) -> u64 {
        let smart = common::nvio(["smart", &self.device, "--json"]).json();
        smart["unsafe_shutdowns"].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a verb, ends it after a random time, and returns its exit code. `temp` is its TMPDIR.
fn interrupt(command: &mut Command, temp: &Path, after: Duration, signal: Signal) -> i32 {
    let child = command.env("TMPDIR", temp).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    std::thread::sleep(after);
    send(&child, signal);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    // A process that has not installed its handlers yet dies by the signal, and has opened nothing.
    let died = output.status.signal().map(|signal| 128 + signal);
    let code = code.or(died).unwrap();
    let number = signal.as_raw();
    assert!(code == 0 || code == 128 + number, "{code}: {said}");
    let words = if said.is_empty() { 0 } else { 1 };
    assert!(said.lines().count() == words && !said.contains("panicked"), "{said}");
    let left: Vec<_> = fs::read_dir(temp).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} after {after:?}");
    code
}

/// Ends a verb at random moments. Returns how often it was interrupted.
fn interrupt_often(disk: &Disk, longest: u64, seed: u64, verb: impl Fn() -> Command) -> u32 {
    let temp = disk.path(&format!("temp-{seed}"));
    fs::create_dir(&temp).unwrap();
    let mut random = Rng::new(seed);
    let mut interrupted = 0;
    for moment in 0..MOMENTS {
        let signal = [Signal::INT, Signal::TERM, Signal::HUP][moment as usize % 3];
        let after = Duration::from_micros(random.below(longest));
        interrupted += u32::from(interrupt(&mut verb(), &temp, after, signal) != 0);
    }
    interrupted
}

#[test]
fn verbs_on_a_device_shut_it_down() {
    let disk = disk();
    let image = disk.image();
    let args = [image.as_ref(), OsStr::new("--latency=500us")];
    let server = Server::start(&disk.path("nvme"), &args);
    let device = server.device.as_str();
    let before = server.unsafe_shutdowns();
    let cat = || command(["cat", device, "large", "large", "large"]);
    assert!(interrupt_often(&disk, 60_000, 1, cat) > 5);
    let find = || command(["find", device, "/", "--no-read-ahead", "--cache", "64K"]);
    assert!(interrupt_often(&disk, 30_000, 2, find) > 5);
    let target = disk.path("copy");
    fs::create_dir(&target).unwrap();
    let cp = || {
        let mut cp = command(["cp", "-r", device, "/"]);
        cp.arg(&target);
        cp
    };
    assert!(interrupt_often(&disk, 60_000, 3, cp) > 5);
    // Once in the middle of the files, however slow the machine is.
    fs::remove_dir_all(&target).unwrap();
    fs::create_dir(&target).unwrap();
    let child = cp().stderr(Stdio::null()).spawn().unwrap();
    while !walk(&target).iter().any(|path| path.is_file()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&child, Signal::INT);
    let code = child.wait_with_output().unwrap().status.code();
    assert!(code == Some(0) || code == Some(130), "{code:?}");
    assert_eq!(server.unsafe_shutdowns(), before);
    // A killed process is noticed, so that the count above means something.
    let mut killed = command(["cat", device, "large"]);
    let mut killed = killed.stdout(Stdio::piped()).spawn().unwrap();
    killed.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(server.unsafe_shutdowns(), before + 1);

    // Each file of the copies is complete.
    let mut files = 0;
    for entry in walk(&target) {
        if entry.is_file() {
            let original = disk.folder().join(entry.strip_prefix(&target).unwrap());
            assert!(fs::read(&entry).unwrap() == fs::read(original).unwrap(), "{entry:?}");
            files += 1;
        }
    }
    assert!(files > 0);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().ends_with(".part"), "{path:?}");
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn verbs_on_an_image_leave_nothing() {
    let disk = disk();
    let image = disk.image();
    let cat = || command([OsStr::new("cat"), image.as_ref(), "large".as_ref()]);
    interrupt_often(&disk, 40_000, 4, cat);
    // Making its files and its image takes most of the time.
    assert!(interrupt_often(&disk, 600_000, 5, || command(["demo"])) > 5);
}

#[test]
fn an_image_is_opened_without_a_temporary_directory() {
    let disk = disk();
    for verb in ["ls", "df"] {
        let image = disk.image();
        let mut verb = command([OsStr::new(verb), image.as_ref()]);
        let output = verb.env("TMPDIR", "/nonexistent").output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    }
}

#[test]
fn the_emulator_removes_its_socket() {
    let disk = disk();
    let (image, socket) = (disk.image(), disk.path("nvme"));
    let mut random = Rng::new(6);
    for moment in 0..MOMENTS {
        let mut emulate = command([OsStr::new("emulate"), image.as_ref(), "--socket".as_ref()]);
        let mut emulate = emulate.arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        let signal = [Signal::INT, Signal::TERM, Signal::HUP][moment as usize % 3];
        send(&emulate, signal);
        let status = emulate.wait().unwrap();
        let number = signal.as_raw();
        let ended = status.code() == Some(128 + number) || status.signal() == Some(number);
        assert!(ended, "{status}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_verb_that_waits_for_a_pipe_ends() {
    let disk = disk();
    let image = disk.image();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        // The rest of the output is not read.
        let mut cat = command([OsStr::new("cat"), image.as_ref(), "large".as_ref()]);
        let mut cat = cat.stdout(Stdio::piped()).spawn().unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        send(&cat, signal);
        assert_eq!(cat.wait().unwrap().code(), Some(code));

        // The input does not end.
        let mut write = command([OsStr::new("write"), image.as_ref(), "large".as_ref()]);
        let write = write.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut write = write.unwrap();
        let mut input = write.stdin.take().unwrap();
        // Returns when the verb, whose handlers are installed first, has read some of it.
        input.write_all(&vec![7; 256 << 10]).unwrap();
        send(&write, signal);
        let output = write.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(code), &b""[..]));
        drop(input);
    }
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let disk = disk();
    let mut cat = Command::new("nohup");
    cat.arg(env!("CARGO_BIN_EXE_nvio")).arg("cat").arg(disk.image()).arg("large");
    let mut cat = cat.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let cat = cat.as_mut().unwrap();
    let mut out = cat.stdout.take().unwrap();
    let mut all = vec![0];
    out.read_exact(&mut all).unwrap();
    send(cat, Signal::HUP);
    out.read_to_end(&mut all).unwrap();
    assert_eq!(cat.wait().unwrap().code(), Some(0));
    assert!(all == fs::read(disk.folder().join("large")).unwrap());
}

#[test]
fn a_reader_that_leaves_ends_the_verb_quietly() {
    let disk = disk();
    for (verb, path) in [("cat", "large"), ("find", "/"), ("ls", "/directory-1")] {
        let image = disk.image();
        let mut verb = command([OsStr::new(verb), image.as_ref(), path.as_ref()]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = verb.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{path}");
        // A closed standard error does not matter either.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut missing = command([OsStr::new("cat"), image.as_ref(), "missing".as_ref()]);
        let status = missing.stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}
