//! Lines of `ls -l` up to the name, formatted quickly because a tree may have millions.

use nvio_ext4::Inode;

use crate::output::human_blocks;
use crate::time;
use crate::verb::stat::mode_text;

/// Formats lines in a buffer that is used again.
#[derive(Default)]
pub struct Lines {
    /// True if sizes are shown in K, M, G.
    human: bool,
    line: Vec<u8>,
    /// The last formatted minute since 1970, and its text: files of a tree often have equal times.
    minute: Option<i64>,
    time: Vec<u8>,
}

impl Lines {
    /// Creates the buffer. `human` selects sizes in K, M, G.
    pub fn new(human: bool) -> Self {
        Self { human, ..Self::default() }
    }

    /// Formats the line of `inode`, which ends with a space before the name.
    pub fn begin(&mut self, inode: &Inode, size: u64, has_acl: bool) -> &[u8] {
        let Self { line, time, .. } = self;
        line.clear();
        line.extend_from_slice(mode_text(inode.mode()).as_bytes());
        // As in ls: `+` means that there is an access control list.
        line.push(if has_acl { b'+' } else { b' ' });
        line.push(b' ');
        let size = match inode.rdev() {
            Some((major, minor)) => format!("{major}, {minor}"),
            None if self.human => human_blocks(size),
            None => size.to_string(),
        };
        let (links, uid, gid) = (inode.links(), inode.uid(), inode.gid());
        line.extend(format!("{links:>3} {uid:>5} {gid:>5} {size:>12} ").into_bytes());
        let mtime = inode.mtime();
        let minute = mtime.seconds.div_euclid(60);
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            time.clear();
            time.extend_from_slice(time::utc_short(mtime).as_bytes());
        }
        line.extend_from_slice(time);
        line.push(b' ');
        line
    }
}

/// Formats the column of the inode number.
pub fn inode_number(inode: &Inode) -> String {
    format!("{:>8} ", inode.number())
}

/// Returns the column of an inode number that is not known.
pub fn unknown_inode() -> String {
    format!("{:>8} ", '?')
}

/// Returns the line of an entry that cannot be read, up to the name.
pub fn unknown() -> String {
    let q = '?';
    format!("??????????  {q:>3} {q:>5} {q:>5} {q:>12} {q:>16} ")
}
