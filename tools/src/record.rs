//! Records: values that are shown as text and as JSON, each of which is written once.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::name::{escaped, hex};
use crate::output::exact_size;

type Name = Cow<'static, str>;

/// Lines of text under headings, and the entries of a JSON object.
#[derive(Default)]
pub struct Record {
    lines: Vec<(Name, Vec<u8>)>,
    json: Vec<(Name, Box<dyn erased_serde::Serialize>)>,
}

impl Record {
    /// Adds a line that JSON does not have.
    pub fn text(&mut self, heading: impl Into<Name>, text: impl Into<Vec<u8>>) {
        self.lines.push((heading.into(), text.into()));
    }

    /// Adds an entry of the JSON object that the text does not have. A second value of a key is left
    /// out.
    pub fn json(&mut self, key: impl Into<Name>, value: impl Serialize + 'static) {
        let key = key.into();
        if self.json.iter().all(|(known, _)| *known != key) {
            self.json.push((key, Box::new(value)));
        }
    }

    /// Adds a value whose text and JSON differ.
    pub fn field(
        &mut self,
        heading: impl Into<Name>,
        key: impl Into<Name>,
        text: impl Into<Vec<u8>>,
        json: impl Serialize + 'static,
    ) {
        self.text(heading, text);
        self.json(key, json);
    }

    /// Adds a value whose text and JSON are equal.
    pub fn value<T>(&mut self, heading: impl Into<Name>, key: impl Into<Name>, value: T)
    where
        T: Display + Serialize + 'static,
    {
        self.field(heading, key, value.to_string(), value);
    }

    /// Adds a value with its unit, which JSON does not have.
    pub fn unit<T>(&mut self, heading: impl Into<Name>, key: impl Into<Name>, value: T, unit: &str)
    where
        T: Display + Serialize + 'static,
    {
        self.field(heading, key, format!("{value} {unit}"), value);
    }

    /// Adds a value that may be missing: a dash in text, null in JSON.
    pub fn optional<T>(&mut self, heading: impl Into<Name>, key: impl Into<Name>, value: Option<T>)
    where
        T: Display + Serialize + 'static,
    {
        let text = value.as_ref().map_or("-".to_owned(), T::to_string);
        self.field(heading, key, text, value);
    }

    /// Adds a value that may be missing: no line of text, null in JSON.
    pub fn if_any<T>(&mut self, heading: impl Into<Name>, key: impl Into<Name>, value: Option<T>)
    where
        T: Display + Serialize + 'static,
    {
        match value {
            Some(value) => self.value(heading, key, value),
            None => self.json(key, ()),
        }
    }

    /// Adds a size in bytes, also in a larger unit as text.
    pub fn size(&mut self, heading: impl Into<Name>, key: impl Into<Name>, bytes: u64) {
        self.field(heading, key, exact_size(bytes.into()), bytes);
    }

    /// Adds untrusted bytes. JSON has them as text and, if they are not UTF-8, in hexadecimal.
    pub fn bytes(&mut self, heading: impl Into<Name>, key: impl Into<Name>, bytes: &[u8]) {
        self.text(heading, bytes);
        self.json_bytes(key, bytes);
    }

    /// Adds untrusted bytes that the text does not have, as [`bytes`](Self::bytes).
    pub fn json_bytes(&mut self, key: impl Into<Name>, bytes: &[u8]) {
        let key = key.into();
        self.json(key.clone(), String::from_utf8_lossy(bytes).into_owned());
        if std::str::from_utf8(bytes).is_err() {
            self.json(format!("{key}_hex"), hex(bytes));
        }
    }

    /// Returns the headings and the texts.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter().map(|(heading, text)| (heading.as_ref(), text.as_slice()))
    }

    /// Formats a line for each text. The headings begin after `indent` and are padded to `width`.
    pub fn render(&self, indent: &str, width: usize) -> String {
        let line = |(heading, text)| format!("{indent}{heading:width$}{}\n", escaped(text));
        self.lines().map(line).collect()
    }

    /// Formats a table with a row for each record and a column for each heading of the first. The
    /// columns in `right` are aligned to the right, and a column is as wide as its widest cell.
    pub fn table<'a, I>(records: I, right: &'static [usize]) -> String
    where
        I: IntoIterator<Item = &'a Self>,
    {
        let mut records = records.into_iter().peekable();
        let Some(first) = records.peek() else { return String::new() };
        let headings = first.lines().map(|(heading, _)| heading.to_owned()).collect();
        let mut rows: Vec<Vec<String>> = vec![headings];
        rows.extend(records.map(|record| record.lines().map(|(_, text)| escaped(text)).collect()));
        let mut widths = vec![0; rows.iter().map(Vec::len).max().unwrap_or(0)];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut table = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = |(column, (cell, &width)): (usize, (&String, &usize))| {
                if right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            };
            let line = cells.map(padded).collect::<Vec<String>>().join("  ");
            table += line.trim_end();
            table.push('\n');
        }
        table
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.json.iter().map(|(key, value)| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8], count: u128) -> Record {
        let mut record = Record::default();
        record.bytes("NAME", "name", name);
        record.value("COUNT", "count", count);
        record.optional("LIMIT", "limit", None::<u32>);
        record.if_any("NOTE", "note", Some("odd").filter(|_| count > 1));
        record
    }

    #[test]
    fn a_value_is_shown_in_both_forms() {
        let record = record(b"a\n\xff", u128::MAX);
        let lines =
            format!("  NAME   a\\n\\xff\n  COUNT  {}\n  LIMIT  -\n  NOTE   odd\n", u128::MAX);
        assert_eq!(record.render("  ", 7), lines);
        let json = format!(
            r#"{{"name":"a\n{}","name_hex":"610aff","count":{},"limit":null,"note":"odd"}}"#,
            '\u{fffd}',
            u128::MAX
        );
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
    }

    #[test]
    fn json_keeps_bytes_that_are_not_utf8() {
        let json = |bytes: &[u8]| {
            let mut record = Record::default();
            record.json_bytes("path", bytes);
            serde_json::to_string(&record).unwrap()
        };
        assert_eq!(json(b"/a\"b\n"), r#"{"path":"/a\"b\n"}"#);
        assert_eq!(json(b"/\xffz"), "{\"path\":\"/\u{fffd}z\",\"path_hex\":\"2fff7a\"}");
    }

    #[test]
    fn records_are_rows() {
        let table = Record::table(&[record(b"one", 1), record(b"eleven", 11)], &[1]);
        assert_eq!(table, "NAME    COUNT  LIMIT\none         1  -\neleven     11  -      odd\n");
        assert_eq!(Record::table(&[], &[]), "");
        let mut sizes = [("a", 1), ("ä", 12_345)].map(|(name, size)| {
            let mut record = Record::default();
            record.value("name", "name", name);
            record.value("size", "size", size);
            record
        });
        sizes[1].text("note", "ß");
        assert_eq!(Record::table(&sizes, &[1]), "name   size\na         1\nä     12345  ß\n");
    }
}
