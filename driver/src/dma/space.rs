//! The I/O virtual addresses of the process. No two arenas share an address.
//!
//! A caller can pass a buffer to a queue of any controller. If the buffer is not from that
//! controller's memory, its address must fault there, and must not belong to other memory.

use std::ops::Range;

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Address ranges of all arenas, in ascending order.
static USED: Mutex<Vec<Range<u64>>> = Mutex::new(Vec::new());

/// First address of arenas that no device can access. No IOMMU translates it.
const DETACHED: u64 = 1 << 62;

/// An address range, released when dropped.
#[derive(Debug)]
pub(crate) struct Claim(Range<u64>);

impl Claim {
    /// Claims `bytes` at the address that `choose` returns. The ranges that are in use are its
    /// argument, in ascending order.
    ///
    /// # Errors
    /// The error of `choose`; [`Error::MappingExists`] if the range is not free.
    pub(crate) fn new(
        bytes: usize,
        choose: impl FnOnce(&[Range<u64>]) -> Result<u64>,
    ) -> Result<Self> {
        let mut used = USED.lock();
        let iova = choose(&used)?;
        let taken = Error::MappingExists { iova, bytes };
        let Some(end) = iova.checked_add(bytes as u64) else { return Err(taken) };
        let at = used.partition_point(|other| other.end <= iova);
        if used.get(at).is_some_and(|next| next.start < end) {
            return Err(taken);
        }
        used.insert(at, iova..end);
        Ok(Self(iova..end))
    }

    /// Claims `bytes` that no device can access, at a multiple of `align`, a power of two.
    pub(super) fn detached(bytes: usize, align: usize) -> Result<Self> {
        let full = Error::ArenaFull { bytes, arena: usize::MAX };
        Self::new(bytes, |used| first_free(DETACHED, bytes as u64, align as u64, used).ok_or(full))
    }

    pub(crate) fn iova(&self) -> u64 {
        self.0.start
    }
}

/// Returns the first multiple of `align`, not below `from`, at which `bytes` are outside of the ranges
/// in `used`, which are in ascending order.
pub(crate) fn first_free(from: u64, bytes: u64, align: u64, used: &[Range<u64>]) -> Option<u64> {
    let mut start = from.checked_next_multiple_of(align)?;
    for taken in used {
        if taken.start < start.checked_add(bytes)? && start < taken.end {
            start = taken.end.checked_next_multiple_of(align)?;
        }
    }
    Some(start)
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut used = USED.lock();
        if let Ok(at) = used.binary_search_by_key(&self.0.start, |other| other.start) {
            used.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that no other test uses.
    const HERE: u64 = 1 << 61;

    #[test]
    fn a_range_is_given_once_at_a_time() {
        let at = |offset: u64, bytes| Claim::new(bytes, move |_| Ok(HERE + offset));
        let first = at(0x2000, 0x2000).unwrap();
        for (offset, bytes) in [(0x2000, 0x2000), (0x1000, 0x1001), (0x3fff, 1), (0, 0x8000)] {
            assert!(matches!(at(offset, bytes), Err(Error::MappingExists { .. })), "{offset:#x}");
        }
        let beside = [at(0x1000, 0x1000).unwrap(), at(0x4000, 0x1000).unwrap()];
        let seen = Claim::new(1, |used| {
            assert!(used.is_sorted_by_key(|range| range.start));
            Ok(HERE + used.iter().filter(|range| range.start >> 61 == 1).count() as u64)
        });
        assert_eq!(seen.unwrap().iova(), HERE + 3);
        drop(first);
        at(0x2000, 0x2000).unwrap();
        drop(beside);
        assert!(matches!(Claim::new(2, |_| Ok(u64::MAX)), Err(Error::MappingExists { .. })));
    }

    #[test]
    fn address_ranges_without_a_device_do_not_overlap() {
        let claims = [1, 4 << 20, 1].map(|bytes| Claim::detached(bytes, 2 << 20).unwrap());
        for claim in &claims {
            assert!(claim.iova() >= DETACHED && claim.iova().is_multiple_of(2 << 20));
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let (one, other) = (&claims[one].0, &claims[other].0);
            assert!(one.end <= other.start || other.end <= one.start, "{one:?} {other:?}");
        }
    }
}
