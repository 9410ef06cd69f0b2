//! The source files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folders of all crates: those that contain a `Cargo.toml` with a package.
pub fn crates(chosen: &[&str]) -> Vec<PathBuf> {
    if !chosen.is_empty() {
        return chosen.iter().map(PathBuf::from).collect();
    }
    let manifest = fs::read_to_string("Cargo.toml").expect("Cargo.toml in the current folder");
    let members = manifest.split_once("\nmembers = [").expect("a list of members").1;
    let members = members.split_once(']').expect("the end of the list").0;
    let mut folders: Vec<PathBuf> =
        members.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
    folders.sort();
    folders
}

/// Returns the Rust files below `folder`, sorted.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            files.extend(below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
