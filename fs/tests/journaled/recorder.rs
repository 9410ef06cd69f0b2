//! A device in memory that records writes, and the states that a loss of power may leave.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use nvio_ext4::{BlockDevice, BlockSource, SourceError, WriteRange};
use nvio_testkit::random::Rng;

/// Unit in which the device writes atomically, bytes.
pub const SECTOR: usize = 512;

/// Contents of a device: a base that many states share, and the sectors that differ from it.
#[derive(Clone)]
pub struct Disk {
    base: Arc<[u8]>,
    sectors: HashMap<usize, Arc<[u8; SECTOR]>>,
}

impl Disk {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.base.to_vec();
        for (&at, sector) in &self.sectors {
            bytes[at * SECTOR..][..SECTOR].copy_from_slice(&**sector);
        }
        bytes
    }

    /// Calls `run` while a file, which has the base of the disk, has the bytes of the disk.
    pub fn in_file(&self, file: &File, run: impl FnOnce()) {
        for (&at, sector) in &self.sectors {
            file.write_all_at(&**sector, (at * SECTOR) as u64).unwrap();
        }
        run();
        for &at in self.sectors.keys() {
            let at = at * SECTOR;
            file.write_all_at(&self.base[at..at + SECTOR], at as u64).unwrap();
        }
    }

    /// Returns a hash of the sectors that differ from the base, but for some.
    pub fn digest(&self, ignored: &[Range<usize>]) -> u64 {
        let is_ignored = |at: usize| ignored.iter().any(|range| range.contains(&at));
        let mut sectors: Vec<_> = self.sectors.iter().filter(|&(&at, _)| !is_ignored(at)).collect();
        sectors.sort_unstable_by_key(|&(&at, _)| at);
        let mut hasher = DefaultHasher::new();
        sectors.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes whole sectors.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.base.len(), "a write after the end");
        let (sectors, rest) = bytes.as_chunks();
        assert!(offset.is_multiple_of(SECTOR) && rest.is_empty(), "a part of a sector");
        self.sectors.extend((offset / SECTOR..).zip(sectors.iter().copied().map(Arc::new)));
    }
}

impl From<Vec<u8>> for Disk {
    fn from(bytes: Vec<u8>) -> Self {
        Self { base: bytes.into(), sectors: HashMap::new() }
    }
}

impl BlockSource for Disk {
    fn size(&self) -> u64 {
        self.base.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.base.read(offset, buf)?;
        let (start, end) = (offset as usize, offset as usize + buf.len());
        for at in start / SECTOR..end.div_ceil(SECTOR) {
            let Some(sector) = self.sectors.get(&at) else { continue };
            let (low, high) = ((at * SECTOR).max(start), ((at + 1) * SECTOR).min(end));
            let part = &sector[low - at * SECTOR..high - at * SECTOR];
            buf[low - start..high - start].copy_from_slice(part);
        }
        Ok(())
    }
}

/// One call of the filesystem.
#[derive(Clone)]
pub enum Event {
    Write { ranges: Vec<(usize, Vec<u8>)>, durable: bool },
    Flush,
}

/// A device in memory. A clone is the same device.
#[derive(Clone)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

struct State {
    disk: Disk,
    events: Vec<Event>,
    /// The number of calls after which all fail.
    fails_after: Option<usize>,
    /// The next call fails, and those after it do not.
    fails_once: bool,
}

