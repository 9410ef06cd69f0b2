//! vfio-user messages on a stream socket: a header, a body, and file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use zerocopy::native_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// File descriptors that the client sends in one message, and accepts in one reply, at most.
pub(super) const FDS_MAX: usize = 8;
/// Largest message accepted, bytes: a version reply or the capabilities of a region.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Time between two attempts to connect to a server whose backlog is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// The header of every message, in the byte order of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    id: U16,
    command: U16,
    /// Bytes of the message, this header included.
    size: U32,
    /// Type in bits 3:0, then no-reply and error.
    flags: U32,
    errno: U32,
}

const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 16);

impl Header {
    const REPLY: u32 = 1;
    const TYPE_MASK: u32 = 0xf;
    const ERROR: u32 = 1 << 5;
}

/// A successful reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Why a command has no successful reply.
#[derive(Debug)]
pub(super) enum Fault {
    /// No reply in time. The next command fails the same way until the reply has arrived.
    Silent,
    /// The server has closed the connection.
    Closed,
    /// The server replied with an error, or its messages cannot be parsed.
    Io(io::Error),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// A connection to a vfio-user server, with at most one command waiting for its reply.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    next_id: u16,
    /// The part of the current message that has arrived.
    inbox: Vec<u8>,
    inbox_fds: Vec<OwnedFd>,
    /// The reply to the last command has not arrived.
    reply_is_due: bool,
    /// Messages can no longer be told apart, or the server has closed the connection.
    closed: bool,
}

impl Channel {
    /// Connects to the server that listens at `path`.
    ///
    /// # Errors
    /// [`Fault::Silent`] if the server's backlog stays full for `within`.
    pub(super) fn connect(path: &Path, within: Duration) -> Result<Self, Fault> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let begin = Instant::now();
        loop {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if begin.elapsed() >= within => return Err(Fault::Silent),
                Err(Errno::AGAIN) => std::thread::sleep(CONNECT_PAUSE),
                Err(errno) => return Err(Fault::Io(errno.into())),
            }
        }
        Ok(Self::over(socket))
    }

    /// Uses a connected socket, which does not block.
    pub(super) fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            next_id: 0,
            inbox: Vec::new(),
            inbox_fds: Vec::new(),
            reply_is_due: false,
            closed: false,
        }
    }

    /// Sends a command and waits at most `within` for its reply.
    ///
    /// A server handles commands in order. While the reply to an earlier command is missing, this
    /// fails at once.
    pub(super) fn call(
        &mut self,
        command: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<Reply, Fault> {
        if self.closed {
            return Err(Fault::Closed);
        }
        let exchanged = self.exchange(command, body, fds, within);
        // A failure while the reply is due, other than lateness, leaves the stream unusable.
        self.closed = match exchanged {
            Err(Fault::Closed) => true,
            Err(Fault::Io(_)) => self.reply_is_due,
            _ => false,
        };
        exchanged
    }

    fn exchange(
        &mut self,
        command: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<Reply, Fault> {
        if self.reply_is_due {
            drop(self.receive(Duration::ZERO)?);
            log::debug!("a late reply to a vfio-user command is dropped");
        }
        self.reply_is_due = true;
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let (id, command) = (U16::new(id), U16::new(command));
        send(&self.socket, Header { id, command, ..Header::default() }, body, fds)?;
        let (header, reply) = self.receive(within)?;
        let flags = header.flags.get();
        let is_reply = flags & Header::TYPE_MASK == Header::REPLY;
        if !is_reply || header.id != id || header.command != command {
            return Err(invalid("a message that is not the reply"));
        }
        self.reply_is_due = false;
        match (flags & Header::ERROR, header.errno.get()) {
            (0, _) => Ok(reply),
            (_, errno) => {
                let errno = i32::try_from(errno).ok().filter(|&errno| errno > 0);
                let errno = errno.unwrap_or(Errno::INVAL.raw_os_error());
                Err(Fault::Io(io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// Receives a whole message. After [`Fault::Silent`], the next call continues with the part
    /// that has arrived.
    fn receive(&mut self, within: Duration) -> Result<(Header, Reply), Fault> {
        let begin = Instant::now();
        self.fill(HEADER_BYTES, begin, within)?;
        let (header, _) = Header::read_from_prefix(&self.inbox).map_err(|_| invalid("header"))?;
        let size = usize::try_from(header.size.get()).unwrap_or(usize::MAX);
        if !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&size) {
            return Err(invalid("a message of that size"));
        }
        self.fill(size, begin, within)?;
        let body = self.inbox.split_off(HEADER_BYTES);
        self.inbox.clear();
        Ok((header, Reply { body, fds: std::mem::take(&mut self.inbox_fds) }))
    }

    /// Receives until the inbox has `size` bytes.
    fn fill(&mut self, size: usize, begin: Instant, within: Duration) -> Result<(), Fault> {
        while self.inbox.len() < size {
            let arrived = self.inbox.len();
            self.inbox.resize(size, 0);
            let received = receive_part(&self.socket, &mut self.inbox[arrived..]);
            let bytes = received.as_ref().map_or(0, |(bytes, _)| *bytes);
            self.inbox.truncate(arrived + bytes);
            match received {
                Ok((0, _)) => return Err(Fault::Closed),
                Ok((_, fds)) => {
                    self.inbox_fds.extend(fds);
                    self.inbox_fds.truncate(FDS_MAX);
                }
                Err(Errno::AGAIN) => self.wait(within.saturating_sub(begin.elapsed()))?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits at most `within` for something to receive.
    fn wait(&self, within: Duration) -> Result<(), Fault> {
        let timeout = Timespec::try_from(within).map_err(|_| invalid("a bound"))?;
        let mut poll = [PollFd::new(&self.socket, PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Ok(0) => Err(Fault::Silent),
            // After a signal, the caller tries again with the time that is left.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Sends a message, whose header gets its size.
fn send(
    socket: &OwnedFd,
    mut header: Header,
    body: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Fault> {
    let size = HEADER_BYTES + body.len();
    header.size = U32::new(u32::try_from(size).map_err(|_| invalid("a body too large"))?);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("too many file descriptors"));
    }
    let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
    // With every earlier command answered, the socket's buffer has room for a message.
    let send = || rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL);
    if retry(send)? == size { Ok(()) } else { Err(invalid("a message sent in part")) }
}

/// Receives bytes of one message, and the file descriptors that came with them.
fn receive_part(socket: &OwnedFd, to: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(to)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    // The kernel closes the descriptors for which there is no space.
    let received = retry(|| rustix::net::recvmsg(socket, &mut parts, &mut control, flags))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    Ok((received.bytes, fds))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

pub(super) fn invalid(what: &'static str) -> Fault {
    Fault::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests;
