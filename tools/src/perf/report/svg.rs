//! The result as a picture: latency by percentile, and IOPS by time.

use nvio_perf::outcome::Outcome;

use super::chart::{self, Axis, Chart, Series};
use super::units::{count, round_nanos};
use super::{json, table};
use crate::perf::measurement::Measurement;

/// Points of a latency line.
const POINTS: u32 = 200;
/// Nines of the last percentile.
const NINES_MAX: f64 = 5.0;

/// Draws the result.
pub fn render(of: &Measurement) -> String {
    let rows: Vec<(&str, &Outcome)> =
        of.rows.iter().map(|row| (row.name.as_str(), &row.outcome)).collect();
    let charts: Vec<Chart> = [latency(&rows), iops(&rows)].into_iter().flatten().collect();
    let notes: Vec<String> = table::about(of).lines().map(str::to_owned).collect();
    let metadata = json::document(of, false).to_string();
    chart::document(&charts, &notes, &metadata)
}

/// Draws latencies. `None` if the clock was not read.
fn latency(rows: &[(&str, &Outcome)]) -> Option<Chart> {
    let mut series = Vec::new();
    let (mut least, mut most, mut nines) = (f64::MAX, 0.0_f64, 1.0_f64);
    for (name, outcome) in rows {
        let latency = outcome.latency();
        if latency.is_empty() {
            continue;
        }
        let histogram = latency.histogram();
        let mut points = Vec::new();
        for index in 0..=POINTS {
            let position = NINES_MAX * f64::from(index) / f64::from(POINTS);
            let quantile = 1.0 - 10_f64.powf(-position);
            let Some(value) = latency.percentile(&histogram, quantile) else { break };
            let value = (value as f64).max(1.0);
            (least, most, nines) = (least.min(value), most.max(value), nines.max(position));
            points.push((position, value.log10()));
        }
        series.push(Series { name: (*name).to_owned(), points, ..Series::default() });
    }
    if series.iter().all(|series| series.points.is_empty()) {
        return None;
    }
    let percentiles = ["0", "90", "99", "99.9", "99.99", "99.999"];
    let at = std::iter::successors(Some(0.0), |nines| Some(nines + 1.0));
    let median = (2_f64.log10(), "50".to_owned());
    let ticks = at.zip(percentiles.map(str::to_owned)).chain([median]);
    let ticks = ticks.filter(|(tick, _)| *tick <= nines.ceil()).collect();
    let label = "percentile of requests (%), logarithmic".to_owned();
    Some(Chart {
        title: "Latency".to_owned(),
        x: Axis { label, range: (0.0, nines.ceil()), ticks },
        y: Axis::logarithmic("latency, logarithmic", least, most, round_nanos),
        series,
    })
}

/// Draws IOPS. `None` if the run was shorter than a second.
fn iops(rows: &[(&str, &Outcome)]) -> Option<Chart> {
    let line = |(name, outcome): &(&str, &Outcome)| {
        let seconds = outcome.seconds.iter().map(|second| (second.ios[0] + second.ios[1]) as f64);
        let points = seconds.enumerate().map(|(index, ios)| (index as f64 + 1.0, ios)).collect();
        Series { name: (*name).to_owned(), points, ..Series::default() }
    };
    let series: Vec<Series> = rows.iter().map(line).collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (seconds, ios) = (most(|point| point.0), most(|point| point.1));
    (seconds > 0.0).then(|| Chart {
        title: "Requests a second".to_owned(),
        x: Axis::linear("time (s)", seconds, |tick| format!("{tick}")),
        y: Axis::linear("requests a second (IOPS)", ios, |at| count(at).replace(".0", "")),
        series,
    })
}
