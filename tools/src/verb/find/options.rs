//! The options of find that are tests or operators.

use std::ffi::OsString;

use clap::builder::{
    OsStringValueParser, PossibleValuesParser, StringValueParser, TypedValueParser,
};
use clap::{Arg, ArgAction};
use nvio_ext4::Inode;

use super::expression::Token;
use super::test::{Field, Test, Time};
use crate::glob::Glob;
use crate::verb::stat::KINDS;

/// Parses file types: letters of find, separated by commas.
fn kinds(text: &str) -> Result<Test, &'static str> {
    let kind = |part: &str| {
        let mut kinds = KINDS.iter().filter(|(_, letter, _)| part.chars().eq([*letter]));
        kinds.next().map(|(kind, ..)| *kind)
    };
    let kinds = text.split(',').map(kind).collect::<Option<Vec<_>>>();
    kinds.map(Test::Kinds).ok_or("a type is one of f d l p s b c; separate several by commas")
}

/// Returns the options that are tests or operators, in the order of the help. The value of each is
/// a [`Token`].
pub fn options() -> Vec<Arg> {
    let glob = |new: fn(OsString) -> Result<Glob, regex::Error>, test: fn(Glob) -> Test| {
        OsStringValueParser::new().try_map(move |text| new(text).map(test).map(Token::Test))
    };
    let number = |id, field: Field, help| {
        let parse =
            move |text: &str| text.parse().map(|number| Token::Test(Test::Number(field, number)));
        option(id, "N", help).value_parser(parse)
    };
    let days = |id, time: Time, help| {
        let parse = move |text: &str| text.parse().map(|days| Token::Test(Test::Days(time, days)));
        option(id, "N", help).value_parser(parse)
    };
    let minutes = |id, time: Time, help| {
        let parse =
            move |text: &str| text.parse().map(|number| Token::Test(Test::Minutes(time, number)));
        option(id, "N", help).value_parser(parse)
    };
    let text = StringValueParser::new;
    vec![
        option("name", "PATTERN", "The name matches a shell pattern: *, ? and [a-z]")
            .value_parser(glob(Glob::new, Test::Name)),
        option("iname", "PATTERN", "As --name, in upper or lower case")
            .value_parser(glob(Glob::ignoring_case, Test::Name)),
        option(
            "path",
            "PATTERN",
            "The whole path matches a shell pattern; * and ? match slashes, too",
        )
        .alias("wholename")
        .value_parser(glob(Glob::new, Test::Path)),
        option("ipath", "PATTERN", "As --path, in upper or lower case")
            .alias("iwholename")
            .value_parser(glob(Glob::ignoring_case, Test::Path)),
        option(
            "type",
            "fdlpsbc",
            "The type is one of these, separated by commas: f file, d directory, l symbolic link, \
             p pipe, s socket, b block device, c character device",
        )
        .value_parser(text().try_map(|text| kinds(&text).map(Token::Test))),
        option(
            "size",
            "N[SUFFIX]",
            "The size in units, rounded up: c bytes, b 512 bytes (the default), k, M, G, T",
        )
        .value_parser(|text: &str| text.parse().map(|size| Token::Test(Test::Size(size)))),
        // `gnu::rewrite` makes an operator of it, whose position on the command line is known.
        Arg::new("empty")
            .long("empty")
            .help("A file without contents, or a directory without entries")
            .help_heading("Tests")
            .action(ArgAction::SetTrue),
        days("mtime", Inode::mtime, "Modified this many whole days ago; fractions are dropped"),
        days("atime", Inode::atime, "Read this many whole days ago"),
        days("ctime", Inode::ctime, "Changed, or its attributes, this many whole days ago"),
        minutes("mmin", Inode::mtime, "Modified this many minutes ago"),
        minutes("amin", Inode::atime, "Read this many minutes ago"),
        minutes("cmin", Inode::ctime, "Changed, or its attributes, this many minutes ago"),
        option("newer", "PATH", "Modified later than the file at this path of the filesystem")
            .value_parser(OsStringValueParser::new().map(|path| Token::Test(Test::Newer(path)))),
        number("uid", |inode| inode.uid().into(), "The user ID of the owner"),
        number("gid", |inode| inode.gid().into(), "The group ID"),
        option(
            "perm",
            "[-/]MODE",
            "The permissions in octal: exactly these; with - all of these; with / any of these",
        )
        .value_parser(|text: &str| text.parse().map(|bits| Token::Test(Test::Permissions(bits)))),
        number("inum", |inode| inode.number().into(), "The inode number"),
        number("links", |inode| inode.links().into(), "The number of hard links"),
        Arg::new("operator").long("operator").hide(true).action(ArgAction::Append).value_parser(
            PossibleValuesParser::new(["not", "and", "or", "open", "close", "empty"])
                .map(|name| Token::operator(&name)),
        ),
    ]
}

fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(id).long(id).value_name(value).help(help);
    arg.action(ArgAction::Append).allow_hyphen_values(true).help_heading("Tests")
}
