//! Line charts as SVG, readable in black and white: lines differ by their dashes and markers.

use std::fmt::Write;

/// Width of the picture, and of the area with the lines, in pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 250.0;
/// Height of a chart, and of the parts above and below the lines.
const HEIGHT: f64 = 360.0;
const ABOVE: f64 = 40.0;
const BELOW: f64 = 60.0;
/// Height of a line of text.
const LINE: f64 = 16.0;
/// Most characters of a line of text below the charts.
const NOTE_MAX: usize = 140;
/// Most markers of a line.
const MARKERS_MAX: usize = 16;

/// Dashes and colours of the lines, dark to light in black and white.
const STYLES: [(&str, &str); 6] = [
    ("", "#000000"),
    ("8 4", "#1f4e9c"),
    ("2 3", "#a03020"),
    ("12 4 2 4", "#207040"),
    ("5 2", "#7a4a9a"),
    ("1 5", "#555555"),
];

/// An axis. The caller gives positions on it as numbers of any scale.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Name and unit.
    pub label: String,
    /// First and last position.
    pub range: (f64, f64),
    /// Positions with their texts.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Creates an axis from 0 to `max` with about five ticks at round numbers.
    pub fn linear(label: &str, max: f64, format: impl Fn(f64) -> String) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let step = round_step(max);
        let count = (max / step).ceil();
        let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + 1.0));
        let ticks = ticks.take_while(|&tick| tick <= count).map(|tick| tick * step);
        let ticks = ticks.map(|tick| (tick, format(tick))).collect();
        Self { label: label.to_owned(), range: (0.0, count * step), ticks }
    }

    /// Creates an axis that includes `min` and `max`, which are not negative, with about five ticks at
    /// round numbers.
    pub fn between(label: &str, min: f64, max: f64, format: impl Fn(f64) -> String) -> Self {
        let step = round_step((max - min).max(max.abs() * 0.01));
        let (first, last) = ((min / step).floor(), (max / step).ceil());
        let last = last.max(first + 1.0);
        let ticks = std::iter::successors(Some(first), |tick| Some(tick + 1.0));
        let ticks = ticks.take_while(|&tick| tick <= last).map(|tick| tick * step);
        let ticks = ticks.map(|tick| (tick, format(tick))).collect();
        Self { label: label.to_owned(), range: (first * step, last * step), ticks }
    }

    /// Creates an axis of logarithms to the base 10 that includes `min` and `max`, which are above 0,
    /// with ticks at 1, 2 and 5 times each power.
    pub fn logarithmic(label: &str, min: f64, max: f64, format: impl Fn(f64) -> String) -> Self {
        let (min, max) = (min.max(f64::MIN_POSITIVE), max.max(min));
        let powers = std::iter::successors(Some(min.log10().floor()), |power| Some(power + 1.0));
        let powers = powers.take_while(|&power| power <= max.log10().ceil());
        let steps =
            powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powf(power)));
        let steps: Vec<f64> = steps.collect();
        let below = steps.iter().rposition(|&step| step <= min * 1.000_001).unwrap_or(0);
        let above = steps.iter().position(|&step| step >= max * 0.999_999);
        let above = above.unwrap_or(steps.len().saturating_sub(1)).max(below + 1);
        let steps = steps.get(below..=above).unwrap_or(&steps);
        let range = (
            steps.first().map_or(0.0, |step| step.log10()),
            steps.last().map_or(1.0, |step| step.log10()),
        );
        let ticks = steps.iter().map(|&step| (step.log10(), format(step))).collect();
        Self { label: label.to_owned(), range, ticks }
    }

    /// Returns the place of a position between 0 and 1.
    fn place(&self, position: f64) -> f64 {
        let (first, last) = self.range;
        ((position - first) / (last - first)).clamp(0.0, 1.0)
    }
}

