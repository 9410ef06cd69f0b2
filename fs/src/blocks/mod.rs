//! Blocks of metadata: the source that they are read from, and the caches.

pub(crate) mod block_cache;
pub(crate) mod cache;
pub(crate) mod damage;
pub(crate) mod descriptor_copy;
pub(crate) mod device;
pub(crate) mod inode_table;
pub(crate) mod metadata;
pub(crate) mod newer;
pub(crate) mod overlay;
pub(crate) mod queue_device;
pub(crate) mod queue_source;
pub(crate) mod read;
pub(crate) mod source;
