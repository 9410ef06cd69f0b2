//! Runs the driver's checks on controllers with known contents.
//!
//!     nvme-check ROLE=ADDRESS...
//!
//! Each check prints a line: `ok NAME`, `FAILED NAME: why` or `SKIPPED NAME: why`. The exit code is
//! 1 if a check failed, 3 if one hung, 2 for wrong usage.

use std::process::ExitCode;

use nvio_driver::Address;
use nvio_tests::check;

fn main() -> ExitCode {
    let mut failed = 0;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for argument in &arguments {
        match run(argument) {
            Ok(count) => failed += count,
            Err(error) => {
                eprintln!("nvme-check: {argument}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    match (arguments.is_empty(), failed) {
        (true, _) => {
            eprintln!("usage: nvme-check ROLE=ADDRESS...");
            ExitCode::from(2)
        }
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    }
}

fn run(argument: &str) -> Result<usize, String> {
    let (role, address) = argument.split_once('=').ok_or("not ROLE=ADDRESS")?;
    let address: Address = address.parse().map_err(|error| format!("{error}"))?;
    check::run(role, &address)
}
