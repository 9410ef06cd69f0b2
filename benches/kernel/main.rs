//! Reads of a file by nvio beside those by the guest's kernel, in one boot of QEMU.
//!
//! `cargo bench -p nvio-tests --bench kernel` prints the rates of random reads of 4 KiB at depths 1, 32
//! and 128, and the ratios of nvio to io_uring with O_DIRECT on the same file and to NVMe passthrough
//! on the same device. Both poll, with registered buffers and files. The script is
//! `tests/guest/compare.sh`: in each of 25 rounds the device is given to nvio and back to the kernel.
//! `NVIO` is the command; `ext4-tree` and `nvme-check` are beside it.

#![allow(missing_docs)]

use nvio_tests::guest::{self, Report};
use nvio_tests::walk::goal::{Goal, best_tenth, median};

/// Depths and number of rounds of the script.
const DEPTHS: [usize; 3] = [1, 32, 128];
const ROUNDS: usize = 25;

/// The kernel's interfaces: names in the script and in the table.
const KERNEL: [(&str, &str); 2] =
    [("file", "io_uring on the file"), ("passthrough", "passthrough on the device")];

fn main() {
    let report = guest::boot(&guest::COMPARE);
    println!(
        "Random reads of 4 KiB a second in QEMU without KVM: the median of {ROUNDS} rounds, and"
    );
    println!("what a tenth of them exceeds, because other work on the machine only makes a round");
    println!(
        "slower. Ratios of nvio to the kernel: of the latter rates, and by round the median and"
    );
    println!("the quartiles. Clock of the guest: {}.\n", report.text("clock").trim());
    println!("{:>5}  {:<26} {:>8} {:>8}  {:>6}  by round", "depth", "", "median", "tenth", "ratio");
    let goals: Vec<Goal> = (0..DEPTHS.len()).flat_map(|index| compare(&report, index)).collect();
    println!();
    goals.iter().for_each(Goal::print);
}

/// Prints the rates of a depth, and returns the goals of its ratios.
fn compare(report: &Report, index: usize) -> Vec<Goal> {
    let depth = DEPTHS[index];
    let ours = rates(report, "nvio", index);
    let (usual, best) = (median(ours.clone()), best_tenth(ours.clone()));
    println!("{depth:>5}  {:<26} {usual:>8.0} {best:>8.0}", "nvio on the file");
    let row = |&(name, title): &(&str, &str)| {
        let theirs = rates(report, name, index);
        let mut ratios: Vec<f64> =
            ours.iter().zip(&theirs).map(|(our, their)| our / their).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, middle, high] = [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4]);
        let (usual, ratio) = (median(theirs.clone()), best / best_tenth(theirs.clone()));
        print!("{depth:>5}  {title:<26} {usual:>8.0} {:>8.0}", best_tenth(theirs));
        println!("  {ratio:>6.2}  {middle:.2} ({low:.2} to {high:.2})");
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
