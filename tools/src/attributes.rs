//! Extended attributes and access control lists, as text and as JSON.

use std::collections::HashSet;

use nvio::Volume;
use nvio_ext4::{Acl, Inode, Xattr};

use crate::error::{Error, Failures};
use crate::name;
use crate::record::Record;

/// The extended attributes and access control lists of an inode.
pub struct Attributes {
    xattrs: Vec<Xattr>,
    acl: Option<Acl>,
    default_acl: Option<Acl>,
}

impl Attributes {
    /// Reads the attributes of `inode`, found at `path`. Those that are damaged are left out, and
    /// each damage is reported once.
    pub fn read(volume: &Volume, path: &[u8], inode: &Inode, failures: &mut Failures) -> Self {
        let filesystem = volume.filesystem();
        let (mut xattrs, mut errors) = (Vec::new(), Vec::new());
        match filesystem.xattrs(inode) {
            Ok(all) => all.for_each(|xattr| match xattr {
                Ok(xattr) => xattrs.push(xattr),
                Err(error) => errors.push(error),
            }),
            Err(error) => errors.push(error),
        }
        let mut list = |list: Result<Option<Acl>, nvio_ext4::Error>| {
            list.unwrap_or_else(|error| {
                errors.push(error);
                None
            })
        };
        let (acl, default_acl) = (list(filesystem.acl(inode)), list(filesystem.default_acl(inode)));
        let mut reported = HashSet::new();
        for error in errors {
            // A damaged block fails for the attributes and for the lists.
            if reported.insert(error.to_string()) {
                failures.report(&Error::path(path)(error));
            }
        }
        Self { xattrs, acl, default_acl }
    }

    /// Adds `xattrs` to a JSON object, and the access control lists as `acl` and `default_acl` if
    /// there are any.
    pub fn add_to(&self, record: &mut Record) {
        record.json("xattrs", entries(&self.xattrs));
        for (key, acl) in [("acl", &self.acl), ("default_acl", &self.default_acl)] {
            if let Some(acl) = acl {
                let lines = acl.entries().iter().map(ToString::to_string);
                record.json(key, lines.collect::<Vec<String>>());
            }
        }
    }

    /// Lines of a heading and a value: access control lists as getfacl prints them, other
    /// attributes as getfattr does.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        for (heading, acl) in [("Acl", &self.acl), ("Default", &self.default_acl)] {
            let entries = acl.iter().flat_map(Acl::entries);
            lines.extend(entries.map(|entry| (heading, entry.to_string())));
        }
        let is_list = |name: &[u8]| name.starts_with(b"system.posix_acl_");
        for Xattr { name, value } in self.xattrs.iter().filter(|xattr| !is_list(&xattr.name)) {
            lines.push(("Xattr", format!("{}={}", name::escaped(name), shown(value))));
        }
        lines
    }
}

fn entries(xattrs: &[Xattr]) -> Vec<Record> {
    let entry = |Xattr { name, value }: &Xattr| {
        let mut entry = Record::default();
        entry.json_bytes("name", name);
        entry.json_bytes("value", value);
        entry
    };
    xattrs.iter().map(entry).collect()
}

/// Formats a value for setfattr: in quotes if it is text, else as a hexadecimal number.
fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.chars().all(name::is_plain) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        _ => format!("0x{}", name::hex(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_setfattr_takes_them() {
        assert_eq!(shown(b"text/plain"), "\"text/plain\"");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a\\b\"c"), "\"a\\\\b\\\"c\"");
        assert_eq!(shown(b"line\n"), "0x6c696e650a");
        assert_eq!(shown(&[1, 0, 0xff]), "0x0100ff");
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_in_hexadecimal_too() {
        let xattr =
            |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
        let list = [xattr(b"user.a", b"text"), xattr(b"user.\xff", &[0xfe, 0])];
        let json = serde_json::to_value(entries(&list)).unwrap();
        assert_eq!(json[0], serde_json::json!({ "name": "user.a", "value": "text" }));
        assert_eq!(
            json[1],
            serde_json::json!({
                "name": "user.\u{fffd}", "name_hex": "757365722eff",
                "value": "\u{fffd}\0", "value_hex": "fe00",
            })
        );
    }
}
