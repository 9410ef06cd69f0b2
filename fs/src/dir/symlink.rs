//! Targets of symbolic links.

use nvio_iomap::MappingKind;

use crate::dir::htree::hash::Hash;
use crate::dir::nokey_name;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map;

impl Filesystem {
    /// The target of the symbolic link `inode`: 1 byte to a block, without zero bytes. An encrypted
    /// one is given as the kernel shows it without the key, in an encoding that leads nowhere.
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
            // A zero byte ends the target, so 59 bytes fit.
            let (_, fits) = inode.block.split_last().unwrap_or((&0, &[]));
            return target(inode, fits);
        }
        let run = map::run_at(self, inode, 0)?;
        let mapped = run.find(0).filter(|mapping| mapping.kind == MappingKind::Mapped);
        let corrupt = |problem| Structure::Symlink(number).corrupt(problem);
        let mapping = mapped.ok_or_else(|| corrupt(Problem::Missing { logical: 0 }))?;
        target(inode, &self.block(self.superblock().block_at(mapping.addr))?)
    }
}

/// The target that `bytes` begin with.
fn target(inode: &Inode, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let size = inode.size();
    let wrong = || Structure::Symlink(inode.number()).corrupt(Problem::TargetLength { size });
    if inode.flags().contains(InodeFlags::ENCRYPT) {
        return encrypted_target(bytes).ok_or_else(wrong);
    }
    let target = bytes.get(..usize::try_from(size).unwrap_or(usize::MAX)).ok_or_else(wrong)?;
    if target.is_empty() || target.contains(&0) { Err(wrong()) } else { Ok(target.to_vec()) }
}

/// Two bytes of length, then an encrypted target, which is shown like a name.
fn encrypted_target(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk()?;
    let encrypted = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    let is_possible = encrypted.len() >= nokey_name::ENCRYPTED_MIN;
    is_possible.then(|| nokey_name::encode(Hash::default(), encrypted))
}
