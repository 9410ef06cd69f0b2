//! The line that shows the progress of a run.

use std::time::{Duration, Instant};

use crate::perf::report::units::{bandwidth, count};
use crate::perf::settings::Settings;
use crate::perf::threads::Shared;
use crate::progress;

/// Time between two looks at the threads.
const INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks for the end of the threads.
const STEP: Duration = Duration::from_millis(20);

/// Shows the progress on standard error after `label`, if that is a terminal, until all threads have
/// ended.
pub fn show(shared: &Shared, settings: &Settings, label: &str) {
    let line = progress::step("opening queues");
    let mut before = (Instant::now(), totals(shared));
    while !shared.is_over() {
        std::thread::sleep(STEP);
        let (then, old) = before;
        if then.elapsed() < INTERVAL {
            continue;
        }
        let new = totals(shared);
        let seconds = then.elapsed().as_secs_f64();
        before = (Instant::now(), new);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let is_measuring = shared.live.iter().all(nvio_perf::plan::Live::is_measuring);
        let phase = if is_measuring { "measuring" } else { "ramp" };
        let errors = match new.2 {
            0 => String::new(),
            errors => format!("  {errors} errors"),
        };
        line.set_message(format!(
            "{label}{phase}: {} {}  {} IOPS  {}{errors}",
            settings.rw.name(),
            crate::perf::settings::Sizes(&settings.sizes),
            count(rate(new.0, old.0)),
            bandwidth(rate(new.1, old.1)),
        ));
    }
    line.finish_and_clear();
}

/// Returns requests, bytes and errors of all threads.
fn totals(shared: &Shared) -> (u64, u64, u64) {
    shared
        .live
        .iter()
        .map(nvio_perf::plan::Live::get)
        .fold((0, 0, 0), |sum, thread| (sum.0 + thread.0, sum.1 + thread.1, sum.2 + thread.2))
}
