//! Comparison of the command's output on an image with the expected tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::node::{Node, Tree};
use crate::nvio;
use crate::sys::Xattrs;
use crate::view::{self, View};

const MIB: u64 = 1 << 20;
/// Maximum number of paths that are passed to `stat` and `map`.
const ASKED: usize = 40;
/// Number of files that are passed to `cat`, each separately.
const CAT: usize = 3;

/// The command on one image.
pub struct Command {
    image: OsString,
    /// Options that describe the device, for each verb.
    options: Vec<OsString>,
}

impl Command {
    /// Prepares the command for `image` on a device of blocks of `lba_size` bytes, and for an
    /// external journal.
    pub fn new(image: &Path, journal: Option<&Path>, lba_size: u32) -> Self {
        let mut options = vec!["--lba-size".into(), lba_size.to_string().into()];
        options.extend(journal.into_iter().flat_map(|path| ["--journal".into(), path.into()]));
        Self { image: image.into(), options }
    }

    /// Compares `nvio ls -lR --json`.
    pub fn listing(&self, expected: &Tree) -> Result<Vec<String>, String> {
        let document = self.json("ls", &[b"/"], &["-l", "-R"])?;
        let entry = |(path, node): (&Vec<u8>, &Node)| (path.clone(), node.entry.clone());
        let all = expected.iter().filter(|(path, _)| !path.is_empty());
        let expected: View = all.map(entry).collect();
        Ok(view::differences(&expected, &view::of_json(&document)))
    }

    /// Compares `nvio stat --json` and `nvio map --json` of some paths, and `nvio cat` of some
    /// files.
    pub fn paths(&self, expected: &Tree) -> Result<Vec<String>, String> {
        let stride = expected.len().div_ceil(ASKED).max(1);
        let asked: Vec<_> = expected.iter().step_by(stride).collect();
        let mut lines = Vec::new();

        let answers = self.answers("stat", &asked)?;
        for ((path, node), answer) in asked.iter().zip(&answers) {
            for line in stat(node, answer) {
                lines.push(format!("stat /{}: {line}", path.escape_ascii()));
            }
        }
        let with_extents = |(_, node): &(&Vec<u8>, &Node)| node.extents.is_some();
        let mapped: Vec<_> = asked.iter().copied().filter(with_extents).collect();
        for ((path, node), answer) in mapped.iter().zip(&self.answers("map", &mapped)?) {
            let found = view::joined(&view::extents_of_json(answer));
            let expected = view::joined(node.extents.as_deref().unwrap_or_default());
            if found != expected {
                let path = path.escape_ascii();
                lines.push(format!("map /{path}: expected {expected:?}, found {found:?}"));
            }
        }
        let is_plain =
            |(_, node): &(&Vec<u8>, &Node)| node.entry.is_file() && node.entry.size < 9 * MIB;
        let mut files: Vec<_> = asked.into_iter().filter(is_plain).collect();
        files.sort_by_key(|(_, node)| std::cmp::Reverse(node.entry.size));
        for (path, node) in files.into_iter().take(CAT) {
            let bytes = self.output("cat", &[&rooted(path)], &[])?;
            if Some(view::digest_of(&bytes)) != node.digest {
                lines.push(format!("cat /{}: {} bytes", path.escape_ascii(), bytes.len()));
            }
        }
        Ok(lines)
    }

    fn answers(&self, verb: &str, asked: &[(&Vec<u8>, &Node)]) -> Result<Vec<Value>, String> {
        let paths: Vec<Vec<u8>> = asked.iter().map(|(path, _)| rooted(path)).collect();
        let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let document = match paths.len() {
            0 => return Ok(Vec::new()),
            1 => Value::Array(vec![self.json(verb, &paths, &[])?]),
            _ => self.json(verb, &paths, &[])?,
        };
        let answers = document.as_array().cloned().unwrap_or_default();
        match answers.len() == asked.len() {
            true => Ok(answers),
            false => Err(format!("{verb}: {} answers to {} paths", answers.len(), asked.len())),
        }
    }

