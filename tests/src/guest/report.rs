//! The report of the guest's script.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sys::Extent;

/// The texts that the guest's script has reported, by name.
#[derive(Debug)]
pub struct Report {
    sections: BTreeMap<String, String>,
}

/// The result of a command in the guest.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Standard output.
    pub stdout: &'a str,
    /// Standard error.
    pub stderr: &'a str,
    /// Exit code.
    pub code: i32,
}

impl Report {
    /// Parses a report. Lines of a section are indented by one space, so that no text can end it.
    pub(super) fn parse(report: &str) -> Self {
        let mut sections = BTreeMap::new();
        let mut open: Option<(String, String)> = None;
        for line in report.lines() {
            if let Some(text) = line.strip_prefix(' ') {
                let (_, content) = open.as_mut().expect("text is inside a section");
                content.push_str(text);
                content.push('\n');
            } else if let Some(name) = line.strip_prefix("section ") {
                open = Some((name.to_owned(), String::new()));
            } else if line.starts_with("end ") {
                sections.extend(open.take());
            }
        }
        Self { sections }
    }

    /// Adds a text of the host.
    pub(super) fn add(&mut self, name: &str, text: String) {
        self.sections.insert(name.to_owned(), text);
    }

    /// Returns true if there is a text `name`.
    pub fn has(&self, name: &str) -> bool {
        self.sections.contains_key(name)
    }

    /// Returns the text `name`.
    pub fn text(&self, name: &str) -> &str {
        self.sections.get(name).unwrap_or_else(|| panic!("the guest reported no {name}"))
    }

    /// Returns the result of the command `name`.
    pub fn outcome(&self, name: &str) -> Outcome<'_> {
        let code = self.text(&format!("{name}.code")).trim().parse().expect("an exit code");
        Outcome { stdout: self.text(name), stderr: self.text(&format!("{name}.stderr")), code }
    }

    /// Returns the results of all commands, by name.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, Outcome<'_>)> {
        self.sections
            .keys()
            .filter_map(|key| key.strip_suffix(".code"))
            .map(|name| (name, self.outcome(name)))
    }

    /// Returns the standard output of the command `name`, which must have succeeded.
    pub fn stdout(&self, name: &str) -> &str {
        let outcome = self.outcome(name);
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Returns the JSON output of the command `name`.
    pub fn json(&self, name: &str) -> Value {
        let stdout = self.stdout(name);
        serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{name}: {error}: {stdout}"))
    }
}

/// Parses the extents in the output of `filefrag -v`, which counts in blocks.
pub fn filefrag(text: &str) -> Vec<Extent> {
    // "File size of FILE is N (N blocks of 4096 bytes)"
    let block = text.split(" of ").last().and_then(|rest| rest.split(' ').next());
    let block: u64 = block.and_then(|size| size.parse().ok()).expect("a block size");
    let mut extents = Vec::new();
    for line in text.lines() {
        // "ext: logical..end: physical..end: length: expected: flags"; "expected:" may be missing.
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if fields.len() < 5 || fields[0].parse::<u32>().is_err() {
            continue;
        }
        let start = |field: &str| -> u64 {
            field.split("..").next().and_then(|text| text.parse().ok()).expect("a block number")
        };
        let flags: Vec<&str> = fields[fields.len() - 1].split(',').collect();
        extents.push(Extent {
            logical: start(fields[1]) * block,
            physical: start(fields[2]) * block,
            length: fields[3].parse::<u64>().expect("a length") * block,
            unwritten: flags.contains(&"unwritten"),
            inline: false,
            last: flags.contains(&"last"),
        });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_apart() {
        let report = Report::parse("section a\n one\n end a\nend a\nsection b\nend b\n");
        assert_eq!(report.text("a"), "one\nend a\n");
        assert_eq!(report.text("b"), "");
        assert!(!report.sections.contains_key("c"));
    }

    #[test]
    fn an_unfinished_section_is_no_section() {
        assert!(Report::parse("section a\n one\n").sections.is_empty());
    }

    #[test]
    fn filefrag_lines_are_read() {
        let text = "Filesystem type is: ef53\n\
            File size of f of mine is 163840 (40 blocks of 1024 bytes)\n \
            ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
            0:       16..      18:        112..       114:      3:         16:\n   \
            1:       40..      40:         36..        36:      1:             last,unwritten,eof\n\
            f: 2 extents found\n";
        let extent = |logical, physical, length, end| Extent {
            logical,
            physical,
            length,
            unwritten: end,
            inline: false,
            last: end,
        };
        assert_eq!(
            filefrag(text),
            [
                extent(16 << 10, 112 << 10, 3 << 10, false),
                extent(40 << 10, 36 << 10, 1 << 10, true)
            ]
        );
    }
}
