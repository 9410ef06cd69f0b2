//! The errors of the command, and how one is printed: on one line, with the next step to take.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use nvio::{PartitionError, Volume, driver, emulator, ext4};

use crate::interrupt;
use crate::name;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library failed. [`Error::hint`] adds the options of the command that help.
    #[error(transparent)]
    Library(#[from] nvio::Error),
    /// The embedded controller could not be started for other processes.
    #[error("cannot emulate")]
    Emulate(#[source] emulator::Error),
    /// An option of `nvio emulate` has neither one value nor one for each namespace.
    #[error("{option} has {values} values for {images} images; give one for each")]
    ValuesForImages {
        /// The option.
        option: &'static str,
        /// Number of values.
        values: usize,
        /// Number of images.
        images: usize,
    },
    /// A directory could not be mounted on, or unmounted.
    #[error("{}: {error}", name::escaped(directory.as_os_str().as_encoded_bytes()))]
    Mount {
        /// The directory.
        directory: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A directory has no mount of nvio.
    #[error(
        "{}: nvio has mounted nothing there; nvio mount DEVICE DIRECTORY does",
        name::escaped(directory.as_os_str().as_encoded_bytes())
    )]
    NotMounted {
        /// The directory.
        directory: PathBuf,
    },
    /// A measurement that writes was not confirmed.
    #[error("--rw {rw} overwrites data of {device}; confirm it with --write")]
    PerfWrite {
        /// The word of the command line.
        rw: &'static str,
        /// The device.
        device: String,
    },
    /// A device or file is smaller than the requests of a measurement.
    #[error(
        "{name} has {bytes} bytes, less than the {needed} bytes that one request of each thread needs"
    )]
    PerfTooSmall {
        /// The device or file.
        name: String,
        /// Its size, limited by --size.
        bytes: u64,
        /// Bytes of one request of each thread.
        needed: u64,
    },
    /// A queue of a measurement could not be created, or failed.
    #[error("{name}: {text}")]
    Perf {
        /// The device or file.
        name: String,
        /// The error and its causes.
        text: String,
    },
    /// Options of a measurement that exclude each other.
    #[error("{0}")]
    PerfOptions(&'static str),
    /// An earlier measurement cannot be compared with.
    #[error("cannot compare with {file}: {text}")]
    PerfBaseline {
        /// The file.
        file: String,
        /// The reason, and the next step.
        text: String,
    },
    /// `nvio reset` was called for an image.
    #[error("{image} is an image: it has no controller that could be reset")]
    NothingToReset {
        /// The image.
        image: PathBuf,
    },
    /// The handler of signals could not be installed.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A file could not be overwritten, or only a part of it.
    #[error("{path}: {written} bytes were written: {source}")]
    Write {
        /// The path, safe for a terminal.
        path: String,
        /// Bytes that were written, counted from the offset.
        written: u64,
        /// The error of the filesystem.
        source: ext4::Error,
    },
    /// The user has not confirmed that stored data is to be destroyed.
    #[error("this destroys data of {device}; confirm it with --yes-destroy-data")]
    Unconfirmed {
        /// The device.
        device: String,
    },
    /// Blocks were to be written to a device that is not empty.
    #[error("{device} holds {contents}; choose another --partition, or overwrite it with --force")]
    HasContents {
        /// The device.
        device: String,
        /// The contents, with an article.
        contents: String,
    },
    /// A number of blocks that no device has.
    #[error("{blocks} blocks are more bytes than 64 bits can count")]
    TooManyBlocks {
        /// The number.
        blocks: u64,
    },
    /// A range is not inside of the device.
    #[error(
        "{length} bytes at byte {offset} are not inside of the namespace or partition, which has \
         {size} bytes"
    )]
    OutsideDevice {
        /// First byte of the range.
        offset: u64,
        /// Length of the range in bytes.
        length: u64,
        /// Size of the namespace or partition in bytes.
        size: u64,
    },
    /// Blocks can only be written as a whole.
    #[error("{bytes} bytes are not a multiple of the block of {block} bytes; pad the input")]
    NotWholeBlocks {
        /// The position or the length.
        bytes: u64,
        /// Logical block in bytes.
        block: u64,
    },
    /// Only a part of the blocks was written.
    #[error("{written} bytes were written: {source}")]
    WriteBlocks {
        /// Bytes that were written, counted from the offset.
        written: u64,
        /// The cause.
        source: Box<Error>,
    },
    /// A path with wildcards names no file.
    #[error("{path}: no name matches the pattern; `nvio ls` lists the names of a directory")]
    NoMatch {
        /// The pattern, safe for a terminal.
        path: String,
    },
    /// A pattern matches more names than the command keeps.
    #[error("{path}: the pattern matches more than {max} names; use `nvio find`")]
    TooManyMatches {
        /// The pattern, safe for a terminal.
        path: String,
        /// Limit.
        max: usize,
    },
    /// A pattern is too long to be translated.
    #[error("{path}: the pattern is too long")]
    LongPattern {
        /// The pattern, safe for a terminal.
        path: String,
    },
    /// An archive would have been written to a terminal.
    #[error(
        "refusing to write an archive to a terminal; redirect it, or name a file with --output"
    )]
    ArchiveToTerminal,
    /// An archive would have been read from a terminal.
    #[error(
        "refusing to read an archive from a terminal; redirect it, or name a file with --input"
    )]
    ArchiveFromTerminal,
    /// An archive cannot be read on.
    #[error(
        "{archive}: at byte {at}, {place}: {damage}; {members} members are extracted; {advice}"
    )]
    BadArchive {
        /// The archive, safe for a terminal.
        archive: String,
        /// Position in the archive in bytes.
        at: u64,
        /// The member at this position, safe for a terminal.
        place: String,
        /// The damage.
        damage: String,
        /// Number of members that were extracted.
        members: u64,
        /// The next step.
        advice: String,
    },
    /// A member of an archive is left out.
    #[error("{member} is not extracted: {reason}")]
    NotExtracted {
        /// The name of the member, safe for a terminal.
        member: String,
        /// The reason, and the next step.
        reason: String,
    },
    /// A file became a part of an archive, but not all of its data could be read.
    #[error("{source}; the archive has zeroes from byte {at} of the file on")]
    Zeroed {
        /// Bytes of the data that were read.
        at: u64,
        /// The cause.
        source: Box<Error>,
    },
    /// A file that an archive cannot hold.
    #[error("{path} is not archived: {reason}")]
    NotArchived {
        /// The path, safe for a terminal.
        path: String,
        /// The reason.
        reason: &'static str,
    },
    /// The namespace has no such format.
    #[error(
        "namespace {nsid} has no format of {block_size}-byte blocks with {metadata} bytes of metadata; \
         `nvio identify` lists its formats"
    )]
    NoFormat {
        /// Logical block in bytes.
        block_size: u32,
        /// Bytes of metadata of each block.
        metadata: u16,
        /// The namespace.
        nsid: u32,
    },
    /// The verb changes a namespace that the user must name.
    #[error("name the namespace with --namespace N; `nvio ns` lists those that are attached")]
    NoNamespaceGiven,
    /// The logical block of a format is not known, because no namespace has it.
    #[error("no active namespace has this format; give the size in blocks with --blocks")]
    UnknownBlockSize,
    /// A line of a batch could not be run, or has failed.
    #[error("line {line}: {reason}")]
    BatchLine {
        /// Number of the line, from 1.
        line: u64,
        /// The error, safe for a terminal.
        reason: String,
    },
    /// The lines of a batch could not be read.
    #[error("cannot read the lines of the batch")]
    Lines {
        /// The error of the operating system.
        source: io::Error,
    },
    /// A verb that cannot be a line of a batch.
    #[error("{verb:?} is not a verb of a batch; `nvio help batch` lists them")]
    NotInBatch {
        /// The verb, safe for a terminal.
        verb: String,
    },
    /// A verb that writes bytes to standard output, where JSON is expected.
    #[error("{verb} has no JSON; run it in a batch without --json")]
    NoJson {
        /// The verb.
        verb: String,
    },
    /// The usage of a verb in a batch is wrong.
    #[error("{0}")]
    Usage(String),
    /// Standard input could not be read.
    #[error("cannot read standard input, {written} bytes of which were written")]
    Input {
        /// Bytes that were written.
        written: u64,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path of a directory was given where a file is needed.
    #[error("{path} is a directory; {advice}")]
    Directory {
        /// The path, safe for a terminal.
        path: String,
        /// The commands for directories.
        advice: &'static str,
    },
    /// A directory was reached by two paths.
    #[error("{path}: the directory was already listed by another path; run e2fsck")]
    DirectoryTwice {
        /// The second path, safe for a terminal.
        path: String,
    },
    /// A directory entry has a name that no directory can have.
    #[error("{path}: the directory has an entry with the impossible name {entry:?}; run e2fsck")]
    BadName {
        /// The directory.
        path: String,
        /// The name, safe for a terminal.
        entry: String,
    },
    /// A directory has two entries of one name.
    #[error(
        "{path}: the directory has a second entry of this name, which is not copied; run e2fsck"
    )]
    NameTwice {
        /// The path, safe for a terminal.
        path: String,
    },
    /// A file that this copy has created would have been replaced.
    #[error("will not overwrite just-created {target} with {by}")]
    JustCreated {
        /// The target.
        target: PathBuf,
        /// The path in the filesystem, safe for a terminal.
        by: String,
    },
    /// The image that is copied from would have been replaced.
    #[error("will not overwrite {target}: it is the image that is copied from")]
    IsTheImage {
        /// The target.
        target: PathBuf,
    },
    /// The device failed while a file was being copied.
    #[error("{path} is not copied: its data was not read to the end")]
    ReadsLost {
        /// The path, safe for a terminal.
        path: String,
    },
    /// The target of a copy exists and has another type.
    #[error("{target} exists and is {kind}; remove it first")]
    InTheWay {
        /// The target.
        target: PathBuf,
        /// The type of the target, with an article.
        kind: &'static str,
    },
    /// Paths were to be copied into a target that is not a directory.
    #[error("{target} {state}; {advice}")]
    TargetNotDirectory {
        /// The target.
        target: PathBuf,
        /// The target is missing or another file.
        state: &'static str,
        /// The next step.
        advice: &'static str,
    },
    /// An operation on a file of this machine failed.
    #[error("cannot {action} {path}")]
    Host {
        /// The attempted operation, a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another program failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// The name of the program.
        program: &'static str,
        /// The exit status.
        status: ExitStatus,
        /// The last line of its standard error.
        said: String,
    },
    /// mke2fs is not installed.
    #[error("mke2fs is missing; as root, run `apt-get install -y e2fsprogs`")]
    NoMke2fs,
    /// Standard output could not be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl From<driver::Error> for Error {
    fn from(error: driver::Error) -> Self {
        nvio::Error::from(error).into()
    }
}

