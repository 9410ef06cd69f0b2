//! Keys and values in the format of dumpe2fs, and as JSON.

use serde::{Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::error::Error;
use crate::output::Output;
use crate::record::Record;
use crate::time::{self, Time};
use nvio_ext4::Timestamp;

/// Column of the values.
const COLUMN: usize = 26;

/// Fields in the order in which they are printed, under the keys of dumpe2fs without the colon.
#[derive(Default)]
pub struct Report(Record);

impl Report {
    /// Adds a value that differs between text and JSON.
    pub fn value(&mut self, key: &str, text: impl Into<Vec<u8>>, json: impl Serialize + 'static) {
        self.0.field(key.to_owned(), json_key(key), text, json);
    }

    /// Adds a line of text for the key above it.
    pub fn more(&mut self, text: String) {
        self.0.text("", text);
    }

    /// Adds a number.
    pub fn number(&mut self, key: &str, number: impl Into<u64>) {
        self.0.value(key.to_owned(), json_key(key), number.into());
    }

    /// Adds a number, unless it is 0.
    pub fn nonzero(&mut self, key: &str, number: impl Into<u64>) {
        let number = number.into();
        if number != 0 {
            self.number(key, number);
        }
    }

    /// Adds a word or a sentence.
    pub fn word(&mut self, key: &str, word: impl Into<String>) {
        self.0.value(key.to_owned(), json_key(key), word.into());
    }

    /// Adds a checksum or a seed, in hexadecimal.
    pub fn hex(&mut self, key: &str, number: u32) {
        self.word(key, format!("{number:#010x}"));
    }

    /// Adds words: separated by blanks as text, an array in JSON.
    pub fn words(&mut self, key: &str, words: Vec<String>) {
        let text = if words.is_empty() { "(none)".to_owned() } else { words.join(" ") };
        self.value(key, text, words);
    }

    /// Adds a UUID.
    pub fn uuid(&mut self, key: &str, uuid: [u8; 16]) {
        self.value(key, uuid_text(uuid), uuid_json(uuid));
    }

    /// Adds a UUID, unless it is zero.
    pub fn uuid_if_any(&mut self, key: &str, uuid: [u8; 16]) {
        if uuid != [0; 16] {
            self.uuid(key, uuid);
        }
    }

    /// Adds a time: in the time zone of the machine as text, an object in JSON.
    pub fn time(&mut self, key: &str, at: Timestamp) {
        self.value(key, time::local(at), Time::from(at));
    }

    /// Adds untrusted bytes as text, or `none` if there are none.
    pub fn bytes(&mut self, key: &str, bytes: &[u8], none: &'static str) {
        match bytes.is_empty() {
            true => self.value(key, none, ""),
            false => self.0.bytes(key.to_owned(), json_key(key), bytes),
        }
    }

    /// Adds a heading with nested fields.
    pub fn section(&mut self, key: &str, fields: Record) {
        self.0.text(key.to_owned(), "");
        for (nested, text) in fields.lines() {
            self.0.text(format!("    {nested}"), text);
        }
        self.0.json(json_key(key), fields);
    }

    /// Writes the lines.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn print(&self, out: &mut Output) -> Result<(), Error> {
        for (key, text) in self.0.lines() {
            out.text(&heading(key))?;
            out.name_line(text, None)?;
        }
        Ok(())
    }
}

/// Formats a key and its colon up to the column of the value. Two keys of dumpe2fs have a tab, and
/// the values of a section follow the colon.
fn heading(key: &str) -> String {
    match key {
        "" => " ".repeat(COLUMN),
        "Inode size" | "Journal device" => format!("{key}:\t{:10}", ""),
        "MMP_block" => format!("{key}:"),
        _ if key.starts_with(' ') => format!("{key}: "),
        _ => format!("{:COLUMN$}", format!("{key}:")),
    }
}

/// Converts a key to JSON: `First error line #` to `first_error_line`.
fn json_key(key: &str) -> String {
    let words = key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

pub fn uuid_text(uuid: [u8; 16]) -> String {
    match Uuid::from_bytes(uuid) {
        uuid if uuid.is_nil() => "<none>".to_owned(),
        uuid => uuid.to_string(),
    }
}

pub fn uuid_json(uuid: [u8; 16]) -> Value {
    if uuid == [0; 16] { Value::Null } else { Value::String(uuid_text(uuid)) }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
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
