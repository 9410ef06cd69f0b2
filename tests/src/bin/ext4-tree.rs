//! Creates and describes test trees where only the kernel is available, as in the guest: `ext4-tree
//! populate DIRECTORY ENTRIES SEED` and `ext4-tree view DIRECTORY`. Sums of files: `ext4-tree sums
//! DIRECTORY LIST`, and `ext4-tree slices SIZES` for the standard input. Names that ignore case:
//! `ext4-tree fold DIRECTORY`, `ext4-tree fold-compare IMAGE MOUNT` and `ext4-tree
//! fold-compare-encrypted IMAGE MOUNT`.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nvio_tests::tree::{self, Options};
use nvio_tests::{folded, sums, view};

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
        ["sums", directory, list] => {
            print_lines(&sums::of_files(Path::new(directory), &fs::read(list)?)?);
            Ok(())
        }
        ["slices", sizes] => {
            let sizes = fs::read_to_string(sizes)?;
            let sizes: Result<Vec<u64>, _> = sizes.lines().map(str::parse).collect();
            let sizes = sizes.map_err(io::Error::other)?;
            print_lines(&sums::of_slices(io::stdin().lock(), &sizes)?);
            Ok(())
        }
        ["torn", old, new, found] => {
            let [old, new, found] = [fs::read(old)?, fs::read(new)?, fs::read(found)?];
            let (changed, torn) = torn_blocks(&old, &new, &found)?;
            println!("{changed} {torn}");
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
             sums DIRECTORY LIST | slices SIZES | torn OLD NEW FOUND | fold DIRECTORY | fold-compare IMAGE MOUNT | fold-compare-encrypted IMAGE MOUNT",
        )),
    }
}

/// Returns the number of blocks of 512 bytes of `found` that are new, and of those that are neither old
/// nor new.
fn torn_blocks(old: &[u8], new: &[u8], found: &[u8]) -> io::Result<(usize, usize)> {
    if old.len() != found.len() || new.len() != found.len() {
        return Err(io::Error::other("files of different sizes"));
    }
    let blocks = old.chunks(512).zip(new.chunks(512)).zip(found.chunks(512));
    Ok(blocks.fold((0, 0), |(changed, torn), ((old, new), found)| match found {
        found if found == new => (changed + 1, torn),
        found => (changed, torn + usize::from(found != old)),
    }))
}

fn print_lines(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}
