//! Archives of all formats, sound and damaged.
#![allow(clippy::cast_possible_truncation)]

use nvio_ext4::Timestamp;
use nvio_testkit::random::Rng;
use tar::{Builder, EntryType, Header};

use super::damage::{Damage, Failure, RECORDS_BYTES_MAX};
use super::member::{Kind, Member};
use super::sparse::BLOCK;
use super::{Reader, has_checksum};

/// Returns a header with its checksum.
fn header(name: &str, kind: u8, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o640);
    header.set_size(size);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(77);
    header.set_cksum();
    header
}

/// Returns a member: its header, and its data in blocks.
fn member(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    blocks(&header(name, kind, data.len() as u64), data)
}

fn blocks(header: &Header, data: &[u8]) -> Vec<u8> {
    let mut bytes = [&header.as_bytes()[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 2 * BLOCK);
    bytes
}

/// Returns a sparse member of GNU tar's old format with 23 segments of 512 bytes.
fn old_sparse() -> Vec<u8> {
    let mut header = Header::new_gnu();
    let segments: Vec<u64> = (0..23).map(|at| at * 1024).collect();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(23 * 512);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..6].copy_from_slice(b"sparse");
    gnu.set_real_size(23 * 1024);
    gnu.set_is_extended(true);
    for (entry, offset) in gnu.sparse.iter_mut().zip(&segments) {
        entry.set_offset(*offset);
        entry.set_length(512);
    }
    header.set_cksum();
    let mut more = tar::GnuExtSparseHeader::new();
    for (entry, offset) in more.sparse_mut().iter_mut().zip(&segments[4..]) {
        entry.set_offset(*offset);
        entry.set_length(512);
    }
    let mut bytes = [&header.as_bytes()[..], more.as_bytes()].concat();
    bytes.extend(std::iter::repeat_n(b's', 23 * 512));
    bytes
}

/// Returns an archive with members of all formats.
fn sample() -> Vec<u8> {
    let long = "n".repeat(300);
    let mut base256 = header("base256", b'0', 3);
    base256.as_old_mut().mtime = [0xff; 12];
    base256.as_old_mut().size = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    base256.set_cksum();
    [
        member("././@label", b'V', b""),
        pax_of_all(&[("mtime", b"5.25"), ("comment", b"none")]),
        member("dir/", b'5', b""),
        member("old-dir/", 0, b""),
        member("file", b'0', &[b'x'; 700]),
        pax(&[("path", long.as_bytes()), ("SCHILY.xattr.user.a", b"1\n3 b=\n"), ("atime", b"-1")]),
        member("short", b'0', b"data"),
        member("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        member("././@LongLink", b'K', format!("{long}2\0").as_bytes()),
        member("short", b'2', b""),
        old_sparse(),
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax-sparse"),
            ("GNU.sparse.realsize", b"9000"),
        ]),
        member("other", b'0', &[&b"1\n4096\n600\n"[..], &[0; 501], &[b'd'; 600]].concat()),
        pax(&[("GNU.sparse.size", b"2000"), ("GNU.sparse.map", b"100,5,2000,0")]),
        member("map", b'0', b"hello"),
        blocks(&base256, b"abc"),
        member("odd", b'Z', b"unknown"),
        vec![0; 2 * BLOCK],
    ]
    .concat()
}

/// Returns a header of records that hold for all members.
fn pax_of_all(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = pax(records);
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&bytes[..BLOCK]);
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_cksum();
    bytes[..BLOCK].copy_from_slice(header.as_bytes());
    bytes
}

/// Reads all members with their data.
fn all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Damage> {
    let mut reader = Reader::new(bytes);
    let mut members = Vec::new();
    let damage = |failure| match failure {
        Failure::Damage(damage) => damage,
        Failure::Input(error) => panic!("{error}"),
    };
    while let Some(member) = reader.next_member().map_err(damage)? {
        let mut data = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let read = reader.read(&mut buffer).map_err(damage)?;
            if read == 0 {
                break;
            }
            data.extend_from_slice(&buffer[..read]);
        }
        members.push((member, data));
    }
    Ok(members)
}

