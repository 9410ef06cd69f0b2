//! `nvio cp -r` of many small files onto tmpfs, beside `debugfs rdump`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use nvio_testkit::image::{mkfs_of_folder, work_folder};
use nvio_testkit::random::pattern;
use nvio_tests::nvio::binary;
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::{Goal, median};

const FILES: u64 = 4000;
const ROUNDS: usize = 5;

/// Copies the same image by turns.
pub(crate) fn speed() -> Result<Goal> {
    let folder = work_folder("nvio-copy");
    let (tree, image) = (folder.path().join("tree"), folder.path().join("disk.img"));
    fs::create_dir(&tree)?;
    for file in 0..FILES {
        let name = format!("file-{file:04}");
        fs::write(tree.join(name), pattern(file, 1000 + file as usize % 3000))?;
    }
    mkfs_of_folder(&image, 64 << 20, &tree, &["-b", "4096"]);
    let target = folder.path().join("target");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut ours = Command::new(binary());
        ours.arg("cp").arg("-r").arg(&image).arg("/").arg(&target);
        let mut theirs = Command::new("debugfs");
        theirs.arg("-R").arg(format!("rdump / {}", target.display())).arg(&image);
        for (mut command, times) in [ours, theirs].into_iter().zip(&mut times) {
            fs::create_dir(&target)?;
            let start = Instant::now();
            let status = command.stderr(Stdio::null()).status()?;
            times.push(start.elapsed().as_secs_f64());
            // Both copy lost+found, too.
            if !status.success() || fs::read_dir(&target)?.count() as u64 != FILES + 1 {
                return Err(format!("{command:?} has failed").into());
            }
            fs::remove_dir_all(&target)?;
        }
    }
    let [ours, theirs] = times.map(median);
    println!("{FILES} small files onto tmpfs: {ours:.3} s, debugfs {theirs:.3} s");
    Ok(Goal::least("cp -r onto tmpfs, debugfs rdump to nvio, times faster", theirs / ours, 1.0))
}
