//! Controller memory as registers may describe it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use super::*;

const ARENA_BYTES: u64 = 2 << 20;
const ANNOUNCED: Cap = Cap(1 << 57);
/// Submission queues, 16 units of 4 KiB.
const SIZE: u32 = Cmbsz::new(16, Cmbsz::SUBMISSION_QUEUES).0;

/// A device with constant registers, and a BAR 2 of 1 MiB.
struct Fake {
    registers: BTreeMap<u64, u32>,
    written: Mutex<Vec<(u64, u32)>>,
    bar: u64,
    arena: Arena,
}

impl Fake {
    fn new(registers: &[(u64, u32)], bar: u64) -> Self {
        let registers = registers.iter().copied().collect();
        let arena = Arena::detached(ARENA_BYTES as usize).unwrap();
        Self { registers, written: Mutex::default(), bar, arena }
    }

    fn find(&self, cap: Cap) -> Result<Option<Arc<ControllerMemory>>> {
        ControllerMemory::find(self, cap, &self.arena)
    }
}

// SAFETY: there is no device that could access anything.
unsafe impl Transport for Fake {
    fn read32(&self, offset: u64) -> Result<u32> {
        Ok(self.registers.get(&offset).copied().unwrap_or(0))
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.written.lock().push((offset, value));
        Ok(())
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        unreachable!()
    }

    fn choose_iova(&self, _: u64, used: &[std::ops::Range<u64>]) -> Result<u64> {
        // Above all ranges that tests of this process use.
        Ok(used.last().map_or(0, |last| last.end).next_multiple_of(2 << 20))
    }

    fn map(&self, _arena: &Arena) -> Result<()> {
        Ok(())
    }

