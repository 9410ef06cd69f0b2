//! Creates images of the matrix: `images DIRECTORY [NAME...]`, or `images --list`.

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nvio_tests::matrix::{Made, rows};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> io::Result<()> {
    match args {
        ["--list"] => {
            for row in rows::rows() {
                println!("{:<36} {}", row.name, row.mkfs);
            }
            Ok(())
        }
        [directory, names @ ..] if !directory.starts_with('-') => {
            let directory = Path::new(directory);
            std::fs::create_dir_all(directory)?;
            let known = |name: &&&str| !rows::rows().any(|row| row.name == **name);
            if let Some(name) = names.iter().find(known) {
                return Err(io::Error::other(format!("no image {name}: --list names them")));
            }
            for row in rows::rows().filter(|row| names.is_empty() || names.contains(&row.name)) {
                let made = Made::new(row)?;
                let image = directory.join(format!("{}.img", row.name));
                made.copy(&made.image(), &image);
                if let Some(journal) = made.journal() {
                    made.copy(&journal, &image.with_extension("journal"));
                }
                println!("{}", image.display());
            }
            Ok(())
        }
        _ => Err(io::Error::other("usage: images DIRECTORY [NAME...] | images --list")),
    }
}
