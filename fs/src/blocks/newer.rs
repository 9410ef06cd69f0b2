//! Contents of blocks that are newer than the device's.

use crate::blocks::block_cache::Block;
use crate::number::{InodeNumber, PhysicalBlock};

/// The changed blocks of a filesystem that are not in place on the device yet. Caches ask before they
/// keep what was read, because it may have been changed meanwhile.
pub(crate) trait Newer: Send + Sync {
    /// Returns the newest contents of a block, if they are not in place on the device yet, and a
    /// number to pass to [`keep_block`](Self::keep_block) for what is read from the device.
    fn image(&self, number: PhysicalBlock) -> (Option<Block>, u64);

    /// Calls `keep` and returns true, unless blocks were put in place since [`image`](Self::image)
    /// returned `since`: what was read may then be old.
    fn keep_block(&self, since: u64, keep: &mut dyn FnMut()) -> bool;

    /// Returns true if an inode has no name any more, and was not freed yet.
    fn is_unlinked(&self, inode: InodeNumber) -> bool;

    /// Returns a number to pass to [`keep_parsed`](Self::keep_parsed).
    fn version(&self) -> u64;

    /// Returns the number of changes of directories. Blocks of a directory that were read while it
    /// increased may not go together.
    fn names_version(&self) -> u64;

    /// Calls `keep`, which puts an inode or a group descriptor into a cache, unless anything was
    /// changed since [`version`](Self::version) returned `since`.
    fn keep_parsed(&self, since: u64, keep: &mut dyn FnMut());
}
