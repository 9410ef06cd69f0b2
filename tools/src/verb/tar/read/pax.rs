//! Records of extended headers in the POSIX format.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nvio_ext4::Timestamp;

use super::damage::Damage;
use super::number::{decimal, time};

/// Bytes that an extended attribute takes besides its name and its value.
const XATTR_BYTES: usize = 64;

/// The values of records that say more of a member than its header.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The name.
    pub path: Option<Vec<u8>>,
    /// The target of a link.
    pub link: Option<Vec<u8>>,
    /// Number of bytes of data in the archive.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The time of the last change.
    pub mtime: Option<Timestamp>,
    /// The time of the last access.
    pub atime: Option<Timestamp>,
    /// Extended attributes, of which a later one replaces an earlier one.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The access control list, as text.
    pub access_list: Option<Vec<u8>>,
    /// The default access control list, as text.
    pub default_list: Option<Vec<u8>>,
    /// Records of a file with holes.
    pub sparse: Sparse,
}

/// Records of a file with holes, in the versions of GNU tar.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    /// The name.
    pub name: Option<Vec<u8>>,
    /// Size of the file in bytes.
    pub size: Option<u64>,
    /// Offsets and lengths of its data, by turns, in versions 0.0 and 0.1.
    pub map: Vec<u64>,
    /// Major and minor version, from 1.0 on.
    pub version: (Option<u64>, Option<u64>),
}

