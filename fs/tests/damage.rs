//! Damaged filesystems with faults in every structure: a short run of the suite `damage`.

use crate::hostile;

use std::collections::BTreeMap;

use hostile::base::{self, Base, RECIPES};
use hostile::bytes;
use hostile::campaign;
use hostile::fields::Field;
use hostile::layout::Place;
use hostile::memory::Counting;
use hostile::source::Changed;
use hostile::view::explore;
use nvio_testkit::random::Rng;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn bases() -> Vec<Base> {
    let dir = base::folder();
    let made = RECIPES.iter().map(|recipe| (recipe.name, Base::make(recipe, dir.path())));
    made.filter_map(|(name, base)| base.map_err(|error| println!("{name}: {error}")).ok()).collect()
}

#[test]
fn every_structure_is_found_and_its_checksum_known() {
    for base in bases() {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for place in &base.layout.places {
            *kinds.entry(place.kind).or_default() += 1;
            let sound = &base.layout.image[place.start..place.start + place.length];
            let mut sealed = sound.to_vec();
            let more = place.seal.apply(&base.layout, &mut sealed);
            assert!(sealed == sound, "{}: {place:?}", base.name);
            for (at, bytes) in more {
                assert!(
                    base.layout.image[at..at + bytes.len()] == bytes,
                    "{}: {place:?}",
                    base.name
                );
            }
        }
        println!("{}: {} names, {kinds:?}", base.name, base.views[0].names.len());
    }
}

/// `NVIO_MUTANTS` sets the number of mutants, `NVIO_SEED` selects them.
#[test]
fn mutants_are_refused_or_read_right() {
    let number =
        |name, default| std::env::var(name).map_or(default, |value| value.parse::<u64>().unwrap());
    let bases = bases();
    let count = number("NVIO_MUTANTS", 600) as usize;
    let work = campaign::work(&bases, count, &mut Rng::new(number("NVIO_SEED", 1)));
    assert_eq!(campaign::run(&bases, work, 2), 0);
}

/// The comparison must detect wrong results that checksums do not reveal.
#[test]
fn a_wrong_answer_is_noticed() {
    let dir = base::folder();
    let base = Base::make(&RECIPES[0], dir.path()).unwrap();
    let (layout, sound) = (&base.layout, &base.views[0]);
    let paths: Vec<&[u8]> = base.paths.iter().map(Vec::as_slice).collect();
    let wrong = |kind: &str, name: &str, nth: usize, value: u64| {
        let places = layout.places.iter().filter(|place| place.kind == kind);
        let mut fields =
            places.flat_map(|place| place.fields.iter().map(move |&field| (place, field)));
        let is_it = |(place, field): &(&Place, Field)| {
            field.name == name && layout.get(place.start + field.at, field.width) != 0
        };
        let (place, field) = fields.by_ref().filter(is_it).nth(nth).unwrap();
        let mut bytes = layout.image[place.start..place.start + place.length].to_vec();
        bytes::put(&mut bytes, field.at, field.width, value);
        place.seal.apply(layout, &mut bytes);
        let image = Changed::new(&layout.image, vec![(place.start, bytes)]);
        let view = explore(&image, &paths).unwrap();
        view.wrong(sound).unwrap_or_else(|| panic!("{kind}, {name}"))
    };
    assert!(wrong("inode of a file", "size_lo", 0, 3).contains("stat is"));
    assert!(wrong("inode of a file", "start_lo", 0, 600).contains("contents is"));
    assert!(wrong("extent leaf", "start_lo", 0, 600).contains("contents is"));
    assert!(wrong("directory block", "inode", 2, 0).contains("is missing"));
    assert!(wrong("inode of a short link", "i_block", 0, 0x4141_4141).contains("contents is"));
}
