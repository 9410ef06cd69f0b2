//! Blocks as they were before a write, which the next read of them returns: the fault of a cache that a
//! write did not reach.

use std::collections::VecDeque;

use nvio_spec::{Sqe, Status};

use crate::host::access::Access;
use crate::host::request::Request;
use crate::nvm::Media;
use crate::nvm::blocks::{Blocks, Staging};

/// Largest number of kept blocks, at which the oldest is dropped.
const OLD_BLOCKS_MAX: usize = 1024;

/// A block before a write.
#[derive(Debug)]
pub(crate) struct OldBlock {
    nsid: u32,
    lba: u64,
    content: Staging,
}

/// Blocks before writes, each until it is read.
#[derive(Debug, Default)]
pub(crate) struct OldBlocks(VecDeque<OldBlock>);

impl OldBlocks {
    /// Keeps a block for the next read of it.
    pub(crate) fn keep(&mut self, block: OldBlock) {
        self.0.retain(|kept| (kept.nsid, kept.lba) != (block.nsid, block.lba));
        if self.0.len() == OLD_BLOCKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(block);
    }

    /// Removes and returns one of the blocks that a Read has.
    pub(crate) fn take(&mut self, read: &Sqe) -> Option<OldBlock> {
        let lbas = read.slba()..read.slba().saturating_add(read.nlb().into());
        let is_read = |kept: &OldBlock| kept.nsid == read.nsid.get() && lbas.contains(&kept.lba);
        self.0.remove(self.0.iter().position(is_read)?)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Media {
    /// Returns the first block of a Write as it is stored before the command. `None` if there is no such
    /// block, or the namespace has no data.
    pub(crate) fn old_block(&mut self, write: &Sqe) -> Option<OldBlock> {
        let (nsid, lba) = (write.nsid.get(), write.slba());
        let namespace = self.namespaces.for_command(nsid).ok()?;
        let (offset, len) = namespace.range(lba, 1).ok()?;
        let metadata = namespace.metadata.map_or(0, |metadata| metadata.len());
        let data = vec![0; usize::try_from(len).ok()?];
        let mut content = Staging { data, metadata: vec![0; metadata] };
        let Staging { data, metadata } = &mut content;
        let has_data = namespace.store.read_blocks(offset, data, metadata).ok()?;
        has_data.then_some(OldBlock { nsid, lba, content })
    }

    /// Replaces a block of a Read that was executed with an old one. Returns false if the namespace was
    /// formatted meanwhile.
    ///
    /// # Errors
    /// As those of the Read.
    pub(crate) fn return_old_block(
        &mut self,
        request: Request<'_>,
        old: &OldBlock,
    ) -> Result<bool, Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let blocks = Blocks::of(namespace, request.sqe, false)?;
        let metadata = namespace.metadata.map_or(0, |metadata| metadata.len());
        let Staging { data, metadata: old_metadata } = &old.content;
        if (data.len(), old_metadata.len()) != (blocks.block_size, metadata) {
            return Ok(false);
        }
        let mut host = blocks.in_host(&mut self.transfers, request, Access::WRITE)?;
        host.skip(old.lba - request.sqe.slba(), metadata as u64)?;
        host.put(&old.content, true).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_blocks_are_bounded_and_found_by_reads_of_them() {
        let mut blocks = OldBlocks::default();
        let block = |nsid, lba| OldBlock { nsid, lba, content: Staging::default() };
        let lba = |block: Option<OldBlock>| block.map(|block| block.lba);
        for lba in 0..OLD_BLOCKS_MAX as u64 + 1 {
            blocks.keep(block(1, lba));
        }
        blocks.keep(block(1, 7));
        assert_eq!(blocks.0.len(), OLD_BLOCKS_MAX);
        assert_eq!(lba(blocks.take(&Sqe::read(1, 0, 1))), None, "the oldest is gone");
        assert_eq!(lba(blocks.take(&Sqe::read(2, 7, 1))), None, "another namespace");
        assert_eq!(lba(blocks.take(&Sqe::read(1, 5, 3))), Some(5));
        assert_eq!(lba(blocks.take(&Sqe::read(1, 5, 3))), Some(6));
        assert_eq!(lba(blocks.take(&Sqe::read(1, 5, 3))), Some(7));
        assert_eq!(lba(blocks.take(&Sqe::read(1, 5, 3))), None);
        blocks.clear();
        assert_eq!(lba(blocks.take(&Sqe::read(1, 100, 1))), None);
    }
}
