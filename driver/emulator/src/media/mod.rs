//! The namespaces, and the blocks behind them.

pub(crate) mod atomic_groups;
pub(crate) mod backing;
pub(crate) mod metadata_store;
pub(crate) mod namespace;
pub(crate) mod namespaces;
pub(crate) mod write_cache;
