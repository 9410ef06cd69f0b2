//! Makes and describes test trees where only the kernel is, as in the guest:
//! `ext4-tree populate DIRECTORY ENTRIES SEED` and `ext4-tree view DIRECTORY`.

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nvio_tests::tree::{self, Options};
use nvio_tests::view;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ext4-tree: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> io::Result<()> {
    match args {
        ["populate", directory, entries, seed] => {
            let options = Options {
                seed: seed.parse().map_err(io::Error::other)?,
                big_directory: entries.parse().map_err(io::Error::other)?,
                random_files: 10,
                extents: true,
                cluster: 0,
                fragments: 1_000,
            };
            tree::populate(Path::new(directory), options)
        }
        ["view", directory] => {
            println!("{}", view::to_json(&view::of_kernel(Path::new(directory))?));
            Ok(())
        }
        _ => Err(io::Error::other(
            "usage: ext4-tree populate DIRECTORY ENTRIES SEED | view DIRECTORY",
        )),
    }
}