    /// Compares a copy of the whole tree by `nvio cp -r` to `copy`.
    pub fn copy(&self, expected: &Tree, copy: &Path) -> Result<Vec<String>, String> {
        let args = ["cp".into(), "-r".into(), self.image.clone(), OsString::from("/"), copy.into()];
        let output = nvio::run(args.iter().chain(&self.options));
        if !output.status.success() {
            return Err(format!("cp -r: {}", String::from_utf8_lossy(&output.stderr)));
        }
        // The first path of each inode, because hard links are copied as one file or as several.
        let mut digests = BTreeMap::new();
        let mut lines = Vec::new();
        for (path, node) in expected.iter().filter(|(path, _)| !path.is_empty()) {
            let name = path.escape_ascii();
            let host = view::join(copy, path);
            let Ok(metadata) = host.symlink_metadata() else {
                lines.push(format!("cp -r: /{name}: not copied"));
                continue;
            };
            let times = (metadata.mtime(), metadata.mtime_nsec());
            let (seconds, nanoseconds) = node.entry.mtime;
            let wanted = (seconds, i64::from(nanoseconds));
            if metadata.mode() != node.entry.mode || times != wanted {
                let mode = metadata.mode();
                lines
                    .push(format!("cp -r: /{name}: mode {mode:o}, times {times:?} not {wanted:?}"));
            }
            if let Some(target) = &node.entry.target
                && fs::read_link(&host).ok().map(|found| found.into_os_string().into_vec()).as_ref()
                    != Some(target)
            {
                lines.push(format!("cp -r: /{name}: target"));
            }
            if let Some(digest) = &node.digest {
                let found = digests.entry(metadata.ino()).or_insert_with(|| {
                    view::digest(&host).unwrap_or_else(|error| error.to_string())
                });
                if found != digest {
                    lines.push(format!("cp -r: /{name}: content"));
                }
                let extents = node.extents.as_deref().unwrap_or_default();
                let data = extents.iter().filter(|extent| !extent.unwritten);
                let data: u64 = data.map(|extent| extent.length).sum();
                // With a margin for the host's own block size and extent blocks.
                if metadata.blocks() * 512 > 2 * data + 2 * MIB {
                    lines.push(format!(
                        "cp -r: /{name}: {} blocks: holes filled",
                        metadata.blocks()
                    ));
                }
            }
        }
        Ok(lines)
    }

    /// Checks that the image is rejected with one line that contains all of `words`.
    pub fn refused(&self, words: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        for verb in ["ls", "stat"] {
            let output = nvio::run([OsStr::new(verb), &self.image, OsStr::new("/")]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let all = words.iter().all(|word| stderr.contains(word));
            if output.status.code() != Some(1) || !output.stdout.is_empty() || !all {
                lines.push(format!("{verb}: {}, no {words:?} in: {stderr}", output.status));
            }
            if stderr.lines().count() != 1 {
                lines.push(format!("{verb}: not one line: {stderr}"));
            }
        }
        lines
    }

    fn json(&self, verb: &str, paths: &[&[u8]], flags: &[&str]) -> Result<Value, String> {
        let stdout = self.output(verb, paths, &[flags, &["--json"]].concat())?;
        serde_json::from_slice(&stdout).map_err(|error| format!("{verb}: no JSON: {error}"))
    }

    fn output(&self, verb: &str, paths: &[&[u8]], flags: &[&str]) -> Result<Vec<u8>, String> {
        let mut args = vec![OsString::from(verb), self.image.clone()];
        args.extend_from_slice(&self.options);
        args.extend(paths.iter().map(|path| OsString::from_vec(path.to_vec())));
        args.extend(flags.iter().map(OsString::from));
        let output = nvio::run(args);
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("{verb}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

fn stat(node: &Node, answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let found = view::entry_of_json(answer);
    if found != node.entry {
        lines.push(format!("expected {:?}, found {found:?}", node.entry));
    }
    if let Some(blocks) = node.blocks.filter(|&blocks| answer["blocks_512"] != blocks) {
        lines.push(format!("expected {blocks} blocks, found {}", answer["blocks_512"]));
    }
    if let Some((seconds, nanoseconds)) = node.crtime
        && (answer["crtime"]["seconds"] != seconds
            || answer["crtime"]["nanoseconds"] != nanoseconds)
    {
        lines.push(format!("expected {:?}, found creation {}", node.crtime, answer["crtime"]));
    }
    if let Some((major, minor)) = node.rdev
        && (answer["rdev"]["major"] != major || answer["rdev"]["minor"] != minor)
    {
        lines.push(format!("expected {major}:{minor}, found {}", answer["rdev"]));
    }
    if let Some(xattrs) = &node.xattrs {
        let all = answer["xattrs"].as_array().into_iter().flatten();
        let pair = |item| Some((view::bytes_of(item, "name")?, view::bytes_of(item, "value")?));
        if all.map(pair).collect::<Option<Xattrs>>().as_ref() != Some(xattrs) {
            lines.push(format!("expected {xattrs:?}, found {}", answer["xattrs"]));
        }
    }
    lines
}

fn rooted(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
