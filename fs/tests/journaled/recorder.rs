//! A device in memory that records writes, and the states that a loss of power may leave.

use std::sync::{Arc, Mutex};

use nvio_ext4::{BlockDevice, BlockSource, SourceError, WriteRange};
use nvio_testkit::random::Rng;

/// Unit in which the device writes atomically, bytes.
const SECTOR: usize = 512;

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
    bytes: Vec<u8>,
    events: Vec<Event>,
    /// The number of calls after which all fail.
    fails_after: Option<usize>,
}

impl Recorder {
    pub fn new(bytes: Vec<u8>) -> Self {
        let state = State { bytes, events: Vec::new(), fails_after: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets every call fail after `calls` more.
    pub fn fail_after(&self, calls: usize) {
        let mut state = self.state.lock().unwrap();
        state.fails_after = Some(state.events.len() + calls);
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().bytes.clone()
    }

    /// Returns the number of calls so far.
    pub fn calls(&self) -> usize {
        self.state.lock().unwrap().events.len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.state.lock().unwrap().events.clone()
    }

    fn call(&self, event: Event) -> Result<(), SourceError> {
        let mut state = self.state.lock().unwrap();
        if state.fails_after.is_some_and(|calls| state.events.len() >= calls) {
            return Err("the device fails".into());
        }
        if let Event::Write { ranges, .. } = &event {
            for (offset, bytes) in ranges {
                state.bytes[*offset..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        state.events.push(event);
        Ok(())
    }
}

impl BlockSource for Recorder {
    fn size(&self) -> u64 {
        self.state.lock().unwrap().bytes.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.state.lock().unwrap().bytes.as_slice().read(offset, buf)
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
    let mut durable = base.to_vec();
    // Writes since the last flush, with true for those that are durable.
    let mut pending: Vec<(usize, Vec<u8>, bool)> = Vec::new();
    for at in 0..=events.len() {
        for _ in 0..count {
            let mut state = durable.clone();
            for (offset, bytes, is_durable) in &pending {
                write(
                    &mut state,
                    *offset,
                    bytes,
                    if *is_durable { 0 } else { random.below(3) },
                    random,
                );
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
            Some(Event::Write { ranges, durable }) => {
                pending.extend(ranges.iter().map(|(at, bytes)| (*at, bytes.clone(), *durable)));
            }
            Some(Event::Flush) => {
                for (offset, bytes, _) in pending.drain(..) {
                    durable[offset..][..bytes.len()].copy_from_slice(&bytes);
                }
            }
            None => {}
        }
    }
}

/// Writes all sectors (0), none (1), or some (2).
fn write(state: &mut [u8], offset: usize, bytes: &[u8], how: u64, random: &mut Rng) {
    for (at, sector) in (0..).zip(bytes.chunks(SECTOR)) {
        if how == 0 || how == 2 && random.below(2) == 0 {
            state[offset + at * SECTOR..][..sector.len()].copy_from_slice(sector);
        }
    }
}
