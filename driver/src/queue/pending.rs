//! The table of commands in flight.

use std::mem::MaybeUninit;

/// Commands in flight, by command identifier.
///
/// An identifier is the index of a slot with a generation above it. A completion that is late,
/// duplicated or invented therefore does not match the command that uses the slot now.
pub(super) struct PendingCommands<T> {
    table: Box<[Slot<T>]>,
    /// Index of the first free slot; [`NONE`], which is outside of every table, if there is none.
    /// The slot that was freed last is reused first, because it is in the cache.
    free: u32,
    /// Mask of the identifier bits that are the slot index. The bits above are the generation.
    index_mask: u32,
    /// Increment of a tag when its slot is freed.
    generation: u32,
}

/// One command in flight, or none.
#[repr(align(64))]
pub(super) struct Slot<T> {
    /// Initialised while the slot is in use. An `Option` costs a fifth of a completion.
    request: MaybeUninit<T>,
    /// First two dwords of the command in the slot, its identifier included; [`UNUSED`] in a free
    /// slot.
    head: u64,
    /// First block of a command of one page.
    slba: u64,
    /// Three fields in one: see [`next_free`](Self::next_free), [`age`](Self::age) and
    /// [`page_command`](Self::page_command).
    link: u32,
    /// Identifier of the command in the slot, or of the next one, in bits 31:16: its place in the
    /// first dword of an SQE.
    tag: u32,
}

/// Value of `head` in a free slot. No command has it, because identifier ffffh is never used.
const UNUSED: u64 = u64::MAX;
const NONE: u32 = u16::MAX as u32;

/// Bits of `link` of a slot in use that are the number of blocks of a command of one page, 0's
/// based: at most 8 blocks of 512 bytes.
const NLB_MASK: u32 = 0xf;
/// Value of these bits for other commands.
const NOT_PAGE: u32 = 0xf;

/// The fields of a command whose data lies in one memory page; all others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageCommand {
    /// First two dwords, with the identifier of the command.
    pub(super) head: u64,
    pub(super) slba: u64,
    /// Number of blocks, 0's based, less than 15.
    pub(super) nlb: u32,
}

/// Largest time bound of a command, milliseconds: half of the time after which age marks wrap.
pub(crate) const BOUND_MS_MAX: u32 = 1 << 25;
const _: () = assert!(BOUND_MS_MAX <= AgeMark::TIME / 2 + 1);

/// The time at which [`PendingCommands::find_overdue`] first saw a command.
///
/// The mark costs nothing on the I/O path, because submitting a command overwrites it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct AgeMark(u32);

impl AgeMark {
    const SEEN: u32 = 1 << 31;
    const ABORTED: u32 = 1 << 30;
    const TIME_SHIFT: u32 = NLB_MASK.trailing_ones();
    const TIME: u32 = (Self::ABORTED >> Self::TIME_SHIFT) - 1;

    fn new(now: u32, aborted: bool) -> Self {
        let time = (now & Self::TIME) << Self::TIME_SHIFT;
        Self(Self::SEEN | if aborted { Self::ABORTED } else { 0 } | time)
    }

    /// Returns the time since the mark was made. Times in milliseconds wrap after 18 hours.
    fn elapsed(self, now: u32) -> u32 {
        now.wrapping_sub(self.0 >> Self::TIME_SHIFT) & Self::TIME
    }

    fn is_aborted(self) -> bool {
        self.0 & Self::ABORTED != 0
    }
}

/// A command that exceeded its time bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) cid: u16,
    /// Whether [`PendingCommands::mark_aborted`] was called for the command, and its second bound
    /// has passed, too.
    pub(super) aborted: bool,
}

impl<T> Slot<T> {
    /// Returns the command identifier of the command in the slot, or of the next one.
    pub(super) fn cid(&self) -> u16 {
        (self.tag >> 16) as u16
    }

