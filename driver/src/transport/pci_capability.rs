//! The capability list of configuration space (PCI Local Bus 3.0, 6.7).

/// Offset of the Command and Status registers, bytes.
const COMMAND_STATUS: u64 = 0x04;
/// Capabilities List, in the Status register.
const HAS_LIST: u32 = 1 << (16 + 4);
/// Offset of the Capabilities Pointer, bytes.
const POINTER: u64 = 0x34;
/// Offset of the first byte after the header of configuration space.
const HEADER_END: u64 = 0x40;
/// Most capabilities of 4 bytes that fit between the header and the end of the 256 bytes.
const CAPABILITIES_MAX: u64 = (0x100 - HEADER_END) / 4;
/// Bits of a pointer that are valid; the others are reserved, and must be masked.
const POINTER_MASK: u32 = 0xfc;

/// Returns the offset of the first capability with identifier `id`, in bytes: a multiple of 4, 0x40
/// to 0xfc. `None` if the list has no such capability, leaves its 192 bytes, or does not end.
/// `read` returns the dword of configuration space at an offset.
///
/// # Errors
/// As `read`.
pub(super) fn find<E>(
    id: u8,
    mut read: impl FnMut(u64) -> Result<u32, E>,
) -> Result<Option<u64>, E> {
    if read(COMMAND_STATUS)? & HAS_LIST == 0 {
        return Ok(None);
    }
    let mut offset = u64::from(read(POINTER)? & POINTER_MASK);
    for _ in 0..CAPABILITIES_MAX {
        if offset < HEADER_END {
            return Ok(None);
        }
        let header = read(offset)?;
        if header & 0xff == u32::from(id) {
            return Ok(Some(offset));
        }
        offset = u64::from(header >> 8 & POINTER_MASK);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a list whose first pointer is `first`, and whose capabilities are (offset,
    /// identifier, next). Returns the result and the number of dwords read.
    fn search(first: u8, capabilities: &[(u8, u8, u8)], id: u8) -> (Option<u64>, u64) {
        let mut space = [0u8; 256];
        space[6] = 1 << 4;
        space[0x34] = first;
        for &(offset, id, next) in capabilities {
            space[usize::from(offset)..][..2].copy_from_slice(&[id, next]);
        }
        search_in(&space, id)
    }

    fn search_in(space: &[u8; 256], id: u8) -> (Option<u64>, u64) {
        let mut reads = 0;
        let found = find(id, |offset| {
            assert!(offset.is_multiple_of(4), "{offset:#x}");
            reads += 1;
            let bytes = space[offset as usize..].first_chunk().copied();
            Ok::<_, ()>(u32::from_le_bytes(bytes.expect("inside the 256 bytes")))
        });
        (found.unwrap(), reads)
    }

    #[test]
    fn a_capability_is_found_in_any_order() {
        let list = [(0x40, 1, 0x90), (0x90, 0x11, 0x50), (0x50, 0x10, 0)];
        assert_eq!(search(0x40, &list, 0x11), (Some(0x90), 4));
        assert_eq!(search(0x40, &list, 0x10), (Some(0x50), 5));
        assert_eq!(search(0x40, &list, 0x05), (None, 5));
        // The first of two, and the reserved bits of pointers.
        assert_eq!(search(0x43, &[(0x40, 1, 0xfe), (0xfc, 5, 0x40)], 5).0, Some(0xfc));
        assert_eq!(search(0x40, &[(0x40, 5, 0x80), (0x80, 5, 0)], 5).0, Some(0x40));
    }

    #[test]
    fn a_hostile_list_ends() {
        const READS_MAX: u64 = CAPABILITIES_MAX + 2;
        // A capability that points to itself, and a circle of two.
        assert_eq!(search(0x40, &[(0x40, 1, 0x40)], 0x11), (None, READS_MAX));
        assert_eq!(search(0x80, &[(0x80, 1, 0x40), (0x40, 1, 0x83)], 0x11), (None, READS_MAX));
        // Pointers into the header, where the identifier would match.
        for pointer in [0u8, 1, 3, 4, 0x34, 0x3f] {
            let target = [(pointer & 0xfc, 0x11, 0)];
            assert_eq!(search(pointer, &target, 0x11).0, None, "{pointer:#x}");
            let list = [(0x40, 1, pointer)];
            assert_eq!(search(0x40, &list, 0x11), (None, 3), "{pointer:#x}");
        }
        // A device that is gone, and any other repeated byte.
        for byte in 0..=u8::MAX {
            let (found, reads) = search_in(&[byte; 256], 0x11);
            assert!(found.is_none() && reads <= READS_MAX, "{byte:#x}: {found:?}, {reads} reads");
        }
    }

    #[test]
    fn a_list_that_fills_the_space_is_walked_to_its_end() {
        let mut list: Vec<_> =
            (0x40..=0xfc_u8).step_by(4).map(|at| (at, 1, at.wrapping_add(4))).collect();
        assert_eq!(list.len() as u64, CAPABILITIES_MAX);
        list.last_mut().unwrap().1 = 0x11;
        assert_eq!(search(0x40, &list, 0x11).0, Some(0xfc));
    }

    #[test]
    fn no_list_and_a_failed_read() {
        let mut space = [0u8; 256];
        (space[0x34], space[0x40]) = (0x40, 0x11);
        assert_eq!(search_in(&space, 0x11), (None, 1));
        for failed in [0x04, 0x34, 0x40] {
            let read = |offset| if offset == failed { Err(offset) } else { Ok(0x0010_0040) };
            assert_eq!(find(0x11, read), Err(failed));
        }
    }
}
