//! `nvio batch`: many verbs on a device that is opened once.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use nvio::DeviceName;

use crate::args::{Format, VolumeArgs};
use crate::error::{Error, Failures};
use crate::open;
use crate::output::{Output, compact};
use crate::session::Session;

/// Maximum length of a line in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Run verbs on a device that is opened once.
///
/// Each line is a verb with its arguments, but without DEVICE, in the quotes of a shell: cat '/a b'.
/// The verbs are ls, find, tree, stat, map, cat, sha256, cp, tar, df, du, identify, ns, smart, log,
/// get-feature and read-blocks. Empty lines and lines that begin with # are skipped. A line that fails is reported, and
/// the next is run.
#[derive(Debug, Args)]
pub struct Batch {
    #[command(flatten)]
    volume: VolumeArgs,
    /// File with the lines. By default standard input.
    file: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// Returns a device as it is written on the command line.
pub fn name_of(device: &DeviceName) -> OsString {
    match device {
        DeviceName::Image(path) => path.clone().into_os_string(),
        DeviceName::Address(address) => address.to_string().into(),
    }
}

/// A line of a batch, to be run by [`Batch::run`]'s caller.
pub struct Line {
    /// The verb and its arguments.
    pub words: Vec<OsString>,
    /// The device.
    pub device: OsString,
    /// The output is JSON.
    pub json: bool,
}

impl Batch {
    /// Returns the device.
    pub fn device(&self) -> &DeviceName {
        &self.volume.controller.device
    }

    /// Runs the lines by `execute`. With --json, the output of a line is an object on one line.
    ///
    /// # Errors
    /// If the filesystem cannot be opened, the lines cannot be read, or standard output fails. Other
    /// failures are printed, and the exit code is 1.
    pub fn run(
        &self,
        plain: VolumeArgs,
        execute: impl Fn(Line) -> Result<ExitCode, Error>,
    ) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let _session = Session { volume, plain, given: self.volume.clone() }.begin();
        let mut failures = Failures::default();
        let mut lines = Lines::open(self.file.as_deref())?;
        while let Some(text) = lines.next()? {
            let failed = |reason| Error::BatchLine { line: lines.number, reason };
            let Some(words) = shlex::bytes::split(&text) else {
                failures.report(&failed("a quote is not closed".to_owned()));
                continue;
            };
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            if words.is_empty() {
                continue;
            }
            let device = name_of(self.device());
            let line = Line { words, device, json: self.format.json };
            let ran = match self.format.json {
                true => in_json(lines.number, &text, || execute(line)),
                false => execute(line),
            };
            match ran {
                Err(error @ Error::Output(_)) => return Err(error),
                Err(error) => failures.report(&failed(error.line())),
                // The verb has reported its failures.
                Ok(code) if code != ExitCode::SUCCESS => failures.note(),
                Ok(_) => {}
            }
        }
        Ok(failures.code())
    }
}

/// Writes an object on one line: number and text of the line, the output of the verb, and its error.
fn in_json(
    number: u64,
    text: &[u8],
    run: impl FnOnce() -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    let mut out = Output::new();
    out.text(&format!("{{\"line\":{number},\"command\":"))?;
    out.compact_json(&String::from_utf8_lossy(text))?;
    out.text(",\"output\":")?;
    out.flush()?;
    let (ran, has_output) = compact(run);
    if !has_output {
        out.text("null")?;
    }
    let error = match &ran {
        Err(error @ Error::Output(_)) if error.is_closed_pipe() => return ran,
        Err(error) => Some(error.line()),
        Ok(_) => None,
    };
    let is_good = matches!(ran, Ok(code) if code == ExitCode::SUCCESS);
    out.text(&format!(",\"ok\":{is_good},\"error\":"))?;
    out.compact_json(&error)?;
    out.text("}\n")?;
    out.flush()?;
    ran
}

/// The lines of the batch.
struct Lines {
    input: Box<dyn BufRead>,
    number: u64,
}

impl Lines {
    fn open(file: Option<&Path>) -> Result<Self, Error> {
        let input: Box<dyn BufRead> = match file {
            None => Box::new(io::stdin().lock()),
            Some(path) => {
                let file = File::open(path).map_err(|error| Error::host("open", path, error))?;
                Box::new(BufReader::new(file))
            }
        };
        Ok(Self { input, number: 0 })
    }

    /// Returns the next line that is not a comment, without its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let mut text = Vec::new();
            let read = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
            if read.map_err(|source| Error::Lines { source })? == 0 {
                return Ok(None);
            }
            self.number += 1;
            match text.pop_if(|last| *last == b'\n') {
                None if text.len() as u64 == LINE_BYTES_MAX => {
                    return Err(Error::Lines { source: io::ErrorKind::InvalidData.into() });
                }
                _ if text.trim_ascii_start().starts_with(b"#") => {}
                _ => return Ok(Some(text)),
            }
        }
    }
}