impl Records {
    /// Adds the records of an extended header. They replace earlier ones.
    ///
    /// # Errors
    /// If a record is malformed, or has an invalid value.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(), Damage> {
        while !bytes.is_empty() {
            let (key, value, rest) = split(bytes).ok_or(Damage::Record)?;
            self.set(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Returns the number of bytes that the values take.
    pub fn kept_bytes(&self) -> usize {
        let texts = [&self.path, &self.link, &self.access_list, &self.default_list];
        let texts = texts.into_iter().flatten().chain(&self.sparse.name).map(Vec::len);
        let xattrs = self.xattrs.iter().map(|(name, value)| XATTR_BYTES + name.len() + value.len());
        texts.chain(xattrs).sum::<usize>() + self.sparse.map.len() * size_of::<u64>()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        // An empty value takes back an earlier record.
        let text = Some(value.to_vec()).filter(|value| !value.is_empty());
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = parsed(value, decimal, "size")?,
            b"uid" => self.uid = parsed(value, id, "uid")?,
            b"gid" => self.gid = parsed(value, id, "gid")?,
            b"mtime" => self.mtime = parsed(value, time, "mtime")?,
            b"atime" => self.atime = parsed(value, time, "atime")?,
            b"SCHILY.acl.access" => self.access_list = text,
            b"SCHILY.acl.default" => self.default_list = text,
            key => {
                if let Some(key) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((unescaped(key), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = decoded(value).ok_or(Damage::Value("LIBARCHIVE.xattr"))?;
                    self.xattrs.push((unescaped(key), value));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = parsed(value, decimal, "GNU.sparse.size")?,
            b"major" => self.version.0 = parsed(value, decimal, "GNU.sparse.major")?,
            b"minor" => self.version.1 = parsed(value, decimal, "GNU.sparse.minor")?,
            b"offset" | b"numbytes" => {
                let damage = Damage::Value("GNU.sparse.offset");
                if self.map.len() % 2 != usize::from(key == b"numbytes") {
                    return Err(damage);
                }
                self.map.push(decimal(value).ok_or(damage)?);
            }
            b"map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal).collect();
                let numbers: Option<Vec<u64>> =
                    if value.is_empty() { Some(Vec::new()) } else { numbers };
                self.map = numbers.ok_or(Damage::Value("GNU.sparse.map"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits a record from the rest: its length in decimal digits with all of it, a space, the key, `=`, the
/// value, and a newline.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

/// Decodes a value, unless it is empty.
fn parsed<T>(
    value: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    key: &'static str,
) -> Result<Option<T>, Damage> {
    if value.is_empty() {
        return Ok(None);
    }
    decode(value).map(Some).ok_or(Damage::Value(key))
}

fn id(text: &[u8]) -> Option<u32> {
    u32::try_from(decimal(text)?).ok()
}

/// Replaces `%` and two hexadecimal digits by the byte of this number. Another `%` stays.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let digit = |at: usize| rest.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        let escaped = digit(0).zip(digit(1)).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(escaped.unwrap_or(*first));
        text = rest.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    bytes
}

/// Decodes base64 with or without padding.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config).decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Records, Damage> {
        let mut records = Records::default();
        records.add(text)?;
        Ok(records)
    }

    /// Returns records with their lengths.
    fn records(records: &[&[u8]]) -> Vec<u8> {
        let record = |record: &&[u8]| {
            let length = |digits: usize| digits + record.len() + 2;
            let digits = (1..).find(|&digits| length(digits).to_string().len() == digits);
            let begin = format!("{} ", length(digits.unwrap()));
            [begin.as_bytes(), *record, b"\n"].concat()
        };
        records.iter().flat_map(record).collect()
    }

    #[test]
    fn values_are_kept_and_replaced() {
        let text = records(&[
            b"path=a/b",
            b"linkpath=c\n",
            b"size=1234567890",
            b"uid=77",
            b"gid=4294967294",
            b"mtime=-1.5",
            b"comment=no",
            b"SCHILY.xattr.user.%25=%3D",
            b"SCHILY.xattr.user.a=1\n2 a=b\n",
            b"LIBARCHIVE.xattr.user.%ff=AAE",
            b"LIBARCHIVE.xattr.user.b=AAEC",
        ]);
        let all = parse(&text).unwrap();
        assert_eq!(all.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(all.link.as_deref(), Some(&b"c\n"[..]));
        assert_eq!(
            (all.size, all.uid, all.gid),
            (Some(1_234_567_890), Some(77), Some(u32::MAX - 1))
        );
        assert_eq!(all.mtime, Some(Timestamp { seconds: -2, nanoseconds: 500_000_000 }));
        let xattrs: [(&[u8], &[u8]); 4] = [
            (b"user.%", b"%3D"),
            (b"user.a", b"1\n2 a=b\n"),
            (b"user.\xff", &[0, 1]),
            (b"user.b", &[0, 1, 2]),
        ];
        let kept: Vec<(&[u8], &[u8])> = all.xattrs.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(kept, xattrs);
        assert!(all.kept_bytes() >= 30);
        let mut later = all;
        later.add(&records(&[b"path=", b"size=", b"uid="])).unwrap();
        assert_eq!((later.path, later.size, later.uid), (None, None, None));
    }

    #[test]
    fn maps_of_both_versions() {
        let pairs = records(&[
            b"GNU.sparse.offset=10",
            b"GNU.sparse.numbytes=20",
            b"GNU.sparse.offset=99",
            b"GNU.sparse.numbytes=0",
            b"GNU.sparse.size=99",
        ]);
        let pairs = parse(&pairs).unwrap().sparse;
        assert_eq!((pairs.map, pairs.size), (vec![10, 20, 99, 0], Some(99)));
        let map = parse(&records(&[b"GNU.sparse.map=10,20,99,0"])).unwrap().sparse.map;
        assert_eq!(map, [10, 20, 99, 0]);
        assert!(parse(&records(&[b"GNU.sparse.map="])).unwrap().sparse.map.is_empty());
        parse(&records(&[b"GNU.sparse.numbytes=20"])).unwrap_err();
        parse(&records(&[b"GNU.sparse.offset=1", b"GNU.sparse.offset=2"])).unwrap_err();
    }

    #[test]
    fn malformed_records() {
        for text in [
            &b"12 path=a/b"[..],
            b"11 path=a/b\n",
            b"13 path=a/b\n",
            b"path=a/b\n",
            b" 12 path=a/b\n",
            b"0 path=a/b\n",
            b"3 =\n",
            b"9 path a\n",
            b"99999999999999999999 path=a\n",
            b"999999999999999999999999 a=\n",
            b"12 path=a/b\n\0",
            b"\0",
        ] {
            assert_eq!(parse(text).unwrap_err(), Damage::Record, "{}", text.escape_ascii());
        }
        for text in [
            &b"size=x"[..],
            b"size=-1",
            b"uid=4294967296",
            b"mtime=1x",
            b"LIBARCHIVE.xattr.user.b=!!!!",
            b"GNU.sparse.map=1,,2",
        ] {
            let damage = parse(&records(&[text])).unwrap_err();
            assert!(matches!(damage, Damage::Value(_)), "{}: {damage}", text.escape_ascii());
        }
    }
}
