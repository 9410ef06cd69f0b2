//! A sweep as a picture: requests a second, ratios and latencies by depth or by size.

use super::{json, table};
use crate::perf::report::chart::{self, Axis, Chart, Series};
use crate::perf::report::units::{count, round_nanos};
use crate::perf::settings::{Settings, Sizes, Way};
use crate::perf::sweep::statistics::Spread;
use crate::perf::sweep::{Cell, Round, Sweep};

/// Most ticks of the horizontal axis.
const TICKS_MAX: usize = 16;
/// Distance of markers of the same load, in loads, depths or sizes.
const BESIDE: f64 = 0.05;
/// An axis is logarithmic if the highest value is this many times the lowest.
const WIDE: f64 = 10.0;

/// The meaning of the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Across {
    /// Requests in flight, a chart for each size.
    Depth,
    /// Sizes.
    Size,
    /// Loads of any kind.
    Load,
    /// Ways of one load.
    Way,
}

/// Draws the result.
pub fn render(of: &Sweep) -> String {
    let across = across(&of.cells);
    let mut charts = Vec::new();
    for name in names(&of.cells, across) {
        let cells = of.cells.iter().filter(|cell| group(&cell.settings, across) == name);
        let cells: Vec<&Cell> = cells.collect();
        let picture = Picture { of, across, cells, name };
        charts.extend([picture.rate(), picture.ratio(), picture.latency()].into_iter().flatten());
    }
    let legend = "markers are medians; bars reach from the lowest to the highest round";
    let about = table::about(of);
    let notes = std::iter::once(legend).chain(about.lines());
    let notes: Vec<String> = notes.map(str::to_owned).collect();
    chart::document(&charts, &notes, &json::document(of, false).to_string())
}

fn across(cells: &[Cell]) -> Across {
    let differ = |key: fn(&Settings) -> String| {
        cells.iter().any(|cell| {
            cells.first().is_some_and(|first| key(&first.settings) != key(&cell.settings))
        })
    };
    if differ(|load| format!("{} {}", load.rw.name(), load.threads)) {
        return Across::Load;
    }
    match (differ(|load| load.depth.to_string()), differ(|load| Sizes(&load.sizes).to_string())) {
        (true, _) => Across::Depth,
        (false, true) => Across::Size,
        (false, false) => Across::Way,
    }
}

/// Returns the name of the chart that a load belongs to.
fn group(load: &Settings, across: Across) -> String {
    let threads = match load.threads {
        1 => String::new(),
        threads => format!(", {threads} threads"),
    };
    let (rw, sizes, depth) = (load.rw.name(), Sizes(&load.sizes), load.depth);
    match across {
        Across::Depth => format!("{rw} {sizes}{threads}"),
        Across::Size => format!("{rw} QD {depth}{threads}"),
        Across::Way => format!("{rw} {sizes} QD {depth}{threads}"),
        Across::Load => String::new(),
    }
}

fn names(cells: &[Cell], across: Across) -> Vec<String> {
    let mut names = Vec::new();
    for cell in cells {
        let name = group(&cell.settings, across);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The figure on a vertical axis.
struct Measured<'m, F> {
    label: &'m str,
    /// Formats a tick.
    tick: F,
    /// Ratios, whose axis need not begin at 0.
    is_ratio: bool,
}

impl<'m, F: Fn(f64) -> String> Measured<'m, F> {
    fn new(label: &'m str, tick: F) -> Self {
        Self { label, tick, is_ratio: false }
    }

    fn axis(&self, min: f64, max: f64, is_wide: bool) -> Axis {
        match (is_wide, self.is_ratio) {
            (true, _) => {
                let label = format!("{}, logarithmic", self.label);
                Axis::logarithmic(&label, min, max, &self.tick)
            }
            (false, true) => Axis::between(self.label, min, max, &self.tick),
            (false, false) => Axis::linear(self.label, max, &self.tick),
        }
    }
}

/// Cells with a horizontal axis in common.
struct Picture<'s> {
    of: &'s Sweep,
    across: Across,
    cells: Vec<&'s Cell>,
    name: String,
}

