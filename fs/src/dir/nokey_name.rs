//! Names of encrypted directories as they are shown without the key: what the kernel shows.
//!
//! Such a name is the encoding of the hash in the directory's tree and the encrypted name. Of long
//! ones it has the beginning and a digest of the rest, so that it is not too long for a name.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::dir::htree::hash::Hash;

/// Bytes of the encrypted name that are there as they are.
const PLAIN_MAX: usize = 149;
/// Bytes in front of them: the hash.
const HASH: usize = 8;
/// Bytes of the longest, which ends with a digest.
const LONGEST: usize = HASH + PLAIN_MAX + 32;
/// Shortest encrypted name, bytes.
pub(crate) const ENCRYPTED_MIN: usize = 16;

/// The name that an encrypted one is shown by; `hash` is zero where there is none.
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

/// A shown name, taken apart.
pub(crate) struct NoKeyName {
    /// What the directory's tree has it under.
    pub hash: Hash,
    /// The encrypted name, or its beginning.
    plain: Vec<u8>,
    /// Of what follows the beginning.
    digest: Option<[u8; 32]>,
}

impl NoKeyName {
    /// `None` if no encrypted name is shown like this.
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

    /// Whether this is how `encrypted` is shown.
    pub(crate) fn matches(&self, encrypted: &[u8]) -> bool {
        match &self.digest {
            None => self.plain == encrypted,
            Some(digest) => encrypted
                .strip_prefix(self.plain.as_slice())
                .is_some_and(|rest| !rest.is_empty() && *Sha256::digest(rest) == *digest),
        }
    }

    /// The encrypted name, if all of it is known.
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
    fn what_is_no_such_name() {
        for name in
            [&b""[..], b"abc", b"not base64!", b"AAAAAAAAAAA", b"AAAAAAAAAAAAA", &[b'A'; 251]]
        {
            assert!(NoKeyName::decode(name).is_none(), "{}", name.escape_ascii());
        }
        // 8 bytes of hash, one of a name; bits that are left over are zero.
        assert!(NoKeyName::decode(b"AAAAAAAAAAAA").is_some());
    }
}
