//! A load that keeps requests in flight, and the measurement of its rate.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use nvio_driver::DmaBuf;

use crate::Result;
use crate::image::Target;

/// Maximum number of results per poll, and of commands per doorbell.
pub(crate) const LIMIT: usize = 32;

/// A path of requests.
pub(crate) trait Path {
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()>;

    fn ring(&mut self);

    /// Polls, returns the buffers of completed requests, and returns their number.
    fn poll(&mut self, back: &mut Back) -> usize;
}

/// Buffers that are not in flight.
#[derive(Default)]
pub(crate) struct Back {
    bufs: Vec<DmaBuf>,
    failed: Option<String>,
}

impl Back {
    #[inline(always)]
    pub(crate) fn put(&mut self, buf: DmaBuf) {
        // This does not allocate, because the buffer came from this list.
        self.bufs.push(buf);
    }

    #[cold]
    pub(crate) fn fail(&mut self, what: &impl Debug) {
        self.failed.get_or_insert_with(|| format!("a request failed: {what:?}"));
    }

    /// Takes a buffer from the list.
    pub(crate) fn take(&mut self) -> Option<DmaBuf> {
        self.bufs.pop()
    }

    /// Returns the first failure.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), |failed| Err(failed.into()))
    }
}

/// The requests of a measurement, which are the same for all paths.
pub(crate) struct Load {
    targets: Vec<Target>,
    next: usize,
    bufs: Vec<DmaBuf>,
}

impl Load {
    /// Creates a load of requests at `targets`, whose number must be a power of two, with these
    /// buffers.
    pub(crate) fn new(targets: Vec<Target>, bufs: Vec<DmaBuf>) -> Self {
        Self { targets, next: 0, bufs }
    }

    #[inline]
    fn target(&mut self) -> Target {
        self.next = (self.next + 1) & (self.targets.len() - 1);
        self.targets[self.next]
    }
}

/// The result of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    /// Requests completed in the measured time.
    pub(crate) done: u64,
    pub(crate) time: Duration,
    /// Requests submitted, including those still in flight at the end.
    pub(crate) submitted: u64,
}

impl Spent {
    /// Returns the number of requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Keeps `depth` requests in flight for `time`.
pub(crate) fn run(
    path: &mut impl Path,
    load: &mut Load,
    depth: usize,
    time: Duration,
) -> Result<Spent> {
    let mut back = Back::default();
    let kept = load.bufs.len().checked_sub(depth).ok_or("too few buffers")?;
    back.bufs.extend(load.bufs.drain(kept..));
    let spent = steady(path, load, &mut back, depth, time)?;
    load.bufs.append(&mut back.bufs);
    Ok(spent)
}

fn steady(
    path: &mut impl Path,
    load: &mut Load,
    back: &mut Back,
    depth: usize,
    time: Duration,
) -> Result<Spent> {
    let (mut taken, mut submitted) = (0, 0);
    // Measure from the first completion of a full queue, because the depth was smaller before.
    let mut begin: Option<(Instant, u64)> = None;
    loop {
        while let Some(buf) = back.bufs.pop() {
            path.submit(load.target(), buf)?;
            submitted += 1;
        }
        path.ring();
        let mut now = path.poll(back);
        while now == 0 {
            now = path.poll(back);
        }
        taken += now as u64;
        if back.failed.is_some() {
            back.check()?;
        }
        match begin {
            None if taken >= depth as u64 => begin = Some((Instant::now(), taken)),
            None => {}
            Some((start, before)) => {
                let elapsed = start.elapsed();
                if elapsed >= time {
                    drain(path, back, depth)?;
                    return Ok(Spent { done: taken - before, time: elapsed, submitted });
                }
            }
        }
    }
}

/// Waits for all requests in flight.
fn drain(path: &mut impl Path, back: &mut Back, depth: usize) -> Result<()> {
    while back.bufs.len() < depth {
        path.poll(back);
        if back.failed.is_some() {
            back.check()?;
        }
    }
    Ok(())
}
