//! Throughput of the paths to a file, beside each other and beside the raw namespace.
//!
//! `cargo bench -p nvio-tests --bench paths [-- --json]` measures, in one process and by turns, the
//! raw queue pair, the simple path, the generic path and bouncing on the embedded controller, and
//! prints a table with the ratios and their goals. The tests judge commands and instructions.

// Rates and sizes that were measured; none is near the limits of its type.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(missing_docs)]

mod check;
mod compare;
mod drive;
mod file;
mod image;
mod load;
mod processor;
mod raw;
mod rig;
mod table;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut as_json = false;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--json" => as_json = true,
            // Cargo passes it to every bench.
            "--bench" => {}
            _ => return Err("usage: paths [--json]".into()),
        }
    }
    let image = image::Image::new()?;
    let model = drive::Model::scaled(&image)?;
    let (drive, processor) = (drive::measure(&image, model)?, processor::measure(&image)?);
    let goals = table::goals(&drive, &processor);
    match as_json {
        true => println!("{:#}", table::json(&drive, &processor, &goals)),
        false => table::print(&drive, &processor, &goals),
    }
    Ok(())
}
