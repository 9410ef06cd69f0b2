//! Faults of commands and of the controller, by script and by seed.

pub(crate) mod delayed;
pub(crate) mod plan;
pub(crate) mod rates;
pub(crate) mod schedule;
pub(crate) mod service;

use std::ops::Range;

use nvio_spec::Sqe;
use nvio_spec::opcode::nvm;

use crate::error::{Error, require};
use crate::faults::plan::{Fault, Plan};
use crate::faults::rates::{Rates, draw};
use crate::random::{MILLION, Random};

/// A fault of a script, and the commands that it applies to.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use nvio_emulator::{Fault, Rule};
/// use nvio_spec::{opcode, status};
///
/// // LBA 1000 of namespace 1 cannot be read.
/// let bad = Fault::Status(status::UNRECOVERED_READ_ERROR);
/// let rule = Rule::new(bad).opcode(opcode::nvm::READ).nsid(1).lbas(1000..1001);
/// // The third write is lost; from the tenth Identify command on, two are late.
/// let rule = Rule::new(Fault::Lost).opcode(opcode::nvm::WRITE).nth(3);
/// let late = Fault::Late(Duration::from_millis(5));
/// let rule = Rule::admin(late).opcode(opcode::admin::IDENTIFY).from(10).times(2);
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    admin: bool,
    opcode: Option<u8>,
    nsid: Option<u32>,
    lbas: Option<Range<u64>>,
    first: u64,
    times: u64,
}

impl Rule {
    /// Creates a rule for every I/O command.
    ///
    /// See the [example](Self#examples).
    pub fn new(fault: Fault) -> Self {
        let (opcode, nsid, lbas) = (None, None, None);
        Self { fault, admin: false, opcode, nsid, lbas, first: 1, times: u64::MAX }
    }

    /// Creates a rule for every admin command.
    ///
    /// See the [example](Self#examples).
    pub fn admin(fault: Fault) -> Self {
        Self { admin: true, ..Self::new(fault) }
    }

    /// Restricts the rule to this opcode.
    ///
    /// See the [example](Self#examples).
    pub fn opcode(mut self, opcode: u8) -> Self {
        self.opcode = Some(opcode);
        self
    }

    /// Restricts the rule to this namespace.
    ///
    /// See the [example](Self#examples).
    pub fn nsid(mut self, nsid: u32) -> Self {
        self.nsid = Some(nsid);
        self
    }

    /// Restricts the rule to I/O commands whose range of LBAs in CDW10 to CDW12 overlaps this
    /// range. Flush and Dataset Management have no such range.
    ///
    /// See the [example](Self#examples).
    pub fn lbas(mut self, lbas: Range<u64>) -> Self {
        self.lbas = Some(lbas);
        self
    }

    /// Restricts the rule to the `nth` command that matches the other conditions, from 1.
    ///
    /// See the [example](Self#examples).
    pub fn nth(self, nth: u64) -> Self {
        self.from(nth).times(1)
    }

    /// Restricts the rule to the `nth` matching command and later ones.
    ///
    /// See the [example](Self#examples).
    pub fn from(mut self, nth: u64) -> Self {
        self.first = nth.max(1);
        self
    }

    /// Restricts the rule to this number of commands.
    ///
    /// See the [example](Self#examples).
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn matches(&self, admin: bool, sqe: &Sqe) -> bool {
        self.admin == admin
            && self.opcode.is_none_or(|opcode| opcode == sqe.opcode)
            && self.nsid.is_none_or(|nsid| nsid == sqe.nsid.get())
            && self.lbas.as_ref().is_none_or(|lbas| !admin && overlaps(sqe, lbas))
    }
}

fn overlaps(sqe: &Sqe, lbas: &Range<u64>) -> bool {
    let has_range = matches!(
        sqe.opcode,
        nvm::READ | nvm::WRITE | nvm::COMPARE | nvm::WRITE_ZEROES | nvm::VERIFY
    );
    let end = sqe.slba().saturating_add(sqe.nlb().into());
    has_range && sqe.slba() < lbas.end && lbas.start < end
}

/// The faults of a controller: rules and rates. Without them a controller has no faults, and no
/// cost for them. See [`Rule`] for an example.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Controller, Fault, Faults, NamespaceConfig, Rates, Rule};
///
/// // One command in ten thousand is lost, by seed 7, and the first command is completed twice.
/// let rates = Rates { lost: 100, ..Rates::default() };
/// let faults = Faults::new().seeded(7, rates).rule(Rule::new(Fault::Duplicate).nth(1));
/// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// let controller = Controller::new(&config.faults(faults))?;
/// assert_eq!(controller.fault_counts().lost, 0);
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    seeded: Option<(u64, Rates)>,
}

