//! Values of the options of `nvio perf`.

use nvio_perf::general::Size;
use nvio_perf::pace::Arrival;
use nvio_perf::plan::Latency;

use crate::units::size;

/// The unit of positions and lengths in bytes.
const SECTOR: usize = 512;
/// Most sizes of requests.
const SIZES_MAX: usize = 64;
/// Largest request in bytes.
const BYTES_MAX: usize = 1 << 30;

/// Readings of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LatencyWord {
    /// Never.
    None,
    /// Once for a batch.
    Batch,
    /// For each request.
    Each,
}

impl From<LatencyWord> for Latency {
    fn from(word: LatencyWord) -> Self {
        match word {
            LatencyWord::None => Self::None,
            LatencyWord::Batch => Self::Batch,
            LatencyWord::Each => Self::Each,
        }
    }
}

/// Starts of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ArrivalWord {
    /// Independent of each other.
    Poisson,
    /// At equal distances.
    Even,
}

impl From<ArrivalWord> for Arrival {
    fn from(word: ArrivalWord) -> Self {
        match word {
            ArrivalWord::Poisson => Self::Poisson,
            ArrivalWord::Even => Self::Even,
        }
    }
}

/// The schema of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatWord {
    /// The schema of fio's json+.
    FioJson,
}

/// The JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum JsonForm {
    /// Without the buckets of histograms.
    Short,
    /// With them.
    Full,
}

/// Parses `4k` or `4k:3,16k:1`.
///
/// # Errors
/// A message that says which part is wrong.
pub fn sizes(text: &str) -> Result<Vec<Size>, String> {
    let sizes: Result<Vec<Size>, String> = text.split(',').map(one_size).collect();
    let sizes = sizes?;
    if sizes.len() > SIZES_MAX {
        return Err(format!("{} sizes are more than {SIZES_MAX}", sizes.len()));
    }
    match sizes.iter().all(|size| size.weight == 0) {
        true => Err("all weights are 0".to_owned()),
        false => Ok(sizes),
    }
}

/// Parses `4k` or `4k:3`.
///
/// # Errors
/// A message that says what is wrong.
pub fn one_size(text: &str) -> Result<Size, String> {
    let (bytes, weight) = text.split_once(':').unwrap_or((text, "1"));
    let bytes: usize = size(bytes)?;
    let weight = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    match bytes > 0 && bytes <= BYTES_MAX && bytes.is_multiple_of(SECTOR) {
        true => Ok(Size { bytes, weight }),
        false => Err(format!("{bytes} bytes are not a multiple of {SECTOR} up to 1G")),
    }
}

/// Parses `2,4-7`.
///
/// # Errors
/// A message that says which part is wrong.
pub fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(|number| number.trim().parse::<usize>());
        match (first, last) {
            (Ok(first), Ok(last)) if first <= last && last < rustix::thread::CpuSet::MAX_CPU => {
                cpus.extend(first..=last);
            }
            _ => return Err(format!("{part:?} is not a processor or a range such as 4-7")),
        }
    }
    Ok(cpus)
}

/// Parses a number of requests a second, such as 50k or 1.5M.
///
/// # Errors
/// A message that says which part is wrong.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    let rate = number.parse::<f64>().ok().map(|number| number * factor);
    let rate = rate.filter(|rate| (1.0..=1e9).contains(rate));
    rate.ok_or_else(|| "expected requests a second from 1 to 1000M, such as 50k".to_owned())
}

/// Parses a number above 0.
///
/// # Errors
/// A message that says what is wrong.
pub fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_weights() {
        let of = |text| {
            sizes(text)
                .map(|sizes| sizes.iter().map(|size| (size.bytes, size.weight)).collect::<Vec<_>>())
        };
        assert_eq!(of("4k"), Ok(vec![(4096, 1)]));
        assert_eq!(of("4k:3,16K:1,512"), Ok(vec![(4096, 3), (16384, 1), (512, 1)]));
        for text in ["", "0", "100", "4k:x", "4k:0", "4k,,4k", "2G"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_lists_and_ranges() {
        assert_eq!(cpus("2,4-7"), Ok(vec![2, 4, 5, 6, 7]));
        for text in ["", "x", "3-1", "1,", "0-99999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_units() {
        assert_eq!([rate("50k"), rate("1.5M"), rate("200")], [Ok(5e4), Ok(1.5e6), Ok(200.0)]);
        for text in ["", "k", "0", "-5", "nan", "inf", "5q"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
