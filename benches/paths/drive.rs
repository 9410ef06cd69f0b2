//! Comparison of the paths on a modelled drive, where the drive is the limit.

use std::time::Duration;

use nvio_driver::DmaBuf;
use nvio_emulator::Service;

use crate::Result;
use crate::compare::{self, Effort, Rates};
use crate::image::{BLOCK, Image, Target, draw};
use crate::load::Load;
use crate::rig::{DEEPEST, Rig, Way};

/// A Gen5 drive: 4 KiB reads per second, bytes per second, and the latency of one read.
pub(crate) const IOPS: f64 = 3_200_000.0;
pub(crate) const BANDWIDTH: f64 = 14e9;
pub(crate) const LATENCY: Duration = Duration::from_micros(60);
/// Share of the emulator's maximum rate, and of the maximum rate with a copy by the caller, that
/// the model uses. The second rate varies by a factor of four with the placement of the two
/// threads.
const SHARE: f64 = 0.5;
const COPIED_SHARE: f64 = 0.2;
const SCALING_EFFORT: Effort = Effort { slice: Duration::from_millis(4), rounds: 30 };

pub(crate) const DEPTHS: [usize; 4] = [1, 32, 128, 256];
const DEPTHS_EFFORT: Effort = Effort { slice: Duration::from_millis(5), rounds: 80 };
/// Queue depth for the comparison of copies.
pub(crate) const COPY_DEPTH: usize = 16;
/// Sizes of copies. A slice has about a hundred requests, so that its exact end does not matter.
const COPIES: [(u64, Effort); 3] = [
    (BLOCK, Effort { slice: Duration::from_millis(5), rounds: 60 }),
    (64 << 10, Effort { slice: Duration::from_millis(10), rounds: 40 }),
    (1 << 20, Effort { slice: Duration::from_millis(80), rounds: 12 }),
];

/// The service model.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    /// Maximum rate of the emulator, commands per second.
    pub(crate) served: f64,
    /// Maximum rate of the emulator with a copy by the caller, bytes per second.
    pub(crate) copied: f64,
    /// Share of the drive's speed that is served for 4 KiB reads.
    pub(crate) scale: f64,
    /// Share of the drive's speed that is served if data is copied.
    pub(crate) copy_scale: f64,
}

impl Model {
    /// Scales the Gen5 drive to the speed of this machine.
    pub(crate) fn scaled(image: &Image) -> Result<Self> {
        let mut rig = Rig::with_data(image, Service::new().latency(LATENCY))?;
        let mut of = |way, bytes: u64, depth: usize| -> Result<f64> {
            let mut file = if bytes == BLOCK { image.scattered()? } else { image.large()? };
            let mut load = load(&rig, draw(&file, bytes)?, bytes, depth)?;
            let what = (&mut file, &mut load, depth);
            Ok(compare::steady(&mut rig, &[way], what, SCALING_EFFORT)?.of(way))
        };
        let served = of(Way::Raw, BLOCK, DEEPEST.into())?;
        let mut copied = f64::INFINITY;
        for bytes in [64 << 10, 1 << 20] {
            for way in [Way::RawCopied, Way::RawCopiedWrite] {
                copied = copied.min(of(way, bytes, COPY_DEPTH)? * bytes as f64);
            }
        }
        let scale = (served * SHARE / IOPS).min(1.0);
        let copy_scale = (copied * COPIED_SHARE / BANDWIDTH).min(scale);
        Ok(Self { served, copied, scale, copy_scale })
    }
}

/// Returns the service of the drive with scaled rates and unscaled latency.
fn service(scale: f64) -> Service {
    let (iops, bandwidth) = (IOPS * scale, BANDWIDTH * scale);
    Service::new().latency(LATENCY).iops(iops as u64).bandwidth(bandwidth as u64)
}

/// The measured rates.
pub(crate) struct Report {
    pub(crate) model: Model,
    /// Rates of 4 KiB reads, by depth.
    pub(crate) depths: Vec<(usize, Rates)>,
    /// Rates of reads and overwrites with and without a copy, by size.
    pub(crate) copies: Vec<(u64, Rates)>,
}

pub(crate) fn measure(image: &Image, model: Model) -> Result<Report> {
    let (depths, copies) = (depths(image, model)?, copies(image, model)?);
    Ok(Report { model, depths, copies })
}

fn depths(image: &Image, model: Model) -> Result<Vec<(usize, Rates)>> {
    let mut rig = Rig::with_data(image, service(model.scale))?;
    let mut file = image.scattered()?;
    let targets = draw(&file, BLOCK)?;
    for way in Way::READS {
        rig.check(way, &mut file, &targets, BLOCK)?;
    }
    let mut requests = load(&rig, targets, BLOCK, DEEPEST.into())?;
    let mut depths = Vec::new();
    for depth in DEPTHS {
        let what = (&mut file, &mut requests, depth);
        depths.push((depth, compare::steady(&mut rig, &Way::READS, what, DEPTHS_EFFORT)?));
    }
    Ok(depths)
}

fn copies(image: &Image, model: Model) -> Result<Vec<(u64, Rates)>> {
    let mut rig = Rig::with_data(image, service(model.copy_scale))?;
    let (mut scattered, mut large) = (image.scattered()?, image.large()?);
    // Check everything before the measurements, because these change the data.
    for (bytes, _) in COPIES {
        let file = if bytes == BLOCK { &mut scattered } else { &mut large };
        let targets = draw(file, bytes)?;
        for way in [Way::Generic, Way::Bounce, Way::Write, Way::WriteBounce] {
            rig.check(way, file, &targets, bytes)?;
        }
    }
    let mut copies = Vec::new();
    for (bytes, effort) in COPIES {
        let file = if bytes == BLOCK { &mut scattered } else { &mut large };
        let mut requests = load(&rig, draw(file, bytes)?, bytes, COPY_DEPTH)?;
        let reads = if bytes == BLOCK { Way::Simple } else { Way::Generic };
        for ways in [[reads, Way::Bounce], [Way::Write, Way::WriteBounce]] {
            let what = (&mut *file, &mut requests, COPY_DEPTH);
            copies.push((bytes, compare::steady(&mut rig, &ways, what, effort)?));
        }
    }
    Ok(copies)
}

/// Creates a load of requests of `bytes` bytes, with `depth` buffers.
pub(crate) fn load(rig: &Rig, targets: Vec<Target>, bytes: u64, depth: usize) -> Result<Load> {
    let bufs: Result<Vec<DmaBuf>> = (0..depth).map(|_| rig.alloc(bytes)).collect();
    Ok(Load::new(targets, bufs?))
}
