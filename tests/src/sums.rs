//! SHA-256 sums of many files, in one process: starting a process for each takes longer in the guest.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::view;

/// Number of bytes that are read and hashed at a time.
const CHUNK: usize = 64 << 10;

/// Returns a line for each path of the NUL-separated `list`: the sum of that file in `folder`, or
/// "missing".
///
/// # Errors
/// If a file that exists cannot be read.
pub fn of_files(folder: &Path, list: &[u8]) -> io::Result<Vec<String>> {
    let paths = list.split(|&byte| byte == 0).filter(|path| !path.is_empty());
    paths
        .map(|path| match File::open(folder.join(std::ffi::OsStr::from_bytes(path))) {
            Ok(file) => sum(file, u64::MAX).map(|(sum, _)| sum),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("missing".to_owned()),
            Err(error) => Err(error),
        })
        .collect()
}

/// Returns a line for each of `sizes`: the sum of the next slice of `input` with that size in bytes.
/// Input that ends early or goes on afterwards is a further line.
///
/// # Errors
/// If the input cannot be read.
pub fn of_slices(mut input: impl Read, sizes: &[u64]) -> io::Result<Vec<String>> {
    let mut sums = Vec::new();
    for &size in sizes {
        let (hash, bytes) = sum(&mut input, size)?;
        sums.push(hash);
        if bytes < size {
            sums.push(format!("{} bytes are missing", size - bytes));
        }
    }
    let (_, rest) = sum(&mut input, u64::MAX)?;
    if rest > 0 {
        sums.push(format!("{rest} bytes too many"));
    }
    Ok(sums)
}

/// Returns the sum of at most `limit` bytes of `input` as sha256sum(1) prints it, and their number.
fn sum(input: impl Read, limit: u64) -> io::Result<(String, u64)> {
    let mut input = input.take(limit);
    let mut buffer = vec![0; CHUNK];
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => return Ok((format!("{}  -", view::hex(&hasher.finalize())), bytes)),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -";
    const A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  -";

    #[test]
    fn a_slice_has_the_sum_of_its_bytes() {
        assert_eq!(of_slices(&b"aa"[..], &[1, 0, 1]).unwrap(), [A, EMPTY, A]);
    }

    #[test]
    fn missing_and_additional_bytes_are_reported() {
        assert_eq!(of_slices(&b"a"[..], &[1, 2]).unwrap()[2], "2 bytes are missing");
        assert_eq!(of_slices(&b"abc"[..], &[1]).unwrap(), [A, "2 bytes too many"]);
    }

    #[test]
    fn a_missing_file_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        assert_eq!(of_files(folder.path(), b"a\0b\0").unwrap(), [A, "missing"]);
    }
}
