//! Role `busy`: endless reads, so that other programs see a controller in use.

use std::io;

use nvio_driver::{Address, Options};

use super::io::random_reads;
use super::runner::{Runner, Verdict};

/// Prints `busy` when the controller is open, and then reads until the standard input ends.
///
/// The program is not killed, because QEMU 7.2 now and then ends with SIGSEGV if the controller is
/// reset while it has commands.
pub fn run(runner: &mut Runner, address: &Address) {
    runner.check("reads", || reads(address));
}

fn reads(address: &Address) -> Verdict {
    let controller = super::runner::open(address, Options::default())?;
    let namespace = controller.namespace(1)?;
    let mut queue = controller.queue_pair(8)?;
    println!("busy");
    let end = std::thread::spawn(|| io::copy(&mut io::stdin(), &mut io::sink()));
    let mut seed = 0;
    while !end.is_finished() {
        random_reads(&mut queue, &controller, &namespace, seed, 100)?;
        seed += 1;
    }
    Ok(())
}
