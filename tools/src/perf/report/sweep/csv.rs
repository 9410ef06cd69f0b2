//! The rounds of a sweep as comma separated values.

use super::json;
use crate::perf::settings::Sizes;
use crate::perf::sweep::{Cell, Sweep};

const HEADING: &str = "round,rw,bs,qd,threads,path,iops,bytes_per_second,ratio,mean_ns,cpu_ns_per_io,\
                       errors\n";

/// Formats a line for each round and cell. The comment before them is the JSON document on one line.
pub fn render(of: &Sweep) -> String {
    let mut text = format!("# {}\n{HEADING}", json::document(of, false));
    let most = of.cells.iter().map(|cell| cell.rounds.len()).max().unwrap_or(0);
    for index in 0..most {
        of.cells.iter().filter_map(|cell| line(of, cell, index)).for_each(|line| text += &line);
    }
    text
}

fn line(of: &Sweep, cell: &Cell, index: usize) -> Option<String> {
    let round = cell.rounds.get(index)?;
    let reference = cell.reference.and_then(|first| of.cells.get(first)?.rounds.get(index));
    let ratio = reference.map(|reference| round.iops() / reference.iops());
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or(String::new(), |value| format!("{value:.digits$}"))
    };
    let load = &cell.settings;
    // Sizes with weights are separated by commas, too.
    let sizes = Sizes(&load.sizes).to_string().replace(',', " ");
    Some(format!(
        "{},{},{sizes},{},{},{},{:.1},{:.0},{},{},{:.1},{}\n",
        index + 1,
        load.rw.name(),
        load.depth,
        load.threads,
        of.path(cell),
        round.iops(),
        round.bandwidth(),
        optional(ratio, 4),
        optional(round.mean, 1),
        round.per_io(round.cpu),
        round.errors,
    ))
}
