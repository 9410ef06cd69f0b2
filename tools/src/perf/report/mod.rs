//! The forms of a result.

pub mod chart;
pub mod csv;
pub mod fio;
pub mod json;
pub mod svg;
pub mod sweep;
pub mod table;
pub mod units;

/// The percentiles of a report: their quantiles and names.
pub const PERCENTILES: [(f64, &str); 6] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (0.9999, "p99.99"),
    (0.99999, "p99.999"),
];
