//! Warnings: lines on standard error that do not change the exit code.

use nvio::Volume;
use nvio::ext4::{Superblock, Timestamp};

use crate::args::VolumeArgs;
use crate::interrupt;
use crate::name::escaped;
use crate::time::utc;

/// Prints a warning.
pub fn warn(text: &str) {
    interrupt::say(&format!("warning: {text}"));
}

/// Prints a warning if the kernel has recorded errors in the filesystem, as it logs them when it
/// mounts the filesystem.
pub fn volume_opened(args: &VolumeArgs, volume: &Volume) {
    if let Some(errors) = recorded_errors(volume.filesystem().superblock()) {
        warn(&format!("{}: {errors}; run `e2fsck -f` on it", args.controller.device));
    }
}

/// Returns the errors in a superblock that e2fsck has not cleared, if there are any.
fn recorded_errors(superblock: &Superblock) -> Option<String> {
    if !superblock.has_errors() && superblock.error_count == 0 {
        return None;
    }
    let mut text = match superblock.error_count {
        0 => "the filesystem is marked as having errors".to_owned(),
        1 => "the kernel has recorded 1 error in the filesystem".to_owned(),
        count => format!("the kernel has recorded {count} errors in the filesystem"),
    };
    let last = &superblock.last_error;
    if last.time != Timestamp::default() {
        let (function, time) = (escaped(&last.function), utc(last.time));
        text += &format!(", the last at {time} in {function}:{}", last.line);
        if last.inode != 0 {
            text += &format!(", inode {}", last.inode);
        }
        if last.block != 0 {
            text += &format!(", block {}", last.block);
        }
    }
    Some(text)
}