    fn unmap(&self, _arena: &Arena) -> Result<()> {
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn map_bar(&self, bar: u8, offset: u64, most: u64) -> Result<Mmio> {
        let size = 1 << 20;
        let outside = Error::OutsideBar { offset, length: size };
        let length = size.checked_sub(offset).filter(|&length| bar == 2 && length > 0);
        let length = length.ok_or(outside)?.min(most);
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        Mmio::map(file.as_fd(), 0, offset, length as usize)
    }

    fn bar_address(&self, _bar: u8) -> Result<u64> {
        Ok(self.bar)
    }
}

#[test]
fn an_announced_memory_is_known_by_its_address_on_the_bus() {
    let fake = Fake::new(&[(CMBSZ, SIZE), (CMBLOC, 4 << 12 | 2)], 0x12_8000_0000);
    let memory = fake.find(ANNOUNCED).unwrap().unwrap();
    assert_eq!(memory.take(1, PAGE_SIZE).unwrap().iova(), 0x12_8000_4000);
    assert_eq!(fake.written.lock()[2..], [(CMBMSC + 4, 0x12), (CMBMSC, 0x8000_4003)]);
    // The addresses are not used for an arena.
    assert!(Claim::new(4096, |_| Ok(0x12_8000_4000)).is_err());
    drop(memory);
    assert!(Claim::new(4096, |_| Ok(0x12_8000_4000)).is_ok());
}

#[test]
fn an_announced_memory_in_the_place_of_the_arena_is_placed_where_nothing_else_is() {
    let mut fake = Fake::new(&[(CMBSZ, SIZE), (CMBLOC, 4 << 12 | 2)], 0);
    fake.bar = fake.arena.iova();
    let memory = fake.find(ANNOUNCED).unwrap().unwrap();
    let base = memory.address;
    let arena = fake.arena.iova()..fake.arena.iova() + ARENA_BYTES;
    assert!(base >= arena.end || base + (64 << 10) <= arena.start);
    let control = Cmbmsc::enabled(base).0;
    // The lower half, with the enable bits, is last.
    let expected = [
        (CMBMSC + 4, 0),
        (CMBMSC, 1),
        (CMBMSC + 4, (control >> 32) as u32),
        (CMBMSC, control as u32),
    ];
    assert_eq!(*fake.written.lock(), expected);
    assert_eq!(memory.len(), 64 << 10);
    let first = memory.take(1, PAGE_SIZE).unwrap();
    let second = memory.take(8192, 8192).unwrap();
    assert_eq!((first.iova(), second.iova()), (base, base + 8192));
    assert_eq!(second.ptr().addr().get() - first.ptr().addr().get(), 8192);
    assert!(memory.take(64 << 10, PAGE_SIZE).is_none());
    drop((first, second));
    assert!(memory.take(64 << 10, PAGE_SIZE).is_some());
}

#[test]
fn an_older_memory_is_where_its_bar_is() {
    let fake = Fake::new(&[(CMBSZ, SIZE), (CMBLOC, 4 << 12 | 2)], 0x8000_0000);
    let memory = fake.find(Cap(0)).unwrap().unwrap();
    assert!(fake.written.lock().is_empty());
    assert_eq!(memory.take(1, PAGE_SIZE).unwrap().iova(), 0x8000_4000);
}

#[test]
fn controller_memory_without_queue_support_is_ignored() {
    for size in [0, Cmbsz::new(16, Cmbsz::LISTS | Cmbsz::WRITE_DATA).0] {
        let found = Fake::new(&[(CMBSZ, size), (CMBLOC, 2)], 1 << 31).find(ANNOUNCED);
        assert!(found.unwrap().is_none(), "{size:#x}");
    }
}

#[test]
fn invalid_controller_memory_is_refused() {
    let find = |size, location, bar, cap| {
        Fake::new(&[(CMBSZ, size), (CMBLOC, location)], bar).find(cap).map(|found| found.is_some())
    };
    let invalid = |result: Result<bool>, expected| match result {
        Err(Error::Invalid { field, .. }) => assert_eq!(field, expected),
        other => panic!("{other:?}"),
    };
    // A reserved unit, size 0, and the largest size, which may wrap.
    invalid(find(SIZE | 0xf00, 2, 0, ANNOUNCED), "SZU");
    invalid(find(1, 2, 0, ANNOUNCED), "SZ");
    invalid(find(0xffff_f601, 2, u64::MAX << 12, Cap(0)), "SZ");
    invalid(find(SIZE, 4 << 12 | 2, u64::MAX << 12, Cap(0)), "OFST");
    // An offset outside of the BAR, and another BAR.
    let outside = find(SIZE, 256 << 12 | 2, 0, ANNOUNCED);
    assert!(matches!(outside, Err(Error::OutsideBar { .. })), "{outside:?}");
    assert!(find(SIZE, 1, 0, ANNOUNCED).is_err());
    // The addresses of the arena.
    let mut fake = Fake::new(&[(CMBSZ, SIZE), (CMBLOC, 2)], 0);
    let arena = fake.arena.iova();
    for bar in [arena, arena - 4096, arena + ARENA_BYTES - 4096] {
        fake.bar = bar;
        let overlap = fake.find(Cap(0)).map(|found| found.is_some());
        assert!(matches!(overlap, Err(Error::Unsupported { .. })), "{overlap:?}");
    }
    fake.bar = arena - (64 << 10);
    assert!(fake.find(Cap(0)).unwrap().is_some());
    // Pages larger than the alignment of the address.
    let misaligned = find(SIZE, 1 << 12 | 2, 1 << 31, Cap(1 << 48));
    assert!(matches!(misaligned, Err(Error::Misaligned { .. })), "{misaligned:?}");
    // A controller that rejects the address, and one that is gone.
    let refuses = [(CMBSZ, SIZE), (CMBLOC, 2), (CMBSTS, CMB_ADDRESS_INVALID)];
    invalid(Fake::new(&refuses, 0).find(ANNOUNCED).map(|found| found.is_some()), "CBA");
    let gone = Fake::new(&[(CMBSZ, !0)], 0).find(ANNOUNCED);
    assert!(matches!(gone.map(|found| found.is_some()), Err(Error::Gone)));
}
