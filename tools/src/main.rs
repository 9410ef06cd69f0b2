//! `nvio`: NVMe devices in user space, and the files of the ext4 filesystems on them.
#![forbid(unsafe_code)]

mod acl_text;
mod args;
mod attributes;
mod cli;
mod colors;
mod contents;
mod copy;
mod create;
mod error;
mod glob;
mod interrupt;
mod listing;
mod mkfs;
mod name;
mod open;
mod operand;
mod output;
mod perf;
mod progress;
mod record;
mod session;
mod steps;
mod target;
mod time;
mod units;
mod users;
mod verb;
mod warning;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli::start_log(cli.verbose);
    let code = match cli.verb.run() {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            interrupt::say(&error.line());
            ExitCode::FAILURE
        }
    };
    interrupt::finish();
    code
}