impl From<driver::pci::Error> for Error {
    fn from(error: driver::pci::Error) -> Self {
        nvio::Error::from(error).into()
    }
}

impl Error {
    /// Creates an error about a file of this machine.
    pub fn host(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Host { action, path: path.to_owned(), source: source.into() }
    }

    /// Creates an error about a directory whose bytes were to be read or written.
    pub fn directory(path: &[u8]) -> Self {
        let advice = "`nvio ls` lists it, `nvio cp -r` copies it";
        Self::Directory { path: name::escaped(path), advice }
    }

    /// Creates an error about a directory that was listed before.
    pub fn directory_twice(path: &[u8]) -> Self {
        Self::DirectoryTwice { path: name::escaped(path) }
    }

    /// Creates an error about an image that could not be served.
    pub fn serve(image: &Path, error: emulator::Error) -> Self {
        nvio::Error::Emulate { image: image.to_owned(), error }.into()
    }

    /// Returns an error about a path in the filesystem; for use with `map_err`.
    pub fn path(path: &[u8]) -> impl Fn(ext4::Error) -> Self + '_ {
        |error| nvio::Error::Path { path: path.into(), error }.into()
    }

    /// Creates an error about the filesystem as a whole.
    pub fn filesystem(device: String, error: ext4::Error) -> Self {
        nvio::Error::Filesystem { device, error }.into()
    }

    /// Returns true if the reader of standard output has closed it, which is not a failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns the error, its causes and the hint on one line.
    pub fn line(&self) -> String {
        let line = one_line(self);
        match self.hint() {
            Some(hint) => format!("{line}; {hint}"),
            None => line,
        }
    }

    /// Returns the next step for the user, where the message does not say it.
    fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::Library(error) => return library_hint(error),
            Self::Emulate(error) => return emulator_hint(error),
            Self::Write { source: ext4::Error::PastEnd { .. }, .. } => {
                "write less, or mount the filesystem and make the file larger"
            }
            Self::Write {
                source: ext4::Error::Hole { .. } | ext4::Error::Unwritten { .. },
                ..
            } => "`nvio map` shows the extents that have data, which alone can be overwritten",
            Self::Host { source, .. } => return permission_hint(source),
            _ => return None,
        };
        Some(hint.into())
    }
}

