//! Targets of symbolic links.

use crate::dir::nokey_name;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_entry::ENCRYPTED_MIN;
use crate::format::dir_hash::Hash;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::blocks::FileBlocks;
use crate::number::{LogicalBlock, as_usize};

impl Filesystem {
    /// Returns the target of the symbolic link `inode`: 1 byte to a block, without zero bytes. If
    /// the link is encrypted, the result is the kernel's no-key form, which does not resolve to a
    /// file.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotASymlink`], damage, or a failure of the source.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let number = inode.number();
        if !inode.is_symlink() {
            return Err(Error::NotASymlink { inode: number, kind: inode.kind() });
        }
        if inode.has_inline_data() {
            return target(inode, &self.inline_data(inode)?);
        }
        if inode.is_fast_symlink(self.superblock()) {
            // The target is terminated by a zero byte, so 59 bytes fit.
            let (_, fits) = inode.block.split_last().unwrap_or((&0, &[]));
            return target(inode, fits);
        }
        let mut blocks = FileBlocks::new(self.map(inode));
        target(inode, &blocks.read(LogicalBlock::START, Structure::Symlink(number))?)
    }
}

/// Returns the target stored at the start of `bytes`.
fn target(inode: &Inode, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let size = inode.size();
    let wrong = || Structure::Symlink(inode.number()).corrupt(Problem::TargetLength { size });
    if inode.flags().contains(InodeFlags::ENCRYPT) {
        return encrypted_target(bytes).ok_or_else(wrong);
    }
    let target = bytes.get(..as_usize(size)).ok_or_else(wrong)?;
    if target.is_empty() || target.contains(&0) { Err(wrong()) } else { Ok(target.to_vec()) }
}

/// Decodes a length of two bytes and an encrypted target, and returns the no-key form.
fn encrypted_target(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk()?;
    let encrypted = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    let is_possible = encrypted.len() >= ENCRYPTED_MIN;
    is_possible.then(|| nokey_name::encode(Hash::default(), encrypted))
}
