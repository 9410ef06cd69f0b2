//! The report of `demo`.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::check::{CLASSES, Difference, Findings, Tally};
use crate::name;
use crate::record::Record;

/// Describes the findings as JSON and as text. `image` is the path of the image, if it was kept.
pub fn report(
    findings: Findings,
    resets: u64,
    lba_size: u32,
    image: Option<PathBuf>,
) -> (Record, String) {
    let total = findings.classes.iter().fold(Tally::default(), |sum, class| Tally {
        files: sum.files + class.files,
        bytes: sum.bytes + class.bytes,
        commands: sum.commands + class.commands,
        time: sum.time + class.time,
    });
    let classes = CLASSES.iter().zip(&findings.classes);
    let classes: Vec<Record> = classes.map(|((name, _), tally)| class(name, tally)).collect();
    let total_class = class("all", &total);
    let mut text = Record::table(classes.iter().chain([&total_class]), &[1, 2, 3, 4, 5, 6]);
    let differences: Vec<Record> = findings.first.iter().map(difference).collect();
    text.extend(differences.iter().map(|difference| difference.render("", 0)));
    if resets > 0 {
        text += &format!("FAILED: the controller had to be reset: {resets} times\n");
    }
    if let Some(image) = &image {
        text += &format!("The image is {}\n", image.display());
    }
    let Findings { directories, symlinks, differences: count, .. } = findings;
    text += &match differences.first() {
        None => format!(
            "All {} files ({}) match, and so do {directories} directories and {symlinks} symbolic \
             links.\n",
            total.files,
            HumanBytes(total.bytes)
        ),
        Some(first) => {
            format!("MISMATCH: {count} paths differ; the first is {}", first.render("", 0))
        }
    };
    let mut report = Record::default();
    report.json("matched", count == 0);
    report.json("lba_size", lba_size);
    report.json("total", total_class);
    report.json("classes", classes);
    report.json("directories", directories);
    report.json("symlinks", symlinks);
    report.json("differences", count);
    report.json("first_differences", differences);
    report.json("unrequested_resets", resets);
    report.json("image", image.map(|path| path.display().to_string()));
    (report, text)
}

fn class(name: &'static str, tally: &Tally) -> Record {
    let &Tally { files, bytes, commands, time } = tally;
    let (iops, bandwidth) = (per_second(commands, time), per_second(bytes, time));
    let seconds = time.as_secs_f64();
    let mut class = Record::default();
    class.value("FILES OF", "class", name);
    class.value("FILES", "files", files);
    class.field("BYTES", "bytes", HumanBytes(bytes).to_string(), bytes);
    class.field("TIME", "seconds", format!("{seconds:.3} s"), seconds);
    class.value("COMMANDS", "commands", commands);
    class.field("IOPS", "iops", HumanCount(iops).to_string(), iops);
    let text = format!("{}/s", HumanBytes(bandwidth));
    class.field("BANDWIDTH", "bytes_per_second", text, bandwidth);
    class
}

fn difference(found: &Difference) -> Record {
    let Difference { path, what } = found;
    let mut record = Record::default();
    record.text(format!("{}: ", name::escaped(path)), what.as_str());
    record.json_bytes("path", path);
    record.json("what", what.clone());
    record
}

fn per_second(count: u64, time: Duration) -> u64 {
    let nanoseconds = time.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_a_mismatch() {
        let mut findings = Findings::default();
        findings.classes[1] =
            Tally { files: 2, bytes: 3000, commands: 4, time: Duration::from_millis(2) };
        let (json, text) = report(findings, 0, 512, None);
        assert!(text.contains("All 2 files (2.93 KiB) match"), "{text}");
        assert!(text.contains("2,000") && text.contains("1.43 MiB/s"), "{text}");
        let json = serde_json::to_value(&json).unwrap();
        assert_eq!(json["total"]["iops"], 2000);
        assert_eq!(json["matched"], true);
        let what = "byte 7 differs".to_owned();
        let first = vec![Difference { path: b"/a\nb".to_vec(), what }];
        let findings = Findings { differences: 1, first, ..Findings::default() };
        let (json, text) = report(findings, 0, 512, None);
        let json = serde_json::to_value(&json).unwrap();
        assert_eq!((&json["matched"], &json["differences"]), (&false.into(), &1.into()));
        assert_eq!(json["first_differences"][0]["path"], "/a\nb");
        let last = text.lines().last().unwrap().to_owned();
        assert_eq!(last, "MISMATCH: 1 paths differ; the first is /a\\nb: byte 7 differs");
    }
}
