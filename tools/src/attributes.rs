//! Extended attributes and access control lists, as text and as JSON.

use nvio::Volume;
use nvio_ext4::{Acl, Inode, Xattr};

use crate::error::Error;
use crate::name;
use crate::record::Record;

/// The extended attributes and access control lists of an inode.
pub struct Attributes {
    xattrs: Vec<Xattr>,
    acl: Option<Acl>,
    default_acl: Option<Acl>,
}

impl Attributes {
    /// Reads the attributes of `inode`, found at `path`.
    ///
    /// # Errors
    /// If the attributes are damaged.
    pub fn read(volume: &Volume, path: &[u8], inode: &Inode) -> Result<Self, Error> {
        let filesystem = volume.filesystem();
        let read = || {
            Ok(Self {
                xattrs: filesystem.xattrs(inode)?.collect::<Result<_, _>>()?,
                acl: filesystem.acl(inode)?,
                default_acl: filesystem.default_acl(inode)?,
            })
        };
        read().map_err(Error::path(path))
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
