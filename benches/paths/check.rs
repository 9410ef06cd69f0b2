//! Checks that a path transfers the right bytes, before its rate is measured.

use nvio_driver::DmaBuf;

use crate::Result;
use crate::image::{Target, is_marked, mark};
use crate::load::{Back, Path};

/// Number of places to check.
const CHECKED: usize = 64;

/// Reads and compares with the image.
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

/// Writes other contents, and reads them from the namespace. The last writes restore the image.
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

/// Makes one request and waits for it.
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
