//! Data inside of an inode (`inline_data`): first where the map would be, then in an extended
//! attribute of the same inode.

use nvio_iomap::MappingKind;

use crate::corrupt::{Problem, Structure};
use crate::inode::BLOCK_FIELD;
use crate::leaf::Leaf;
use crate::map::{Extent, LOGICAL_END, LeafBuilder};
use crate::xattr::body;
use crate::{Error, Filesystem, Inode};

impl Filesystem {
    /// All bytes that the inode has for inline data. A file may be smaller, and larger: then zeroes
    /// follow.
    pub(crate) fn inline_data(&self, inode: &Inode) -> Result<Box<[u8]>, Error> {
        let (superblock, number) = (self.superblock(), inode.number());
        let bytes = self.inode_bytes(number)?;
        // The block may have been read again since the inode was.
        let inode = Inode::parse(superblock, number, &bytes)?;
        let rest = body::inline_data(superblock, inode.attribute_space(&bytes))
            .map_err(|problem| Structure::Attributes { inode: number }.corrupt(problem))?;
        let rest = rest.ok_or_else(|| missing(number))?;
        Ok([&inode.block, rest].concat().into())
    }
}

fn missing(inode: u32) -> Error {
    Structure::InlineData(inode).corrupt(Problem::NoInlineData)
}

/// Copies the bytes at `pos` of a file with this inline data. Past it there are zeroes.
pub(crate) fn copy(data: &[u8], pos: u64, out: &mut [u8]) {
    let start = usize::try_from(pos).unwrap_or(usize::MAX);
    let data = data.get(start..).unwrap_or_default();
    let length = data.len().min(out.len());
    if let (Some((copied, rest)), Some(data)) =
        (out.split_at_mut_checked(length), data.get(..length))
    {
        copied.copy_from_slice(data);
        rest.fill(0);
    }
}

/// The map of a file with inline data, which is less than a block: that block, and a hole.
pub(crate) fn leaf(fs: &Filesystem, inode: &Inode) -> Result<Leaf, Error> {
    if !inode.has_inline_data() {
        return Err(missing(inode.number()));
    }
    let mut builder = LeafBuilder::new(fs.superblock(), 0, 2);
    builder.push(0, 1, 0, MappingKind::Inline);
    Ok(builder.finish(LOGICAL_END))
}

/// The one extent that FIEMAP gives for inline data; none if it is empty.
pub(crate) fn extent(fs: &Filesystem, inode: &Inode) -> Result<Option<Extent>, Error> {
    let address = fs.inode_address(inode.number())?;
    let extent = |length| Extent {
        logical: 0,
        physical: address.saturating_add(BLOCK_FIELD),
        length,
        unwritten: false,
        inline: true,
        last: false,
    };
    Ok(inode.inline_size().filter(|&length| length > 0).map(extent))
}
