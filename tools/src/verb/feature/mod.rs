//! `nvio get-feature` and `nvio set-feature`.

pub mod get;
pub mod set;

use std::str::FromStr;

use nvio_driver::spec::{QueueCount, feature_id};

use crate::record::Record;
use crate::units::number;

/// Names of features whose values are decoded, and the sections of the specification: Base 5.27.1.
pub const NAMES: [(&str, u8); 11] = [
    ("arbitration", feature_id::ARBITRATION),
    ("power-management", feature_id::POWER_MANAGEMENT),
    ("temperature-threshold", feature_id::TEMPERATURE_THRESHOLD),
    ("error-recovery", feature_id::ERROR_RECOVERY),
    ("write-cache", feature_id::VOLATILE_WRITE_CACHE),
    ("queues", feature_id::NUMBER_OF_QUEUES),
    ("interrupt-coalescing", feature_id::INTERRUPT_COALESCING),
    ("interrupt-vector", feature_id::INTERRUPT_VECTOR_CONFIGURATION),
    ("write-atomicity", feature_id::WRITE_ATOMICITY_NORMAL),
    ("async-events", feature_id::ASYNC_EVENT_CONFIGURATION),
    ("keep-alive", feature_id::KEEP_ALIVE_TIMER),
];

/// A feature, by its name or its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureName(u8);

impl FromStr for FeatureName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, id)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Self(*id));
        }
        number(text).map(Self).map_err(|_| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("a feature is {}, or 0 to 255", names.join(", "))
        })
    }
}

/// Describes the value of a feature. The value comes from the controller, and may be anything.
fn described(id: u8, value: u32) -> Record {
    let mut record = Record::default();
    record.field("ID", "id", format!("{id:#04x}"), id);
    let name = NAMES.iter().find(|(_, known)| *known == id).map(|(name, _)| *name);
    record.optional("FEATURE", "name", name);
    record.field("VALUE", "value", format!("{value:#x}"), value);
    let parts = parts(id, value);
    let text: Vec<String> = parts.iter().map(|(key, text)| format!("{key} {text}")).collect();
    record.text("MEANING", text.join(", "));
    let mut fields = Record::default();
    for (key, text) in parts {
        fields.json(key.replace(' ', "_"), text);
    }
    record.json("fields", fields);
    record
}

/// Decodes a value (Base 5.27.1, NVM 4.1.3).
fn parts(id: u8, value: u32) -> Vec<(&'static str, String)> {
    let [byte_0, byte_1, byte_2, byte_3] = value.to_le_bytes();
    let low = value & 0xffff;
    let yes_no = |bit: u32| if value >> bit & 1 == 1 { "yes" } else { "no" }.to_owned();
    match id {
        feature_id::ARBITRATION => vec![
            (
                "burst",
                match byte_0 & 7 {
                    7 => "unlimited".to_owned(),
                    power => (1u32 << power).to_string(),
                },
            ),
            ("low weight", (u16::from(byte_1) + 1).to_string()),
            ("medium weight", (u16::from(byte_2) + 1).to_string()),
            ("high weight", (u16::from(byte_3) + 1).to_string()),
        ],
        feature_id::POWER_MANAGEMENT => vec![
            ("power state", (byte_0 & 0x1f).to_string()),
            ("workload hint", (byte_0 >> 5).to_string()),
        ],
        feature_id::TEMPERATURE_THRESHOLD => vec![("celsius", (i64::from(low) - 273).to_string())],
        feature_id::ERROR_RECOVERY => vec![
            (
                "retry limit",
                match low {
                    0 => "none".to_owned(),
                    units => format!("{} ms", u64::from(units) * 100),
                },
            ),
            ("errors for deallocated blocks", yes_no(16)),
        ],
        feature_id::VOLATILE_WRITE_CACHE => vec![("enabled", yes_no(0))],
        feature_id::NUMBER_OF_QUEUES => match QueueCount::from_dword(value) {
            None => Vec::new(),
            Some(QueueCount { submission, completion }) => vec![
                ("submission queues", submission.to_string()),
                ("completion queues", completion.to_string()),
            ],
        },
        feature_id::INTERRUPT_COALESCING => vec![
            ("entries", (u16::from(byte_0) + 1).to_string()),
            ("time", format!("{} us", u32::from(byte_1) * 100)),
        ],
        feature_id::INTERRUPT_VECTOR_CONFIGURATION => {
            vec![("vector", low.to_string()), ("coalescing disabled", yes_no(16))]
        }
        feature_id::WRITE_ATOMICITY_NORMAL => vec![("normal atomicity disabled", yes_no(0))],
        feature_id::ASYNC_EVENT_CONFIGURATION => vec![
            ("critical warnings", format!("{byte_0:#04x}")),
            ("notices", format!("{:#x}", value >> 8)),
        ],
        feature_id::KEEP_ALIVE_TIMER => vec![(
            "timeout",
            match value {
                0 => "none".to_owned(),
                milliseconds => format!("{milliseconds} ms"),
            },
        )],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names_and_numbers() {
        let parsed = |text: &str| text.parse::<FeatureName>();
        assert_eq!(parsed("write-cache"), Ok(FeatureName(6)));
        assert_eq!((parsed("0xc0"), parsed("17")), (Ok(FeatureName(192)), Ok(FeatureName(17))));
        for text in ["", "256", "Write-cache", "-1"] {
            assert!(parsed(text).unwrap_err().contains("queues"), "{text:?}");
        }
    }

    #[test]
    fn any_value_can_be_shown() {
        for id in 0..=u8::MAX {
            for value in [0, 1, 0xffff, 0x1_0000, u32::MAX] {
                let record = described(id, value);
                assert_eq!(record.lines().count(), 4);
                assert!(serde_json::to_string(&record).unwrap().contains("\"fields\":{"));
            }
        }
        let meaning = |id, value| {
            let record = described(id, value);
            let meaning = record.lines().last().map(|(_, text)| text.to_vec());
            String::from_utf8(meaning.unwrap()).unwrap()
        };
        assert_eq!(meaning(7, 0x0008_0003), "submission queues 4, completion queues 9");
        assert_eq!(meaning(4, 343), "celsius 70");
        assert_eq!(
            meaning(1, 0x0403_0207),
            "burst unlimited, low weight 3, medium weight 4, high weight 5"
        );
    }
}
