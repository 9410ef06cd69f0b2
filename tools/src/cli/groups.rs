//! The help of the command: one line for each verb, in groups.

use clap::Command;

/// Headings, and the verbs below each.
const GROUPS: [(&str, &[&str]); 13] = [
    ("Read files", &["ls", "find", "tree", "stat", "cat", "sha256", "cp", "tar"]),
    (
        "Write files",
        &[
            "put",
            "write",
            "truncate",
            "fallocate",
            "chmod",
            "chown",
            "touch",
            "setfattr",
            "recover",
        ],
    ),
    ("Create and remove names", &["mkdir", "rm", "mv", "ln"]),
    ("Inspect a filesystem", &["fsinfo", "df", "du", "map", "partitions"]),
    ("Raw blocks", &["read-blocks", "write-blocks"]),
    ("Devices of this machine", &["list", "bind", "unbind"]),
    ("Controllers", &["identify", "ns", "smart", "log", "get-feature", "set-feature", "reset"]),
    ("Change namespaces", &["format", "create-ns", "delete-ns", "attach-ns", "detach-ns"]),
    ("Mount", &["mount", "umount"]),
    ("Measure", &["perf"]),
    ("Many verbs at once", &["batch"]),
    ("Test without hardware", &["demo", "emulate"]),
    ("Install", &["completions", "help"]),
];

/// Replaces the list of verbs in the help by groups.
pub fn with_groups(command: Command) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\nOptions:\n{{options}}",
        lines(&command)
    );
    command.help_template(template)
}

/// Formats the groups. A verb that no group names is listed at the end.
fn lines(command: &Command) -> String {
    let mut verbs: Vec<(&str, String)> = command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .map(|verb| (verb.get_name(), about(verb)))
        .collect();
    verbs.push(("help", "Show the options of a verb".to_owned()));
    let width = verbs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = |heading: &str, members: &[(&str, String)]| {
        if members.is_empty() {
            return;
        }
        text += &format!("\n{heading}:\n");
        for (name, about) in members {
            text += &format!("  {name:width$}  {about}\n");
        }
    };
    for (heading, names) in GROUPS {
        let members = names.iter().filter_map(|name| {
            let index = verbs.iter().position(|(verb, _)| verb == name)?;
            Some(verbs.remove(index))
        });
        group(heading, &members.collect::<Vec<_>>());
    }
    group("Other", &verbs);
    text
}

fn about(verb: &Command) -> String {
    verb.get_about().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn each_verb_has_one_short_line_in_a_group() {
        let text = lines(&crate::cli::Cli::command());
        assert!(!text.contains("\nOther:"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let verbs = text.lines().filter(|line| line.starts_with("  ")).count();
        let named: usize = GROUPS.iter().map(|(_, verbs)| verbs.len()).sum();
        assert_eq!(verbs, named);
    }
}
