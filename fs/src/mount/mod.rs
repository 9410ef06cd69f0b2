//! Opening a filesystem, and operations on it as a whole.

pub(crate) mod inspect;
pub(crate) mod mmp;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod protection;
pub(crate) mod statfs;
pub(crate) mod superblock;