impl Faults {
    /// Creates an empty set.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule. Every rule that matches a command applies. If faults exclude each other, the
    /// last added one applies.
    ///
    /// See the [example](Self#examples).
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds faults at these rates. `seed` decides them: commands in the same order have the same
    /// faults.
    ///
    /// See the [example](Self#examples).
    pub fn seeded(mut self, seed: u64, rates: Rates) -> Self {
        self.seeded = Some((seed, rates));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.seeded.is_none()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let largest = self.seeded.map_or(0, |(_, rates)| rates.largest());
        require(largest <= MILLION, "a rate of faults", largest, "0 to 1000000")
    }
}

/// Counts of the faults since the controller was created.
///
/// See the [example](crate::Emulator#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Commands completed with an injected status.
    pub status: u64,
    /// Commands that were late.
    pub late: u64,
    /// Commands that were executed, and that only Abort can complete.
    pub lost: u64,
    /// Completions posted twice.
    pub duplicate: u64,
    /// Completions posted with a stale identifier.
    pub stale_id: u64,
    /// Completions posted with an unknown identifier.
    pub unknown_id: u64,
    /// Old versions of blocks that reads have returned.
    pub old_version: u64,
    /// Faults of the controller.
    pub device: u64,
}

/// Plans the faults of each command.
#[derive(Debug)]
pub(crate) struct Injector {
    /// Rules, each with the number of commands that matched it.
    rules: Vec<(Rule, u64)>,
    seeded: Option<(Random, Rates)>,
}

impl Injector {
    pub(crate) fn new(faults: &Faults) -> Self {
        Self {
            rules: faults.rules.iter().map(|rule| (rule.clone(), 0)).collect(),
            seeded: faults.seeded.map(|(seed, rates)| (Random::new(seed), rates)),
        }
    }

    pub(crate) fn plan(&mut self, admin: bool, sqe: &Sqe) -> Plan {
        let mut plan = Plan::default();
        if let Some((random, rates)) = self.seeded.as_mut().filter(|_| !admin) {
            draw(&mut plan, random, rates, sqe);
        }
        for (rule, seen) in &mut self.rules {
            if rule.matches(admin, sqe) {
                *seen += 1;
                if *seen >= rule.first && *seen - rule.first < rule.times {
                    plan.apply(rule.fault);
                }
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_spec::{Status, status};

    fn status_of(injector: &mut Injector, sqe: Sqe) -> Option<Status> {
        injector.plan(false, &sqe).status
    }

    #[test]
    fn a_rule_matches_what_it_says_and_counts_only_that() {
        let bad = Fault::Status(status::UNRECOVERED_READ_ERROR);
        let rule = Rule::new(bad).opcode(nvm::READ).nsid(2).lbas(10..20).nth(2);
        let mut injector = Injector::new(&Faults::new().rule(rule));
        for other in [
            Sqe::write(2, 10, 1),
            Sqe::read(1, 10, 1),
            Sqe::read(2, 20, 1),
            Sqe::read(2, 0, 10),
            Sqe::flush(2),
        ] {
            assert_eq!(status_of(&mut injector, other), None);
        }
        assert_eq!(injector.plan(true, &Sqe::read(2, 10, 1)).status, None);
        assert_eq!(status_of(&mut injector, Sqe::read(2, 5, 6)), None);
        let hit = status_of(&mut injector, Sqe::read(2, 19, 100));
        assert_eq!(hit, Some(status::UNRECOVERED_READ_ERROR));
        assert_eq!(status_of(&mut injector, Sqe::read(2, 15, 1)), None);
    }

    #[test]
    fn faults_add_up_and_the_last_of_a_kind_counts() {
        let faults = Faults::new()
            .rule(Rule::new(Fault::Lost).from(2))
            .rule(Rule::new(Fault::UnknownId(1)))
            .rule(Rule::new(Fault::UnknownId(2)).times(1));
        let mut injector = Injector::new(&faults);
        let plan = injector.plan(false, &Sqe::flush(1));
        assert_eq!(plan, Plan { unknown_id: Some(2), ..Plan::default() });
        let plan = injector.plan(false, &Sqe::flush(1));
        assert_eq!(plan, Plan { unknown_id: Some(1), lost: true, ..Plan::default() });
    }

    #[test]
    fn a_seed_decides_everything_and_one_rate_does_not_move_another() {
        let rates = Rates { lost: 100_000, late: 50_000, ..Rates::default() };
        let run = |seed, rates| {
            let mut injector = Injector::new(&Faults::new().seeded(seed, rates));
            (0..10_000).map(|lba| injector.plan(false, &Sqe::read(1, lba, 1))).collect::<Vec<_>>()
        };
        assert_eq!(run(5, rates), run(5, rates));
        assert_ne!(run(5, rates), run(6, rates));
        let lost = run(5, rates).iter().filter(|plan| plan.lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
        let more = run(5, Rates { status: 500_000, ..rates });
        assert!(run(5, rates).iter().zip(&more).all(|(a, b)| a.lost == b.lost));
        let wrong = Faults::new().seeded(1, Rates { lost: MILLION + 1, ..Rates::default() });
        assert!(matches!(wrong.check(), Err(Error::Setting { value: 1_000_001, .. })));
    }
}
