use super::*;

fn version(json: &str) -> Result<(usize, usize), Fault> {
    let body = [&[0, 0, 1, 0], json.as_bytes()].concat();
    limits(&body).map(|limits| (limits.fds, limits.mappings))
}

#[test]
fn limits_have_the_defaults_of_the_protocol() {
    for none in ["", "\0", "{}\0", "{\"capabilities\":{}}\0", "{\"capabilities\":3}", "[1]\0"] {
        assert_eq!(version(none).unwrap(), (1, 65_535), "{none}");
    }
    let some = |fds: &str, maps: &str| {
        let json =
            format!("{{\"capabilities\":{{\"max_msg_fds\":{fds},\"max_dma_maps\":{maps}}}}}\0");
        version(&json).unwrap()
    };
    assert_eq!(some("8", "16"), (8, 16));
    assert_eq!(some("1024", "\"many\""), (8, 65_535));
    assert_eq!(some("0", "0"), (0, 0));
    assert_eq!(some("-1", "1.5"), (1, 65_535));
    for broken in ["{", "capabilities\0", "{}\0{}"] {
        assert!(version(broken).is_err(), "{broken}");
    }
    assert!(limits(&[0, 0, 1]).is_err() && limits(&[]).is_err());
    assert!(limits(&[1, 0, 0, 0]).is_err(), "major version 1");
}

/// A capability: its id, the offset of the next one, and its areas.
type Capability<'a> = (u16, u32, &'a [(u64, u64)]);

/// Returns the body of a region's description with a chain of capabilities.
fn described(caps: &[Capability<'_>]) -> Vec<u8> {
    let mut body = vec![0; size_of::<RegionInfo>()];
    for (id, next, areas) in caps {
        body.extend(id.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(next.to_ne_bytes());
        body.extend((areas.len() as u32).to_ne_bytes());
        body.extend([0; 4]);
        for (offset, size) in *areas {
            body.extend(offset.to_ne_bytes());
            body.extend(size.to_ne_bytes());
        }
    }
    body
}

#[test]
fn sparse_areas_are_found_in_the_chain() {
    let body = described(&[(9, 48, &[]), (1, 0, &[(0x1000, 0x1000), (0x3000, 0x2000)])]);
    assert_eq!(sparse_areas(&body, 32).unwrap(), [(0x1000, 0x1000), (0x3000, 0x2000)]);
    assert_eq!(sparse_areas(&body, 0).unwrap(), []);
}

#[test]
fn a_broken_chain_is_an_error() {
    let area: &[(u64, u64)] = &[(0, 4096)];
    let whole = described(&[(1, 0, area)]);
    assert!(sparse_areas(&whole, 32).is_ok());
    for end in 33..whole.len() {
        assert!(sparse_areas(&whole[..end], 32).is_err(), "{end}");
    }
    for at in [whole.len() as u32, u32::MAX] {
        assert!(sparse_areas(&whole, at).is_err(), "{at}");
    }
    for next in [1, 31, 32] {
        assert!(sparse_areas(&described(&[(1, next, area)]), 32).is_err(), "{next}");
    }
    let mut many = whole;
    many[40..44].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(sparse_areas(&many, 32).is_err());
}
