//! The report of `demo`.

use std::path::PathBuf;
use std::time::Duration;

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use super::check::{CLASSES, Difference, Findings, Tally};
use crate::name;
use crate::output::{human_count, human_size};
use crate::table::Table;

/// The findings, and the path of the image if it was kept.
pub struct Report {
    /// The result of the comparison.
    pub check: Findings,
    /// Resets of the controller by the driver.
    pub resets: u64,
    /// Logical block of the controller in bytes.
    pub lba_size: u32,
    /// The path of the image, if it was kept.
    pub image: Option<PathBuf>,
}

impl Tally {
    /// Commands a second.
    fn iops(&self) -> u64 {
        per_second(self.commands, self.time)
    }

    /// Returns the bandwidth in bytes a second.
    fn bandwidth(&self) -> u64 {
        per_second(self.bytes, self.time)
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let nanoseconds = time.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

impl Report {
    /// Returns true if there were no differences.
    pub fn matched(&self) -> bool {
        self.check.differences == 0
    }

    /// Returns true if everything matched and the controller never failed.
    pub fn passed(&self) -> bool {
        self.matched() && self.resets == 0
    }

    fn total(&self) -> Tally {
        self.check.classes.iter().fold(Tally::default(), |sum, class| Tally {
            files: sum.files + class.files,
            bytes: sum.bytes + class.bytes,
            commands: sum.commands + class.commands,
            time: sum.time + class.time,
        })
    }

    /// Returns the table and the closing line.
    pub fn text(&self) -> String {
        let headings = ["FILES OF", "FILES", "BYTES", "TIME", "COMMANDS", "IOPS", "BANDWIDTH"];
        let mut table = Table::new(&headings, &[1, 2, 3, 4, 5, 6]);
        let classes = CLASSES.iter().map(|(name, _)| *name).zip(self.check.classes);
        for (name, tally) in classes.chain([("all", self.total())]) {
            table.row([
                name.to_owned(),
                tally.files.to_string(),
                human_size(tally.bytes),
                format!("{:.3} s", tally.time.as_secs_f64()),
                tally.commands.to_string(),
                human_count(tally.iops()),
                format!("{}/s", human_size(tally.bandwidth())),
            ]);
        }
        let mut text = table.render();
        for Difference { path, what } in &self.check.first {
            text.push_str(&format!("{}: {}\n", name::escaped(path), name::one_line(what)));
        }
        if self.resets > 0 {
            text.push_str(&format!(
                "FAILED: the controller had to be reset: {} times\n",
                self.resets
            ));
        }
        if let Some(image) = &self.image {
            text.push_str(&format!("The image is {}\n", image.display()));
        }
        text + &self.closing() + "\n"
    }

    fn closing(&self) -> String {
        let total = self.total();
        let Findings { directories, symlinks, differences, first, .. } = &self.check;
        match first.first() {
            None => format!(
                "All {} files ({}) match, and so do {directories} directories and {symlinks} \
                 symbolic links.",
                total.files,
                human_size(total.bytes)
            ),
            Some(Difference { path, what }) => format!(
                "MISMATCH: {differences} paths differ; the first is {}: {}",
                name::escaped(path),
                name::one_line(what)
            ),
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = CLASSES.iter().map(|(name, _)| *name);
        let classes: Vec<Class> =
            names.zip(self.check.classes).map(|(name, tally)| Class { name, tally }).collect();
        let mut map = serializer.serialize_struct("Report", 10)?;
        map.serialize_field("matched", &self.matched())?;
        map.serialize_field("lba_size", &self.lba_size)?;
        map.serialize_field("total", &Class { name: "all", tally: self.total() })?;
        map.serialize_field("classes", &classes)?;
        map.serialize_field("directories", &self.check.directories)?;
        map.serialize_field("symlinks", &self.check.symlinks)?;
        map.serialize_field("differences", &self.check.differences)?;
        map.serialize_field("first_differences", &self.check.first)?;
        map.serialize_field("unrequested_resets", &self.resets)?;
        let image = self.image.as_ref().map(|path| path.display().to_string());
        map.serialize_field("image", &image)?;
        map.end()
    }
}

struct Class {
    name: &'static str,
    tally: Tally,
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("class", self.name)?;
        map.serialize_entry("files", &self.tally.files)?;
        map.serialize_entry("bytes", &self.tally.bytes)?;
        map.serialize_entry("seconds", &self.tally.time.as_secs_f64())?;
        map.serialize_entry("commands", &self.tally.commands)?;
        map.serialize_entry("iops", &self.tally.iops())?;
        map.serialize_entry("bytes_per_second", &self.tally.bandwidth())?;
        map.end()
    }
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        name::entry(&mut map, "path", &self.path)?;
        map.serialize_entry("what", &self.what)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_a_mismatch() {
        let mut report =
            Report { check: Findings::default(), resets: 0, lba_size: 512, image: None };
        report.check.classes[1] =
            Tally { files: 2, bytes: 3000, commands: 4, time: Duration::from_millis(2) };
        assert!(report.matched());
        let text = report.text();
        assert!(text.contains("All 2 files (3.00 kB) match"), "{text}");
        assert!(text.contains("2.00 k") && text.contains("1.50 MB/s"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["total"]["iops"], 2000);
        assert_eq!(json["matched"], true);
        let what = "byte 7 differs".to_owned();
        report.check.differences = 1;
        report.check.first.push(Difference { path: b"/a\nb".to_vec(), what });
        assert!(!report.matched());
        let last = report.text().lines().last().unwrap().to_owned();
        assert_eq!(last, "MISMATCH: 1 paths differ; the first is /a\\nb: byte 7 differs");
    }
}
