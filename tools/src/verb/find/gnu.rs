//! The syntax of find(1), rewritten to the options of the command: one dash before long names, a
//! value that begins with a dash, and operators.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, Command};

/// Operators of find(1) and tests without a value, and their names for `--operator`.
const OPERATORS: [(&str, &str); 10] = [
    ("!", "not"),
    ("-not", "not"),
    ("-a", "and"),
    ("-and", "and"),
    ("-o", "or"),
    ("-or", "or"),
    ("(", "open"),
    (")", "close"),
    ("-empty", "empty"),
    ("--empty", "empty"),
];

/// Rewrites the arguments after the verb. `find` is the definition of the verb.
pub fn rewrite(arguments: impl IntoIterator<Item = OsString>, find: &Command) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut rewritten = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rewritten.push(argument);
            break;
        }
        let operator = OPERATORS.iter().find(|(sign, _)| argument == *sign);
        if let Some((_, name)) = operator {
            rewritten.push(format!("--operator={name}").into());
            continue;
        }
        let Some(name) = long_name(&argument) else {
            rewritten.push(argument);
            continue;
        };
        let mut option = OsString::from(format!("--{name}"));
        let takes_value =
            find.get_arguments().any(|arg| has_name(arg, name) && arg.get_action().takes_values());
        if let Some(value) = takes_value.then(|| arguments.next()).flatten() {
            option.push("=");
            option.push(value);
        }
        rewritten.push(option);
    }
    rewritten.extend(arguments);
    rewritten
}

/// Returns the name of a long option with one dash or two. `-v` and `-vv` are short options.
fn long_name(argument: &OsStr) -> Option<&str> {
    let text = argument.to_str()?;
    let name = text.strip_prefix("--").or_else(|| {
        let name = text.strip_prefix('-')?;
        (name.len() > 1 && !name.bytes().all(|byte| byte == b'v')).then_some(name)
    })?;
    name.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(name)
}

fn has_name(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
}

/// Returns the position of the first argument that is not an option, if it is `verb`.
pub fn position(arguments: &[OsString], verb: &str) -> Option<usize> {
    let is_verb = |argument: &&OsString| !argument.as_bytes().starts_with(b"-");
    let index = 1 + arguments.get(1..)?.iter().position(|argument| is_verb(&argument))?;
    (arguments.get(index)? == verb).then_some(index)
}
