//! That a path moves the right bytes: what is fast and wrong is not fast.

use nvio_driver::DmaBuf;

use crate::Result;
use crate::image::{Target, is_marked, mark};
use crate::load::{Back, Path};

/// Places that are looked at.
const CHECKED: usize = 64;

/// Reads what the image has.
pub(crate) fn reads(path: &mut impl Path, targets: &[Target], mut buf: DmaBuf) -> Result<()> {
    for &target in targets.iter().take(CHECKED) {
        buf.fill(0xff);
        buf = one(path, target, buf)?;
        if !is_marked(&buf, target.pos, 0) {
            return Err(format!("wrong data at {}", target.pos).into());
        }
    }
    Ok(())
}

/// Writes something else, and reads that from the namespace. What is written last is what the image
/// has.
pub(crate) fn writes(
    path: &mut impl Path,
    raw: &mut impl Path,
    targets: &[Target],
    mut buf: DmaBuf,
) -> Result<()> {
    for &target in targets.iter().take(CHECKED) {
        for stamp in [1, 0] {
            mark(&mut buf, target.pos, stamp);
            buf = one(path, target, buf)?;
            buf.fill(0xff);
            buf = one(raw, target, buf)?;
            if !is_marked(&buf, target.pos, stamp) {
                return Err(format!("not written at {}", target.pos).into());
            }
        }
    }
    Ok(())
}

/// One request, waited for.
fn one(path: &mut impl Path, target: Target, buf: DmaBuf) -> Result<DmaBuf> {
    let mut back = Back::default();
    path.submit(target, buf)?;
    path.ring();
    loop {
        path.poll(&mut back);
        back.check()?;
        if let Some(buf) = back.take() {
            return Ok(buf);
        }
    }
}
