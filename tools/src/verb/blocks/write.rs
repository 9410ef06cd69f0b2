//! `nvio write-blocks`: overwrites blocks of a device with standard input.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;
use nvio::{Device, Found};
use nvio_driver::BOUNCE_BYTES_MAX;

use super::{BlockArgs, DEPTH, Part};
use crate::args::{DestroyArgs, Format};
use crate::error::Error;
use crate::interrupt;
use crate::open;
use crate::output::print;
use crate::progress;
use crate::record::Record;
use crate::verb::write::remaining;

/// Overwrite blocks of a device with standard input.
///
/// Begin and length are whole blocks. A device that is in use is refused, and one with a filesystem,
/// a partition table or another format that nvio recognises, unless --force is given. Input from a
/// file that does not fit is refused before its first byte is written.
#[derive(Debug, Args)]
pub struct WriteBlocks {
    #[command(flatten)]
    blocks: BlockArgs,
    #[command(flatten)]
    destroy: DestroyArgs,
    /// Write even if the namespace or partition has contents that nvio recognises.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

impl WriteBlocks {
    /// Overwrites blocks, and makes them durable.
    ///
    /// # Errors
    /// If the device cannot be opened for writing, has recognised contents, or fails; if the input
    /// does not fit. If the device fails, the blocks before the failure have been written.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let controller = &self.blocks.controller;
        self.destroy.check(&controller.device)?;
        let device = open::writable_device(controller)?;
        let part = self.blocks.part(&device)?;
        if !self.force {
            self.check_contents(&device)?;
        }
        let input = Input::open(&part)?;
        part.check_blocks(input.length.unwrap_or(0))?;
        let written = overwrite(&device, &part, input)?;
        let mut report = Record::default();
        report.json("namespace", part.nsid);
        report.json("offset", part.offset());
        report.json("bytes", written);
        report.json("block_size", part.block);
        print(self.format, &report, String::new)
    }

    fn check_contents(&self, device: &Device) -> Result<(), Error> {
        let Found { format, partitions, .. } = device.contents(&self.blocks.location())?;
        let contents = match (partitions, format) {
            (Some(table), _) => format!("a disk with partitions ({})", table.scheme),
            (None, Some(format)) => format.object.to_owned(),
            (None, None) => return Ok(()),
        };
        Err(Error::HasContents { device: self.blocks.controller.device.to_string(), contents })
    }
}

impl Part {
    /// Checks that the range is whole blocks and, with `length` bytes of input, inside of the
    /// device.
    fn check_blocks(&self, length: u64) -> Result<(), Error> {
        self.check(self.offset(), length)?;
        let bounds = [self.offset(), length, self.length.unwrap_or(0)];
        match bounds.into_iter().find(|bytes| !bytes.is_multiple_of(self.block)) {
            Some(bytes) => Err(Error::NotWholeBlocks { bytes, block: self.block }),
            None => Ok(()),
        }
    }
}

/// Standard input, and its length if it is known before the first byte is read.
struct Input {
    data: io::Take<File>,
    length: Option<u64>,
}

impl Input {
    /// Limits the input to the range, or to one byte more than there is room for.
    fn open(part: &Part) -> Result<Self, Error> {
        let failed = |source| Error::Input { written: 0, source };
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let stdin = File::from(stdin);
        let rest = remaining(&stdin).map_err(failed)?;
        let limit = part.length.unwrap_or(u64::MAX);
        Ok(Self { data: stdin.take(limit), length: rest.map(|rest| rest.min(limit)) })
    }
}

/// Writes the input, and returns the number of bytes.
fn overwrite(device: &Device, part: &Part, mut input: Input) -> Result<u64, Error> {
    let namespace = device.controller().writable()?.writable_namespace(part.nsid)?;
    let mut queue = device.controller().queue_pair(DEPTH)?;
    let mut blocking = queue.blocking((), drop);
    let progress = match input.length.or(part.length) {
        Some(length) => progress::bar(length),
        None => progress::spinner(),
    };
    let mut buffer = Vec::with_capacity(BOUNCE_BYTES_MAX);
    let mut written = 0;
    loop {
        interrupt::report_at_end(format!("at least {written} bytes were written"));
        buffer.clear();
        let read = input.data.by_ref().take(BOUNCE_BYTES_MAX as u64).read_to_end(&mut buffer);
        read.map_err(|source| Error::Input { written, source })?;
        if buffer.is_empty() {
            break;
        }
        let length = buffer.len() as u64;
        let at = part.offset().saturating_add(written);
        let fits = part.check(at, length).and_then(|_| match length.is_multiple_of(part.block) {
            true => Ok(()),
            false => Err(Error::NotWholeBlocks { bytes: written + length, block: part.block }),
        });
        let done = fits.and_then(|()| {
            let done = blocking.write_bytes(&namespace, part.begin + written, &buffer);
            done.map_err(Error::from)
        });
        done.map_err(|source| Error::WriteBlocks { written, source: Box::new(source) })?;
        written += length;
        progress.set_position(written);
    }
    blocking.flush(&namespace)?;
    progress.finish_and_clear();
    Ok(written)
}
