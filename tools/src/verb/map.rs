//! `nvio map`: prints the extents of files.

use std::ffi::OsString;

use nvio_ext4::Extent;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::output::{JsonArray, Output};
use crate::table::Table;

/// The extents of a file in bytes, for JSON.
struct Map<'a> {
    path: &'a [u8],
    size: u64,
    block_size: u32,
    extents: &'a [Extent],
}

#[derive(Serialize)]
struct ExtentRecord {
    logical: u64,
    physical: u64,
    length: u64,
    unwritten: bool,
    inline: bool,
    last: bool,
}

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = |extent: &Extent| {
            let &Extent { logical, physical, length, unwritten, inline, last } = extent;
            ExtentRecord { logical, physical, length, unwritten, inline, last }
        };
        let mut map = serializer.serialize_map(None)?;
        name::entry(&mut map, "path", self.path)?;
        map.serialize_entry("size", &self.size)?;
        map.serialize_entry("block_size", &self.block_size)?;
        let extents: Vec<ExtentRecord> = self.extents.iter().map(record).collect();
        map.serialize_entry("extents", &extents)?;
        map.end()
    }
}

/// Prints extents. JSON is an object for one path, and an array for several.
///
/// # Errors
/// If a path cannot be found, has no blocks, or its map is damaged.
pub fn run(args: &VolumeArgs, paths: &[OsString], format: Format) -> Result<(), Error> {
    let volume = open::volume(args)?;
    let mut out = Output::new();
    let mut array = JsonArray::default();
    for path in paths {
        let path = rooted(path);
        let inode = volume.metadata(&path)?;
        let extents = volume.filesystem().extents(&inode).map_err(Error::path(&path))?;
        let extents: Vec<Extent> = extents.collect::<Result<_, _>>().map_err(Error::path(&path))?;
        let block_size = volume.filesystem().superblock().block_size();
        let map = Map { path: &path, size: inode.size(), block_size, extents: &extents };
        match (format.json, paths.len()) {
            (true, 1) => out.json(&map)?,
            (true, _) => array.push(&mut out, &map)?,
            (false, _) => text(&mut out, &map)?,
        }
    }
    if format.json && paths.len() > 1 {
        array.end(&mut out)?;
    }
    out.flush()
}

/// Prints extents in blocks of the filesystem, as filefrag -v does.
fn text(out: &mut Output, map: &Map<'_>) -> Result<(), Error> {
    let block = u64::from(map.block_size).max(1);
    let blocks = map.size.div_ceil(block);
    out.text("File size of ")?;
    out.name(map.path)?;
    out.line(&format!(" is {} ({blocks} blocks of {block} bytes)", map.size))?;
    let headings = ["ext", "logical_offset", "physical_offset", "length", "expected", "flags"];
    let mut table = Table::new(&headings, &[0, 1, 2, 3, 4]);
    let mut expected = None;
    for (index, extent) in map.extents.iter().enumerate() {
        let (logical, physical) = (extent.logical / block, extent.physical / block);
        // Inline data is smaller than a block.
        let length = extent.length.div_ceil(block);
        let range = |first: u64| format!("{first}..{}", (first + length).saturating_sub(1));
        let jump = expected.filter(|&expected| expected != physical);
        expected = Some(physical + length);
        table.row([
            index.to_string(),
            range(logical),
            range(physical),
            length.to_string(),
            jump.map_or(String::new(), |block: u64| block.to_string()),
            flags(extent, map.size),
        ]);
    }
    if !map.extents.is_empty() {
        out.text(&table.render())?;
    }
    out.name(map.path)?;
    let count = map.extents.len();
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
