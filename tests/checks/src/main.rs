//! Checks of the source code that rustc and clippy do not have.
//!
//! ```text
//! nvio-checks comments [CRATE...]         comment lines that begin with a forbidden word
//! nvio-checks comments --sample SEED      30 comments drawn at random
//! nvio-checks imports [CRATE...]          import cycles between the files of a crate
//! nvio-checks api [--update] [CRATE...]   the public API, compared with tests/api
//! nvio-checks examples [CRATE...]         public items without an example
//! nvio-checks dependencies                licenses, bans and sources, by deny.toml
//! ```
//!
//! CRATE is the folder of a crate, relative to the root of the repository. The exit code is 1 if
//! a check fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod api;
mod comments;
mod dependencies;
mod examples;
mod files;
mod graph;
mod imports;
mod module;
mod public;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sound = match arguments.as_slice() {
        ["comments", "--sample", seed] => match seed.parse() {
            Ok(seed) => comments::sample(seed),
            Err(_) => usage(),
        },
        ["comments", crates @ ..] => comments::check(crates),
        ["imports", crates @ ..] => imports::check(crates),
        ["api", "--update", crates @ ..] => api::check(crates, true),
        ["api", crates @ ..] => api::check(crates, false),
        ["dependencies"] => dependencies::check(),
        ["examples", crates @ ..] => examples::check(crates),
        _ => usage(),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> bool {
    eprintln!(
        "usage: nvio-checks comments [--sample SEED | CRATE...] | imports [CRATE...] | \
         api [--update] [CRATE...] | examples [CRATE...] | dependencies"
    );
    false
}
