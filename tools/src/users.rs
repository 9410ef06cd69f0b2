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

/// Finds the name for a number. Both files have a line for each entry, with the name in the first
/// field and the number in the third.
fn name_in(file: &[u8], id: u32) -> Option<String> {
    file.split(|&byte| byte == b'\n').find_map(|line| {
        let mut parts = line.split(|&byte| byte == b':');
        let (name, number) = (parts.next()?, parts.nth(1)?);
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        (number == id).then(|| crate::name::escaped(name))
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
        assert_eq!(user(0).as_deref(), Some("root"));
    }
}
