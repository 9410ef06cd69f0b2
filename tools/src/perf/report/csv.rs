//! The seconds of a run as comma separated values.

use super::json;
use crate::perf::measurement::Measurement;

const HEADING: &str = "second,name,read_iops,write_iops,read_bytes,write_bytes,read_mean_ns,\
                       write_mean_ns,errors\n";

/// Formats a line for each row and second. The comment before them is the JSON document on one line,
/// without the seconds.
pub fn render(of: &Measurement) -> String {
    let mut about = of.clone();
    about.rows.iter_mut().for_each(|row| row.outcome.seconds.clear());
    about.total.seconds.clear();
    let mut text = format!("# {}\n{HEADING}", json::document(&about, false));
    let most = of.rows.iter().map(|row| row.outcome.seconds.len()).max().unwrap_or(0);
    for index in 0..most {
        for row in &of.rows {
            let Some(second) = row.outcome.seconds.get(index) else { continue };
            let mean = |side: usize| match second.latency[side].checked_div(second.ios[side]) {
                Some(mean) if second.latency[side] > 0 => mean.to_string(),
                _ => String::new(),
            };
            text += &format!(
                "{},{},{},{},{},{},{},{},{}\n",
                index + 1,
                quoted(&row.name),
                second.ios[0],
                second.ios[1],
                second.bytes[0],
                second.bytes[1],
                mean(0),
                mean(1),
                second.errors
            );
        }
    }
    text
}

/// Quotes a name that has a comma, a quote or a line break (RFC 4180).
fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_if_they_must_be() {
        assert_eq!(quoted("disk.img:/file"), "disk.img:/file");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
