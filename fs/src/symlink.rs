//! Targets of symbolic links.

use nvio_iomap::MappingKind;

use crate::corrupt::{Problem, Structure};
use crate::{Error, Filesystem, Inode, map};

impl Filesystem {
    /// The target of the symbolic link `inode`: 1 byte to a block, without zero bytes.
    ///
    /// # Errors
    /// [`Error::NotASymlink`], [`Error::UnsupportedInode`] for an encrypted link, damage, or a
    /// failure of the source.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let number = inode.number();
        if !inode.is_symlink() {
            return Err(Error::NotASymlink { inode: number, kind: inode.kind() });
        }
        map::check_readable(inode)?;
        let size = inode.size();
        let corrupt = |problem| Structure::Symlink(number).corrupt(problem);
        let target = |bytes: &[u8]| {
            let length = usize::try_from(size).unwrap_or(usize::MAX);
            match bytes.get(..length) {
                Some(target) if length > 0 && !target.contains(&0) => Ok(target.to_vec()),
                _ => Err(corrupt(Problem::TargetLength { size })),
            }
        };
        if inode.is_fast_symlink(self.superblock()) {
            // A zero byte ends the target, so 59 bytes fit.
            let (_, fits) = inode.block.split_last().unwrap_or((&0, &[]));
            return target(fits);
        }
        let leaf = map::leaf(self, inode, 0)?;
        let mapped = leaf.find(0).filter(|mapping| mapping.kind == MappingKind::Mapped);
        let mapping = mapped.ok_or_else(|| corrupt(Problem::Missing { logical: 0 }))?;
        target(&self.block(self.superblock().block_at(mapping.addr))?)
    }
}
