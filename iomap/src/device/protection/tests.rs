use super::*;

fn protection(
    kind: ProtectionType,
    shift: u32,
    metadata: usize,
    first: bool,
    extended: bool,
) -> NamespaceProtection {
    let at = if first { 0 } else { metadata - 8 };
    let information = InformationFormat::USUAL;
    NamespaceProtection {
        kind: Some(kind),
        information,
        block_shift: shift,
        metadata,
        at,
        extended,
    }
}

fn every() -> impl Iterator<Item = NamespaceProtection> {
    let kinds = [ProtectionType::ONE, ProtectionType::TWO, ProtectionType::THREE];
    kinds.into_iter().flat_map(|kind| {
        [(9, 8), (9, 16), (9, 128), (12, 8), (12, 20), (12, 64)].into_iter().flat_map(
            move |(shift, metadata)| {
                [(false, false), (false, true), (true, false), (true, true)]
                    .map(|(first, extended)| protection(kind, shift, metadata, first, extended))
            },
        )
    })
}

/// CRC-16/T10-DIF as SBC-3 defines it, bit by bit.
fn crc(parts: &[&[u8]]) -> u16 {
    let mut crc = 0u16;
    for &byte in parts.iter().copied().flatten() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc >> 15 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 };
        }
    }
    crc
}

/// A buffer made of blocks and their metadata by hand.
fn together(it: &NamespaceProtection, data: &[u8], metadata: &[Vec<u8>]) -> Vec<u8> {
    match it.extended {
        true => data.chunks(it.block()).zip(metadata).flat_map(|(d, m)| [d, m].concat()).collect(),
        false => [data, &metadata.concat()].concat(),
    }
}

fn sealed(it: &NamespaceProtection, data: &[u8], lba: u64) -> Vec<u8> {
    let mut buf = vec![0xee; it.buf_len(data.len())];
    assert_eq!(it.copy_in(&mut buf, data.len(), 0, data), data.len());
    it.seal(&mut buf, data.len(), lba);
    buf
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 / 3 + i / 512) as u8).collect()
}

#[test]
fn metadata_is_byte_for_byte_what_the_specification_says() {
    let counting: Vec<u8> = (0..512).map(|i| i as u8).collect();
    let lba = 0x1_2345_6789;
    // The guards were computed elsewhere, from the definition of the polynomial.
    let short = protection(ProtectionType::ONE, 9, 8, false, true);
    let info = [0x4f, 0x10, 0, 0, 0x23, 0x45, 0x67, 0x89];
    assert_eq!(sealed(&short, &counting, lba), [&counting[..], &info].concat());
    // The guard covers the metadata before the information, and not what is behind it.
    let last = protection(ProtectionType::TWO, 9, 16, false, false);
    let info = [0x32, 0x19, 0, 0, 0x23, 0x45, 0x67, 0x89];
    assert_eq!(sealed(&last, &counting, lba), [&counting[..], &[0; 8], &info].concat());
    let first = protection(ProtectionType::THREE, 9, 16, true, false);
    let info = [0x4f, 0x10, 0, 0, 0, 0, 0, 0];
    assert_eq!(sealed(&first, &counting, lba), [&counting[..], &info, &[0; 8]].concat());
}

#[test]
fn every_layout_is_sealed_block_by_block() {
    for it in every() {
        let data = pattern(5 * it.block());
        // The reference tag wraps at this LBA.
        let lba = 0x7_ffff_fffd;
        let tags = [0xffff_fffd, 0xffff_fffe, 0xffff_ffff, 0, 1u32];
        let metadata: Vec<_> = (data.chunks(it.block()).zip(tags))
            .map(|(block, tag)| {
                let tag = if it.kind.unwrap().number() == 3 { 0 } else { tag };
                let mut metadata = vec![0; it.metadata];
                let crc = crc(&[block, &metadata[..it.at]]).to_be_bytes();
                metadata[it.at..it.at + 2].copy_from_slice(&crc);
                metadata[it.at + 4..it.at + 8].copy_from_slice(&tag.to_be_bytes());
                metadata
            })
            .collect();
        let expected = together(&it, &data, &metadata);
        assert_eq!(it.buf_len(data.len()), expected.len());
        assert!(sealed(&it, &data, lba) == expected, "{it:?}");
        assert_eq!(it.verify(&expected, data.len(), lba), Ok(()));
        // Apart, in memory that had something else before.
        let mut apart = vec![0x55; it.metadata_len(data.len())];
        it.seal_apart(&data, &mut apart, lba);
        assert!(apart == metadata.concat(), "{it:?}");
        assert_eq!(it.verify_apart(&data, &apart, lba), Ok(()));
    }
}

