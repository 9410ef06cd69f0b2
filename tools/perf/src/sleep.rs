//! Sleeping until a result or until a time.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Sleeps until `event` is readable, or for `within`. Returns early on a signal.
pub(crate) fn until_readable(event: BorrowedFd<'_>, within: Duration) {
    let bound = Timespec::try_from(within).ok();
    if let Err(error) = poll(&mut [PollFd::new(&event, PollFlags::IN)], bound.as_ref())
        && error != rustix::io::Errno::INTR
    {
        std::thread::sleep(within);
    }
}
