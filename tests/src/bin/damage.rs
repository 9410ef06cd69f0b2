//! Damages small filesystems in every way, structure by structure, and reads them.
//!
//! No change may cause a panic, or excessive time or memory. If metadata has checksums and they
//! were not updated after the change, every result is the original data or an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../fs/tests/hostile/mod.rs"]
mod hostile;

use std::process::ExitCode;
use std::thread;

use hostile::base::{self, Base, RECIPES};
use hostile::campaign;
use hostile::memory::Counting;
use hostile::mutant::Choice;
use nvio_testkit::random::Rng;

const USAGE: &str = "\
usage: damage --mutants N [--seed S] [--jobs N] [--image NAME]
       damage --image NAME --mutant CHOICE

Changes small filesystems, structure by structure, and reads everything in them. Exit codes: 0 all
is well, 1 a promise was broken, 2 wrong usage.

  --mutants N      how many, over all images and kinds of structures
  --seed S         which of them; 1 without
  --jobs N         mutants at once; as many as there are processors
  --image NAME     of this image only
  --mutant CHOICE  this one, as a line of a failure has it";

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Arguments {
    mutants: Option<usize>,
    seed: u64,
    jobs: usize,
    image: Option<String>,
    mutant: Option<Choice>,
}

fn arguments() -> Option<Arguments> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut parsed = Arguments { mutants: None, seed: 1, jobs, image: None, mutant: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--mutants" => parsed.mutants = Some(value.parse().ok()?),
            "--seed" => parsed.seed = value.parse().ok()?,
            "--jobs" => parsed.jobs = value.parse().ok().filter(|&jobs| jobs > 0)?,
            "--image" => parsed.image = Some(value),
            "--mutant" => parsed.mutant = Some(Choice::parse(&value)?),
            _ => return None,
        }
    }
    let known = |name: &String| RECIPES.iter().any(|recipe| recipe.name == *name);
    let sound = match parsed.mutant {
        Some(_) => parsed.image.is_some() && parsed.mutants.is_none(),
        None => parsed.mutants.is_some(),
    };
    (sound && parsed.image.as_ref().is_none_or(known)).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let folder = base::folder();
    let chosen = |name: &str| arguments.image.as_ref().is_none_or(|image| *image == name);
    let recipes = RECIPES.iter().filter(|recipe| chosen(recipe.name));
    let bases: Vec<Base> = recipes
        .map(|recipe| Base::make(recipe, folder.path()))
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}"));
    // Each failure prints one line of its own.
    std::panic::set_hook(Box::new(|_| ()));
    let work = match arguments.mutant {
        Some(choice) => {
            let mutant = bases[0].layout.mutant(choice);
            println!("{}", mutant.map_or("nothing is changed".to_owned(), |mutant| mutant.what));
            vec![(&bases[0], choice)]
        }
        None => {
            let count = arguments.mutants.unwrap_or(0);
            campaign::work(&bases, count, &mut Rng::new(arguments.seed))
        }
    };
    match campaign::run(&bases, work, arguments.jobs) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
