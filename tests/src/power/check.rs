//! The states of the disk after power cuts, and what they may be.

use std::collections::HashMap;

use nvio_testkit::random::Rng;

use super::record::Event;
use super::workload::{BYTES, LBA, Played};

/// States of the disk for each moment of a cut.
const SUBSETS: u64 = 3;

/// The values of a logical block of the file, with the number of events before each was written.
type Versions = Vec<(usize, Vec<u8>)>;

/// The extent of the checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Moments of cuts.
    pub cuts: usize,
    /// Commands of the workload.
    pub commands: usize,
    /// Blocks with an older value than that in memory.
    pub lost: usize,
}

/// Cuts the power at each event of the record, and checks the file. Returns a state of the disk, for
/// e2fsck.
///
/// # Errors
/// The first block with a wrong value, or a write past the file.
pub fn check(played: &Played, seed: u64) -> Result<(Checked, Vec<u8>), String> {
    let events = played.record.events();
    let file: HashMap<u64, usize> = played.places.iter().copied().zip(0..).collect();
    for event in events.iter() {
        if let Event::Write { addr, data, .. } = event {
            let outside =
                (0..data.len()).step_by(LBA).find(|&at| !file.contains_key(&(addr + at as u64)));
            if let Some(at) = outside {
                return Err(format!("a write to byte {} is not in the file", addr + at as u64));
            }
        }
    }
    no_overlap(&events)?;
    let versions = versions(played);
    let commands = events.iter().filter(|event| matches!(event, Event::Write { .. })).count();
    let mut checked = Checked { commands, ..Checked::default() };
    let mut rng = Rng::new(seed);
    let mut disk = Vec::new();
    for cut in 0..=events.len() {
        let durable = durable_versions(&events[..cut], &versions);
        for _ in 0..SUBSETS {
            disk = state(&played.image, &events[..cut], &mut rng);
            for (lba, place) in played.places.iter().enumerate().take(BYTES.div_ceil(LBA)) {
                let place = *place as usize;
                // The bytes past the end of the file are not compared.
                let found = &disk[place..place + LBA.min(BYTES - lba * LBA)];
                let written = versions[lba].iter().take_while(|(before, _)| *before <= cut);
                let may_be = written.skip(durable[lba]).map(|(_, value)| &value[..]);
                let values: Vec<_> = may_be.collect();
                if !values.contains(&found) {
                    let known = versions[lba].iter().position(|(_, value)| value == found);
                    return Err(format!(
                        "cut at event {cut}: block {lba} has version {known:?} of {}, durable is {}",
                        versions[lba].len(),
                        durable[lba]
                    ));
                }
                checked.lost += usize::from(values.last() != Some(&found));
            }
        }
        checked.cuts += 1;
    }
    Ok((checked, disk))
}

/// Checks that no block is written by two commands at a time, whose order the device would choose.
fn no_overlap(events: &[Event]) -> Result<(), String> {
    let mut flying: Vec<(usize, u64, u64)> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Write { addr, data, .. } => {
                let end = addr + data.len() as u64;
                if flying.iter().any(|&(_, start, until)| *addr < until && start < end) {
                    return Err(format!("event {index}: two writes to byte {addr} at a time"));
                }
                flying.push((index, *addr, end));
            }
            Event::Done(done) => flying.retain(|(index, ..)| index != done),
            Event::Flush | Event::Durable(_) => {}
        }
    }
    Ok(())
}

/// Returns the values of each block of the file.
fn versions(played: &Played) -> Vec<Versions> {
    let mut now = vec![0; BYTES];
    for (lba, place) in played.places.iter().enumerate().take(BYTES.div_ceil(LBA)) {
        let bytes = LBA.min(BYTES - lba * LBA);
        let place = *place as usize;
        now[lba * LBA..lba * LBA + bytes].copy_from_slice(&played.image[place..place + bytes]);
    }
    let mut versions: Vec<Versions> =
        now.chunks(LBA).map(|block| vec![(0, block.to_vec())]).collect();
    for call in &played.calls {
        now[call.pos..call.pos + call.data.len()].copy_from_slice(&call.data);
        for lba in call.pos / LBA..(call.pos + call.data.len()).div_ceil(LBA) {
            let block = &now[lba * LBA..BYTES.min((lba + 1) * LBA)];
            versions[lba].push((call.before, block.to_vec()));
        }
    }
    versions
}

/// Returns the oldest version of each block that it may have after these events.
fn durable_versions(events: &[Event], versions: &[Versions]) -> Vec<usize> {
    let mut durable = vec![0; versions.len()];
    for (at, event) in events.iter().enumerate() {
        if let Event::Durable(range) = event {
            for lba in range.start as usize / LBA..(range.end as usize).div_ceil(LBA) {
                // Those of the calls before the promise.
                durable[lba] =
                    versions[lba].iter().rposition(|(before, _)| *before < at.max(1)).unwrap_or(0);
            }
        }
    }
    durable
}

/// Returns the disk after a cut: of each write that is not durable, nothing, all, or some blocks.
fn state(image: &[u8], events: &[Event], rng: &mut Rng) -> Vec<u8> {
    let mut done = HashMap::new();
    let mut flushed = None;
    for (at, event) in events.iter().enumerate() {
        if let Event::Done(index) = event {
            done.insert(*index, at);
            if matches!(events[*index], Event::Flush) {
                flushed = flushed.max(Some(*index));
            }
        }
    }
    let mut disk = image.to_vec();
    for (index, event) in events.iter().enumerate() {
        let Event::Write { addr, data, fua } = event else { continue };
        let completed = done.get(&index);
        let was_flushed = completed.is_some_and(|at| flushed.is_some_and(|flush| *at < flush));
        let durable = completed.is_some() && *fua || was_flushed;
        let chance = if durable { 2 } else { rng.range(0, 3) };
        for (at, block) in data.chunks(LBA).enumerate() {
            let kept = chance == 2 || chance == 1 && rng.range(0, 2) == 1;
            if kept {
                let place = *addr as usize + at * LBA;
                disk[place..place + LBA].copy_from_slice(block);
            }
        }
    }
    disk
}