fn library_hint(error: &nvio::Error) -> Option<Cow<'static, str>> {
    let hint = match error {
        nvio::Error::Open { error, .. } | nvio::Error::Driver(error) => return driver_hint(error),
        nvio::Error::Pci(error) => return pci_hint(error),
        nvio::Error::Emulate { error, .. } => return emulator_hint(error),
        nvio::Error::Image { error, .. } => return permission_hint(error),
        nvio::Error::ImageInUse { .. } => "unmount it, or end its user first",
        nvio::Error::NotAnImage { kind: "socket", .. } => "write it as vfio-user:SOCKET",
        nvio::Error::NotAnImage { .. } => {
            "DEVICE is a PCI address, vfio-user:SOCKET or the path of an image"
        }
        nvio::Error::NoNamespaces => "create one with nvme-cli first",
        nvio::Error::Partition(PartitionError::NoTable { .. }) => {
            "leave out --partition to read the whole device, or try another --lba-size for an image"
        }
        nvio::Error::Partition(
            PartitionError::NoPartition { .. } | PartitionError::Extended { .. },
        ) => "choose a partition with --partition N",
        nvio::Error::Partition(PartitionError::OtherBlockSize { table, .. }) => {
            return Some(other_block_size(table));
        }
        nvio::Error::NotExt4 { found, .. } => return not_ext4_hint(found),
        nvio::Error::Filesystem { error: ext4::Error::Truncated { .. }, .. } => {
            "the image or partition is incomplete: copy it again in full"
        }
        nvio::Error::Filesystem { error: ext4::Error::BadSuperblock { copies, .. }, .. } => {
            return copies.first().map(|copy| {
                format!("read the filesystem with --superblock {}", copy.block).into()
            });
        }
        nvio::Error::Filesystem { error: ext4::Error::Corrupt(damage), .. }
        | nvio::Error::Path { error: ext4::Error::Corrupt(damage), .. }
        | nvio::Error::File(ext4::Error::Corrupt(damage))
            if damage.sound_copy().is_some() =>
        {
            let copy = damage.sound_copy()?;
            return Some(format!("read the copies with --superblock {}", copy.block).into());
        }
        nvio::Error::Filesystem { error: ext4::Error::Corrupt(damage), .. }
            if damage.structure() == ext4::StructureKind::Journal =>
        {
            "read the filesystem without its journal with --noload"
        }
        nvio::Error::Filesystem { error: ext4::Error::InUse(_), .. } => {
            "--ignore-mmp reads it nevertheless"
        }
        nvio::Error::Filesystem { error: ext4::Error::NeedsJournal { .. }, .. } => {
            "name the device of the journal with --journal DEVICE"
        }
        _ => return None,
    };
    Some(hint.into())
}

