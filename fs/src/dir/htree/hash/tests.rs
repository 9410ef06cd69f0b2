//! Comparison with debugfs, which computes hashes with code of its own.

use super::*;

/// The seed in the notation of debugfs and of the superblock.
const SEED: (&str, [u32; 4]) =
    ("8a3f1c02-77b1-4e5d-9c60-1122334455ff", [0x021c_3f8a, 0x5d4e_b177, 0x2211_609c, 0xff55_4433]);

const FUNCTIONS: [(Function, u32); 3] =
    [(Function::Legacy, 0), (Function::HalfMd4, 1), (Function::Tea, 2)];

fn hash(function: Function, chars: Chars, seed: [u32; 4], name: &[u8]) -> (u32, u32) {
    let parameters = HashParameters { seed, chars: None, default_function: 1 };
    let hash = parameters.hash(function, chars, name).unwrap();
    (hash.major, hash.minor)
}

#[test]
fn known_values() {
    let signed = |function, name: &str| hash(function, Chars::Signed, [0; 4], name.as_bytes());
    assert_eq!(signed(Function::Legacy, "foo"), (0x9f57_ef58, 0));
    assert_eq!(signed(Function::HalfMd4, "foo"), (0x74c6_57ac, 0x85a8_d812));
    assert_eq!(signed(Function::Tea, "foo"), (0x901b_3376, 0x4878_f6ae));
    let long = "x".repeat(255);
    assert_eq!(signed(Function::Legacy, &long), (0x3055_7da6, 0));
    assert_eq!(signed(Function::HalfMd4, &long), (0x2aa7_169e, 0x655f_9d9c));
    assert_eq!(signed(Function::Tea, &long), (0x6c4c_00ee, 0x0eaf_db6b));
    let umlauts = "f\u{f6}\u{f6}\u{e4}\u{fc}\u{df}";
    assert_eq!(signed(Function::HalfMd4, umlauts), (0x267f_d174, 0x64af_dc17));
    let unsigned = |function| hash(function, Chars::Unsigned, [0; 4], umlauts.as_bytes());
    assert_eq!(unsigned(Function::Legacy), (0x6d13_52c6, 0));
    assert_eq!(unsigned(Function::HalfMd4), (0xae1c_8122, 0xe3db_3c01));
    assert_eq!(unsigned(Function::Tea), (0x0868_3a08, 0x88b4_44c9));
}

/// Returns names of every length, made of bytes that debugfs does not interpret.
fn names() -> Vec<Vec<u8>> {
    let mut random = 7u32;
    (1..=255)
        .map(|length| {
            let byte = |_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let byte = (random >> 24) as u8;
                if byte < 0x80 { b'A' + byte % 26 } else { byte }
            };
            (0..length).map(byte).collect()
        })
        .collect()
}

#[test]
fn debugfs_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let (mut script, mut ours) = (Vec::new(), Vec::new());
    for (function, number) in FUNCTIONS {
        for (chars, more) in [(Chars::Signed, 0), (Chars::Unsigned, 3)] {
            for name in names() {
                let number = number + more;
                script.extend(format!("dx_hash -h {number} -s {} ", SEED.0).bytes());
                script.extend(&name);
                script.push(b'\n');
                ours.push(hash(function, chars, SEED.1, &name));
            }
        }
    }
    assert_eq!(dx_hash(folder.path(), &script), ours);
}

/// Runs a script of `dx_hash` commands in debugfs and returns the hashes that it prints.
pub(crate) fn dx_hash(folder: &std::path::Path, script: &[u8]) -> Vec<(u32, u32)> {
    let path = folder.join("script");
    std::fs::write(&path, script).unwrap();
    let output = nvio_testkit::image::command("debugfs").arg("-f").arg(&path).output().unwrap();
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut hashes = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        // "Hash of NAME is 0xMAJOR (minor 0xMINOR)". debugfs also prints the lines of the script.
        if line.starts_with(b"Hash of ") {
            let line = String::from_utf8_lossy(line);
            let (rest, minor) = line.trim_end_matches(')').rsplit_once(" (minor ").unwrap();
            hashes.push((hex(rest.rsplit_once(' ').unwrap().1), hex(minor)));
        }
    }
    hashes
}
