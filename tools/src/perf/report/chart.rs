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
/// Most markers of a line.
const MARKERS_MAX: usize = 12;

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
        let power = 10_f64.powf((max / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| max / step <= 6.0).unwrap_or(max);
        let count = (max / step).ceil();
        let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + 1.0));
        let ticks = ticks.take_while(|&tick| tick <= count).map(|tick| tick * step);
        let ticks = ticks.map(|tick| (tick, format(tick))).collect();
        Self { label: label.to_owned(), range: (0.0, count * step), ticks }
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

/// A line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Positions on both axes.
    pub points: Vec<(f64, f64)>,
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
            text(svg, (x(*tick), y0 + LINE), "middle", "", label);
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
        text(svg, ((x0 + x1) / 2.0, y0 + 2.5 * LINE), "middle", "", &self.x.label);
        let turned = format!("transform=\"rotate(-90 16 {:.1})\"", (y0 + y1) / 2.0);
        text(svg, (16.0, (y0 + y1) / 2.0), "middle", &turned, &self.y.label);
        for (index, series) in self.series.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                series.points.iter().map(|&(px, py)| (x(px), y(py))).collect();
            curve(svg, index, &points);
            let height = y1 + (index as f64 + 0.5) * LINE * 1.25;
            curve(svg, index, &[(x1 + 12.0, height), (x1 + 52.0, height)]);
            text(svg, (x1 + 60.0, height + 4.0), "start", "", &shortened(&series.name));
        }
    }
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

fn curve(svg: &mut String, style: usize, points: &[(f64, f64)]) {
    let (dashes, color) = STYLES.get(style % STYLES.len()).copied().unwrap_or_default();
    let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\" stroke-dasharray=\"{dashes}\"/>",
        list.join(" ")
    );
    let step = points.len().div_ceil(MARKERS_MAX).max(1);
    for &(x, y) in points.iter().step_by(step) {
        let _ = match style % 3 {
            0 => writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"),
            1 => writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\" fill=\"white\" stroke=\"{color}\"/>",
                x - 3.0,
                y - 3.0
            ),
            _ => {
                writeln!(svg, "<path d=\"M{x:.1} {:.1} l3.5 6 h-7 z\" fill=\"{color}\"/>", y - 3.5)
            }
        };
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
        let point = Axis::logarithmic("y", 100.0, 100.0, |tick| tick.to_string());
        assert!(point.range.0 < point.range.1, "{:?}", point.range);
    }

    #[test]
    fn markup_in_names_is_text() {
        let axis = Axis::linear("a < b", 1.0, |_| String::new());
        let series = vec![Series { name: "<&\">".to_owned(), points: vec![(0.0, 1.0)] }];
        let chart = Chart { title: "t".to_owned(), x: axis.clone(), y: axis, series };
        let svg = document(&[chart], &["a & b".to_owned()], "{\"x\":1}");
        for part in ["a &lt; b", "&lt;&amp;&quot;&gt;", "a &amp; b", "{&quot;x&quot;:1}"] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
    }
}
