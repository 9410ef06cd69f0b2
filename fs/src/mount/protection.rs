//! Multi-mount protection of a filesystem that is changed: its block is taken at the open, written anew
//! in each interval, and given back at the end, so that two hosts never change one filesystem.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::blocks::device::{BlockDevice, WriteRange};
use crate::change::time::now;
use crate::error::Error;
use crate::error::reasons::{MmpHolder, SEQUENCE_FSCK};
use crate::filesystem::Filesystem;
use crate::format::corrupt::Structure;
use crate::format::mmp::{MmpFields, SEQUENCE_CLEAN, SEQUENCE_MAX};
use crate::format::superblock::Superblock;
use crate::mount::mmp;

/// Interval of updates in seconds, if the superblock has none.
const UPDATE: u16 = 5;
/// Bounds of the interval of checks in seconds.
const CHECK_MIN: u16 = 5;
const CHECK_MAX: u16 = 300;
/// Limit of the wait for another host, above one interval of checks.
const WAIT_MORE: u16 = 60;
/// The name of the device in the block.
const DEVICE: &[u8] = b"nvio";
/// Where the system tells its name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The block of a filesystem that this host changes. It is given back on drop.
pub(crate) struct Protection {
    device: Arc<dyn BlockDevice>,
    superblock: Superblock,
    /// Name of this host.
    node: Vec<u8>,
    /// Contents of the block as this host last wrote it.
    block: Mutex<Vec<u8>>,
    /// The host that has taken the block meanwhile.
    lost: OnceLock<MmpHolder>,
    is_released: AtomicBool,
}

impl Protection {
    /// Takes the block, if the filesystem has one. Waits if the block was not given back, and once more
    /// so that another host which takes it now is noticed.
    pub(crate) fn take(
        device: &Arc<dyn BlockDevice>,
        fs: &Filesystem,
    ) -> Result<Option<Arc<Self>>, Error> {
        let Some(found) = mmp::read(fs)? else { return Ok(None) };
        let superblock = fs.superblock();
        let wait = wait(found.check_interval.max(superblock.mmp_interval));
        if found.sequence == SEQUENCE_FSCK {
            return Err(Error::InUse(Box::new(holder(found))));
        }
        if found.sequence != SEQUENCE_CLEAN {
            device.pause(wait);
            if let Some(now) = mmp::read(fs)?.filter(|now| now.sequence != found.sequence) {
                return Err(Error::InUse(Box::new(holder(now))));
            }
        }
        let node = std::fs::read(HOSTNAME).unwrap_or_default().trim_ascii().to_vec();
        let taken = Self {
            device: Arc::clone(device),
            superblock: superblock.clone(),
            node,
            block: Mutex::new(fs.metadata().block_now(superblock.mmp_block)?.to_vec()),
            lost: OnceLock::new(),
            is_released: AtomicBool::new(false),
        };
        taken.write(&mut taken.block(), random())?;
        device.pause(wait);
        taken.check(&taken.block())?;
        Ok(Some(Arc::new(taken)))
    }

    /// Writes the block anew, unless another host has.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        let mut block = self.block();
        self.check(&block)?;
        let next = match self.sequence(&block) {
            sequence if sequence >= SEQUENCE_MAX => 1,
            sequence => sequence.saturating_add(1),
        };
        self.write(&mut block, next)
    }

    /// Gives the block back, if it is still that of this host.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let mut block = self.block();
        if self.is_released.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.check(&block)?;
        self.write(&mut block, SEQUENCE_CLEAN)
    }

    /// Returns the host that has taken the block.
    pub(crate) fn lost(&self) -> Option<&MmpHolder> {
        self.lost.get()
    }

    /// Returns the time between two updates.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(update(&self.superblock).into())
    }

    /// Fails if the block is not the one that this host has written last.
    fn check(&self, block: &[u8]) -> Result<(), Error> {
        if let Some(holder) = self.lost() {
            return Err(Error::InUse(Box::new(holder.clone())));
        }
        let mut now = vec![0; block.len()];
        self.device.read(self.offset(), &mut now).map_err(|error| Error::Source {
            offset: self.offset(),
            length: now.len(),
            error,
        })?;
        if now == block {
            return Ok(());
        }
        let number = self.superblock.mmp_block;
        let corrupt = |problem| Structure::MmpBlock(number).corrupt(problem);
        let other = holder(MmpFields::parse(&self.superblock, number, &now).map_err(corrupt)?);
        Err(Error::InUse(Box::new(self.lost.get_or_init(|| other).clone())))
    }

    fn sequence(&self, block: &[u8]) -> u32 {
        let fields = MmpFields::parse(&self.superblock, self.superblock.mmp_block, block);
        fields.map_or(0, |fields| fields.sequence)
    }

    fn write(&self, block: &mut Vec<u8>, sequence: u32) -> Result<(), Error> {
        let mut next = block.clone();
        let check = update(&self.superblock).saturating_mul(2).clamp(CHECK_MIN, CHECK_MAX);
        let names = (&self.node[..], DEVICE);
        MmpFields::update(&self.superblock, &mut next, (sequence, now(), check), names);
        let offset = self.offset();
        self.device
            .write_many(&[WriteRange { offset, bytes: &next }], true)
            .map_err(|error| Error::Sink { offset, length: next.len(), error })?;
        *block = next;
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.superblock.address(self.superblock.mmp_block)
    }

    fn block(&self) -> MutexGuard<'_, Vec<u8>> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            log::warn!("the multi-mount protection block stays taken: {error}");
        }
    }
}

fn update(superblock: &Superblock) -> u16 {
    if superblock.mmp_interval == 0 { UPDATE } else { superblock.mmp_interval }
}

/// Returns how long a host waits for another one to write the block.
fn wait(check: u16) -> Duration {
    let check = check.clamp(CHECK_MIN, CHECK_MAX);
    let twice = check.saturating_mul(2).saturating_add(1);
    Duration::from_secs(twice.min(check.saturating_add(WAIT_MORE)).into())
}

fn holder(MmpFields { sequence, node, device, .. }: MmpFields) -> MmpHolder {
    MmpHolder { node, device, sequence }
}

/// Returns a sequence number that another host hardly has.
fn random() -> u32 {
    let random = RandomState::new().hash_one(now().nanoseconds);
    let below = random.checked_rem(SEQUENCE_MAX.into()).unwrap_or(0);
    u32::try_from(below).unwrap_or(0).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_twice_the_interval_within_bounds() {
        let seconds = |check| wait(check).as_secs();
        assert_eq!([0, 1, 5, 10, 60, 100, u16::MAX].map(seconds), [11, 11, 11, 21, 120, 160, 360]);
    }

    #[test]
    fn random_numbers_are_no_other_states() {
        assert!((0..1000).map(|_| random()).all(|number| (1..=SEQUENCE_MAX).contains(&number)));
    }
}
