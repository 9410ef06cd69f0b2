//! `nvio emulate` in one process and its clients in others.

use crate::common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Disk, Outcome, command, nvio, pattern};
use rustix::process::{Pid, Signal, kill_process};

/// More than a pipe and all buffers hold, so that a `cat` that nobody reads stands in the middle.
const LARGE: usize = 8 << 20;

fn disk(seed: u32) -> Disk {
    let fill = |folder: &Path| {
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/hello"), "hello\n").unwrap();
        fs::write(folder.join("large"), pattern(LARGE, seed)).unwrap();
    };
    // Blocks that suit both sizes of logical block.
    Disk::new(fill, &["-b", "4096"])
}

/// A running emulator; killed when it is dropped.
pub struct Server {
    child: Child,
    socket: PathBuf,
    /// The line that said it was ready.
    said: String,
}

impl Server {
    pub fn start<S: AsRef<OsStr>>(socket: &Path, args: impl IntoIterator<Item = S>) -> Self {
        let mut child = emulate(socket, args).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.ends_with('\n'), "the emulator ended: {:?}", child.wait());
        Self { child, socket: socket.to_owned(), said }
    }

    fn device(&self) -> OsString {
        let mut device = OsString::from("vfio-user:");
        device.push(&self.socket);
        device
    }

    /// `nvio VERB vfio-user:SOCKET REST...`
    fn command(&self, verb: &str, rest: &[&str]) -> Command {
        let device = self.device();
        let first = [OsStr::new(verb), &device];
        command(first.into_iter().chain(rest.iter().map(OsStr::new)))
    }

    pub fn run(&self, verb: &str, rest: &[&str]) -> Outcome {
        let device = self.device();
        let first = [OsStr::new(verb), &device];
        nvio(first.into_iter().chain(rest.iter().map(OsStr::new)))
    }

    /// A `cat` of the large file that has begun and cannot end, as nobody reads it.
    fn cat_that_waits(&self) -> Child {
        let mut cat = self.command("cat", &["large"]);
        let mut cat = cat.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        cat.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        cat
    }

    /// Ends it by a signal: its exit code, nothing left of the socket, and soon.
    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = within(Duration::from_secs(20), || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
        assert!(!self.socket.exists());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn emulate<S: AsRef<OsStr>>(socket: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut emulate = command(["emulate", "--socket"]);
    emulate.arg(socket).args(args);
    emulate
}

fn within<T>(bound: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        match poll() {
            Some(found) => return found,
            None if begin.elapsed() > bound => panic!("not within {bound:?}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn another_process_reads_what_the_images_hold() {
    let (one, two) = (disk(1), disk(2));
    let socket = one.path("nvme");
    for lba in ["512", "4096"] {
        let images = [one.image(), two.image()];
        let settings = ["--lba-size", lba, "--mdts", "1", "--queues", "3", "--queue-entries", "16"];
        let names = ["--serial", "S-1", "--model", "a model"];
        let args = settings.iter().chain(&names).map(OsString::from);
        let server = Server::start(&socket, args.chain(images.map(OsString::from)));
        let ready = format!("serving 2 namespaces, read-only, on vfio-user:{}\n", socket.display());
        assert_eq!(server.said, ready);
        for (disk, nsid) in [(&one, "1"), (&two, "2")] {
            let namespace = ["--namespace", nsid];
            let listed = server.run("ls", &[&["-lR"][..], &namespace].concat()).text();
            assert_eq!(listed, disk.run("ls", &["-lR"]).text());
            assert!(listed.contains("hello"));
            let read = server.run("cat", &[&["large"][..], &namespace].concat()).ok();
            assert!(read == fs::read(disk.folder().join("large")).unwrap());
        }
        let said = server.run("identify", &["--json"]).json();
        assert_eq!((&said["serial"], &said["model"]), (&"S-1".into(), &"a model".into()));
        assert_eq!(said["max_data_transfer_bytes"], 8192);
        assert_eq!(
            (&said["io_queues_granted"], &said["max_queue_entries"]),
            (&3.into(), &16.into())
        );
        assert_eq!(said["namespaces"][1]["lba_size"].to_string(), lba);
        server.end(if lba == "512" { Signal::TERM } else { Signal::INT });
    }
}

#[test]
fn a_client_that_is_killed_makes_room_for_the_next() {
    let disk = disk(3);
    let server = Server::start(&disk.path("nvme"), [disk.image()]);
    let expected = fs::read(disk.folder().join("large")).unwrap();
    for _ in 0..5 {
        let mut cat = server.cat_that_waits();
        assert!(cat.try_wait().unwrap().is_none());
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert!(server.run("cat", &["large"]).ok() == expected);
    }
    // At any moment: from before it has connected to with commands in flight.
    for millis in (0..60).step_by(3) {
        let mut cat = server.command("cat", &["large"; 40]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n", "after {millis} ms");
    }
    server.end(Signal::TERM);
}

#[test]
fn a_second_client_is_refused_and_the_first_goes_on() {
    let disk = disk(4);
    let server = Server::start(&disk.path("nvme"), [disk.image()]);
    let first = server.cat_that_waits();
    for verb in ["ls", "identify"] {
        server.run(verb, &[]).refused(&["vfio-user:", "one client at a time"]);
    }
    let output = first.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    // The first byte was read already.
    assert!(output.stdout == fs::read(disk.folder().join("large")).unwrap()[1..]);
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
}

#[test]
fn a_signal_ends_it_under_a_client_which_is_told() {
    let disk = disk(5);
    let server = Server::start(&disk.path("nvme"), [disk.image()]);
    let client = server.cat_that_waits();
    server.end(Signal::TERM);
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("nvio: "), "{told}");
}

#[test]
fn a_socket_is_taken_over_from_the_dead_and_not_from_the_living() {
    let disk = disk(6);
    let socket = disk.path("nvme");
    let mut first = Server::start(&socket, [disk.image()]);
    let second = || {
        let output = emulate(&socket, [disk.image()]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Outcome { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
    };
    second().refused(&["cannot emulate", &socket.display().to_string(), "in use"]);
    assert_eq!(first.run("cat", &["a/hello"]).text(), "hello\n");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(socket.exists());
    let heir = Server::start(&socket, [disk.image()]);
    assert_eq!(heir.run("cat", &["a/hello"]).text(), "hello\n");
    heir.end(Signal::TERM);
    // What is no socket stays.
    fs::write(&socket, "keep").unwrap();
    second().refused(&["exists and is not a socket"]);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "keep");
}

#[test]
fn writing_is_only_on_request() {
    let disk = disk(7);
    let (socket, image) = (disk.path("nvme"), disk.image());
    let server = Server::start(&socket, [OsStr::new("--json"), image.as_ref()]);
    let said: serde_json::Value = serde_json::from_str(&server.said).unwrap();
    assert_eq!(said["device"], server.device().into_string().unwrap());
    assert_eq!((&said["writable"], &said["namespaces"][0]["nsid"]), (&false.into(), &1.into()));
    // Readers share an image, a writer has it alone.
    assert_eq!(disk.run("cat", &["a/hello"]).text(), "hello\n");
    server.end(Signal::TERM);
    let server = Server::start(&socket, [OsStr::new("--writable"), image.as_ref()]);
    assert!(server.said.contains("1 namespace, writable"), "{}", server.said);
    disk.run("cat", &["a/hello"]).refused(&["in use"]);
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
}

#[test]
fn settings_arrive_at_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, image) = (folder.path().join("nvme"), folder.path().join("image"));
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let identify = |args: &[&str]| {
        let server = Server::start(&socket, args);
        let said = server.run("identify", &["--json"]).json();
        server.end(Signal::TERM);
        said
    };
    let image = image.to_str().unwrap();
    let plain = identify(&["null:1M"]);
    for (key, expected) in [
        ("min_page_size", "4096"),
        ("max_page_size", "65536"),
        ("doorbell_stride", "4"),
        ("volatile_write_cache", "false"),
        ("shadow_doorbells", "false"),
        ("sgl", "\"none\""),
        ("controller_memory", "false"),
    ] {
        assert_eq!(plain[key].to_string(), expected, "{key}");
    }
    let said = identify(&[
        image,
        "memory:3M",
        "null:1T",
        "--nsid=7,2,9",
        "--lba-size=512,4096,512",
        "--noiob=0,8,256",
        "--queues=7",
        "--max-page-size=16K",
        "--doorbell-stride=64",
        "--shadow-doorbells",
        "--sgl",
        "--cmb=64K",
        "--write-cache=1M",
        "--mdts=2",
    ]);
    for (key, expected) in [
        ("max_data_transfer_bytes", "16384"),
        ("io_queues_granted", "7"),
        ("max_page_size", "16384"),
        ("doorbell_stride", "64"),
        ("volatile_write_cache", "true"),
        ("shadow_doorbells", "true"),
        ("sgl", "\"byte aligned\""),
        ("controller_memory", "true"),
        ("active_namespaces", "[2,7,9]"),
    ] {
        assert_eq!(said[key].to_string(), expected, "{key}");
    }
    for (index, nsid, size, lba, boundary) in [
        (0, 2, 3 << 20, 4096, "32768"),
        (1, 7, 1 << 20, 512, "null"),
        (2, 9, 1u64 << 40, 512, "131072"),
    ] {
        let namespace = &said["namespaces"][index];
        assert_eq!(namespace["nsid"], nsid);
        assert_eq!((&namespace["size"], &namespace["lba_size"]), (&size.into(), &lba.into()));
        assert_eq!(namespace["optimal_io_boundary_bytes"].to_string(), boundary);
    }
    // Metadata and protection; the file beside the image is made by the emulator.
    let said = identify(&[
        image,
        "memory:1M",
        "--writable",
        "--lba-size=512,4096",
        "--metadata=8,16",
        "--protection=1,0",
        "--atomic=8",
        "--format-nvm",
        "--unallocated=1M",
    ]);
    assert!(folder.path().join("image.meta").exists());
    for (index, metadata, protection) in [(0, 8, 1), (1, 16, 0)] {
        let namespace = &said["namespaces"][index];
        let found = (&namespace["metadata_size"], &namespace["protection_type"]);
        assert_eq!(found, (&metadata.into(), &protection.into()));
    }
    // A smallest page that is larger, and a buffer that is there without being announced.
    let said = identify(&[
        "null:1M",
        "--min-page-size=8K",
        "--mdts=1",
        "--cmb=4K",
        "--legacy-cmb",
        "--queue-entries=8",
    ]);
    assert_eq!(said["min_page_size"], 8192);
    assert_eq!(said["max_data_transfer_bytes"], 16_384);
    assert_eq!(said["max_queue_entries"], 8);
    assert_eq!(said["controller_memory"], false);
}

#[test]
fn faults_and_speed_arrive_too() {
    let disk = disk(8);
    let socket = disk.path("nvme");
    let image = disk.image();
    let image = image.to_str().unwrap();
    let unreadable = "status=unrecovered-read-error,op=read,lba=0-15";
    let server = Server::start(&socket, [image, "--fault", unreadable]);
    server.run("cat", &["a/hello"]).refused(&["UNRECOVERED_READ_ERROR"]);
    server.end(Signal::TERM);
    // Only the log page that the rule names, the second time, and only from then on.
    let rule = "status=internal-error,op=get-log-page,from=2";
    let server = Server::start(&socket, [image, "--fault", rule]);
    server.run("smart", &[]).ok();
    server.run("smart", &[]).refused(&["INTERNAL_ERROR"]);
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
    server.end(Signal::TERM);
    // Every I/O command, by seed.
    let server = Server::start(&socket, [image, "--fault-rate=status=1000000", "--seed=3"]);
    assert_eq!(server.run("cat", &["a/hello"]).code, 1);
    server.end(Signal::TERM);
    // What takes a fifth of a second for each command is slow.
    let server = Server::start(&socket, [image, "--latency=200ms", "--jitter=1us"]);
    let begin = Instant::now();
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
    assert!(begin.elapsed() > Duration::from_millis(400), "{:?}", begin.elapsed());
    server.end(Signal::TERM);
    let server = Server::start(&socket, [image, "--iops=10"]);
    let begin = Instant::now();
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
    assert!(begin.elapsed() > Duration::from_millis(200), "{:?}", begin.elapsed());
    server.end(Signal::TERM);
}

#[test]
fn a_signal_cuts_the_power_and_the_next_client_finds_it_on() {
    let disk = disk(9);
    let (socket, image) = (disk.path("nvme"), disk.image());
    let args = [image.to_str().unwrap(), "--writable", "--write-cache=1M"];
    let server = Server::start(&socket, args);
    let smart = || server.run("smart", &["--json"]).json();
    let before = smart()["power_cycles"].as_u64().unwrap();
    kill_process(Pid::from_child(&server.child), Signal::USR1).unwrap();
    let after = within(Duration::from_secs(20), || {
        smart()["power_cycles"].as_u64().filter(|&cycles| cycles != before)
    });
    assert_eq!(after, before + 1);
    assert_eq!(server.run("cat", &["a/hello"]).text(), "hello\n");
    server.end(Signal::TERM);
}

#[test]
fn image_that_cannot_be_served_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, good, empty) =
        (folder.path().join("nvme"), folder.path().join("good"), folder.path().join("empty"));
    fs::write(&good, vec![0; 1 << 20]).unwrap();
    fs::write(&empty, "").unwrap();
    let refused = |images: &[&Path], parts: &[&str]| {
        let output = emulate(&socket, images).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap();
        Outcome { code, stdout: output.stdout, stderr }.refused(parts);
        assert!(!socket.exists());
    };
    refused(&[&good, &empty], &["empty", "too small"]);
    refused(&[&good, Path::new("/none")], &["/none", "No such file"]);
    refused(&[folder.path()], &["is a directory"]);
    refused(&[Path::new("/dev/null")], &["is a character device"]);
    // Settings that do not go together.
    for (args, parts) in [
        (&["--lba-size=512,4096", "null:1M"][..], &["--lba-size has 2 values for 1 images"][..]),
        (&["--nsid=1", "null:1M", "null:1M"], &["--nsid has 1 values for 2 images"]),
        (&["--nsid=1,1", "null:1M", "null:1M"], &["namespace 1 is configured twice"]),
        (&["--min-page-size=5000", "null:1M"], &["page_sizes min of 5000"]),
        (&["--cmb=5000", "null:1M"], &["controller_memory of 5000"]),
        (&["null:100"], &["100 bytes are less than one block"]),
    ] {
        let output = emulate(&socket, args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap();
        Outcome { code, stdout: output.stdout, stderr }.refused(parts);
    }
}

#[test]
fn files_on_old_and_unusual_controllers_are_read() {
    let disk = disk(7);
    let socket = disk.path("nvme");
    let image = disk.image();
    let quirks = nvio_emulator::Quirk::ALL.map(|quirk| vec!["--quirk", quirk.name()]);
    let mut controllers = quirks.to_vec();
    // No pair is left for the metadata.
    controllers.push(vec!["--queues", "1"]);
    for metadata in [
        "--metadata 8",
        "--metadata 64 --extended",
        "--metadata 16 --protection 1 --guard 32",
        "--metadata 16 --extended --protection 1 --guard 64",
    ] {
        controllers.push(metadata.split(' ').collect());
    }
    for options in controllers {
        let args = options.iter().map(OsStr::new).chain([image.as_os_str()]);
        let server = Server::start(&socket, args);
        for verb in ["identify", "smart", "log"] {
            server.run(verb, &[]).ok();
        }
        assert!(server.run("cat", &["large"]).ok() == pattern(LARGE, 7), "{options:?}");
        drop(server);
        // The metadata of another format.
        let _ = fs::remove_file(disk.path("disk.img.meta"));
    }
}

#[test]
fn quirks_are_added_by_name_and_known_by_pci_id() {
    let disk = disk(8);
    let socket = disk.path("nvme");
    let image = disk.image();
    let args = ["--pci-id", "8086:5845"].map(OsStr::new).into_iter().chain([image.as_os_str()]);
    let server = Server::start(&socket, args);
    let said = |rest: &[&str]| {
        let output = server.command("identify", rest).arg("-v").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let known = said(&[]);
    assert!(known.contains("quirks of 8086:5845: identify-cns, no-write-zeroes"), "{known}");
    let added = said(&["--quirk", "no-sgl", "--quirk", "one-command"]);
    assert!(added.contains("identify-cns, one-command, no-sgl, no-write-zeroes"), "{added}");
    let refused = server.run("identify", &["--quirk", "other"]);
    assert!(refused.code == 2 && refused.stderr.contains("slow-ready"), "{}", refused.stderr);
}