    /// Returns [`cid`](Self::cid) in bits 31:16.
    #[inline]
    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    /// Stores the request of a command that is about to be submitted, whose first two dwords are
    /// `head`.
    #[inline]
    pub(super) fn fill(&mut self, request: T, head: u64) {
        debug_assert!(!self.is_used() && cid_of(head) == self.cid());
        self.request.write(request);
        self.head = head;
        self.link = NOT_PAGE;
    }

    /// Stores the request of a command of one page that is about to be submitted. Unlike
    /// [`fill`](Self::fill), this stores all that [`page_command`](Self::page_command) needs: two
    /// instructions more than the identifier alone.
    #[inline(always)]
    pub(super) fn fill_page(&mut self, request: T, PageCommand { head, slba, nlb }: PageCommand) {
        debug_assert!(!self.is_used() && cid_of(head) == self.cid() && nlb < NOT_PAGE);
        self.request.write(request);
        self.head = head;
        self.slba = slba;
        self.link = nlb;
    }

    /// Returns the command in the slot, which is in use, if [`fill_page`](Self::fill_page) stored
    /// it.
    pub(super) fn page_command(&self) -> Option<PageCommand> {
        let Self { head, slba, link, .. } = *self;
        let nlb = link & NLB_MASK;
        (nlb != NOT_PAGE).then_some(PageCommand { head, slba, nlb })
    }

    /// Returns the request of a slot in use.
    pub(super) fn request(&self) -> Option<&T> {
        // SAFETY: a slot in use has a request: see `Pending::remove`.
        self.is_used().then(|| unsafe { self.request.assume_init_ref() })
    }

    /// Gives the command in the slot another identifier and a new age.
    pub(super) fn rename(&mut self, tag: u32) {
        self.head = self.head & !TAG_MASK | u64::from(tag);
        (self.tag, self.link) = (tag, self.link & NLB_MASK);
    }

    fn is_used(&self) -> bool {
        self.head != UNUSED
    }

    /// Returns the index of the next free slot. The slot is free.
    #[inline]
    fn next_free(&self) -> u32 {
        self.link
    }

    #[inline]
    fn set_next_free(&mut self, index: u32) {
        self.link = index;
    }

    /// Returns the age mark of the command in the slot, if it has one. The slot is in use. Before
    /// the first mark, `link` is a number of blocks, which is below every mark.
    fn age(&self) -> Option<AgeMark> {
        (self.link & AgeMark::SEEN != 0).then_some(AgeMark(self.link))
    }

    fn set_age(&mut self, mark: AgeMark) {
        self.link = mark.0 | self.link & NLB_MASK;
    }
}

/// Bits of the first two dwords of a command that are its identifier.
const TAG_MASK: u64 = 0xffff_0000;

/// Returns the identifier in the first two dwords of a command.
#[inline]
fn cid_of(head: u64) -> u16 {
    ((head >> 16) & 0xffff) as u16
}

/// A slot in use.
pub(super) struct Pending<'a, T> {
    slot: &'a mut Slot<T>,
    free: &'a mut u32,
    index: u32,
    /// Increment of a tag when its slot is freed.
    generation: u32,
}

impl<T> Pending<'_, T> {
    /// Returns the slot, its index, and the tag of its next command.
    pub(super) fn slot(&mut self) -> (&mut Slot<T>, (u32, u32)) {
        let next = self.slot.tag.wrapping_add(self.generation);
        (self.slot, (self.index, next))
    }

    /// Frees the slot and returns the request.
    #[inline]
    pub(super) fn remove(self) -> T {
        let Self { slot, free, index, generation } = self;
        slot.head = UNUSED;
        slot.tag = slot.tag.wrapping_add(generation);
        slot.set_next_free(*free);
        *free = index;
        // SAFETY: only `fill` and `fill_page` set `head`, after writing the request, and only this
        // function clears it. A `Pending` exists only for a slot with `head` set, and is consumed
        // here. So the request is initialised and is moved out once.
        unsafe { slot.request.assume_init_read() }
    }
}

impl<T> PendingCommands<T> {
    /// Bound of the capacity: four bits of an identifier remain for the generation.
    pub(super) const ENTRIES_MAX: u32 = 4096;