fn not_ext4_hint(found: &nvio::Found) -> Option<Cow<'static, str>> {
    if let Some(table) = &found.partitions {
        return Some(match table.is_for_other_blocks() {
            true => other_block_size(table),
            false if found.partition.is_some() => "choose another with --partition N".into(),
            false => "choose a partition with --partition N".into(),
        });
    }
    match found.format?.name {
        "Android super" => Some("--fs-offset SIZE reads a filesystem at a byte offset".into()),
        "ext4 journal" => Some("name this one with --journal DEVICE".into()),
        _ => None,
    }
}

fn other_block_size(table: &nvio::PartitionTable) -> Cow<'static, str> {
    let size = table.block_size;
    format!(
        "for an image add --lba-size {size}; on a device select a filesystem by its start, with \
         --fs-offset SIZE"
    )
    .into()
}

fn driver_hint(error: &driver::Error) -> Option<Cow<'static, str>> {
    let hint = match error {
        driver::Error::NotBound { address, .. } => {
            return Some(format!("run `nvio bind {address}` first").into());
        }
        driver::Error::Pci(error) => return pci_hint(error),
        driver::Error::Timeout {
            what: "CSTS.RDY to be set" | "CSTS.RDY to be cleared", ..
        } => "--quirk slow-ready waits longer for a slow controller",
        driver::Error::NoQueue { .. } => {
            "reading needs one pair of I/O queues, writing two; `nvio identify`, `smart` and `log` need none"
        }
        driver::Error::VfioUser { .. } if was_hung_up_on(error) => {
            "the server serves one client at a time, and may have one"
        }
        driver::Error::VfioUser { .. } | driver::Error::VfioUserSilent { .. } => {
            "start a vfio-user NVMe server on that socket first"
        }
        _ => return None,
    };
    Some(hint.into())
}

