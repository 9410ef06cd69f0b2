//! Fields of Identify structures: names, titles, values, and the meaning of values.

use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::name::hex;
use crate::record::Record;

/// The fields of a structure in the order of the specification, each with its name there.
#[derive(Default)]
pub struct Fields(Vec<(&'static str, Record)>);

/// A JSON object whose keys are the names of the specification in lower case.
impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_map(self.0.iter().map(|(name, field)| (name.to_ascii_lowercase(), field)))
    }
}

impl Fields {
    /// Adds a number without an explanation.
    pub fn number(&mut self, name: &'static str, title: &'static str, value: impl Into<u128>) {
        self.push(name, title, value.into(), Vec::new());
    }

    /// Adds a number and its meaning.
    pub fn meaning(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Into<u128>,
        meaning: impl Into<String>,
    ) {
        self.push(name, title, value.into(), vec![meaning.into()]);
    }

    /// Adds a 0's based number and its unit.
    pub fn zeroes_based(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Into<u64>,
        unit: &str,
    ) {
        let value = value.into();
        self.meaning(name, title, value, format!("{} {unit}", value.saturating_add(1)));
    }

    /// Adds text.
    pub fn text(&mut self, name: &'static str, title: &'static str, text: String) {
        self.push(name, title, text, Vec::new());
    }

    /// Adds an identifier in hexadecimal; zero means that there is none.
    pub fn identifier(&mut self, name: &'static str, title: &'static str, bytes: &[u8]) {
        self.text(name, title, identifier(bytes).unwrap_or_else(|| "-".to_owned()));
    }

    /// Adds a bit field, with the meaning of each set bit. Bits without a name are shown by number.
    pub fn bits(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Into<u64>,
        names: &[(u8, &'static str)],
    ) {
        let value = value.into();
        self.push(name, title, value, meanings(value, names));
    }

    /// Adds a bit field in which the bits of `mask` are a number, with the meaning `number`.
    pub fn bits_and_number(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Into<u64>,
        names: &[(u8, &'static str)],
        (mask, number): (u64, String),
    ) {
        let value = value.into();
        let mut meaning = meanings(value & !mask, names);
        meaning.push(number);
        self.push(name, title, value, meaning);
    }

    fn push(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Display + Serialize + 'static,
        meaning: Vec<String>,
    ) {
        let mut field = Record::default();
        field.text("  FIELD", format!("  {name}"));
        field.value("VALUE", "value", value);
        field.value("", "title", title);
        field.text("MEANING", meaning.join(", "));
        if !meaning.is_empty() {
            field.json("meaning", meaning);
        }
        self.0.push((name, field));
    }

    /// Formats a line for each field.
    pub fn table(&self) -> String {
        Record::table(self.0.iter().map(|(_, field)| field), &[])
    }
}

/// Returns the meanings of the bits that are set.
fn meanings(value: u64, names: &[(u8, &str)]) -> Vec<String> {
    let is_set = |bit: u8| value >> bit & 1 != 0;
    let named = names.iter().filter(|(bit, _)| is_set(*bit));
    let mut meanings: Vec<String> = named.map(|(_, text)| (*text).to_owned()).collect();
    let is_named = |bit: u8| names.iter().any(|(named, _)| *named == bit);
    let rest = (0..64).filter(|&bit| is_set(bit) && !is_named(bit));
    meanings.extend(rest.map(|bit| format!("bit {bit}")));
    meanings
}

/// Returns an identifier of a namespace in hexadecimal, or `None` if it is zero.
pub fn identifier(bytes: &[u8]) -> Option<String> {
    let is_set = bytes.iter().any(|&byte| byte != 0);
    is_set.then(|| hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_without_a_name_are_shown() {
        let mut fields = Fields::default();
        fields.bits("ONCS", "commands", 0b1_0101u16, &[(0, "Compare"), (1, "no"), (2, "DSM")]);
        fields.bits("ALL", "all", u64::MAX, &[]);
        fields.zeroes_based("ACL", "abort limit", u64::MAX, "commands");
        let json = serde_json::to_value(&fields).unwrap();
        assert_eq!(json["oncs"]["value"], 21);
        assert_eq!(json["oncs"]["meaning"], serde_json::json!(["Compare", "DSM", "bit 4"]));
        assert_eq!(json["all"]["meaning"].as_array().unwrap().len(), 64);
        assert_eq!(json["acl"]["meaning"][0], format!("{} commands", u64::MAX));
        assert!(fields.table().contains("Compare, DSM, bit 4"));
    }
}
