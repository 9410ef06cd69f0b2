//! Runs the verb of a command line.

use std::process::ExitCode;

use crate::cli::Verb;
use crate::error::Error;
use crate::verb::{
    bind, cat, cp, demo, df, du, emulate, find, fsinfo, identify, list, log, ls, map, ns, reset,
    smart, stat, tree, write,
};

/// Runs a verb.
///
/// # Errors
/// The error that ended it.
pub fn run(verb: &Verb) -> Result<ExitCode, Error> {
    match verb {
        Verb::List { format } => list::run(*format)?,
        Verb::Bind { address } => bind::bind(*address)?,
        Verb::Unbind { address } => bind::unbind(*address)?,
        Verb::Identify { device, format } => identify::run(device, *format)?,
        Verb::Smart { device, format } => smart::run(device, *format)?,
        Verb::Log { device, page, range, format } => {
            log::run(device, *page, *range, *format)?;
        }
        Verb::Ns { device, format } => ns::run(device, *format)?,
        Verb::Reset { device, format } => reset::run(device, *format)?,
        Verb::Df { volume, inodes, human, format } => {
            df::run(volume, *inodes, human.human, *format)?;
        }
        Verb::Du { volume, args, human, format } => {
            return du::run(volume, args, human.human, *format);
        }
        Verb::Find { volume, args, format } => return find::run(volume, args, *format),
        Verb::Tree { volume, path, max_depth, format } => {
            return tree::run(volume, path, *max_depth, *format);
        }
        Verb::Fsinfo { volume, format } => fsinfo::run(volume, *format)?,
        Verb::Ls { volume, paths, long, recursive, xattrs, format } => {
            let options = ls::Options {
                long: *long,
                recursive: *recursive,
                xattrs: *xattrs,
                json: format.json,
            };
            return ls::run(volume, paths, options);
        }
        Verb::Stat { volume, paths, format } => stat::run(volume, paths, *format)?,
        Verb::Map { volume, paths, format } => map::run(volume, paths, *format)?,
        Verb::Cat { volume, paths, offset, length } => {
            cat::run(volume, paths, *offset, *length)?;
        }
        Verb::Write { volume, path, offset, dsync } => write::run(volume, path, *offset, *dsync)?,
        Verb::Cp { volume, paths, target, recursive } => {
            return cp::run(volume, paths, target, *recursive);
        }
        Verb::Emulate { args, format } => emulate::run(args, *format)?,
        Verb::Demo { folder, lba_size, keep, format } => {
            return demo::run(folder.as_deref(), *lba_size, *keep, *format);
        }
    }
    Ok(ExitCode::SUCCESS)
}
