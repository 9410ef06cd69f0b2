//! A campaign: the selection of many mutants, and the checks of each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::base::Base;
use super::memory::measure;
use super::mutant::Choice;
use super::source::Changed;
use super::view::explore;
use nvio_testkit::random::Rng;

/// Maximum processor time for one mutant. A millisecond is expected.
const BOUND: Duration = Duration::from_secs(5);
/// Maximum elapsed time for one mutant. It is longer, because other processes use the processors,
/// too.
const HANGS: Duration = Duration::from_secs(60);
/// Maximum memory for one mutant, bytes.
const MEMORY: usize = 256 << 20;

/// Selects `count` mutants of all images.
pub fn work<'a>(bases: &'a [Base], count: usize, random: &mut Rng) -> Vec<(&'a Base, Choice)> {
    let mut work = Vec::with_capacity(count);
    for (at, base) in bases.iter().enumerate() {
        let share = (count - work.len()) / (bases.len() - at);
        let choices = choices(base, share, random);
        work.extend(choices.into_iter().map(|choice| (base, choice)));
    }
    for at in (1..work.len()).rev() {
        work.swap(at, random.below(at as u64 + 1) as usize);
    }
    work
}

/// The result for one mutant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The change had no effect on the image.
    Nothing,
    /// The image could not be opened.
    Refused,
    /// The view differs: parts could not be read, or read differently after an undetectable change.
    Differs,
    Same,
}

/// Reads a mutant, and returns an error if the result is neither right nor an error.
pub fn judge(base: &Base, choice: Choice) -> Result<Outcome, String> {
    let Some(mutant) = base.layout.mutant(choice) else { return Ok(Outcome::Nothing) };
    let (is_told, what) = (mutant.is_told, mutant.what);
    let image = Changed::new(&base.layout.image, mutant.patches);
    let paths: Vec<&[u8]> = base.paths.iter().map(Vec::as_slice).collect();
    let view = catch_unwind(AssertUnwindSafe(|| explore(&image, &paths))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        format!("{what}panic: {}", text.unwrap_or_default())
    })?;
    let Ok(view) = view else { return Ok(Outcome::Refused) };
    if base.views.contains(&view) {
        return Ok(Outcome::Same);
    }
    if is_told {
        let wrong: Vec<String> = base.views.iter().filter_map(|sound| view.wrong(sound)).collect();
        if wrong.len() == base.views.len() {
            return Err(format!("{what}{}", wrong[0]));
        }
    }
    Ok(Outcome::Differs)
}

/// A stratum of the mutants: all changes of one type to one kind of structure.
struct Stratum {
    /// Places, each with the number of variants up to its end.
    places: Vec<(usize, u64)>,
    of_fields: bool,
}

fn strata(base: &Base) -> Vec<Stratum> {
    let mut kinds: BTreeMap<(&str, bool), Vec<(usize, u64)>> = BTreeMap::new();
    for (at, place) in base.layout.places.iter().enumerate() {
        let counts = [(false, base.layout.bytes_of(place)), (true, base.layout.fields_of(place))];
        for (of_fields, count) in counts.into_iter().filter(|&(_, count)| count > 0) {
            let all = kinds.entry((place.kind, of_fields)).or_default();
            let end = all.last().map_or(0, |&(_, end)| end) + count;
            all.push((at, end));
        }
    }
    kinds.into_iter().map(|((_, of_fields), places)| Stratum { places, of_fields }).collect()
}

impl Stratum {
    /// Returns the number of variants, with a correct checksum and without.
    fn count(&self) -> u64 {
        2 * self.places.last().map_or(0, |&(_, end)| end)
    }

    fn choice(&self, variant: u64) -> Choice {
        let (sealed, variant) = (variant % 2 == 1, variant / 2);
        let at = self.places.partition_point(|&(_, end)| end <= variant);
        let before = at.checked_sub(1).map_or(0, |before| self.places[before].1);
        let (place, variant) = (self.places[at].0, variant - before);
        if self.of_fields {
            Choice::Field { place, variant, sealed }
        } else {
            Choice::Byte { place, variant, sealed }
        }
    }
}

