//! Checks `ext4-rows.md`: every topic has a row, every image and test in it exists, and every image
//! of the matrix occurs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::matrix::rows;
use crate::points;

const AREAS: [&str; 8] = [
    "block size",
    "directories",
    "features by name",
    "file maps",
    "groups",
    "inode size",
    "journal",
    "others",
];
/// The row of rules that hold for all topics.
const RULES: &str = "rules";

/// Returns the topics, with the images and tests that cover them.
fn table() -> Vec<(String, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ext4-rows.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [area, case, proofs] = cells[..] else { panic!("three cells: {line}") };
        let proofs: Vec<String> = proofs.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!case.is_empty() && !proofs.is_empty(), "{line}");
        (area.to_owned(), proofs)
    });
    rows.collect()
}

#[test]
fn every_area_is_there() {
    let areas: BTreeSet<String> = table().into_iter().map(|(area, _)| area).collect();
    let expected = AREAS.iter().chain([&RULES]).map(|&area| area.to_owned()).collect();
    assert_eq!(areas, expected);
}

#[test]
fn every_image_and_every_test_exists() {
    let images: BTreeSet<&str> = rows::rows().map(|row| row.name).collect();
    let table = table();
    let proofs = table.iter().flat_map(|(_, proofs)| proofs);
    let missing = |proof: &String| match proof.contains("::") {
        true => points::check(proof).err(),
        false => (!images.contains(&proof[..])).then(|| format!("{proof}: no image")),
    };
    let missing: Vec<String> = proofs.filter_map(missing).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_image_proves_something() {
    let proofs: BTreeSet<String> = table().into_iter().flat_map(|(_, proofs)| proofs).collect();
    let names: BTreeSet<&str> = rows::rows().map(|row| row.name).collect();
    assert_eq!(names.len(), rows::rows().count(), "a name is there twice");
    let idle: Vec<_> = names.into_iter().filter(|name| !proofs.contains(*name)).collect();
    assert!(idle.is_empty(), "in no row of ext4-rows.md: {idle:?}");
}