#[test]
fn every_wrong_byte_of_data_guard_and_tag_is_found_in_its_block() {
    for it in every() {
        let size = it.block();
        let data = pattern(3 * size);
        let good = sealed(&it, &data, 90);
        let (data_at, metadata_at): (Vec<_>, Vec<_>) = (0..3)
            .map(|i| match it.extended {
                true => (i * (size + it.metadata), i * (size + it.metadata) + size),
                false => (i * size, 3 * size + i * it.metadata),
            })
            .unzip();
        for block in 0..3 {
            let lba = 90 + block as u64;
            let mut places = vec![data_at[block], data_at[block] + size - 1];
            let info = metadata_at[block] + it.at;
            places.extend([info, info + 1]);
            if it.at > 0 {
                places.push(metadata_at[block]);
            }
            for at in places {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                let found = it.verify(&bad, data.len(), 90).unwrap_err();
                let BadProtection::Block { lba: wrong, error } = found else { panic!("{found}") };
                assert_eq!(wrong, lba, "{it:?} {at}");
                assert!(
                    matches!(error, CheckError::Guard { expected, found } if expected != found)
                );
            }
            let mut moved = good.clone();
            moved[info + 7] ^= 1;
            let found = it.verify(&moved, data.len(), 90);
            match it.kind.unwrap() {
                ProtectionType::THREE => assert_eq!(found, Ok(())),
                _ => {
                    let tags = (90 + block as u64, (90 + block as u64) ^ 1);
                    let error = CheckError::RefTag { expected: tags.0, found: tags.1 };
                    assert_eq!(found, Err(BadProtection::Block { lba, error }));
                }
            }
        }
        // The application tag is the application's, and what is behind the information nobody's.
        let mut other = good;
        other[metadata_at[1] + it.at + 2] ^= 1;
        if it.at + 8 < it.metadata {
            other[metadata_at[1] + it.metadata - 1] ^= 1;
        }
        assert_eq!(it.verify(&other, data.len(), 90), Ok(()));
    }
}

#[test]
fn tags_that_switch_checks_off_are_respected() {
    for it in every() {
        let data = pattern(2 * it.block());
        let mut metadata = vec![vec![0x77; it.metadata]; 2];
        for metadata in &mut metadata {
            metadata[it.at..it.at + 8].fill(0xff);
        }
        assert_eq!(it.verify(&together(&it, &data, &metadata), data.len(), 3), Ok(()));
        // The application tag alone does it but with type 3.
        metadata[1][it.at + 4] = 0;
        let found = it.verify(&together(&it, &data, &metadata), data.len(), 3);
        assert_eq!(found.is_err(), it.kind == Some(ProtectionType::THREE));
        metadata[1][it.at + 2] = 0;
        let found = it.verify(&together(&it, &data, &metadata), data.len(), 3);
        assert!(matches!(found, Err(BadProtection::Block { lba: 4, .. })), "{it:?}");
    }
}

#[test]
fn any_bytes_go_in_and_out_and_metadata_stays_as_it_is() {
    for it in every() {
        let (size, bytes) = (it.block(), 4 * it.block());
        let model = pattern(bytes);
        let full = together(&it, &model, &vec![vec![0xaa; it.metadata]; 4]);
        let ranges = [(0, bytes), (0, 0), (1, 1), (size - 1, 2), (size, size), (3, 3 * size)];
        let clipped = [(2 * size + 5, 2 * size), (bytes, 1), (bytes + 1, 1), (usize::MAX, 9)];
        for (at, length) in ranges.into_iter().chain(clipped) {
            let end = at.saturating_add(length).min(bytes);
            let inside = end.saturating_sub(at);
            let at_most = at.min(bytes);
            let mut out = vec![0x11; length];
            assert_eq!(it.copy_out(&full, bytes, at, &mut out), inside, "{it:?} {at} {length}");
            assert!(out[..inside] == model[at_most..at_most + inside]);
            assert!(out[inside..].iter().all(|&byte| byte == 0x11));

            let mut changed = model.clone();
            changed[at_most..at_most + inside].fill(0x33);
            let mut buf = full.clone();
            assert_eq!(it.copy_in(&mut buf, bytes, at, &vec![0x33; length]), inside);
            assert!(buf == together(&it, &changed, &vec![vec![0xaa; it.metadata]; 4]));

            changed[at_most..at_most + inside].fill(0);
            assert_eq!(it.zero(&mut buf, bytes, at, length), inside);
            assert!(buf == together(&it, &changed, &vec![vec![0xaa; it.metadata]; 4]));
        }
    }
}

/// Buffers of a caller are input: short ones are errors, neither panics nor ignored.
#[test]
fn buffers_that_are_too_short_do_not_pass_and_do_not_panic() {
    for it in every() {
        let data = pattern(3 * it.block());
        let good = sealed(&it, &data, 0);
        for length in [0, 1, 8, it.block(), 2 * it.block() + it.metadata, good.len() - 1] {
            let mut short = good[..length].to_vec();
            let found = it.verify(&short, data.len(), 0);
            assert!(matches!(found, Err(BadProtection::Short { .. })), "{it:?} {length} {found:?}");
            it.seal(&mut short, data.len(), 0);
            let mut out = vec![0; data.len()];
            let there = it.copy_out(&short, data.len(), 0, &mut out);
            assert!(there <= length && out[..there] == data[..there]);
            assert!(it.copy_in(&mut short, data.len(), 0, &data) <= length);
            assert!(it.zero(&mut short, data.len(), 0, data.len()) <= length);
        }
        let mut metadata = vec![0; it.metadata_len(data.len()) - 1];
        it.seal_apart(&data, &mut metadata, 0);
        let found = it.verify_apart(&data, &metadata, 0);
        assert!(matches!(found, Err(BadProtection::Short { .. })), "{found:?}");
        assert_eq!(it.verify(&[], 0, u64::MAX), Ok(()));
        assert_eq!(it.buf_len(usize::MAX), usize::MAX);
    }
}

#[test]
fn commands_check_what_their_type_has() {
    for it in every() {
        let how = it.transfer(0x5_0000_0007);
        assert!(!how.fua && !how.protection.action && how.protection.check_guard);
        let checks = it.kind != Some(ProtectionType::THREE);
        assert_eq!(how.protection.check_reference, checks);
        assert_eq!(how.protection.reference, if checks { 7 } else { 0 });
        assert!(!how.protection.check_application);
    }
}
