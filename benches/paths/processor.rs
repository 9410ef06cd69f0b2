//! Comparison of the paths without a model of a drive and without data transfers, where the
//! processor is the limit.

use std::time::Duration;

use crate::Result;
use crate::compare::{self, Effort, Rates};
use crate::drive::{DEPTHS, load};
use crate::image::{BLOCK, Image, draw};
use crate::rig::{DEEPEST, Rig, Way};

const EFFORT: Effort = Effort { slice: Duration::from_millis(3), rounds: 30 };

/// Measures 4 KiB reads, by depth.
pub(crate) fn measure(image: &Image) -> Result<Vec<(usize, Rates)>> {
    let mut rig = Rig::null()?;
    let mut file = image.scattered()?;
    let mut requests = load(&rig, draw(&file, BLOCK)?, BLOCK, DEEPEST.into())?;
    let mut depths = Vec::new();
    for depth in DEPTHS {
        let what = (&mut file, &mut requests, depth);
        depths.push((depth, compare::steady(&mut rig, &Way::READS, what, EFFORT)?));
    }
    Ok(depths)
}