#[test]
fn members_of_all_formats() {
    let members = all(&sample()).unwrap();
    let long = "n".repeat(300);
    let shown: Vec<(&str, Kind, &str, usize)> = members
        .iter()
        .map(|(member, data)| {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            (text(&member.path), member.kind, text(&member.link), data.len())
        })
        .collect();
    let long_link = format!("{long}2");
    assert_eq!(
        shown,
        [
            ("dir/", Kind::Directory, "", 0),
            ("old-dir/", Kind::Directory, "", 0),
            ("file", Kind::File, "", 700),
            (&long, Kind::File, "", 4),
            (&long, Kind::Symlink, &long_link, 0),
            ("sparse", Kind::File, "", 23 * 512),
            ("pax-sparse", Kind::File, "", 600),
            ("map", Kind::File, "", 5),
            ("base256", Kind::File, "", 3),
            ("odd", Kind::Other(b'Z'), "", 7),
        ]
    );
    let [_, _, file, pax, _, sparse, pax_sparse, map, base256, _] = &members[..] else { panic!() };
    assert_eq!((file.0.uid, file.0.gid, file.0.permissions), (1000, 100, 0o640));
    // The record of all members is stronger than the header.
    assert_eq!(file.0.mtime, Timestamp { seconds: 5, nanoseconds: 250_000_000 });
    assert_eq!(pax.0.records.atime, Some(Timestamp { seconds: -1, nanoseconds: 0 }));
    assert_eq!(pax.0.records.xattrs, [(b"user.a".to_vec(), b"1\n3 b=\n".to_vec())]);
    assert_eq!(base256.0.mtime.seconds, 5);
    assert_eq!((sparse.0.segments.ranges.len(), sparse.0.segments.size), (23, 23 * 1024));
    assert_eq!(pax_sparse.0.segments.ranges.first(), Some(&(4096..4696)));
    assert!(pax_sparse.1.iter().all(|&byte| byte == b'd'));
    let segments = &map.0.segments;
    assert_eq!((segments.ranges.first(), segments.size), (Some(&(100..105)), 2000));
}

#[test]
fn times_before_1970_in_headers() {
    let mut header = header("base256", b'0', 0);
    header.as_old_mut().mtime = [0xff; 12];
    header.set_cksum();
    let members = all(&[&header.as_bytes()[..], &[0; 1024]].concat()).unwrap();
    assert_eq!(members[0].0.mtime.seconds, -1);
}

#[test]
fn an_archive_that_ends_early_is_damaged() {
    let sample = sample();
    let mark = sample.len() - 2 * BLOCK;
    for length in 0..sample.len() {
        let read = all(&sample[..length]);
        // One block of the mark is enough.
        let is_sound = length == mark + BLOCK;
        assert_eq!(read.err(), (!is_sound).then_some(Damage::Truncated), "{length} bytes");
    }
    let padded = [&sample[..], &[0; 9000]].concat();
    assert_eq!(all(&padded).unwrap().len(), 10);
}

/// Returns the positions of the blocks that are headers.
fn header_positions(bytes: &[u8]) -> Vec<usize> {
    let is_header = |at: &usize| {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[*at..*at + BLOCK]);
        has_checksum(&header)
    };
    (0..bytes.len()).step_by(BLOCK).filter(is_header).collect()
}

#[test]
fn changed_headers_have_another_checksum() {
    let sample = sample();
    let mut rng = Rng::new(7);
    let headers = header_positions(&sample);
    assert!(headers.len() >= 15);
    for _ in 0..3000 {
        let mut changed = sample.clone();
        let at = match rng.below(BLOCK as u64) as usize {
            // Bytes after the digits of the checksum are not used.
            at @ 148..156 => at - 148,
            at => at,
        };
        changed[rng.pick(&headers) + at] ^= 1 << rng.below(8);
        assert_eq!(all(&changed).err(), Some(Damage::Checksum), "byte {at}");
    }
}

