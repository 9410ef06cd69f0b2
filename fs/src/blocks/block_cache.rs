//! Recent blocks of metadata.

use std::sync::Arc;

use crate::blocks::cache::Cache;

/// A block of metadata, as it is on the device.
pub(crate) type Block = Arc<[u8]>;

/// Blocks by number.
pub(crate) type BlockCache = Cache<u64, Block>;
