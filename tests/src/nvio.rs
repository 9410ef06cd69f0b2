//! Runs the `nvio` command as a user does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Returns the path of the binary under test: `$NVIO`, or the one in the test's build folder.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NVIO") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of the test");
    let built = test.ancestors().nth(2).expect("a build folder").join("nvio");
    assert!(built.exists(), "{} is missing: cargo build --bin nvio", built.display());
    built
}

/// Maximum time of one command in seconds. timeout(1) ends it with exit code 124.
const TIME_LIMIT: &str = "300";

/// Runs `nvio` with `args` and waits for its end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new("timeout");
    command.arg(TIME_LIMIT).arg(binary()).args(args).env_remove("RUST_LOG");
    command.output().expect("timeout of coreutils starts")
}

/// Runs `nvio VERB IMAGE PATH FLAGS...` and returns its standard output. Fails the test if the exit
/// code is not 0.
pub fn ok(verb: &str, image: &Path, path: &[u8], flags: &[&str]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut args = vec![OsStr::new(verb), image.as_os_str(), OsStr::from_bytes(path)];
    args.extend(flags.iter().map(OsStr::new));
    let output = run(&args);
    assert!(
        output.status.success(),
        "nvio {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Runs the command like [`ok`] with `--json`, and parses the output.
pub fn json(verb: &str, image: &Path, path: &[u8], flags: &[&str]) -> Value {
    let stdout = ok(verb, image, path, &[flags, &["--json"]].concat());
    serde_json::from_slice(&stdout).expect("one JSON document")
}