#[test]
fn changed_archives_with_right_checksums() {
    let sample = sample();
    let headers = header_positions(&sample);
    let mut rejected = 0;
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let mut changed = sample.clone();
        for _ in 0..rng.range(1, 4) {
            // Most changes are in headers, others in records, maps and data.
            let at = match rng.below(3) {
                0 => rng.pick(&headers) + rng.below(BLOCK as u64) as usize,
                1 => rng.pick(&headers) + rng.range(100, 160) as usize,
                _ => rng.below(sample.len() as u64) as usize,
            };
            changed[at] = match rng.below(3) {
                0 => changed[at] ^ 1 << rng.below(8),
                1 => *rng.pick(b"0127 \n=,\0\xff\x80"),
                _ => rng.next_u64() as u8,
            };
        }
        for &at in &headers {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&changed[at..at + BLOCK]);
            header.set_cksum();
            changed[at..at + BLOCK].copy_from_slice(header.as_bytes());
        }
        match all(&changed) {
            Err(_) => rejected += 1,
            Ok(members) => {
                let data: usize = members.iter().map(|(_, data)| data.len()).sum();
                assert!(data <= sample.len(), "seed {seed}");
                for (member, data) in members.iter().filter(|(member, _)| member.kind == Kind::File)
                {
                    assert_eq!(member.segments.data(), data.len() as u64, "seed {seed}");
                }
            }
        }
    }
    assert!((500..3500).contains(&rejected), "{rejected} of 4000 rejected");
}

#[test]
fn damage_is_named() {
    let end = [0; 2 * BLOCK];
    let file = member("file", b'0', b"data");
    let name = member("././@LongLink", b'L', b"name\0");
    let mut huge = header("huge", b'0', 0);
    huge.as_old_mut().size = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
    huge.set_cksum();
    let mut negative = header("negative", b'0', 0);
    negative.as_old_mut().size = [0xff; 12];
    negative.set_cksum();
    let mut owner = header("owner", b'0', 0);
    owner.as_old_mut().uid = *b"12345x7\0";
    owner.set_cksum();
    let long = vec![0; RECORDS_BYTES_MAX as usize + 1];
    let too_long = |what| Damage::TooLong { what, bytes: long.len() as u64 };
    let sparse = |records: &[(&str, &[u8])]| [pax(records), file.clone()].concat();
    let version: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"4")];
    for (parts, damage) in [
        (vec![&b""[..]], Damage::Truncated),
        (vec![&[1; BLOCK]], Damage::Checksum),
        (vec![b"\x1f\x8b", &[1; BLOCK]], Damage::Compressed { program: "gzip" }),
        (vec![b"\xfd7zXZ\0"], Damage::Compressed { program: "xz" }),
        (vec![b"BZ"], Damage::Truncated),
        (vec![&file, b"\x1f\x8b", &[1; BLOCK]], Damage::Checksum),
        (vec![&end[..BLOCK], &file, &end], Damage::LoneZeroBlock),
        (vec![&name, &name, &file, &end], Damage::Twice("long name")),
        (vec![&pax(&[("a", b"")]), &pax(&[("a", b"")]), &file], Damage::Twice("extended header")),
        (vec![&file, &name, &end], Damage::NoMember),
        (vec![&member("x", b'x', &long)], too_long("extended header")),
        (vec![&member("x", b'L', &long)], too_long("long name")),
        (vec![&member("x", b'K', &long)], too_long("long name of a link")),
        (vec![&member("x", b'g', &long)], too_long("extended header of all members")),
        (vec![&member("x", b'x', b"12 path=a/b"), &file], Damage::Record),
        (vec![huge.as_bytes(), &end], Damage::Truncated),
        (vec![negative.as_bytes(), &end], Damage::Field("size")),
        (vec![owner.as_bytes(), &end], Damage::Field("owner")),
        (vec![&sparse(&version), &end], Damage::Value("GNU.sparse.major")),
        (vec![&sparse(&version[..1]), &end], Damage::Value("GNU.sparse.size")),
    ] {
        let bytes = parts.concat();
        assert_eq!(all(&bytes).err(), Some(damage), "{damage}");
    }
    // A name that begins as the output of a compressor.
    assert_eq!(all(&[&member("BZh", b'0', b"")[..], &end].concat()).unwrap().len(), 1);
    // Values for all members do not grow without end.
    let values = pax_of_all(&[("SCHILY.xattr.user.a", &[b'v'; 30_000])]);
    let thrice = [&values[..], &values, &values, &file, &end].concat();
    let damage = all(&thrice).unwrap_err();
    assert!(matches!(damage, Damage::TooLong { bytes: 90_000.., .. }), "{damage}");
    assert_eq!(all(&[&values[..], &values, &file, &end].concat()).unwrap().len(), 1);
}
