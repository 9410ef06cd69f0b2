//! Plays seeds: proptest draws a sequence for each, and shrinks it if it fails.

use std::cell::RefCell;
use std::fmt::Debug;
use std::path::Path;

use proptest::test_runner::{
    Config, FailurePersistence, FileFailurePersistence, PersistedSeed, RngAlgorithm, TestCaseError,
    TestError, TestRng, TestRunner,
};

use super::outcome::Outcome;
use super::run::run;
use super::strategy::{Sequence, sequences};
use super::watch::Sabotage;

/// File in which proptest stores failed seeds.
pub const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sequences.proptest-regressions");
/// Maximum number of attempts to shrink a sequence.
const SHRINKS: u32 = 5000;

/// A failed sequence after shrinking.
#[derive(Debug)]
pub struct Failure {
    /// The error.
    pub why: String,
    /// The smallest sequence that fails.
    pub smallest: Box<Sequence>,
}

/// Plays a seed.
///
/// # Errors
/// The smallest sequence that fails.
pub fn play(seed: u64, sabotage: Sabotage, keep: bool) -> Result<Outcome, Failure> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config(1, keep.then_some(Keep::New)), rng);
    played(&mut runner, sabotage, false)
}

/// Plays all sequences that have failed before.
///
/// # Errors
/// The smallest form of the first sequence that fails.
pub fn replay() -> Result<Outcome, Failure> {
    played(&mut TestRunner::new(config(0, Some(Keep::All))), Sabotage::None, false)
}

/// Returns the sequence of a seed.
pub fn drawn(seed: u64) -> Option<Sequence> {
    let found = RefCell::new(None);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config(1, None), rng);
    let drawn = runner.run(&sequences(), |sequence| {
        found.replace(Some(sequence));
        Ok(())
    });
    drawn.ok().and(found.into_inner())
}

fn config(cases: u32, keep: Option<Keep>) -> Config {
    Config {
        cases,
        failure_persistence: keep.map(|keep| Box::new(keep) as Box<dyn FailurePersistence>),
        source_file: Some(file!()),
        max_shrink_iters: SHRINKS,
        max_shrink_time: 120_000,
        ..Config::default()
    }
}

fn played(runner: &mut TestRunner, sabotage: Sabotage, print: bool) -> Result<Outcome, Failure> {
    let total = RefCell::new(Outcome::default());
    let tested = runner.run(&sequences(), |sequence| {
        let outcome =
            run(&sequence, sabotage, print).map_err(|wrong| TestCaseError::fail(wrong.0))?;
        *total.borrow_mut() += &outcome;
        Ok(())
    });
    match tested {
        Ok(()) => Ok(total.into_inner()),
        Err(TestError::Fail(why, smallest)) => {
            Err(Failure { why: why.message().to_owned(), smallest: Box::new(smallest) })
        }
        Err(TestError::Abort(why)) => unreachable!("nothing is rejected: {why}"),
    }
}

/// The use of the file of failed seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// New failures are added.
    New,
    /// All stored seeds are played.
    All,
}

impl Keep {
    fn file() -> FileFailurePersistence {
        FileFailurePersistence::Direct(REGRESSIONS)
    }
}

impl FailurePersistence for Keep {
    fn load_persisted_failures2(&self, source_file: Option<&'static str>) -> Vec<PersistedSeed> {
        match self {
            Self::New => Vec::new(),
            Self::All if !Path::new(REGRESSIONS).exists() => Vec::new(),
            Self::All => Self::file().load_persisted_failures2(source_file),
        }
    }

    fn save_persisted_failure2(
        &mut self,
        source_file: Option<&'static str>,
        seed: PersistedSeed,
        shrunken_value: &dyn Debug,
    ) {
        Self::file().save_persisted_failure2(source_file, seed, shrunken_value);
    }

    fn box_clone(&self) -> Box<dyn FailurePersistence> {
        Box::new(*self)
    }

    fn eq(&self, other: &dyn FailurePersistence) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
