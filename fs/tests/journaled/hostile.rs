//! Damaged filesystems that are changed: no panic, no endless loop, no write outside.

use std::time::{Duration, Instant};

use nvio_ext4::{JournaledFilesystem, Options, RenameMode, XattrMode};
use nvio_testkit::random::Rng;

use super::recorder::{Event, Recorder};
use crate::hostile::base::{self, Base, RECIPES};
use crate::hostile::campaign;

/// Maximum time for one mutant, which is only to end a hang.
const HANGS: Duration = Duration::from_secs(60);

/// Changes inodes in each way that there is. Returns the number of changes that were made.
fn change_all(fs: &JournaledFilesystem) -> usize {
    let mut made = 0;
    let data = vec![7; 20_000];
    for number in 1..=fs.superblock().inodes_count.min(40) {
        let (name, moved) = (format!("name-{number:0>200}"), format!("moved-{number:0>100}"));
        let results = [
            fs.hard_link(number, 2, &name).is_ok(),
            fs.hard_link(number, number ^ 1, &name).is_ok(),
            fs.rename(2, &name, number, &moved, RenameMode::Replace).is_ok(),
            fs.rename(number, &moved, number ^ 1, &name, RenameMode::Exchange).is_ok(),
            fs.rename(2, "lost+found", number, "lost+found", RenameMode::NoReplace).is_ok(),
            fs.set_permissions(number, 0o640).is_ok(),
            fs.set_times(number, None, Some(nvio_ext4::Timestamp::default())).is_ok(),
            fs.write_at(number, 3000, &data).is_ok(),
            fs.allocate(number, 100_000, 50_000, false).is_ok(),
            fs.punch_hole(number, 5000, 60_000).is_ok(),
            fs.insert_range(number, 4096, 8192).is_ok(),
            fs.zero_range(number, 3000, 30_000, true).is_ok(),
            fs.collapse_range(number, 0, 4096).is_ok(),
            fs.truncate(number, 7000).is_ok(),
            fs.set_xattr(number, "user.hostile", &data[..700], XattrMode::Either).is_ok(),
            fs.set_xattr(number, "trusted.hostile", &data[..20], XattrMode::Either).is_ok(),
            fs.remove_xattr(number, "user.hostile").is_ok(),
        ];
        made += results.iter().filter(|&&done| done).count();
        if number % 8 == 0 && fs.sync().is_err() {
            break;
        }
    }
    made
}

/// `NVIO_MUTANTS` sets the number of mutants, `NVIO_SEED` selects them.
#[test]
fn damaged_filesystems_are_refused_or_changed_inside() {
    let number =
        |name, default| std::env::var(name).map_or(default, |value| value.parse::<u64>().unwrap());
    let folder = base::folder();
    let names = ["ext4", "none", "journal", "orphans", "journal-plain"];
    let recipes = RECIPES.iter().filter(|recipe| names.contains(&recipe.name));
    let bases: Vec<Base> =
        recipes.filter_map(|recipe| Base::make(recipe, folder.path()).ok()).collect();
    assert!(bases.len() >= 3);
    let count = number("NVIO_MUTANTS", 1500) as usize;
    let work = campaign::work(&bases, count, &mut Rng::new(number("NVIO_SEED", 1)));
    let (mut opened, mut changed) = (0, 0);
    for (base, choice) in work {
        let Some(mutant) = base.layout.mutant(choice) else { continue };
        let what = format!("{}, {choice}: {}", base.name, mutant.what);
        let mut bytes = base.layout.image.to_vec();
        for (at, patch) in mutant.patches {
            bytes[at..at + patch.len()].copy_from_slice(&patch);
        }
        let device = Recorder::new(bytes);
        let begin = Instant::now();
        let Ok(fs) = JournaledFilesystem::open(device.clone(), Options::default()) else {
            continue;
        };
        opened += 1;
        let made = change_all(&fs);
        changed += usize::from(made > 0);
        let end = fs.superblock().size() as usize;
        let _ = fs.close();
        assert!(begin.elapsed() < HANGS, "{what}: {:?}", begin.elapsed());
        for event in device.events() {
            let Event::Write { ranges, .. } = event else { continue };
            let last = ranges.iter().map(|(at, bytes)| at + bytes.len()).max();
            assert!(last.is_none_or(|last| last <= end), "{what}: a write after the end");
        }
    }
    println!("{opened} were opened, {changed} changed");
    assert!(opened * 10 > count && changed > 0, "{opened} {changed} of {count}");
}
