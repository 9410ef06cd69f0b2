//! Requests that are kept in flight, and how long they take.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use nvio_driver::DmaBuf;

use crate::Result;
use crate::image::Target;

/// Results of a poll at most, and commands of a doorbell.
pub(crate) const LIMIT: usize = 32;

/// A way that requests go.
pub(crate) trait Path {
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()>;

    fn ring(&mut self);

    /// Puts the memory of what is done back, and tells how much was done.
    fn poll(&mut self, back: &mut Back) -> usize;
}

/// Memory that is not in flight.
#[derive(Default)]
pub(crate) struct Back {
    bufs: Vec<DmaBuf>,
    failed: Option<String>,
}

impl Back {
    #[inline(always)]
    pub(crate) fn put(&mut self, buf: DmaBuf) {
        // There is room: it was taken from here.
        self.bufs.push(buf);
    }

    #[cold]
    pub(crate) fn fail(&mut self, what: &impl Debug) {
        self.failed.get_or_insert_with(|| format!("a request failed: {what:?}"));
    }

    /// Takes one out.
    pub(crate) fn take(&mut self) -> Option<DmaBuf> {
        self.bufs.pop()
    }

    /// The first failure.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), |failed| Err(failed.into()))
    }
}

/// What is asked for: the same requests whatever way they go.
pub(crate) struct Load {
    targets: Vec<Target>,
    next: usize,
    bufs: Vec<DmaBuf>,
}

impl Load {
    /// Requests at `targets`, of which there is a power of two, with these buffers.
    pub(crate) fn new(targets: Vec<Target>, bufs: Vec<DmaBuf>) -> Self {
        Self { targets, next: 0, bufs }
    }

    #[inline]
    fn target(&mut self) -> Target {
        self.next = (self.next + 1) & (self.targets.len() - 1);
        self.targets[self.next]
    }
}

/// How long requests took.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    /// Requests that were done in the time.
    pub(crate) done: u64,
    pub(crate) time: Duration,
    /// With those that were still in flight.
    pub(crate) submitted: u64,
}

impl Spent {
    /// Requests in a second.
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
    // From when the first of all are done: until then the queue was not as deep.
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

/// Waits for all that is in flight.
fn drain(path: &mut impl Path, back: &mut Back, depth: usize) -> Result<()> {
    while back.bufs.len() < depth {
        path.poll(back);
        if back.failed.is_some() {
            back.check()?;
        }
    }
    Ok(())
}