impl Picture<'_> {
    /// Draws requests a second, or bandwidth if the sizes differ.
    fn rate(&self) -> Option<Chart> {
        if matches!(self.across, Across::Load | Across::Size) {
            let mib = |round: &Round| Some(round.bandwidth() / f64::from(1 << 20));
            let figure = |cell: &Cell| cell.spread(mib);
            return self.chart("Bandwidth", figure, &Measured::new("bandwidth (MiB/s)", short));
        }
        let measured = Measured::new("requests a second (IOPS)", short);
        self.chart("Requests a second", Cell::iops, &measured)
    }

    /// Draws the ratios to the first way. `None` without a comparison.
    fn ratio(&self) -> Option<Chart> {
        let first = table::first_way(self.of)?;
        let title = format!("Ratio of the requests a second to {first}, of each round");
        let label = format!("requests a second / {first}");
        let tick =
            |at: f64| format!("{at:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
        let measured = Measured { is_ratio: true, ..Measured::new(&label, tick) };
        self.chart(&title, |cell| self.of.ratio(cell), &measured)
    }

    /// Draws mean latencies. `None` if the clock was not read.
    fn latency(&self) -> Option<Chart> {
        let figure = |cell: &Cell| cell.spread(|round| round.mean);
        self.chart("Mean latency", figure, &Measured::new("mean latency", round_nanos))
    }

    fn chart(
        &self,
        title: &str,
        figure: impl Fn(&Cell) -> Option<Spread>,
        measured: &Measured<'_, impl Fn(f64) -> String>,
    ) -> Option<Chart> {
        let spreads: Vec<Spread> = self.cells.iter().filter_map(|cell| figure(cell)).collect();
        let max = spreads.iter().map(|spread| spread.max).fold(0.0, f64::max);
        let positive = spreads.iter().map(|spread| spread.min).filter(|&min| min > 0.0);
        let min = positive.fold(max, f64::min);
        if max <= 0.0 {
            return None;
        }
        let is_wide = max / min >= WIDE;
        let scale = |value: f64| if is_wide { value.max(min).log10() } else { value };
        let mut series: Vec<(Way, Series)> = Vec::new();
        for cell in &self.cells {
            let Some(spread) = figure(cell) else { continue };
            let way = if self.across == Across::Way { Way::Raw } else { cell.settings.way };
            let at = self.position(&cell.settings, self.number(way));
            let index = series.iter().position(|(known, _)| *known == way).unwrap_or_else(|| {
                let path = self.of.path(cell);
                let name = if self.across == Across::Way { self.name.as_str() } else { path };
                let is_loose = matches!(self.across, Across::Load | Across::Way);
                series.push((way, Series { name: name.to_owned(), is_loose, ..Series::default() }));
                series.len() - 1
            });
            let Some((_, series)) = series.get_mut(index) else { continue };
            series.points.push((at, scale(spread.median)));
            series.bars.push((at, scale(spread.min), scale(spread.max)));
        }
        let separator = if self.name.is_empty() { "" } else { ": " };
        Some(Chart {
            title: format!("{title}{separator}{}", self.name),
            x: self.axis(),
            y: measured.axis(min, max, is_wide),
            series: series.into_iter().map(|(_, series)| series).collect(),
        })
    }

    /// Returns the loads of the picture, each once.
    fn loads(&self) -> Vec<&Settings> {
        let mut loads: Vec<&Settings> = Vec::new();
        for Cell { settings, .. } in &self.cells {
            if !loads.iter().any(|known| self.tick(known) == self.tick(settings)) {
                loads.push(settings);
            }
        }
        loads
    }

    /// Returns the number of a way among those of the picture.
    fn number(&self, way: Way) -> (usize, usize) {
        let mut ways: Vec<Way> = Vec::new();
        for cell in &self.cells {
            if !ways.contains(&cell.settings.way) {
                ways.push(cell.settings.way);
            }
        }
        (ways.iter().position(|&known| known == way).unwrap_or(0), ways.len())
    }

    /// Returns the position of a load. Ways are beside each other, so that no bar hides another.
    fn position(&self, load: &Settings, (number, ways): (usize, usize)) -> f64 {
        let beside = (number as f64 - (ways as f64 - 1.0) / 2.0) * BESIDE;
        let category = || {
            let loads = self.loads();
            loads.iter().position(|known| self.tick(known) == self.tick(load)).unwrap_or(0) as f64
        };
        match self.across {
            Across::Depth => f64::from(load.depth).log2() + beside,
            Across::Size => (load.bytes_max().max(1) as f64).log2() + beside,
            Across::Load => category() + 2.0 * beside,
            Across::Way => category(),
        }
    }

    fn tick(&self, load: &Settings) -> String {
        match self.across {
            Across::Depth => load.depth.to_string(),
            Across::Size => Sizes(&load.sizes).to_string(),
            Across::Way => load.way.name().to_owned(),
            Across::Load => {
                let (rw, sizes) = (load.rw.name(), Sizes(&load.sizes));
                format!("{rw} {sizes}\nQD {} x {}", load.depth, load.threads)
            }
        }
    }

    fn axis(&self) -> Axis {
        let label = match self.across {
            Across::Depth => "requests in flight of each thread (QD), logarithmic",
            Across::Size => "size of requests (bytes), logarithmic",
            Across::Load => "load, requests in flight of each thread x threads",
            Across::Way => "path of the requests",
        };
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let loads = self.loads();
        for load in &loads {
            ticks.push((self.position(load, (0, 1)), self.tick(load)));
        }
        let bound =
            |pick: fn(f64, f64) -> f64, from| ticks.iter().map(|tick| tick.0).fold(from, pick);
        let margin = if matches!(self.across, Across::Load | Across::Way) { 0.5 } else { 0.2 };
        let range = (bound(f64::min, f64::MAX) - margin, bound(f64::max, f64::MIN) + margin);
        let step = ticks.len().div_ceil(TICKS_MAX).max(1);
        let ticks = ticks.into_iter().step_by(step).collect();
        Axis { label: label.to_owned(), range, ticks }
    }
}

/// Formats a tick of a count or a bandwidth, which may be below 1.
fn short(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value}"),
        _ if (1e3..1e4).contains(&value) => format!("{}k", value / 1e3),
        _ => count(value).replace(".00", "").replace(".0", ""),
    }
}
