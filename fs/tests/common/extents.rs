//! Extents of files according to the kernel.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::run;

/// Logical block, physical block, number of blocks, unwritten.
pub type Record = (u64, u64, u64, bool);

/// Joins adjacent extents, because the kernel joins those in its cache.
pub fn join(records: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for record in records {
        match joined.last_mut() {
            Some(last)
                if last.0 + last.2 == record.0
                    && last.1 + last.2 == record.1
                    && last.3 == record.3 =>
            {
                last.2 += record.2;
            }
            _ => joined.push(record),
        }
    }
    joined
}

/// Returns the extents of each file, from the output of filefrag -v.
pub fn filefrag(paths: &[PathBuf]) -> Vec<Vec<Record>> {
    let mut arguments = vec!["-v"];
    let dir = tempfile::tempdir().unwrap();
    // Links with plain names, because filefrag prints the names.
    let links: Vec<PathBuf> =
        (0..paths.len()).map(|index| dir.path().join(index.to_string())).collect();
    for (link, path) in links.iter().zip(paths) {
        symlink(path, link).unwrap();
    }
    arguments.extend(links.iter().map(|link| link.to_str().unwrap()));
    let output = String::from_utf8(run("filefrag", &arguments)).unwrap();
    let mut files: Vec<Vec<Record>> = Vec::new();
    for line in output.lines() {
        if line.starts_with("File size of ") {
            files.push(Vec::new());
        }
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if fields.len() < 4 || fields[0].parse::<u64>().is_err() {
            continue;
        }
        let start = |range: &str| range.split("..").next().unwrap().trim().parse::<u64>().unwrap();
        let unwritten = line.contains("unwritten");
        let record = (start(fields[1]), start(fields[2]), fields[3].parse().unwrap(), unwritten);
        files.last_mut().unwrap().push(record);
    }
    assert_eq!(files.len(), paths.len(), "{output}");
    files
}
