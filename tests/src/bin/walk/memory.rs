//! Peak memory of `nvio ls -lR`.

use nvio_tests::walk::Result;
use nvio_tests::walk::command::{Served, listed};
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{DIRECTORIES, FILES_EACH, Many};

/// Peak memory for a million files, in MiB, at most.
const MEMORY: f64 = 200.0;
const MILLION: f64 = 1e6;

/// Lists files that are spread over directories, and files of one directory.
pub(crate) fn measure(many: &Many) -> Result<Vec<Goal>> {
    let served = Served::new(&many.image, &[])?;
    let list = |path| listed(served.command("ls", &["-lR", path]));
    let (spread, one) = (list("/spread")?, list("/one")?);
    let spread_files = DIRECTORIES * FILES_EACH;
    // Each directory has a heading, and an empty line in front unless it is the first.
    let expected = [spread_files + DIRECTORIES + 2 * (DIRECTORIES + 1) - 1, many.in_one + 1];
    if [spread.lines, one.lines] != expected {
        return Err(format!("{} and {} lines were listed", spread.lines, one.lines).into());
    }
    if listed(served.command("ls", &["-lR", "/one", "--no-read-ahead"]))?.hash != one.hash {
        return Err("read-ahead changes what is listed".into());
    }
    println!("peak of memory: {:.1} MiB spread, {:.1} MiB in one", spread.peak, one.peak);
    // More files in a directory need memory for their names only.
    let each = (one.peak - spread.peak).max(0.0) / many.in_one as f64;
    let million = one.peak + each * (MILLION - many.in_one as f64);
    let name = format!("MiB for 1,000,000 files in one directory, from {}", many.in_one);
    Ok(vec![
        Goal::most(
            format!("MiB for {spread_files} files in {DIRECTORIES} directories"),
            spread.peak,
            MEMORY / 2.0,
        ),
        Goal::most(name, million, MEMORY),
    ])
}
