//! Hash trees, which locate a name without a search of all blocks of the directory.
//!
//! The first block of such a directory contains ".", "..", and, in the remaining space of the entry
//! "..", the [root](root). The root and the [nodes](node) below it map the [hash](hash) of a name
//! to the block that contains the name. Blocks of names are formatted as in directories without a
//! tree.

pub(crate) mod half_md4;
pub(crate) mod hash;
pub(crate) mod legacy;
pub(crate) mod lookup;
pub(crate) mod node;
pub(crate) mod root;
pub(crate) mod tea;
