//! Keys and values in the format of dumpe2fs, and as JSON.

use std::collections::HashSet;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::Error;
use crate::output::Output;
use crate::{name, time};
use nvio_ext4::Timestamp;

/// Column of the values.
const COLUMN: usize = 26;

/// Fields in the order in which they are printed.
#[derive(Default)]
pub struct Report {
    items: Vec<Item>,
}

struct Item {
    /// The key of dumpe2fs, without the colon.
    key: &'static str,
    shown: Shown,
}

enum Shown {
    /// A value as text and as JSON.
    Value { text: String, json: Value },
    /// Untrusted bytes, and the text for an empty value.
    Bytes { bytes: Vec<u8>, none: Option<&'static str> },
    /// Nested fields.
    Section(Vec<(&'static str, String, Value)>),
}

impl Report {
    /// Adds a value that differs between text and JSON.
    pub fn value(&mut self, key: &'static str, text: impl Into<String>, json: Value) {
        self.items.push(Item { key, shown: Shown::Value { text: text.into(), json } });
    }

    /// Adds a number.
    pub fn number(&mut self, key: &'static str, number: impl Into<u64>) {
        let number = number.into();
        self.value(key, number.to_string(), json!(number));
    }

    /// Adds a number, unless it is 0.
    pub fn nonzero(&mut self, key: &'static str, number: impl Into<u64>) {
        let number = number.into();
        if number != 0 {
            self.number(key, number);
        }
    }

    /// Adds a word or a sentence.
    pub fn word(&mut self, key: &'static str, word: impl Into<String>) {
        let word = word.into();
        self.value(key, word.clone(), Value::String(word));
    }

    /// Adds a checksum or a seed, in hexadecimal.
    pub fn hex(&mut self, key: &'static str, number: u32) {
        self.word(key, format!("{number:#010x}"));
    }

    /// Adds words: separated by blanks as text, an array in JSON.
    pub fn words(&mut self, key: &'static str, words: &[String], none: &str) {
        let text = if words.is_empty() { none.to_owned() } else { words.join(" ") };
        self.value(key, text, json!(words));
    }

    /// Adds a UUID.
    pub fn uuid(&mut self, key: &'static str, uuid: [u8; 16]) {
        let text = uuid_text(uuid);
        let json = uuid_json(uuid);
        self.value(key, text, json);
    }

    /// Adds a UUID, unless it is zero.
    pub fn uuid_if_any(&mut self, key: &'static str, uuid: [u8; 16]) {
        if uuid != [0; 16] {
            self.uuid(key, uuid);
        }
    }

    /// Adds a time: in the time zone of the machine as text, an object in JSON.
    pub fn time(&mut self, key: &'static str, at: Timestamp) {
        self.value(key, time::local(at), time_json(at));
    }

    /// Adds untrusted bytes as text, or `none` if there are none.
    pub fn bytes(&mut self, key: &'static str, bytes: &[u8], none: &'static str) {
        let none = Some(none).filter(|_| bytes.is_empty());
        self.items.push(Item { key, shown: Shown::Bytes { bytes: bytes.to_vec(), none } });
    }

    /// Adds a heading with nested fields.
    pub fn section(&mut self, key: &'static str, items: Vec<(&'static str, String, Value)>) {
        self.items.push(Item { key, shown: Shown::Section(items) });
    }

    /// Writes the lines.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn text(&self, out: &mut Output) -> Result<(), Error> {
        for Item { key, shown } in &self.items {
            let heading = heading(key);
            match shown {
                Shown::Value { text, .. } => out.line(&format!("{heading}{text}"))?,
                Shown::Bytes { bytes, none } => {
                    out.text(&heading)?;
                    out.name(none.map_or(bytes.as_slice(), str::as_bytes))?;
                    out.line("")?;
                }
                Shown::Section(items) => {
                    out.line(&format!("{key}:"))?;
                    for (key, text, _) in items {
                        out.text(&format!("    {key}: "))?;
                        out.name(text.as_bytes())?;
                        out.line("")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Formats a key and its colon up to the column of the value. Two keys of dumpe2fs have a tab.
fn heading(key: &str) -> String {
    match key {
        "Inode size" | "Journal device" => format!("{key}:\t{:10}", ""),
        _ => format!("{:COLUMN$}", format!("{key}:")),
    }
}

/// Converts a key to JSON: `First error line #` to `first_error_line`.
fn json_key(key: &str) -> String {
    let words = key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

pub fn uuid_text(uuid: [u8; 16]) -> String {
    if uuid == [0; 16] {
        return "<none>".to_owned();
    }
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

pub fn uuid_json(uuid: [u8; 16]) -> Value {
    if uuid == [0; 16] { Value::Null } else { Value::String(uuid_text(uuid)) }
}

fn time_json(time: Timestamp) -> Value {
    json!({ "seconds": time.seconds, "nanoseconds": time.nanoseconds })
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut seen = HashSet::new();
        for Item { key, shown } in &self.items {
            let key = json_key(key);
            if !seen.insert(key.clone()) {
                continue;
            }
            match shown {
                Shown::Value { json, .. } => map.serialize_entry(&key, json)?,
                Shown::Bytes { bytes, .. } => name::entry(&mut map, &key, bytes)?,
                Shown::Section(items) => {
                    let items =
                        items.iter().map(|(key, _, json)| ((*key).to_owned(), json.clone()));
                    map.serialize_entry(&key, &Value::Object(items.collect()))?;
                }
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_machines() {
        for (key, expected) in [
            ("Filesystem revision #", "filesystem_revision"),
            ("First error line #", "first_error_line"),
            ("FS Error count", "fs_error_count"),
            ("MMP_block", "mmp_block"),
        ] {
            assert_eq!(json_key(key), expected);
        }
    }

    #[test]
    fn values_line_up() {
        assert_eq!(heading("Block size"), "Block size:               ");
        assert_eq!(heading("Inode size"), "Inode size:\t          ");
        let mut uuid = [0; 16];
        assert_eq!(uuid_text(uuid), "<none>");
        uuid[15] = 0xab;
        assert_eq!(uuid_text(uuid), "00000000-0000-0000-0000-0000000000ab");
    }
}
