//! Reads of a file by nvio beside those by the guest's kernel, in one boot of QEMU.
//!
//! `cargo bench -p nvio-tests --bench kernel` prints the rates of random reads of 4 KiB at depths 1, 32
//! and 128, and the ratios of nvio to io_uring with O_DIRECT on the same file and to NVMe passthrough
//! on the same device. Both poll, with registered buffers and files. The script is
//! `tests/guest/compare.sh`: in each of 25 rounds the device is given to nvio and back to the kernel.
//! `NVIO` is the command; `ext4-tree` and `nvme-check` are beside it.

#![allow(missing_docs)]

use nvio_tests::guest::{self, Report};
use nvio_tests::walk::goal::{Goal, median};

/// Depths and number of rounds of the script.
const DEPTHS: [usize; 3] = [1, 32, 128];
const ROUNDS: usize = 25;

/// The kernel's interfaces: names in the script and in the table.
const KERNEL: [(&str, &str); 2] =
    [("file", "io_uring on the file"), ("passthrough", "passthrough on the device")];

fn main() {
    let report = guest::boot(&guest::COMPARE);
    println!(
        "Random reads of 4 KiB a second in QEMU without KVM, medians of {ROUNDS} rounds; the rate"
    );
    println!(
        "of nvio divided by that of the kernel in the same round, the median and the quartiles."
    );
    println!("Clock of the guest: {}.\n", report.text("clock").trim());
    println!("{:>5}  {:<26} {:>8}  nvio to it", "depth", "", "rate");
    let goals: Vec<Goal> = (0..DEPTHS.len()).flat_map(|index| compare(&report, index)).collect();
    println!();
    goals.iter().for_each(Goal::print);
}

/// Prints the rates of a depth, and returns the goals of its ratios.
fn compare(report: &Report, index: usize) -> Vec<Goal> {
    let depth = DEPTHS[index];
    let ours = rates(report, "nvio", index);
    println!("{depth:>5}  {:<26} {:>8.0}", "nvio on the file", median(ours.clone()));
    let row = |&(name, title): &(&str, &str)| {
        let theirs = rates(report, name, index);
        let mut ratios: Vec<f64> =
            ours.iter().zip(&theirs).map(|(our, their)| our / their).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, ratio, high] = [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4]);
        let rate = median(theirs);
        println!("{depth:>5}  {title:<26} {rate:>8.0}  {ratio:.2} ({low:.2} to {high:.2})");
        Goal::least(format!("nvio to {title}, depth {depth}"), ratio, 1.0)
    };
    KERNEL.iter().map(row).collect()
}

/// Returns the rate of each round.
fn rates(report: &Report, name: &str, index: usize) -> Vec<f64> {
    let rate = |round| {
        let cell = &report.json(&format!("{name}.{round}"))["cells"][index];
        assert_eq!(cell["qd"], DEPTHS[index], "{name}");
        assert_eq!(cell["errors"], 0, "{name}");
        cell["iops"]["median"].as_f64().unwrap_or(f64::NAN)
    };
    (1..=ROUNDS).map(rate).collect()
}