    /// Allocates a table of `capacity` slots, 1 to [`Self::ENTRIES_MAX`] - 1. Identifier ffffh is
    /// never used, as Base 3.3.3.1 requires, because no slot has an index of all ones.
    pub(super) fn new(capacity: u16) -> Self {
        let index_mask = u32::from(u16::MAX >> capacity.leading_zeros());
        let slot = |index| {
            let link = if index + 1 < capacity { u32::from(index) + 1 } else { NONE };
            let tag = u32::from(index) << 16;
            Slot { request: MaybeUninit::uninit(), head: UNUSED, slba: 0, link, tag }
        };
        let generation = (index_mask + 1) << 16;
        Self { table: (0..capacity).map(slot).collect(), free: 0, index_mask, generation }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// Removes a slot from the free list, if there is one. The caller fills it.
    #[inline]
    pub(super) fn reserve(&mut self) -> Option<&mut Slot<T>> {
        let slot = self.table.get_mut(self.free as usize)?;
        self.free = slot.next_free();
        Some(slot)
    }

    /// Returns the command whose identifier is in bits 15:0 of `cid`, if it is in flight. Bits
    /// 31:16 are ignored.
    #[inline]
    pub(super) fn find(&mut self, cid: u32) -> Option<Pending<'_, T>> {
        let Self { table, free, index_mask, generation } = self;
        let index = cid & *index_mask;
        let slot = table.get_mut(index as usize)?;
        // A free slot does not have the identifier of any command that has an index.
        if cid_of(slot.head) != (cid & 0xffff) as u16 {
            return None;
        }
        Some(Pending { slot, free, index, generation: *generation })
    }

    /// Returns the identifiers of all commands.
    pub(super) fn cids(&self) -> Vec<u16> {
        self.table.iter().filter(|slot| slot.is_used()).map(Slot::cid).collect()
    }

    /// Returns the index of the slot that [`reserve`](Self::reserve) would return.
    pub(super) fn next_free(&self) -> Option<u16> {
        u16::try_from(self.free).ok().filter(|&free| usize::from(free) < self.table.len())
    }

    /// Removes any request in flight, except in a slot that `skips` returns true for.
    pub(super) fn remove_any(&mut self, skips: impl Fn(usize, u16) -> bool) -> Option<T> {
        let mut slots = self.table.iter().enumerate();
        let (_, slot) = slots.find(|(index, slot)| slot.is_used() && !skips(*index, slot.cid()))?;
        let cid = slot.cid();
        self.find(u32::from(cid)).map(Pending::remove)
    }

    /// Empties the free list, so that no command can be submitted.
    pub(super) fn close(&mut self) {
        self.free = NONE;
    }

    /// Makes a new free list of all slots that are not in use.
    pub(super) fn open(&mut self) {
        self.free = NONE;
        for slot in self.table.iter_mut().rev().filter(|slot| !slot.is_used()) {
            slot.set_next_free(self.free);
            self.free = u32::from(slot.cid()) & self.index_mask;
        }
    }

    /// Marks the commands that have no mark with the time `now`, and returns the first command
    /// whose mark is older than its bound. `bounds.0` applies to commands, `bounds.1` to aborted
    /// commands. The caller chooses the unit of time.
    pub(super) fn find_overdue(&mut self, now: u32, bounds: (u32, u32)) -> Option<Overdue> {
        let mut overdue = None;
        for slot in self.table.iter_mut().filter(|slot| slot.is_used()) {
            let Some(mark) = slot.age() else {
                slot.set_age(AgeMark::new(now, false));
                continue;
            };
            let aborted = mark.is_aborted();
            let bound = if aborted { bounds.1 } else { bounds.0 };
            if overdue.is_none() && mark.elapsed(now) >= bound {
                overdue = Some(Overdue { cid: slot.cid(), aborted });
            }
        }
        overdue
    }

    /// Notes the Abort of a command in flight, and starts its second time bound.
    pub(super) fn mark_aborted(&mut self, cid: u16, now: u32) {
        let slot = self.table.get_mut((u32::from(cid) & self.index_mask) as usize);
        if let Some(slot) = slot.filter(|slot| slot.cid() == cid && slot.is_used()) {
            slot.set_age(AgeMark::new(now, true));
        }
    }
}

