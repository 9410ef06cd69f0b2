//! Names of the users and groups of this machine.

use std::fs;

/// Returns the name of a user in /etc/passwd. Other user databases are not read.
pub fn user(id: u32) -> Option<String> {
    name_in(&fs::read("/etc/passwd").ok()?, id)
}

/// Returns the name of a group in /etc/group. Other group databases are not read.
pub fn group(id: u32) -> Option<String> {
    name_in(&fs::read("/etc/group").ok()?, id)
}

/// Returns the number of a user in /etc/passwd.
pub fn user_id(name: &str) -> Option<u32> {
    id_in(&fs::read("/etc/passwd").ok()?, name)
}

/// Returns the number of a group in /etc/group.
pub fn group_id(name: &str) -> Option<u32> {
    id_in(&fs::read("/etc/group").ok()?, name)
}

/// Finds the name for a number.
fn name_in(file: &[u8], id: u32) -> Option<String> {
    let name = entries(file).find(|&(_, number)| number == id)?.0;
    Some(crate::name::escaped(name))
}

/// Finds the number for a name.
fn id_in(file: &[u8], name: &str) -> Option<u32> {
    entries(file).find(|&(known, _)| known == name.as_bytes()).map(|(_, number)| number)
}

/// Returns names and numbers. Both files have a line for each entry, with the name in the first
/// field and the number in the third.
fn entries(file: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    file.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut parts = line.split(|&byte| byte == b':');
        let (name, number) = (parts.next()?, parts.nth(1)?);
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((name, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds() {
        let file = b"# comment\nroot:x:0:0:root:/root:/bin/sh\nbad:x:none:\n+\nmail:x:8:\n";
        assert_eq!(name_in(file, 0).as_deref(), Some("root"));
        assert_eq!(name_in(file, 8).as_deref(), Some("mail"));
        assert_eq!(name_in(file, 1), None);
        assert_eq!((id_in(file, "mail"), id_in(file, "bad")), (Some(8), None));
        assert_eq!(user(0).as_deref(), Some("root"));
    }
}
