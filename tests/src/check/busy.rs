//! Role `busy`: endless reads, so that other programs see a controller in use.

use nvio_driver::{Address, Options};

use super::io::random_reads;
use super::runner::{Runner, Verdict};

/// Prints `busy` when the controller is open, and then reads until the program is killed.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("reads", || reads(address));
}

fn reads(address: &Address) -> Verdict {
    let controller = super::runner::open(address, Options::default())?;
    let namespace = controller.namespace(1)?;
    let mut queue = controller.queue_pair(8)?;
    println!("busy");
    for seed in 0.. {
        random_reads(&mut queue, &controller, &namespace, seed, 100)?;
    }
    Ok(())
}
