//! `nvio setfattr`: sets and removes extended attributes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use nvio::ext4::XattrMode;

use super::attribute_value;
use crate::args::VolumeArgs;
use crate::error::Error;

/// Set or remove an extended attribute of files.
///
/// An access control list has the name system.posix_acl_access or system.posix_acl_default; the permissions
/// change with it. The change is written through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("action").required(true))]
pub struct Setfattr {
    /// Set the attribute of this name.
    #[arg(short, long, value_name = "NAME", group = "action")]
    name: Option<OsString>,
    /// The value, also as -v VALUE: text, "text" with \ooo for bytes, 0x and hexadecimal, or 0s and base64. For a list also
    /// as for setfacl(1), with numbers: u::rw,u:1000:r,g::r,m::r,o::-. By default it is empty.
    #[arg(long, requires = "name", allow_hyphen_values = true)]
    value: Option<OsString>,
    /// Remove the attribute of this name.
    #[arg(short = 'x', long, value_name = "NAME", group = "action")]
    remove: Option<OsString>,
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem. A symbolic link at the end is followed.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

/// Replaces `-v`, which means the value to setfattr(1), and which all verbs have for their log.
pub fn rewrite(arguments: &mut [OsString]) {
    for argument in arguments.iter_mut().filter(|argument| *argument == "-v") {
        *argument = "--value".into();
    }
}

impl Setfattr {
    /// Changes the attribute of each path.
    ///
    /// # Errors
    /// If the value is malformed, or the filesystem cannot be opened or closed. Other failures are
    /// printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let name = self.name.as_ref().map(|name| name.as_bytes()).unwrap_or_default();
        let text = self.value.as_ref().map(|value| value.as_bytes()).unwrap_or_default();
        let value = attribute_value::decode(name, text).map_err(Error::Usage)?;
        super::each(&self.volume, &self.paths, |volume, inode| {
            let (fs, number) = (volume.filesystem(), inode.number());
            match &self.remove {
                Some(name) => fs.remove_xattr(number, name.as_bytes()),
                None => fs.set_xattr(number, name, &value, XattrMode::Either),
            }
        })
    }
}
