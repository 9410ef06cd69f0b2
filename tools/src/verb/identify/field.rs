//! Fields of Identify structures: names, titles, values, and the meaning of values.

use serde::{Serialize, Serializer};

use crate::table::Table;

/// The fields of a structure in the order of the specification.
#[derive(Default)]
pub struct Fields(Vec<Field>);

struct Field {
    /// The name in the specification.
    name: &'static str,
    title: &'static str,
    value: Value,
    meaning: Vec<String>,
}

/// A value in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Value {
    Number(u128),
    Text(String),
}

/// A field in JSON.
#[derive(Serialize)]
struct Entry<'a> {
    title: &'static str,
    value: &'a Value,
    /// The meaning of the value, bit by bit for bit fields.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    meaning: &'a [String],
}

/// A JSON object whose keys are the names of the specification in lower case.
impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|Field { name, title, value, meaning }| {
            (name.to_ascii_lowercase(), Entry { title, value, meaning })
        }))
    }
}

impl Fields {
    /// Adds a number without an explanation.
    pub fn number(&mut self, name: &'static str, title: &'static str, value: impl Into<u128>) {
        self.push(name, title, Value::Number(value.into()), Vec::new());
    }

    /// Adds a number and its meaning.
    pub fn meaning(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: impl Into<u128>,
        meaning: impl Into<String>,
    ) {
        self.push(name, title, Value::Number(value.into()), vec![meaning.into()]);
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

    /// Adds text, or bytes in hexadecimal.
    pub fn text(&mut self, name: &'static str, title: &'static str, text: String) {
        self.push(name, title, Value::Text(text), Vec::new());
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
        let is_set = |bit: u8| value >> bit & 1 != 0;
        let named = names.iter().filter(|(bit, _)| is_set(*bit));
        let mut meaning: Vec<String> = named.map(|(_, text)| (*text).to_owned()).collect();
        let is_named = |bit: u8| names.iter().any(|(named, _)| *named == bit);
        let rest = (0..64).filter(|&bit| is_set(bit) && !is_named(bit));
        meaning.extend(rest.map(|bit| format!("bit {bit}")));
        self.push(name, title, Value::Number(value.into()), meaning);
    }

    /// Adds a meaning to the last field.
    pub fn also(&mut self, meaning: String) {
        if let Some(field) = self.0.last_mut() {
            field.meaning.push(meaning);
        }
    }

    fn push(
        &mut self,
        name: &'static str,
        title: &'static str,
        value: Value,
        meaning: Vec<String>,
    ) {
        self.0.push(Field { name, title, value, meaning });
    }

    /// Formats a line for each field.
    pub fn table(&self) -> String {
        let mut table = Table::new(&["  FIELD", "VALUE", "", "MEANING"], &[]);
        for Field { name, title, value, meaning } in &self.0 {
            let value = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => text.clone(),
            };
            table.row([format!("  {name}"), value, (*title).to_owned(), meaning.join(", ")]);
        }
        table.render()
    }
}

/// Returns an identifier of a namespace in hexadecimal, or `None` if it is zero.
pub fn identifier(bytes: &[u8]) -> Option<String> {
    let is_set = bytes.iter().any(|&byte| byte != 0);
    is_set.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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
