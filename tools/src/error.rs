//! What can go wrong in a command, and how it is told: on one line, with what to do next.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use crate::{name, partition};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sysfs side of PCI.
    #[error(transparent)]
    Pci(#[from] nvio_driver::pci::Error),
    /// A controller could not be opened.
    #[error("cannot open {device}{hint}")]
    Open {
        /// The device as it was given.
        device: String,
        /// What to do about it.
        hint: &'static str,
        /// What the driver says.
        source: nvio_driver::Error,
    },
    /// The controller failed.
    #[error(transparent)]
    Driver(#[from] nvio_driver::Error),
    /// The embedded controller could not serve an image.
    #[error("cannot serve {image}{hint}")]
    Serve {
        /// The image.
        image: PathBuf,
        /// What to do about it.
        hint: &'static str,
        /// What the embedded controller says.
        source: nvio_emulator::Error,
    },
    /// The embedded controller could not be started for other processes.
    #[error("cannot emulate")]
    Emulate(#[source] nvio_emulator::Error),
    /// An option of the emulator has neither one value nor one for each namespace.
    #[error("{option} has {values} values for {images} images; give one for each")]
    ValuesForImages {
        /// The option.
        option: &'static str,
        /// How many values it has.
        values: usize,
        /// How many images there are.
        images: usize,
    },
    /// An image was to be reset.
    #[error("{image} is an image: there is no controller to be reset before nvio serves it")]
    NothingToReset {
        /// The image.
        image: PathBuf,
    },
    /// Signals could not be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A DEVICE that is no regular file or block device.
    #[error(
        "{image} is a {kind}; DEVICE is a PCI address, vfio-user:SOCKET or the path of an image"
    )]
    NoImage {
        /// The path.
        image: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The controller has no active namespace.
    #[error("the controller has no active namespace; create one with nvme-cli first")]
    NoNamespaces,
    /// The namespace that was asked for is not active.
    #[error("namespace {nsid} is not active; the controller has {}", .there)]
    NoNamespace {
        /// The one asked for.
        nsid: u32,
        /// Those that are.
        there: String,
    },
    /// The partition could not be found.
    #[error(transparent)]
    Partition(#[from] partition::Error),
    /// The layer between filesystem and device.
    #[error(transparent)]
    Iomap(#[from] nvio_iomap::Error),
    /// There is no filesystem that can be read.
    #[error("{device}{hint}")]
    Filesystem {
        /// The device as it was given.
        device: String,
        /// What to do about it.
        hint: &'static str,
        /// What the filesystem says.
        source: nvio_ext4::Error,
    },
    /// Something about a path in the filesystem.
    #[error("{path}")]
    Path {
        /// The path, safe for a terminal.
        path: String,
        /// What the filesystem says.
        source: nvio_ext4::Error,
    },
    /// A filesystem that can be read, but not written to.
    #[error("{device}")]
    NotWritable {
        /// The device as it was given.
        device: String,
        /// What the filesystem says.
        source: nvio_ext4::Error,
    },
    /// A file could not be overwritten, or not all of it.
    #[error("{path}: {written} bytes were written")]
    Write {
        /// The path, safe for a terminal.
        path: String,
        /// Bytes that are there, from the offset on.
        written: u64,
        /// What is wrong, with what to do next.
        source: WriteProblem,
    },
    /// Standard input cannot be read.
    #[error("cannot read standard input, {written} bytes of which were written")]
    Input {
        /// Bytes that are in the file.
        written: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A directory where a file is needed.
    #[error("{path} is a directory; `nvio ls` lists it, `nvio cp -r` copies it")]
    Directory {
        /// The path, safe for a terminal.
        path: String,
    },
    /// A directory is to be copied without saying so.
    #[error("{path} is a directory; `nvio cp -r` copies it with all that is in it")]
    DirectoryNotCopied {
        /// The path, safe for a terminal.
        path: String,
    },
    /// A directory entry with a name that no directory can have.
    #[error("{path}: the directory has an entry with the impossible name {entry:?}; run e2fsck")]
    BadName {
        /// The directory.
        path: String,
        /// The name, safe for a terminal.
        entry: String,
    },
    /// The target of a copy is of another kind, and in the way.
    #[error("{target} exists and is {kind}; remove it first")]
    InTheWay {
        /// The target.
        target: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Several sources need a directory to go to.
    #[error("{target} is no directory; several paths can only be copied into a directory")]
    TargetNotDirectory {
        /// The target.
        target: PathBuf,
    },
    /// A file of this machine.
    #[error("cannot {action} {path}{}", root_hint(.source))]
    Host {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another program failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its exit status.
        status: ExitStatus,
        /// The last line it wrote.
        said: String,
    },
    /// There is no mke2fs.
    #[error("mke2fs is missing; as root, run `apt-get install -y e2fsprogs`")]
    NoMke2fs,
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// What the filesystem says of a write, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{source}{hint}")]
pub struct WriteProblem {
    hint: &'static str,
    source: nvio_ext4::Error,
}

impl From<nvio_ext4::Error> for WriteProblem {
    fn from(source: nvio_ext4::Error) -> Self {
        let hint = match &source {
            nvio_ext4::Error::PastEnd { .. } => {
                "; give less, or make it larger with the filesystem mounted"
            }
            nvio_ext4::Error::Hole { .. } | nvio_ext4::Error::Unwritten { .. } => {
                "; `nvio map` shows what has data, and only that can be overwritten"
            }
            _ => "",
        };
        Self { hint, source }
    }
}

impl Error {
    /// An error about a file of this machine.
    pub fn host(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Host { action, path: path.to_owned(), source: source.into() }
    }

    /// An error about an image that is to be served.
    pub fn serve(image: &Path, source: nvio_emulator::Error) -> Self {
        let hint = match &source {
            nvio_emulator::Error::TooSmall { .. } => " (it is too small to be a disk image)",
            _ => "",
        };
        Self::Serve { image: image.to_owned(), hint, source }
    }

    /// An error about a path in the filesystem; for use with `map_err`.
    pub fn path(path: &[u8]) -> impl Fn(nvio_ext4::Error) -> Self + '_ {
        |source| Self::Path { path: name::escaped(path), source }
    }

    /// Whether the reader of standard output has gone, which is his right.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Failures that do not end a command: each is told when it happens, and the exit code tells at
/// the end that there were some.
#[derive(Debug, Default)]
pub struct Failures {
    some: bool,
}

impl Failures {
    /// Tells of one on standard error.
    pub fn tell(&mut self, error: &Error) {
        self.some = true;
        eprintln!("nvio: {}", one_line(error));
    }

    /// The value, or `None` if there is a failure, of which it tells. What ends the command anyway
    /// stays an error: that standard output cannot be written to.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn absorb<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ Error::Output(_)) => Err(error),
            Err(error) => {
                self.tell(&error);
                Ok(None)
            }
        }
    }

    /// 1 if there were any, else 0.
    pub fn code(&self) -> ExitCode {
        if self.some { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn root_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (this needs other permissions, or root)",
        _ => "",
    }
}

/// The error and its causes on one line, each told once.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // A message may begin with, or end with, what the one before it says.
        match parts.last_mut() {
            Some(last) if text.starts_with(last.as_str()) => *last = text,
            Some(last) if last.ends_with(&text) || last.contains(&format!("{text}: ")) => {}
            _ => parts.push(text),
        }
        next = cause.source();
    }
    let mut line = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let separator = if line.is_empty() { "" } else { ": " };
        let _ = write!(line, "{separator}{part}");
    }
    name::one_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn chain(texts: &[&'static str]) -> String {
        let mut source = None;
        for text in texts.iter().rev() {
            source = Some(Box::new(Layer { text, source }));
        }
        one_line(source.unwrap().as_ref())
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        assert_eq!(chain(&["a", "b", "c"]), "a: b: c");
        assert_eq!(
            chain(&["/x", "/x: no such file or directory"]),
            "/x: no such file or directory"
        );
        assert_eq!(chain(&["cannot read: gone", "gone"]), "cannot read: gone");
        assert_eq!(chain(&["two\nlines", "esc\u{1b}[0m"]), "two\\nlines: esc\\u{1b}[0m");
    }

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        let output = |kind: io::ErrorKind| Error::Output(kind.into());
        assert!(output(io::ErrorKind::BrokenPipe).is_closed_pipe());
        assert!(!output(io::ErrorKind::StorageFull).is_closed_pipe());
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!Error::host("write", Path::new("/x"), pipe).is_closed_pipe());
    }
}
