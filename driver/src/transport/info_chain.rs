//! Chains of capabilities, with which VFIO extends its replies (`vfio_info_cap_header`).

use zerocopy::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

#[repr(C)]
#[derive(FromBytes, Immutable, KnownLayout)]
struct Header {
    id: U16,
    _version: U16,
    /// Offset of the next capability in the reply; 0 for the last.
    next: U32,
}

/// Appends the pairs of numbers in the capabilities `id` of `reply` to `pairs`: a count, padding, and
/// the pairs. The first capability of any kind is at offset `first`; 0 if there is none.
///
/// `None` if the chain leaves the reply or does not ascend. `pairs` then has those before the fault.
pub(super) fn collect_pairs(
    reply: &[u8],
    first: u32,
    id: u32,
    pairs: &mut Vec<(u64, u64)>,
) -> Option<()> {
    let mut at = first as usize;
    while at != 0 {
        let (header, rest) = Header::read_from_prefix(reply.get(at..)?).ok()?;
        if u32::from(header.id.get()) == id {
            let ([count, _padding], rest) = <[U32; 2]>::read_from_prefix(rest).ok()?;
            let count = count.get() as usize;
            let (list, _) = <[[U64; 2]]>::ref_from_prefix_with_elems(rest, count).ok()?;
            pairs.extend(list.iter().map(|[low, high]| (low.get(), high.get())));
        }
        let next = header.next.get() as usize;
        // Offsets must grow, or the chain could be a loop.
        if next != 0 && next <= at {
            return None;
        }
        at = next;
    }
    Some(())
}
