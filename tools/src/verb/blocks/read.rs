//! `nvio read-blocks`: writes blocks of a device to standard output or to a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nvio_driver::BOUNCE_BYTES_MAX;

use super::{BlockArgs, DEPTH};
use crate::args::Format;
use crate::error::Error;
use crate::open;
use crate::output::print;
use crate::progress;
use crate::record::Record;
use crate::target::Target;

/// Write blocks of a device to standard output or to a file.
///
/// Begin and length of the range may be inside of a block. By default the range ends with the
/// namespace or partition.
#[derive(Debug, Args)]
pub struct ReadBlocks {
    #[command(flatten)]
    blocks: BlockArgs,
    /// Write to this file, which must not exist yet.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With --output, write a summary in JSON.
    #[arg(long, requires = "output")]
    json: bool,
}

impl ReadBlocks {
    /// Writes the range.
    ///
    /// # Errors
    /// If the device cannot be opened or read, the range is not inside of it, or the output fails.
    pub fn run(&self) -> Result<ExitCode, Error> {
        open::with_device(&self.blocks.controller, |device| {
            let part = self.blocks.part(device)?;
            let namespace = device.namespace(Some(part.nsid))?;
            let length = part.length.unwrap_or_else(|| part.room());
            let mut target = Target::new(self.output.as_deref())?;
            let mut queue = device.controller().queue_pair(DEPTH)?;
            let mut blocking = queue.blocking((), drop);
            let progress = progress::bar(length);
            let mut buffer = vec![0; BOUNCE_BYTES_MAX];
            let mut done = 0;
            while done < length {
                let most = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.get_mut(..most).unwrap_or_default();
                blocking.read_bytes(&namespace, part.begin + done, piece)?;
                target.bytes(piece)?;
                done += most as u64;
                progress.set_position(done);
            }
            progress.finish_and_clear();
            target.end()?;
            if !self.json {
                return Ok(ExitCode::SUCCESS);
            }
            let mut report = Record::default();
            report.json("namespace", part.nsid);
            report.json("offset", part.offset());
            report.json("bytes", length);
            report.json("block_size", part.block);
            print(Format { json: true }, &report, String::new)
        })
    }
}