/// Returns 1, 2 or 5 times a power of 10, of which about five are in `span`.
fn round_step(span: f64) -> f64 {
    let span = if span > 0.0 { span } else { 1.0 };
    let power = 10_f64.powf((span / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| span / step <= 6.0).unwrap_or(span)
}

/// A line.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Positions on both axes.
    pub points: Vec<(f64, f64)>,
    /// Vertical bars: the position on the horizontal axis, and both ends.
    pub bars: Vec<(f64, f64, f64)>,
    /// Only markers, without a line between them.
    pub is_loose: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// Draws charts below each other, with lines of text below them, and a text that is not shown.
pub fn document(charts: &[Chart], notes: &[String], metadata: &str) -> String {
    let notes: Vec<String> = notes.iter().flat_map(|note| wrapped(note)).collect();
    let height = charts.len() as f64 * HEIGHT + (notes.len() as f64 + 2.0) * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <metadata>{}</metadata>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        escaped(metadata)
    );
    for (index, chart) in charts.iter().enumerate() {
        chart.draw(index as f64 * HEIGHT, &mut svg);
    }
    for (index, note) in notes.iter().enumerate() {
        let y = charts.len() as f64 * HEIGHT + (index as f64 + 1.0) * LINE;
        text(&mut svg, (10.0, y), "start", "", note);
    }
    svg + "</svg>\n"
}

impl Chart {
    fn draw(&self, top: f64, svg: &mut String) {
        let (x0, x1) = (LEFT, WIDTH - RIGHT);
        let (y0, y1) = (top + HEIGHT - BELOW, top + ABOVE);
        text(svg, (x0, top + ABOVE - 16.0), "start", "font-weight=\"bold\"", &self.title);
        let x = |position: f64| x0 + self.x.place(position) * (x1 - x0);
        let y = |position: f64| y0 + self.y.place(position) * (y1 - y0);
        for (tick, label) in &self.x.ticks {
            line(svg, (x(*tick), y0), (x(*tick), y1));
            for (row, label) in label.lines().enumerate() {
                text(svg, (x(*tick), y0 + LINE * (row as f64 + 1.0)), "middle", "", label);
            }
        }
        for (tick, label) in &self.y.ticks {
            line(svg, (x0, y(*tick)), (x1, y(*tick)));
            text(svg, (x0 - 6.0, y(*tick) + 4.0), "end", "", label);
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{x0}\" y=\"{y1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"black\"/>",
            x1 - x0,
            y0 - y1
        );
        text(svg, ((x0 + x1) / 2.0, y0 + 3.0 * LINE), "middle", "", &self.x.label);
        let turned = format!("transform=\"rotate(-90 16 {:.1})\"", (y0 + y1) / 2.0);
        text(svg, (16.0, (y0 + y1) / 2.0), "middle", &turned, &self.y.label);
        for (index, series) in self.series.iter().enumerate() {
            let style = Style::of(index);
            for &(at, low, high) in &series.bars {
                style.bar(svg, x(at), y(low), y(high));
            }
            let points = series.points.iter().map(|&(px, py)| (x(px), y(py)));
            style.curve(svg, &points.collect::<Vec<_>>(), series.is_loose);
            let height = y1 + (index as f64 + 0.5) * LINE * 1.25;
            let ends = [(x1 + 12.0, height), (x1 + 32.0, height), (x1 + 52.0, height)];
            style.curve(svg, if series.is_loose { &ends[1..2] } else { &ends }, series.is_loose);
            text(svg, (x1 + 60.0, height + 4.0), "start", "", &shortened(&series.name));
        }
    }
}

/// Divides a text into lines between its words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < NOTE_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("    {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Shortens a name that does not fit into the legend, at its front.
fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    let count = name.chars().count();
    match count > MOST {
        true => format!("..{}", name.chars().skip(count + 2 - MOST).collect::<String>()),
        false => name.to_owned(),
    }
}

/// The look of a line: series differ by dashes and markers, and by colours besides.
#[derive(Clone, Copy)]
struct Style {
    dashes: &'static str,
    color: &'static str,
    marker: usize,
}