fn pci_hint(error: &driver::pci::Error) -> Option<Cow<'static, str>> {
    use driver::pci::Error::{NoDevice, NotNvme};
    let is_other = matches!(error, NoDevice { .. } | NotNvme { .. });
    is_other.then_some("`nvio list` shows the NVMe controllers of this machine".into())
}

fn emulator_hint(error: &emulator::Error) -> Option<Cow<'static, str>> {
    let is_small = matches!(error, emulator::Error::TooSmall { .. });
    is_small.then_some("it is too small to be a disk image".into())
}

fn permission_hint(error: &io::Error) -> Option<Cow<'static, str>> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Some("this needs other permissions, or root".into()),
        io::ErrorKind::ResourceBusy => Some("it may be mounted".into()),
        _ => None,
    }
}

/// Returns true if a server accepted the connection and then closed it.
fn was_hung_up_on(error: &driver::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let error = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>());
    error.is_some_and(|error| matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof))
}

/// Returns an error and its causes.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}

/// Failures that do not end a command. Each is printed when it happens; the exit code reports at
/// the end that there were some.
#[derive(Debug, Default)]
pub struct Failures {
    some: bool,
}

impl Failures {
    /// Prints a failure to standard error.
    pub fn report(&mut self, error: &Error) {
        self.some = true;
        interrupt::say(&error.line());
    }

    /// Returns the value, or prints the failure and returns `None`. A failure of standard output
    /// stays an error, because it ends the command.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn absorb<T>(&mut self, result: Result<T, impl Into<Error>>) -> Result<Option<T>, Error> {
        match result.map_err(Into::into) {
            Ok(value) => Ok(Some(value)),
            Err(error @ Error::Output(_)) => Err(error),
            Err(error) => {
                self.report(&error);
                Ok(None)
            }
        }
    }

    /// Records a failure that was printed.
    pub fn note(&mut self) {
        self.some = true;
    }

    /// Prints the damage that was found in a filesystem and that no path failed for.
    pub fn damage(&mut self, volume: &Volume) {
        for damage in volume.filesystem().take_damage() {
            self.report(&nvio::Error::from(ext4::Error::from(damage)).into());
        }
    }

    /// Returns the exit code: 1 if there were failures, else 0.
    pub fn code(&self) -> ExitCode {
        if self.some { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Joins an error and its causes on one line, each printed once.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for text in causes(error).map(ToString::to_string) {
        // A message may begin or end with the message before it.
        match parts.last_mut() {
            Some(last) if text.starts_with(last.as_str()) => *last = text,
            Some(last) if last.ends_with(&text) || last.contains(&format!("{text}: ")) => {}
            _ => parts.push(text),
        }
    }
    parts.retain(|part| !part.is_empty());
    name::one_line(&parts.join(": "))
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
