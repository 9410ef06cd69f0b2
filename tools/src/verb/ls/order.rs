//! The order of the entries of a directory.

use std::cmp::{Ordering, Reverse};

use clap::Args;
use nvio_ext4::Inode;

/// Options of the order. The last of `-t` and `-S` counts.
#[derive(Clone, Copy, Debug, Args)]
pub struct Order {
    /// Sort by the time of modification, newest first.
    #[arg(short = 't', overrides_with = "by_size")]
    by_time: bool,
    /// Sort by size, largest first.
    #[arg(short = 'S', overrides_with = "by_time")]
    by_size: bool,
    /// Reverse the order.
    #[arg(short, long)]
    reverse: bool,
}

impl Order {
    /// Returns true for the order of names.
    pub fn is_default(self) -> bool {
        !self.by_time && !self.by_size && !self.reverse
    }

    /// Compares two entries by their names and inodes. An inode that cannot be read is missing, and
    /// comes last.
    pub fn compare(self, a: (&[u8], Option<&Inode>), b: (&[u8], Option<&Inode>)) -> Ordering {
        let by_name = a.0.cmp(b.0);
        let order = if self.by_time {
            descending(a.1.map(Inode::mtime), b.1.map(Inode::mtime)).then(by_name)
        } else if self.by_size {
            descending(a.1.map(Inode::size), b.1.map(Inode::size)).then(by_name)
        } else {
            by_name
        };
        if self.reverse { order.reverse() } else { order }
    }
}

fn descending<T: Ord>(a: T, b: T) -> Ordering {
    Reverse(a).cmp(&Reverse(b))
}