impl Style {
    fn of(index: usize) -> Self {
        let (dashes, color) = STYLES.get(index % STYLES.len()).copied().unwrap_or_default();
        Self { dashes, color, marker: index % STYLES.len() }
    }

    /// Draws a line through points, and markers on some of them.
    fn curve(self, svg: &mut String, points: &[(f64, f64)], is_loose: bool) {
        let Self { dashes, color, .. } = self;
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        if !is_loose {
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\" \
                 stroke-dasharray=\"{dashes}\"/>",
                list.join(" ")
            );
        }
        let step = points.len().div_ceil(MARKERS_MAX).max(1);
        points.iter().step_by(step).for_each(|&point| self.marker(svg, point));
    }

    fn marker(self, svg: &mut String, (x, y): (f64, f64)) {
        let color = self.color;
        let path = |steps: &str, fill: &str| {
            format!(
                "<path d=\"M{x:.1} {y:.1} {steps}\" fill=\"{fill}\" stroke=\"{color}\" \
                 stroke-width=\"1.3\"/>\n"
            )
        };
        *svg += &match self.marker {
            0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>\n"),
            1 => path("m-3.5 -3.5 h7 v7 h-7 z", "white"),
            2 => path("m0 -4 l4 7 h-8 z", color),
            3 => path("m0 -5 l5 5 l-5 5 l-5 -5 z", "white"),
            4 => path("m-4 -4 l8 8 m0 -8 l-8 8", "none"),
            _ => path("m0 4 l4 -7 h-8 z", "white"),
        };
    }

    /// Draws a vertical bar with caps.
    fn bar(self, svg: &mut String, x: f64, low: f64, high: f64) {
        let color = self.color;
        let (left, right) = (x - 3.0, x + 3.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{left:.1} {low:.1} H{right:.1} M{x:.1} {low:.1} V{high:.1} M{left:.1} {high:.1} \
             H{right:.1}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1\"/>"
        );
    }
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, content: &str) {
    let content = escaped(content);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{content}</text>"
    );
}

/// Escapes the characters of markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_include_their_values_and_have_round_ticks() {
        let axis = Axis::linear("x", 47.0, |tick| tick.to_string());
        let ticks: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(ticks, ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(axis.range, (0.0, 50.0));
        let axis = Axis::logarithmic("y", 80.0, 3_000.0, |tick| format!("{tick:.0}"));
        let ticks: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(ticks, ["50", "100", "200", "500", "1000", "2000", "5000"]);
        let axis = Axis::between("y", 0.93, 1.04, |tick| format!("{tick:.2}"));
        let ticks: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(ticks, ["0.92", "0.94", "0.96", "0.98", "1.00", "1.02", "1.04"]);
        let point = Axis::between("y", 1.0, 1.0, |tick| tick.to_string());
        assert!(point.range.0 <= 1.0 && 1.0 < point.range.1, "{:?}", point.range);
        let point = Axis::logarithmic("y", 100.0, 100.0, |tick| tick.to_string());
        assert!(point.range.0 < point.range.1, "{:?}", point.range);
    }

    #[test]
    fn long_notes_are_lines() {
        let words = ["word"; 60].join(" ");
        let lines = wrapped(&words);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().all(|line| line.len() <= NOTE_MAX + 4), "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "), words);
        assert_eq!(wrapped("a  b"), ["a  b"]);
    }

    #[test]
    fn markup_in_names_is_text() {
        let axis = Axis::linear("a < b", 1.0, |_| String::new());
        let series = vec![Series {
            name: "<&\">".to_owned(),
            points: vec![(0.0, 1.0)],
            ..Series::default()
        }];
        let chart = Chart { title: "t".to_owned(), x: axis.clone(), y: axis, series };
        let svg = document(&[chart], &["a & b".to_owned()], "{\"x\":1}");
        for part in ["a &lt; b", "&lt;&amp;&quot;&gt;", "a &amp; b", "{&quot;x&quot;:1}"] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
    }
}