impl Recorder {
    pub fn new(disk: impl Into<Disk>) -> Self {
        let state =
            State { disk: disk.into(), events: Vec::new(), fails_after: None, fails_once: false };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets every call fail after `calls` more.
    pub fn fail_after(&self, calls: usize) {
        let mut state = self.state.lock().unwrap();
        state.fails_after = Some(state.events.len() + calls);
    }

    /// Lets the next call fail.
    pub fn fail_once(&self) {
        self.state.lock().unwrap().fails_once = true;
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.disk().bytes()
    }

    pub fn disk(&self) -> Disk {
        self.state.lock().unwrap().disk.clone()
    }

    /// Returns the number of calls so far.
    pub fn calls(&self) -> usize {
        self.state.lock().unwrap().events.len()
    }

    /// Returns the number of calls without those that replace the block of the superblock alone: errors
    /// are recorded there.
    pub fn calls_but_of_superblock(&self) -> usize {
        let is_superblock = |event: &&Event| match event {
            Event::Write { ranges, .. } => match &ranges[..] {
                [(at, bytes)] => (*at..*at + bytes.len()).contains(&1024) && bytes.len() <= 4096,
                _ => false,
            },
            Event::Flush => false,
        };
        let events = self.events();
        events.len() - events.iter().filter(is_superblock).count()
    }

    pub fn events(&self) -> Vec<Event> {
        self.state.lock().unwrap().events.clone()
    }

    fn call(&self, event: Event) -> Result<(), SourceError> {
        let mut state = self.state.lock().unwrap();
        let fails_once = std::mem::take(&mut state.fails_once);
        if fails_once || state.fails_after.is_some_and(|calls| state.events.len() >= calls) {
            return Err("the device fails".into());
        }
        if let Event::Write { ranges, .. } = &event {
            for (offset, bytes) in ranges {
                state.disk.write(*offset, bytes);
            }
        }
        state.events.push(event);
        Ok(())
    }
}

impl BlockSource for Recorder {
    fn size(&self) -> u64 {
        self.state.lock().unwrap().disk.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.state.lock().unwrap().disk.read(offset, buf)
    }
}

impl BlockDevice for Recorder {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        let ranges = ranges.iter().map(|range| (range.offset as usize, range.bytes.to_vec()));
        self.call(Event::Write { ranges: ranges.collect(), durable })
    }

    fn flush(&self) -> Result<(), SourceError> {
        self.call(Event::Flush)
    }
}

/// Calls `visit` with the states that a loss of power may leave: for the time before each event, in
/// which the event may be under way, and after the last one, `count` states.
pub fn cuts(
    base: &[u8],
    events: &[Event],
    random: &mut Rng,
    count: usize,
    mut visit: impl FnMut(usize, Vec<u8>),
) {
    let base = Disk::from(base.to_vec());
    cut_disks(&base, events, random, count, |at, disk| visit(at, disk.bytes()));
}

/// As [`cuts`], for states that share what they do not change.
pub fn cut_disks(
    base: &Disk,
    events: &[Event],
    random: &mut Rng,
    count: usize,
    mut visit: impl FnMut(usize, Disk),
) {
    let mut durable = base.clone();
    // Writes since the last flush, with true for those that are durable.
    let mut pending: Vec<(usize, Vec<u8>, bool)> = Vec::new();
    for at in 0..=events.len() {
        for _ in 0..count {
            let mut state = durable.clone();
            for (offset, bytes, is_durable) in &pending {
                let how = if *is_durable { 0 } else { random.below(3) };
                write(&mut state, *offset, bytes, how, random);
            }
            if let Some(Event::Write { ranges, .. }) = events.get(at) {
                for (offset, bytes) in ranges {
                    let how = random.below(3);
                    write(&mut state, *offset, bytes, how, random);
                }
            }
            visit(at, state);
        }
        match events.get(at) {
            Some(Event::Write { ranges, durable: true }) if pending.is_empty() => {
                ranges.iter().for_each(|(offset, bytes)| durable.write(*offset, bytes));
            }
            Some(Event::Write { ranges, durable }) => {
                pending.extend(ranges.iter().map(|(at, bytes)| (*at, bytes.clone(), *durable)));
            }
            Some(Event::Flush) => {
                pending.drain(..).for_each(|(offset, bytes, _)| durable.write(offset, &bytes));
            }
            None => {}
        }
    }
}

/// Writes all sectors (0), none (1), or some (2).
fn write(state: &mut Disk, offset: usize, bytes: &[u8], how: u64, random: &mut Rng) {
    for (at, sector) in (0..).zip(bytes.chunks(SECTOR)) {
        if how == 0 || how == 2 && random.below(2) == 0 {
            state.write(offset + at * SECTOR, sector);
        }
    }
}
