//! Lines of `ls -l` up to the name, formatted quickly because a tree may have millions.

use nvio_ext4::Inode;

use crate::time;
use crate::verb::stat::mode_bytes;

/// Formats lines in a buffer that is used again.
#[derive(Default)]
pub struct Lines {
    line: Vec<u8>,
    /// The last formatted minute since 1970, and its text: files of a tree often have equal times.
    minute: Option<i64>,
    time: Vec<u8>,
}

impl Lines {
    /// Formats the line of `inode`, which ends with a space before the name.
    pub fn begin(&mut self, inode: &Inode, size: u64, has_acl: bool) -> &[u8] {
        let Self { line, time, .. } = self;
        line.clear();
        line.extend_from_slice(&mode_bytes(inode.mode()));
        // As in ls: `+` means that there is an access control list.
        line.push(if has_acl { b'+' } else { b' ' });
        line.push(b' ');
        number(line, inode.links().into(), 3);
        line.push(b' ');
        number(line, inode.uid().into(), 5);
        line.push(b' ');
        number(line, inode.gid().into(), 5);
        line.push(b' ');
        match inode.rdev() {
            Some((major, minor)) => {
                let text = format!("{major}, {minor}");
                line.extend_from_slice(format!("{text:>12}").as_bytes());
            }
            None => number(line, size, 12),
        }
        line.push(b' ');
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

/// Returns the line of an entry that cannot be read, up to the name.
pub fn unknown() -> String {
    let q = '?';
    format!("??????????  {q:>3} {q:>5} {q:>5} {q:>12} {q:>16} ")
}

/// Appends a number, padded with spaces to `width`.
fn number(line: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b' '; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_and_never_cut() {
        for value in [0, 1, 9, 10, 99, 100, 12_345, 4_294_967_295, u64::MAX] {
            for width in [1, 3, 5, 12, 20] {
                let mut line = Vec::new();
                number(&mut line, value, width);
                assert_eq!(String::from_utf8(line).unwrap(), format!("{value:>width$}"));
            }
        }
    }
}
