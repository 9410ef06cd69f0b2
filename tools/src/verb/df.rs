//! `nvio df`: used and free space of a filesystem.

use std::process::ExitCode;

use clap::Args;
use nvio::{Volume, ext4};

use crate::args::{Format, Human, VolumeArgs};
use crate::error::{self, Error};
use crate::name::one_line;
use crate::open;
use crate::output::{human_blocks, print};
use crate::record::Record;
use crate::warning::warn;

/// Show used and free space of a filesystem as df does.
///
/// The space of its own metadata is not counted.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Df {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Show inodes instead of blocks.
    #[arg(short, long)]
    inodes: bool,
    #[command(flatten)]
    human: Human,
    #[command(flatten)]
    format: Format,
}

impl Df {
    /// Prints the space in blocks, or inodes. JSON has the fields of statvfs(3), and sizes in bytes.
    /// A damaged journal is left out, with a warning.
    ///
    /// # Errors
    /// If the filesystem cannot be opened, or a group descriptor is damaged.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = self.open()?;
        let device = self.volume.controller.device.to_string();
        let statfs = volume.filesystem().statfs();
        let statfs = statfs.map_err(|error| Error::filesystem(device.clone(), error))?;
        for damage in volume.filesystem().take_damage() {
            warn(&error::one_line(&Error::filesystem(device.clone(), damage.into())));
        }
        let bytes = |blocks: u64| blocks.saturating_mul(statfs.block_size.into());
        let used = bytes(statfs.blocks.saturating_sub(statfs.free_blocks));
        let (size, available) = (bytes(statfs.blocks), bytes(statfs.available_blocks));
        let (files, free_files) = (u64::from(statfs.files), statfs.free_files);
        let mut room = Record::default();
        room.text("Filesystem", one_line(&device));
        room.json("device", device);
        room.json("block_size", statfs.block_size);
        room.json("blocks", statfs.blocks);
        room.json("free_blocks", statfs.free_blocks);
        room.json("available_blocks", statfs.available_blocks);
        room.json("size", size);
        room.json("used", used);
        room.json("free", bytes(statfs.free_blocks));
        room.json("available", available);
        room.json("inodes", files);
        room.json("free_inodes", free_files);
        room.json("name_max", statfs.name_max);
        if self.inodes {
            let used = files.saturating_sub(free_files);
            let counts = [("Inodes", files), ("IUsed", used), ("IFree", free_files)];
            counts.into_iter().for_each(|(heading, count)| room.text(heading, count.to_string()));
            room.text("IUse%", percent(used, free_files));
        } else {
            let total = if self.human.human { "Size" } else { "1K-blocks" };
            let sizes = [(total, size), ("Used", used), ("Available", available)];
            sizes.into_iter().for_each(|(heading, bytes)| room.text(heading, self.size(bytes)));
            room.text("Use%", percent(used, available));
        }
        print(self.format, &room, || Record::table([&room], &[1, 2, 3, 4]))
    }

    /// Opens the filesystem: without its journal if that is damaged.
    fn open(&self) -> Result<Volume, Error> {
        let error = match open::volume(&self.volume) {
            Err(error) if is_damage(&error) && !self.volume.rescue.noload => error,
            opened => return opened,
        };
        let mut args = self.volume.clone();
        args.rescue.noload = true;
        // Other damage is an error with and without the journal.
        let Ok(volume) = open::volume(&args) else { return Err(error) };
        warn(&format!(
            "{}; the journal is left out, and the newest changes may be missing",
            error::one_line(&error)
        ));
        Ok(volume)
    }

    /// Formats a size in KiB, or in a larger unit.
    fn size(&self, bytes: u64) -> String {
        if self.human.human { human_blocks(bytes) } else { bytes.div_ceil(1024).to_string() }
    }
}

/// Returns true if a structure of the filesystem is damaged.
fn is_damage(error: &Error) -> bool {
    let Error::Library(nvio::Error::Filesystem { error, .. }) = error else { return false };
    matches!(error, ext4::Error::Corrupt(_))
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
