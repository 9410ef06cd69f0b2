//! Checks `iomap-points.md` and `journal-points.md`: every point has a row, and every test in them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A row of the table.
struct Row {
    point: String,
    test: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Mark of a point of the journal that is not built: in the column of the tests.
const NOT_YET: &str = "`not yet`";

/// Returns the rows of a table, each with all its cells.
fn rows(file: &str) -> Vec<Row> {
    let text = fs::read_to_string(root().join("tests").join(file)).unwrap();
    let table = text.lines().filter(|line| line.starts_with('|'));
    let rows = table.skip(2).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [point, what, how, test] = cells[..] else { panic!("four cells: {line}") };
        assert!(!what.is_empty() && !how.is_empty(), "{line}");
        let test = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
        let test = test.unwrap_or_else(|| panic!("a test in backquotes: {line}")).to_owned();
        Row { point: point.to_owned(), test }
    });
    rows.collect()
}

fn section(section: &str, last: u32) -> impl Iterator<Item = String> {
    (1..=last).map(move |number| format!("{section}{number}"))
}

/// Returns the numbers of all points of the journal.
fn points_of_the_journal() -> BTreeSet<String> {
    let sections = [
        ("F", 4),
        ("J", 12),
        ("A", 5),
        ("T", 5),
        ("D", 6),
        ("I", 5),
        ("O", 5),
        ("E", 4),
        ("C", 4),
        ("X", 5),
    ];
    sections.into_iter().flat_map(|(name, last)| section(name, last)).collect()
}

/// Returns the numbers of all points of iomap.
fn points() -> BTreeSet<String> {
    let all = section("1.", 5).chain(section("2.", 10)).chain(["3.0".to_owned()]);
    let direct = all.chain(section("F", 12)).chain(section("B", 9));
    direct.chain(section("W", 15)).chain(section("X", 7)).collect()
}

/// Returns the files that may contain a test.
fn files_of(test: &str) -> Result<(Vec<PathBuf>, &str), String> {
    let mut path: Vec<_> = test.split("::").collect();
    let (Some(name), true) = (path.pop(), path.len() > 1) else {
        return Err(format!("{test}: no crate::path::test"));
    };
    let folder = match path.remove(0) {
        "nvio_iomap" => "iomap",
        "nvio" => "nvio",
        "nvio_driver" => "driver",
        "nvio_ext4" => "fs",
        "nvio_tests" => "tests",
        other => return Err(format!("{test}: no crate {other}")),
    };
    let mut files = Vec::new();
    let inline = path.strip_suffix(&["tests"][..]).unwrap_or(&[]);
    for modules in [&path[..], inline] {
        for source in ["src", "tests"] {
            let base = root().join(folder).join(source).join(modules.join("/"));
            for file in [base.with_extension("rs"), base.join("mod.rs")] {
                if !modules.is_empty() && file.is_file() {
                    files.push(file);
                }
            }
        }
    }
    match files.is_empty() {
        true => Err(format!("{test}: no such module")),
        false => Ok((files, name)),
    }
}

/// Checks that a test, and not only a function, with that name exists.
pub(crate) fn check(test: &str) -> Result<(), String> {
    let (files, name) = files_of(test)?;
    let errors = files.iter().map_while(|file| check_in(file, test, name).err());
    let errors: Vec<String> = errors.collect();
    if errors.len() < files.len() { Ok(()) } else { Err(errors.join("; ")) }
}

fn check_in(file: &Path, test: &str, name: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{test}: {error}"))?;
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let at = lines.iter().position(|line| line.starts_with(&head));
    let at = at.ok_or_else(|| format!("{test}: not in {}", file.display()))?;
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    match attributes.copied().any(|line| line == "#[test]") {
        true => Ok(()),
        false => Err(format!("{test}: no test")),
    }
}

/// The tables, each with its points.
fn tables() -> [(Vec<Row>, BTreeSet<String>); 2] {
    let (iomap, journal) = (rows("iomap-points.md"), rows("journal-points.md"));
    [(iomap, points()), (journal, points_of_the_journal())]
}

#[test]
fn every_point_has_a_row_and_every_row_a_point() {
    for (rows, points) in tables() {
        let rows: BTreeSet<_> = rows.into_iter().map(|row| row.point).collect();
        assert_eq!(points.difference(&rows).collect::<Vec<_>>(), [""; 0], "points without a row");
        assert_eq!(rows.difference(&points).collect::<Vec<_>>(), [""; 0], "rows without a point");
    }
}

#[test]
fn every_test_of_the_tables_exists() {
    for (rows, _) in tables() {
        let built = rows.iter().filter(|row| format!("`{}`", row.test) != NOT_YET);
        let failed: Vec<_> = built.filter_map(|row| check(&row.test).err()).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

#[test]
fn missing_proof_is_detected() {
    for (test, why) in [
        ("nvio_iomap::tests::simple::no_such_test", "not in"),
        ("nvio_iomap::tests::nowhere::a_test", "no such module"),
        ("nvio_nothing::tests::a_test", "no crate"),
        ("alone", "no crate::path"),
        ("nvio_iomap::tests::simple::reason_of", "no test"),
    ] {
        let error = check(test).unwrap_err();
        assert!(error.contains(why), "{test}: {error}");
    }
    check("nvio_iomap::contract::iter::tests::no_progress_ends_the_walk_without_an_error").unwrap();
}
