//! Hash trees: directories in which a name is found without a search of all blocks.
//!
//! The first block of such a directory has "." and "..", and in the rest of the latter's space the
//! [root](root). It and the [nodes](node) below it lead from the [hash](hash) of a name to the block
//! that the name is in, if it is there. Those blocks are as in other directories.

pub(crate) mod half_md4;
pub(crate) mod hash;
pub(crate) mod legacy;
pub(crate) mod lookup;
pub(crate) mod node;
pub(crate) mod root;
pub(crate) mod tea;
