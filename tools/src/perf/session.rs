//! Runs on open devices, until a signal ends them.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvio_perf::outcome::Outcome;

use crate::error::Error;
use crate::interrupt;
use crate::perf::live;
use crate::perf::measurement;
use crate::perf::rows::{Lane, Row};
use crate::perf::settings::Settings;
use crate::perf::threads::{self, Shared};

/// Open devices and files, and the handler of signals.
pub struct Session {
    lanes: Vec<Lane>,
    watched: Arc<Watched>,
}

/// The state that the handler of signals looks at.
struct Watched {
    /// Number of the signal. 0 if there was none.
    signal: AtomicI32,
    /// The run in progress.
    run: Mutex<Arc<Shared>>,
}

impl Watched {
    fn run(&self) -> MutexGuard<'_, Arc<Shared>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Lets the next signal end the run in progress instead of the process.
    pub fn new(lanes: Vec<Lane>) -> Self {
        let run = Mutex::new(Arc::new(Shared::new(0)));
        let watched = Arc::new(Watched { signal: AtomicI32::new(0), run });
        let told = Arc::clone(&watched);
        interrupt::stop_at_next(move |signal| {
            // In this order: a run that begins now sees one of the two.
            told.signal.store(signal, Ordering::SeqCst);
            told.run().stop.store(true, Ordering::Relaxed);
        });
        Self { lanes, watched }
    }

    /// Returns the signal that has ended the runs.
    pub fn signal(&self) -> Option<i32> {
        Some(self.watched.signal.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Runs a load, and returns the measurement of each device or file. `label` is shown with its
    /// progress.
    ///
    /// # Errors
    /// If a queue cannot be created, or fails.
    pub fn run(&self, settings: &Settings, label: &str) -> Result<Vec<measurement::Row>, Error> {
        let lane = self.lanes.iter().find(|lane| lane.way == settings.way);
        let rows = lane.map_or(&[][..], |lane| &lane.rows);
        let mut with_range: Vec<(&Row, Range<u64>)> = Vec::new();
        for row in rows {
            with_range.push((row, row.range_of(settings)?));
        }
        let rows = with_range;
        let shared = Arc::new(Shared::new(rows.len() * settings.threads));
        *self.watched.run() = Arc::clone(&shared);
        if self.signal().is_some() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let observe = || live::show(&shared, settings, label);
        let outcomes = threads::run(&rows, settings, &shared, observe);
        let outcomes = outcomes.map_err(|(name, error)| Error::Perf { name, text: error.0 })?;
        let row = |((row, range), outcome): (&(&Row, Range<u64>), Outcome)| measurement::Row {
            name: row.name.clone(),
            device: row.device,
            path: row.path.clone(),
            bytes: range.end - range.start,
            outcome,
            threads: settings.threads,
        };
        Ok(rows.iter().zip(outcomes).map(row).collect())
    }
}
