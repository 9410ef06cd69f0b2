//! `nvio map`: prints the extents of files.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio_ext4::Extent;

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::open;
use crate::operand::{InodeArgs, Operands};
use crate::output::Output;
use crate::record::Record;

/// Show the extents of files as filefrag does.
///
/// Physical positions are counted from the start of the filesystem, in blocks; in bytes with --json.
#[derive(Debug, Args)]
pub struct Map {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(required_unless_present = "inode")]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    #[command(flatten)]
    format: Format,
}

impl Map {
    /// Prints extents. JSON is an object for one path, and an array for several.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let block_size = volume.filesystem().superblock().block_size();
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        let mut listing = Listing::of_operands(&volume, self.format, &operands);
        listing.operands(operands, |listing, operand| {
            let (path, inode) = (&*operand.path, operand.metadata(&volume)?);
            let extents = volume.filesystem().extents(&inode).map_err(Error::path(path))?;
            let mut found = Vec::new();
            for extent in extents {
                found.extend(listing.failures.absorb(extent.map_err(Error::path(path)))?);
            }
            let extents = found;
            let extents = records(&extents, inode.size(), block_size.into());
            if !listing.is_json() {
                return text(&mut listing.out, path, inode.size(), block_size.into(), &extents);
            }
            let mut map = Record::default();
            map.json_bytes("path", path);
            map.json("size", inode.size());
            map.json("block_size", block_size);
            map.json("extents", extents);
            listing.push(&map)
        })?;
        listing.end()
    }
}

/// Describes extents: in blocks of the filesystem, as filefrag -v does; in bytes in JSON.
fn records(extents: &[Extent], size: u64, block: u64) -> Vec<Record> {
    let mut expected = None;
    let mut records = Vec::with_capacity(extents.len());
    for (index, extent) in extents.iter().enumerate() {
        let &Extent { logical, physical, length, unwritten, inline, last } = extent;
        // Inline data is smaller than a block.
        let blocks = length.div_ceil(block);
        let range = |first: u64| format!("{first}..{}", (first + blocks).saturating_sub(1));
        let first = physical / block;
        let jump: Option<u64> = expected.filter(|&expected| expected != first);
        expected = Some(first + blocks);
        let mut record = Record::default();
        record.text("ext", index.to_string());
        record.field("logical_offset", "logical", range(logical / block), logical);
        record.field("physical_offset", "physical", range(first), physical);
        record.field("length", "length", blocks.to_string(), length);
        record.text("expected", jump.map_or(String::new(), |block| block.to_string()));
        record.json("unwritten", unwritten);
        record.json("inline", inline);
        record.json("last", last);
        record.text("flags", flags(extent, size));
        records.push(record);
    }
    records
}

fn text(
    out: &mut Output,
    path: &[u8],
    size: u64,
    block: u64,
    extents: &[Record],
) -> Result<(), Error> {
    out.text("File size of ")?;
    out.name(path)?;
    out.line(&format!(" is {size} ({} blocks of {block} bytes)", size.div_ceil(block)))?;
    out.text(&Record::table(extents, &[0, 1, 2, 3, 4]))?;
    out.name(path)?;
    let count = extents.len();
    out.line(&format!(": {count} extent{} found", if count == 1 { "" } else { "s" }))
}

fn flags(extent: &Extent, size: u64) -> String {
    let end = extent.logical.saturating_add(extent.length);
    let flags = [
        (extent.last, "last"),
        (extent.inline, "inline"),
        (extent.unwritten, "unwritten"),
        (end >= size, "eof"),
    ];
    let set: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    set.join(",")
}