impl<T> Drop for PendingCommands<T> {
    fn drop(&mut self) {
        while self.remove_any(|_, _| false).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(slots: &mut PendingCommands<T>, request: T) -> u16 {
        let slot = slots.reserve().unwrap();
        slot.fill(request, slot.tag().into());
        slot.cid()
    }

    fn remove<T>(slots: &mut PendingCommands<T>, cid: u16) -> Option<T> {
        slots.find(u32::from(cid)).map(Pending::remove)
    }

    #[test]
    fn a_slot_with_40_bytes_of_its_request_is_one_cache_line() {
        assert_eq!(size_of::<Slot<[u64; 5]>>(), 64);
    }

    #[test]
    fn an_identifier_is_good_once() {
        let mut slots = PendingCommands::new(3);
        let first = insert(&mut slots, 'a');
        assert_eq!(remove(&mut slots, first), Some('a'));
        assert_eq!(remove(&mut slots, first), None, "doubled");
        let second = insert(&mut slots, 'b');
        assert_ne!(first, second, "same slot, other generation");
        assert_eq!(remove(&mut slots, first), None, "stale");
        assert_eq!(remove(&mut slots, second), Some('b'));
        let next = slots.table[slots.free as usize].cid();
        assert_eq!(remove(&mut slots, next), None, "not issued yet");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut slots = PendingCommands::new(2);
        insert(&mut slots, 1);
        insert(&mut slots, 2);
        assert!(slots.reserve().is_none());
        assert_eq!(slots.capacity(), 2);
        slots.close();
        assert_eq!(slots.remove_any(|_, _| false), Some(1));
        assert_eq!(slots.remove_any(|_, _| false), Some(2));
        assert!(slots.remove_any(|_, _| false).is_none());
        slots.open();
        assert!(
            slots.reserve().is_some() && slots.reserve().is_some() && slots.reserve().is_none()
        );
    }

    #[test]
    fn no_identifier_is_all_ones_and_none_names_a_missing_slot() {
        for capacity in [1, 2, 3, 4, 255, 4095] {
            let mut slots = PendingCommands::new(capacity);
            for _ in 0..70_000u32 {
                let cid = insert(&mut slots, ());
                assert_ne!(cid, 0xffff);
                remove(&mut slots, cid).unwrap();
            }
            assert!((0..=u16::MAX).all(|cid| remove(&mut slots, cid).is_none()));
        }
    }

    #[test]
    fn pending_commands_are_dropped_once_with_the_table() {
        let request = std::rc::Rc::new(());
        let mut slots = PendingCommands::new(3);
        let first = insert(&mut slots, request.clone());
        insert(&mut slots, request.clone());
        drop(remove(&mut slots, first));
        assert_eq!(std::rc::Rc::strong_count(&request), 2);
        drop(slots);
        assert_eq!(std::rc::Rc::strong_count(&request), 1);
    }

    #[test]
    fn only_what_stays_for_long_is_overdue() {
        let mut slots = PendingCommands::new(3);
        let stays = insert(&mut slots, 'a');
        assert_eq!(slots.find_overdue(u32::MAX - 1, (5, 3)), None);
        let goes = insert(&mut slots, 'b');
        assert_eq!(slots.find_overdue(2, (5, 3)), None, "the time wraps");
        remove(&mut slots, goes);
        insert(&mut slots, 'c');
        let overdue = Overdue { cid: stays, aborted: false };
        assert_eq!(slots.find_overdue(3, (5, 3)), Some(overdue));
        slots.mark_aborted(stays, 3);
        slots.mark_aborted(goes, 3);
        assert_eq!(slots.find_overdue(5, (5, 3)), None);
        assert_eq!(slots.find_overdue(6, (5, 3)), Some(Overdue { aborted: true, ..overdue }));
        remove(&mut slots, stays);
        assert_ne!(slots.find_overdue(8, (5, 3)).map(|overdue| overdue.cid), Some(stays));
    }
}
