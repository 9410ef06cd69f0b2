//! Atomic write units and boundaries (NVM 2.1.4).

use crate::error::{Error, require, require_in};

/// Bytes of data that are processed at a time. A command of at most this size is checked as a whole
/// before any of it is stored.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Blocks of the largest write that is atomic, 1 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AtomicUnits {
    /// In normal operation (AWUN, NAWUN).
    pub(crate) normal: u32,
    /// When the power fails (AWUPF, NAWUPF).
    pub(crate) power_fail: u32,
}

impl Default for AtomicUnits {
    fn default() -> Self {
        Self { normal: 1, power_fail: 1 }
    }
}

impl AtomicUnits {
    pub(crate) fn check(self) -> Result<(), Error> {
        let Self { normal, power_fail } = self;
        require_in(1..=65_536, "atomic_writes normal", normal, "1 to 65536")?;
        require_in(1..=normal, "atomic_writes power_fail", power_fail, "1 to normal")
    }
}

/// A boundary that atomic writes do not cross (NABSN and NABSPF, NABO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// Blocks from one boundary to the next, 2 to 65,536.
    pub(crate) blocks: u32,
    /// First boundary, in blocks.
    pub(crate) offset: u16,
}

impl Boundary {
    /// Returns true if a range of at least one block crosses a boundary.
    fn is_crossed(self, slba: u64, blocks: u64) -> bool {
        // The part before the first boundary is number 0.
        let part = |lba: u64| match lba.checked_sub(self.offset.into()) {
            Some(rest) => 1 + rest / u64::from(self.blocks),
            None => 0,
        };
        part(slba) != part(slba + blocks - 1)
    }
}

/// The atomic units and boundary of one namespace, beyond those of every namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Atomics {
    pub(crate) own: Option<AtomicUnits>,
    pub(crate) boundary: Option<Boundary>,
}

impl Atomics {
    /// Returns true if a write of this range, of at least one block, is atomic when the power
    /// fails. `anywhere` blocks are atomic in every namespace.
    pub(crate) fn hold(&self, slba: u64, blocks: u64, anywhere: u32) -> bool {
        let within = |boundary: Boundary| !boundary.is_crossed(slba, blocks);
        blocks <= anywhere.into()
            || self.own.is_some_and(|own| blocks <= own.power_fail.into())
                && self.boundary.is_none_or(within)
    }

    /// Checks the units against the units of `all` namespaces and against the size of the write
    /// cache.
    pub(crate) fn check(
        &self,
        all: AtomicUnits,
        block_size: u32,
        write_cache: Option<u64>,
    ) -> Result<(), Error> {
        let units = self.own.unwrap_or(all);
        units.check()?;
        let least = "at least those of every namespace";
        require(units.normal >= all.normal, "atomic_writes normal", units.normal, least)?;
        let power_fail = u64::from(units.power_fail);
        require(units.power_fail >= all.power_fail, "atomic_writes power_fail", power_fail, least)?;
        let most = write_cache.unwrap_or(u64::MAX).min(PIECE_BYTES as u64);
        let bytes = power_fail * u64::from(block_size);
        // Every controller guarantees one block.
        let fits = power_fail == 1 || bytes <= most;
        require(fits, "bytes of atomic_writes power_fail", bytes, "the write cache, and 1 MiB")?;
        let Some(Boundary { blocks, offset }) = self.boundary else { return Ok(()) };
        let good = (2..=65_536).contains(&blocks) && blocks >= units.normal;
        let allowed = "2 to 65536, and atomic_writes normal";
        require(good, "atomic_boundary", blocks, allowed)?;
        let good = u32::from(offset) <= blocks;
        require(good, "atomic_boundary offset", offset, "those up to the boundary")?;
        // The units of every namespace hold across boundaries (NVM 2.1.4.3).
        require(all.normal == 1, "atomic_writes normal", all.normal, "1 with a boundary")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_within_boundaries_are_held_and_others_are_not() {
        let own = Some(AtomicUnits { normal: 8, power_fail: 4 });
        let boundary = Some(Boundary { blocks: 8, offset: 3 });
        let free = Atomics { own, boundary: None };
        assert!(free.hold(6, 4, 1) && !free.hold(6, 5, 1) && free.hold(6, 5, 5));
        let bound = Atomics { own, boundary };
        // Boundaries are before blocks 3, 11 and 19.
        for (slba, blocks, expected) in [
            (0, 3, true),
            (0, 4, false),
            (2, 1, true),
            (3, 4, true),
            (7, 4, true),
            (8, 4, false),
            (11, 4, true),
            (18, 2, false),
        ] {
            assert_eq!(bound.hold(slba, blocks, 1), expected, "{slba} {blocks}");
        }
        assert!(Atomics::default().hold(7, 1, 1) && !Atomics::default().hold(7, 2, 1));
    }

    #[test]
    fn promises_that_contradict_each_other_are_refused() {
        let one = AtomicUnits::default();
        let units = |normal, power_fail| AtomicUnits { normal, power_fail };
        let check = |own, boundary: Option<(u32, u16)>, all: AtomicUnits| {
            let boundary = boundary.map(|(blocks, offset)| Boundary { blocks, offset });
            Atomics { own, boundary }.check(all, 512, Some(64 << 10)).is_ok()
        };
        assert!(check(None, None, one) && check(Some(units(256, 128)), None, one));
        assert!(!check(Some(units(256, 129)), None, one));
        assert!(!check(None, None, units(256, 129)));
        assert!(!check(Some(units(4, 5)), None, one) && !check(Some(units(0, 0)), None, one));
        assert!(!check(Some(units(8, 2)), None, units(8, 4)));
        assert!(!check(Some(units(65_537, 1)), None, one));
        assert!(check(Some(units(8, 8)), Some((8, 8)), one));
        assert!(!check(Some(units(8, 8)), Some((7, 0)), one));
        assert!(!check(Some(units(8, 8)), Some((8, 9)), one));
        assert!(!check(Some(units(8, 8)), Some((8, 0)), units(2, 1)));
        assert!(!check(None, Some((1, 0)), one));
    }
}
