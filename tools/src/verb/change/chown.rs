//! `nvio chown`: changes owners.

use std::ffi::OsString;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;

use crate::args::VolumeArgs;
use crate::error::Error;

/// Change the owner and the group of files.
///
/// The change is written through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Chown {
    #[command(flatten)]
    volume: VolumeArgs,
    /// User and group ids of the filesystem: UID, UID:GID or :GID.
    owner: Owner,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

/// The owner, the group, or both.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
        let id = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| "numbers as 1000:100".to_owned()),
        };
        let owner = Self { uid: id(uid)?, gid: id(gid)? };
        match owner {
            Self { uid: None, gid: None } => Err("numbers as 1000:100".to_owned()),
            owner => Ok(owner),
        }
    }
}

impl Chown {
    /// Changes owner and group of each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        super::each(&self.volume, &self.paths, |volume, inode| {
            volume.filesystem().set_owner(inode.number(), self.owner.uid, self.owner.gid)
        })
    }
}
