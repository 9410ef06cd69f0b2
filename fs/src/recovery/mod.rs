//! Recovery in memory of a filesystem that was not unmounted: the journal, fast commits, orphans.

pub(crate) mod fast_commit;
pub(crate) mod journal;
pub(crate) mod orphan_file;
pub(crate) mod orphans;