/// Selects about `count` choices: an equal share for each stratum, and a tenth with several
/// changes.
pub fn choices(base: &Base, count: usize, random: &mut Rng) -> Vec<Choice> {
    let mut all = Vec::with_capacity(count);
    let mut strata = strata(base);
    strata.sort_by_key(Stratum::count);
    let single = count - count / 10;
    for (at, stratum) in strata.iter().enumerate() {
        // The unused share of small strata goes to larger ones.
        let share = (single - all.len()) / (strata.len() - at);
        let total = stratum.count();
        let share = (share as u64).min(total);
        for index in 0..share {
            let (from, to) = (index * total / share, (index + 1) * total / share);
            all.push(stratum.choice(from + random.below(to - from)));
        }
    }
    while all.len() < count {
        all.push(Choice::Several { seed: random.next_u64() });
    }
    all
}

/// Returns the processor time of this thread.
fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// The current mutant of a worker thread and its start time, for the watchdog.
type Busy = Mutex<Option<(Instant, String)>>;

struct Run<'a> {
    work: Vec<(&'a Base, Choice)>,
    next: AtomicUsize,
    done: AtomicBool,
    failed: AtomicUsize,
    busy: Vec<Busy>,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    outcomes: BTreeMap<Outcome, usize>,
    slowest: (Duration, String),
    largest: (usize, String),
}

impl Run<'_> {
    fn fail(&self, line: &str, reason: &str) {
        println!("damage {line}: {reason}");
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn work(&self, busy: &Busy) {
        let mut totals = Totals::default();
        while let Some(&(base, choice)) = self.work.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let line = format!("--image {} --mutant {choice}", base.name);
            let start = Instant::now();
            *busy.lock().unwrap() = Some((start, line.clone()));
            let before = on_processor();
            let (result, memory) = measure(MEMORY, &line, || judge(base, choice));
            // Only processor time counts, because the rest belongs to other processes.
            let took = match (before, on_processor()) {
                (Some(before), Some(after)) => after.saturating_sub(before),
                _ => start.elapsed(),
            };
            *busy.lock().unwrap() = None;
            match result {
                Ok(outcome) => *totals.outcomes.entry(outcome).or_default() += 1,
                Err(reason) => self.fail(&line, &reason),
            }
            if took > BOUND {
                self.fail(&line, &format!("it took {took:?}"));
            }
            if memory > MEMORY {
                self.fail(&line, &format!("it took {memory} bytes"));
            }
            totals.slowest = totals.slowest.max((took, line.clone()));
            totals.largest = totals.largest.max((memory, line));
        }
        let mut all = self.totals.lock().unwrap();
        for (outcome, count) in totals.outcomes {
            *all.outcomes.entry(outcome).or_default() += count;
        }
        all.slowest = std::mem::take(&mut all.slowest).max(totals.slowest);
        all.largest = std::mem::take(&mut all.largest).max(totals.largest);
    }

    /// Ends the process if a mutant exceeds the time limit.
    fn watch(&self) {
        while !self.done.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
            for busy in &self.busy {
                if let Some((start, line)) = &*busy.lock().unwrap()
                    && start.elapsed() > HANGS
                {
                    println!("damage {line}: it hangs");
                    std::process::exit(1);
                }
            }
        }
    }
}

/// Reads the mutants, prints a summary, and returns the number of failures.
pub fn run(bases: &[Base], work: Vec<(&Base, Choice)>, jobs: usize) -> usize {
    let run = Run {
        work,
        next: AtomicUsize::new(0),
        done: AtomicBool::new(false),
        failed: AtomicUsize::new(0),
        busy: (0..jobs).map(|_| Mutex::default()).collect(),
        totals: Mutex::default(),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| run.watch());
        let workers: Vec<_> = run.busy.iter().map(|busy| scope.spawn(|| run.work(busy))).collect();
        let ended = workers.into_iter().all(|worker| worker.join().is_ok());
        run.done.store(true, Ordering::Relaxed);
        assert!(ended, "a worker has panicked");
    });
    let (took, totals) = (start.elapsed(), run.totals.lock().unwrap());
    let count = |outcome| totals.outcomes.get(&outcome).copied().unwrap_or(0);
    let failed = run.failed.load(Ordering::Relaxed);
    println!(
        "{} mutants of {} images in {took:.1?} ({:.0} a second): {} refused at once, {} with other \
         answers or errors, {} with the same answers, {} without a change, {failed} failures",
        run.work.len(),
        bases.len(),
        run.work.len() as f64 / took.as_secs_f64(),
        count(Outcome::Refused),
        count(Outcome::Differs),
        count(Outcome::Same),
        count(Outcome::Nothing),
    );
    let (slowest, largest) = (&totals.slowest, &totals.largest);
    println!("slowest {:.1?}: {}", slowest.0, slowest.1);
    println!("most memory {} KiB: {}", largest.0 >> 10, largest.1);
    failed
}
