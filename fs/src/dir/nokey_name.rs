//! No-key names: the names that the kernel shows in encrypted directories without the key.
//!
//! A no-key name encodes the hash in the directory's tree and the encrypted name. Of a long
//! encrypted name it contains the beginning and a digest of the rest, so that it is a valid name.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::format::dir_hash::Hash;

/// Maximum number of bytes of the encrypted name that are included unchanged.
const PLAIN_MAX: usize = 149;
/// Size of the hash in front of them, bytes.
const HASH: usize = 8;
/// Size of the longest name before encoding, bytes: it ends with a digest.
const LONGEST: usize = HASH + PLAIN_MAX + 32;

/// Encodes the no-key name of an encrypted name. `hash` is zero if the directory has no hashes.
pub(crate) fn encode(hash: Hash, encrypted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LONGEST);
    bytes.extend_from_slice(&hash.major.to_le_bytes());
    bytes.extend_from_slice(&hash.minor.to_le_bytes());
    match encrypted.split_at_checked(PLAIN_MAX) {
        Some((start, rest)) if !rest.is_empty() => {
            bytes.extend_from_slice(start);
            bytes.extend_from_slice(&Sha256::digest(rest));
        }
        _ => bytes.extend_from_slice(encrypted),
    }
    BASE64_URL_SAFE_NO_PAD.encode(bytes).into_bytes()
}

/// A decoded no-key name.
pub(crate) struct NoKeyName {
    /// Hash of the name in the directory's tree.
    pub hash: Hash,
    /// The encrypted name or its beginning.
    plain: Vec<u8>,
    /// Digest of the rest of the encrypted name.
    digest: Option<[u8; 32]>,
}

impl NoKeyName {
    /// Decodes a no-key name. Returns `None` if `name` is not one.
    pub(crate) fn decode(name: &[u8]) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(name).ok()?;
        let (major, rest) = bytes.split_first_chunk()?;
        let (minor, rest) = rest.split_first_chunk()?;
        let hash = Hash { major: u32::from_le_bytes(*major), minor: u32::from_le_bytes(*minor) };
        let (plain, digest) = match rest.split_at_checked(PLAIN_MAX) {
            Some((plain, digest)) if !digest.is_empty() => (plain, Some(digest.try_into().ok()?)),
            _ => (rest, None),
        };
        (!plain.is_empty()).then(|| Self { hash, plain: plain.to_vec(), digest })
    }

    /// Returns true if this is the no-key name of `encrypted`.
    pub(crate) fn matches(&self, encrypted: &[u8]) -> bool {
        match &self.digest {
            None => self.plain == encrypted,
            Some(digest) => encrypted
                .strip_prefix(self.plain.as_slice())
                .is_some_and(|rest| !rest.is_empty() && *Sha256::digest(rest) == *digest),
        }
    }

    /// Returns the encrypted name, if the no-key name contains all of it.
    pub(crate) fn encrypted(&self) -> Option<&[u8]> {
        self.digest.is_none().then_some(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let hash = Hash { major: 0x1234_5678, minor: 0x9abc_def0 };
        for length in [16, 32, 148, 149, 150, 200, 255] {
            let encrypted: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let shown = encode(hash, &encrypted);
            assert!(shown.len() <= 252 && !shown.contains(&b'/'));
            let name = NoKeyName::decode(&shown).unwrap();
            assert_eq!(name.hash, hash);
            assert!(name.matches(&encrypted));
            assert_eq!(name.encrypted(), (length <= 149).then_some(&encrypted[..]));
            let mut other = encrypted.clone();
            other[length - 1] ^= 1;
            assert!(!name.matches(&other) && !name.matches(&encrypted[..length - 1]));
        }
    }

    #[test]
    fn names_that_are_not_nokey_names() {
        for name in
            [&b""[..], b"abc", b"not base64!", b"AAAAAAAAAAA", b"AAAAAAAAAAAAA", &[b'A'; 251]]
        {
            assert!(NoKeyName::decode(name).is_none(), "{}", name.escape_ascii());
        }
        // A hash of 8 bytes and a name of one byte, with padding bits of zero.
        assert!(NoKeyName::decode(b"AAAAAAAAAAAA").is_some());
    }
}
