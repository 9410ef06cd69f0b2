//! `nvio df`: used and free space of a filesystem.

use serde::Serialize;

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::open;
use crate::output::{Output, human_blocks};
use crate::table::Table;

/// The JSON object: the fields of statvfs(3), and sizes in bytes.
#[derive(Serialize)]
struct Room {
    device: String,
    block_size: u32,
    blocks: u64,
    free_blocks: u64,
    available_blocks: u64,
    size: u64,
    used: u64,
    free: u64,
    available: u64,
    inodes: u32,
    free_inodes: u64,
    name_max: u32,
}

/// Prints the space in blocks, or inodes.
///
/// # Errors
/// If the filesystem cannot be opened, or a group descriptor is damaged.
pub fn run(args: &VolumeArgs, inodes: bool, human: bool, format: Format) -> Result<(), Error> {
    let volume = open::volume(args)?;
    let device = args.controller.device.to_string();
    let statfs =
        volume.filesystem().statfs().map_err(|error| Error::filesystem(device.clone(), error))?;
    let bytes = |blocks: u64| blocks.saturating_mul(statfs.block_size.into());
    let used_blocks = statfs.blocks.saturating_sub(statfs.free_blocks);
    let room = Room {
        device,
        block_size: statfs.block_size,
        blocks: statfs.blocks,
        free_blocks: statfs.free_blocks,
        available_blocks: statfs.available_blocks,
        size: bytes(statfs.blocks),
        used: bytes(used_blocks),
        free: bytes(statfs.free_blocks),
        available: bytes(statfs.available_blocks),
        inodes: statfs.files,
        free_inodes: statfs.free_files,
        name_max: statfs.name_max,
    };
    let mut out = Output::new();
    if format.json {
        out.json(&room)?;
    } else {
        out.text(&table(&room, inodes, human))?;
    }
    out.flush()
}

/// Returns the table of df, in KiB.
fn table(room: &Room, inodes: bool, human: bool) -> String {
    let shown = |bytes: u64| match human {
        true => human_blocks(bytes),
        false => bytes.div_ceil(1024).to_string(),
    };
    let (headings, cells) = if inodes {
        let used = u64::from(room.inodes).saturating_sub(room.free_inodes);
        let cells =
            [room.inodes.into(), used, room.free_inodes].map(|count: u64| count.to_string());
        (["Filesystem", "Inodes", "IUsed", "IFree", "IUse%"], (cells, used, room.free_inodes))
    } else {
        let total = if human { "Size" } else { "1K-blocks" };
        let cells = [room.size, room.used, room.available].map(shown);
        (["Filesystem", total, "Used", "Available", "Use%"], (cells, room.used, room.available))
    };
    let (cells, used, available) = cells;
    let mut table = Table::new(&headings, &[1, 2, 3, 4]);
    let device = crate::name::one_line(&room.device);
    table.row([device].into_iter().chain(cells).chain([percent(used, available)]));
    table.render()
}

/// Returns the used space as a percentage, rounded up as df rounds it.
fn percent(used: u64, available: u64) -> String {
    let (used, total) = (u128::from(used), u128::from(used) + u128::from(available));
    if total == 0 { "-".to_owned() } else { format!("{}%", (used * 100).div_ceil(total)) }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percent_as_df_rounds_it() {
        for (used, available, shown) in
            [(0, 0, "-"), (0, 5, "0%"), (1, 1000, "1%"), (999, 1, "100%"), (u64::MAX, 0, "100%")]
        {
            assert_eq!(percent(used, available), shown);
        }
    }
}
