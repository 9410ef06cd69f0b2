//! vfio-user messages on a stream socket: a header, a body and descriptors.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use zerocopy::native_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest number of descriptors of one message, which is the server's limit.
pub(crate) const FDS_MAX: usize = 16;
/// Largest body in bytes: the largest negotiated transfer, and the header of an access.
pub(crate) const BODY_BYTES_MAX: usize = (1 << 20) + 64;

/// The header of every message, in the byte order of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Header {
    pub(crate) id: U16,
    pub(crate) command: U16,
    /// Bytes of the message with this header.
    pub(crate) size: U32,
    /// Type in bits 3:0, then no-reply and error.
    pub(crate) flags: U32,
    pub(crate) errno: U32,
}

pub(crate) const HEADER_SIZE: usize = size_of::<Header>();
const _: () = assert!(HEADER_SIZE == 16);

impl Header {
    /// The message is a reply.
    pub(crate) const REPLY: u32 = 1;
    /// Mask of the type.
    pub(crate) const TYPE_MASK: u32 = 0xf;
    /// The sender expects no reply.
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    /// The reply is an error.
    pub(crate) const ERROR: u32 = 1 << 5;
}

/// A message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Message {
    /// Receives the next message; `None` if the peer has closed the connection.
    ///
    /// # Errors
    /// `InvalidData` for a size or a number of descriptors beyond the limits. The bounds of later
    /// messages on the stream are then unknown, so the connection has to be closed.
    pub(crate) fn receive(stream: &UnixStream) -> io::Result<Option<Self>> {
        let mut message = Self::default();
        let bytes = message.header.as_mut_bytes();
        let received = receive_fds(stream, bytes, &mut message.fds)?;
        if received == 0 {
            return Ok(None);
        }
        (&mut &*stream).read_exact(&mut bytes[received..])?;
        let size = usize::try_from(message.header.size.get()).unwrap_or(usize::MAX);
        let body = size.checked_sub(HEADER_SIZE).filter(|&body| body <= BODY_BYTES_MAX);
        let body = body.ok_or_else(|| invalid("message size"))?;
        message.body.resize(body, 0);
        (&mut &*stream).read_exact(&mut message.body)?;
        Ok(Some(message))
    }

    /// Sets the size in the header and sends the message.
    pub(crate) fn send(&mut self, stream: &UnixStream) -> io::Result<()> {
        let size = u32::try_from(HEADER_SIZE + self.body.len()).map_err(io::Error::other)?;
        self.header.size = U32::new(size);
        // One write, so that the receiver gets header, structure and descriptors together.
        let mut bytes = Vec::with_capacity(HEADER_SIZE + self.body.len());
        bytes.extend_from_slice(self.header.as_bytes());
        bytes.extend_from_slice(&self.body);
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let sent = send_fds(stream, &bytes, &fds)?;
        (&mut &*stream).write_all(&bytes[sent..])
    }
}

fn receive_fds(stream: &UnixStream, to: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(to)];
    let received = loop {
        match rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    // The kernel dropped the descriptors beyond the space.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid("number of descriptors"));
    }
    Ok(received.bytes)
}

fn send_fds(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("number of descriptors"));
    }
    loop {
        let parts = [IoSlice::new(bytes)];
        match rustix::net::sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn body_and_descriptors_arrive_together() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the socket").unwrap();
        let mut message = Message { body: vec![7; 100_000], ..Message::default() };
        message.header.command = U16::new(9);
        message.fds = vec![file.try_clone().unwrap().into(), file.into()];
        let sender = std::thread::spawn(move || message.send(&here).map(|()| here));
        let mut received = Message::receive(&there).unwrap().unwrap();
        assert_eq!((received.header.command.get(), received.body.len()), (9, 100_000));
        assert_eq!(received.fds.len(), 2);
        let file = File::from(received.fds.remove(0));
        assert_eq!(file.metadata().unwrap().len(), 18);
        drop(sender.join().unwrap().unwrap());
        assert!(Message::receive(&there).unwrap().is_none());
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused_before_memory_is_taken() {
        for size in [0, 15, u32::MAX] {
            let (here, there) = UnixStream::pair().unwrap();
            let header = Header { size: U32::new(size), ..Header::default() };
            (&here).write_all(header.as_bytes()).unwrap();
            let error = Message::receive(&there).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{size}");
        }
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(&[0; 5]).unwrap();
        drop(here);
        assert_eq!(Message::receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
