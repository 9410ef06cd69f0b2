//! The visible form of names, which differs from the stored one in encrypted directories.

use std::borrow::Cow;

use crate::blocks::block_cache::Block;
use crate::dir::htree::lookup::has_tree;
use crate::dir::htree::root::Root;
use crate::dir::key::has_own_hashes;
use crate::dir::nokey_name;
use crate::format::dir_entry::Entry;
use crate::format::dir_hash::{Chars, Function, Hash, HashParameters};
use crate::format::features::CompatFeatures;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;

/// The form in which the names of a directory are returned.
pub(crate) enum Names {
    /// The stored name.
    Plain,
    /// The no-key form of an encrypted name, as the kernel lists it without the key. It includes
    /// the hash by which the kernel orders the listing.
    NoKey(Hashes),
}

/// The source of the hash of an encrypted name.
pub(crate) enum Hashes {
    /// No hash: the kernel lists such a directory in stored order.
    None,
    /// The entry stores its hash.
    Own,
    /// Computed by this function.
    By(Function, HashParameters),
    /// Computed by the function in the root of the hash tree, which is in block 0.
    AsInRoot,
}

impl Names {
    /// Chooses the form for the names of `directory`, which has `blocks` blocks.
    pub(crate) fn of(superblock: &Superblock, directory: &Inode, blocks: u64) -> Self {
        if !directory.flags().contains(InodeFlags::ENCRYPT) {
            return Self::Plain;
        }
        let orders = superblock.compat.contains(CompatFeatures::DIR_INDEX);
        Self::NoKey(if has_own_hashes(superblock, directory) {
            Hashes::Own
        } else if has_tree(superblock, directory) {
            Hashes::AsInRoot
        } else if orders && blocks == 1 {
            match Function::from_raw(superblock.hash.default_function) {
                Some(function) => Hashes::By(function, superblock.hash),
                None => Hashes::None,
            }
        } else {
            Hashes::None
        })
    }

    /// Reads the hash function from the first block, if that holds the root of a tree.
    pub(crate) fn see_first(&mut self, superblock: &Superblock, block: &Block) {
        if let Self::NoKey(hashes @ Hashes::AsInRoot) = self {
            *hashes = match Root::parse(superblock, block.clone(), false) {
                Ok(root) => Hashes::By(root.function, superblock.hash),
                Err(_) => Hashes::None,
            };
        }
    }

    /// Returns the visible name of an entry.
    pub(crate) fn show<'e>(&self, entry: &Entry<'e>) -> Cow<'e, [u8]> {
        let hash = match self {
            Self::Plain => return Cow::Borrowed(entry.name),
            Self::NoKey(Hashes::None | Hashes::AsInRoot) => None,
            Self::NoKey(Hashes::Own) => entry.own_hash(),
            Self::NoKey(Hashes::By(function, parameters)) => {
                let chars = parameters.chars.unwrap_or(Chars::Signed);
                parameters.hash(*function, chars, entry.name)
            }
        };
        Cow::Owned(nokey_name::encode(hash.unwrap_or(Hash::default()), entry.name))
    }
}
