//! A client of QEMU's monitor, limited to the needs of the tests.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Maximum time for an answer of QEMU.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to QEMU's monitor.
pub struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the monitor of a running QEMU.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("QEMU's monitor listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        let mut monitor = Self { lines: BufReader::new(stream) };
        let greeting = monitor.line();
        assert!(greeting.get("QMP").is_some(), "QEMU's monitor said {greeting}");
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    /// Requests the removal of device `id` from the guest, like the button of its slot.
    pub fn device_del(&mut self, id: &str) {
        self.execute("device_del", json!({ "id": id }));
    }

    fn execute(&mut self, command: &str, arguments: Value) {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}").expect("QEMU's monitor takes a command");
        loop {
            let answer = self.line();
            match (answer.get("event"), answer.get("return")) {
                (Some(_), _) => {}
                (None, Some(_)) => return,
                (None, None) => panic!("{request}: QEMU answered {answer}"),
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("QEMU's monitor answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}
