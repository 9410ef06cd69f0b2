//! Permissions as chmod(1) writes them: octal, or clauses such as `u+rw,go-x`.

use std::str::FromStr;

/// A change of the lower twelve bits of a mode.
#[derive(Clone, Debug, PartialEq)]
pub enum Permissions {
    /// All bits are replaced.
    Octal(u16),
    Clauses(Vec<Clause>),
}

/// Adds, removes or sets permissions of some classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The bits of the classes: owner, group, others.
    classes: u16,
    action: char,
    /// The permissions, in the bits of all classes.
    bits: u16,
    /// The permission to execute, where somebody has it already, or for directories (`X`).
    executes: bool,
}

impl Permissions {
    /// Returns the bits that a file or directory has after the change.
    pub fn of(&self, before: u16, is_dir: bool) -> u16 {
        let clauses = match self {
            Self::Octal(bits) => return *bits,
            Self::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(before, |mode, clause| clause.of(mode, is_dir))
    }
}

impl Clause {
    fn of(&self, mode: u16, is_dir: bool) -> u16 {
        let executes = self.executes && (is_dir || mode & 0o111 != 0);
        let bits = self.bits | if executes { 0o111 } else { 0 };
        let bits = bits & self.classes;
        match self.action {
            '+' => mode | bits,
            '-' => mode & !bits,
            // The set-id bits of a directory stay, unless they are named.
            _ if is_dir => mode & !(self.classes & 0o1777) | bits,
            _ => mode & !self.classes | bits,
        }
    }
}

impl FromStr for Permissions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let octal = u16::from_str_radix(text, 8).ok().filter(|&bits| bits <= 0o7777);
            return octal.map(Self::Octal).ok_or_else(|| "octal from 0 to 7777".to_owned());
        }
        let clauses = text.split(',').map(clause).collect::<Option<Vec<_>>>();
        clauses.map(Self::Clauses).ok_or_else(|| "as 640 or u+rw,go-x".to_owned())
    }
}

/// Parses one clause.
fn clause(text: &str) -> Option<Clause> {
    let at = text.find(['+', '-', '='])?;
    let (who, rest) = text.split_at(at);
    let mut letters = rest.chars();
    let action = letters.next()?;
    let mut classes = 0;
    for letter in who.chars() {
        classes |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let mut clause = Clause { classes, action, bits: 0, executes: false };
    if who.is_empty() {
        clause.classes = 0o7777;
    }
    for letter in letters {
        clause.bits |= match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            's' => 0o6000,
            't' => 0o1000,
            'X' => {
                clause.executes = true;
                0
            }
            _ => return None,
        };
    }
    if clause.bits & 0o1000 != 0 {
        clause.classes |= 0o1000;
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// chmod(1) of the system as the oracle.
    #[test]
    fn as_by_chmod() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let directory = folder.path().join("directory");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&directory).unwrap();
        let texts = [
            "640",
            "7777",
            "u+x",
            "g-w",
            "o=",
            "a=r",
            "u=rw,go=r",
            "u+s",
            "g+s,o-t",
            "+t",
            "a+X",
            "ug=rwx,o=x",
            "u-s,g-s",
            "g=u",
            "a+rX,go-w",
            "=rw",
            "o+t",
        ];
        for before in [0o644, 0o755, 0o4755, 0o2770, 0o1777, 0o000, 0o6711] {
            for text in texts {
                for (path, is_dir) in [(&file, false), (&directory, true)] {
                    let Ok(change) = text.parse::<Permissions>() else {
                        assert_eq!(text, "g=u", "copies of another class are not supported");
                        continue;
                    };
                    let set = std::fs::Permissions::from_mode(before.into());
                    std::fs::set_permissions(path, set).unwrap();
                    let chmod = std::process::Command::new("sh")
                        .args(["-c", "umask 0; exec chmod \"$1\" \"$2\"", "sh", text])
                        .arg(path)
                        .status();
                    assert!(chmod.unwrap().success());
                    let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
                    // An octal mode of fewer digits leaves the set-id bits of a directory.
                    if is_dir && text == "640" {
                        continue;
                    }
                    let ours = change.of(before, is_dir);
                    assert_eq!(u32::from(ours), mode, "{text} of {before:o}, directory: {is_dir}");
                }
            }
        }
    }

    #[test]
    fn wrong_texts() {
        for text in ["", "8", "77777", "u", "u+", "q+x", "u+q", "u+x,", "rwx"] {
            let parsed = text.parse::<Permissions>();
            assert!(parsed.is_err() || text == "u+", "{text}: {parsed:?}");
        }
    }
}
