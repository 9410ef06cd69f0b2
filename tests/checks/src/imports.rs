//! Import cycles between the files of a crate.
//!
//! A file imports another one if a `use` item or a path in its code names an item that the other
//! file defines. A re-export is followed to the definition, and is itself an import only if the
//! code beside it uses the name. Code for tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::files::{below, crates};
use crate::graph::{Graph, cycles};
use crate::module::{Import, Module, read_crate, resolve};

/// Prints the import cycles of each crate and returns true if there are none.
pub fn check(chosen: &[&str]) -> bool {
    let mut sound = true;
    for folder in crates(chosen) {
        let mut count = 0;
        for root in roots(&folder.join("src")) {
            count += check_crate(&root);
        }
        println!("{}: {count} import cycles", folder.display());
        sound &= count == 0;
    }
    sound
}

/// Returns the root files of a package: its library and its programs.
fn roots(source: &Path) -> Vec<PathBuf> {
    let mut roots = vec![source.join("lib.rs"), source.join("main.rs")];
    let programs = source.join("bin");
    roots.extend(below(&programs).into_iter().filter(|file| {
        file.parent() == Some(&programs) || file.file_name().is_some_and(|name| name == "main.rs")
    }));
    roots.retain(|file| file.exists());
    roots
}

/// Prints the cycles of a crate and returns their number.
fn check_crate(root: &Path) -> usize {
    let modules = read_crate(root);
    let files: BTreeSet<&Path> = modules.iter().map(|module| module.file.as_path()).collect();
    let files: Vec<&Path> = files.into_iter().collect();
    let number = |file: &Path| files.binary_search(&file).expect("a file of the crate");
    let mut graph = Graph::new();
    let mut names: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
    for (index, module) in modules.iter().enumerate() {
        for import in module.imports.iter().filter(|import| is_used(import, module)) {
            let Some(target) = resolve(&modules, index, &import.path, 0) else { continue };
            let (from, to) = (number(&module.file), number(&modules[target].file));
            if from != to {
                graph.entry(from).or_default().insert(to);
                names.entry((from, to)).or_default().insert(import.path.join("::"));
            }
        }
    }
    let found = cycles(&graph);
    for cycle in &found {
        println!("a cycle of {} files:", cycle.len());
        for ((from, to), names) in &names {
            if cycle.contains(from) && cycle.contains(to) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let (from, to) = (files[*from].display(), files[*to].display());
                println!("  {from} -> {to}: {}", names.join(", "));
            }
        }
    }
    found.len()
}

/// False for a re-export that the code of its own module does not use.
fn is_used(import: &Import, module: &Module) -> bool {
    !import.is_public || module.identifiers.contains(&import.name)
}
