//! The cache of metadata blocks.

use std::sync::Arc;

use crate::blocks::cache::Cache;
use crate::number::PhysicalBlock;

/// The contents of a metadata block.
pub(crate) type Block = Arc<[u8]>;

/// A cache of blocks by number.
pub(crate) type BlockCache = Cache<PhysicalBlock, Block>;
