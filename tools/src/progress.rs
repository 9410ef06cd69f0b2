//! Progress on standard error, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Creates a bar of `bytes` bytes.
pub fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    style(&bar, "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {wide_msg}");
    bar
}

/// Creates a spinner for work of unknown size, with the bytes so far and the rate.
pub fn spinner() -> ProgressBar {
    ticking("{spinner} {bytes}  {bytes_per_sec}  {wide_msg}")
}

/// Creates a spinner for a step without a measure.
pub fn step(what: &'static str) -> ProgressBar {
    ticking("{spinner} {wide_msg}").with_message(what)
}

fn ticking(template: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    style(&bar, template);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(bar: &ProgressBar, template: &str) {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.set_style(style),
        Err(error) => log::debug!("progress: {error}"),
    }
}
