//! Creates and describes test trees where only the kernel is available, as in the guest: `ext4-tree
//! populate DIRECTORY ENTRIES SEED` and `ext4-tree view DIRECTORY`. Names that ignore case:
//! `ext4-tree fold DIRECTORY`, `ext4-tree fold-compare IMAGE MOUNT` and `ext4-tree
//! fold-compare-encrypted IMAGE MOUNT`.

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nvio_tests::tree::{self, Options};
use nvio_tests::{folded, view};

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
        ["fold", directory] => folded::make(Path::new(directory)),
        ["fold-compare", image, mount] => {
            let (found, not_found) = folded::compare(Path::new(image), Path::new(mount))?;
            println!("{found} {not_found}");
            Ok(())
        }
        ["fold-compare-encrypted", image, mount] => {
            println!("{}", folded::compare_without_key(Path::new(image), Path::new(mount))?);
            Ok(())
        }
        _ => Err(io::Error::other(
            "usage: ext4-tree populate DIRECTORY ENTRIES SEED | view DIRECTORY | \
             fold DIRECTORY | fold-compare IMAGE MOUNT | fold-compare-encrypted IMAGE MOUNT",
        )),
    }
}
