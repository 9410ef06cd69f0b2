//! Names as they are shown.

use std::borrow::Cow;

use crate::blocks::block_cache::Block;
use crate::dir::htree::hash::{Chars, Function, Hash, HashParameters};
use crate::dir::htree::lookup::has_tree;
use crate::dir::htree::root::Root;
use crate::dir::key::has_own_hashes;
use crate::dir::nokey_name;
use crate::filesystem::Filesystem;
use crate::format::dir_entry::Entry;
use crate::format::features::CompatFeatures;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;

/// How the names of a directory are shown.
pub(crate) enum Names {
    /// As they are.
    Plain,
    /// Encrypted ones as the kernel shows them, with the hash that it orders them by when it lists
    /// the directory.
    NoKey(Hashes),
}

/// Where the hash of an encrypted name comes from.
pub(crate) enum Hashes {
    /// There is none: the kernel goes through the directory as it is stored.
    None,
    /// The entry carries it.
    Own,
    /// By this function.
    By(Function, HashParameters),
    /// By the function that the root of the tree, in the first block, says.
    AsInRoot,
}

impl Names {
    /// Those of `directory`, which has `blocks` blocks.
    pub(crate) fn of(fs: &Filesystem, directory: &Inode, blocks: u64) -> Self {
        if !directory.flags().contains(InodeFlags::ENCRYPT) {
            return Self::Plain;
        }
        let superblock = fs.superblock();
        let orders = superblock.compat_features().contains(CompatFeatures::DIR_INDEX);
        Self::NoKey(if has_own_hashes(superblock, directory) {
            Hashes::Own
        } else if has_tree(fs, directory) {
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

    /// Looks at the first block of the directory, in which the root is if there is one.
    pub(crate) fn see_first(&mut self, fs: &Filesystem, block: &Block) {
        if let Self::NoKey(hashes @ Hashes::AsInRoot) = self {
            let superblock = fs.superblock();
            *hashes = match Root::parse(superblock, block.clone(), false) {
                Ok(root) => Hashes::By(root.function, superblock.hash),
                Err(_) => Hashes::None,
            };
        }
    }

    /// The name of an entry.
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
