//! The gate between a client and the vfio-user server.
//!
//! The server of crate `vfio_user` accepts one connection itself, keeps it to itself, and trusts
//! what comes through it: a version message without its NUL panics, a count of 4 GiB is
//! allocated, a message whose size does not fit its kind leaves the rest of itself on the stream
//! to be taken for the next, and an error is answered with the number 0. So it is given a
//! connection of its own. Between that and the client's, each message is received whole, checked,
//! passed on and answered before the next; errors get their number on the way back. The
//! connection to the client stays in our hands, to be closed when we want.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_DATA_BOOL, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
};
use vfio_user::Command;
use zerocopy::native_endian::{U16, U32};

use crate::shared::Shared;
use crate::wire::{Header, MAX_FDS, Message};

/// Largest JSON that a version message may carry.
const MAX_VERSION_DATA: usize = 4096;
/// Largest access to a region, as negotiated (`max_data_xfer_size`).
const MAX_ACCESS: u32 = 1 << 20;
/// What a client that says nothing of its capabilities is taken to say.
const NO_CAPABILITIES: &[u8] = b"{\"capabilities\":{}}\0";

/// Passes messages between client and server until one of them closes the connection.
///
/// # Errors
/// What the sockets say; `InvalidData` if the client's messages cannot be told apart any more.
pub(crate) fn relay(client: &UnixStream, server: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut version_agreed = false;
    while let Some(mut request) = Message::receive(client)? {
        let (id, command) = (request.header.id, request.header.command);
        let wants_reply = request.header.flags.get() & Header::NO_REPLY == 0;
        let checked = check(&mut request, version_agreed);
        let mut reply = match checked {
            Err(errno) => refusal(id, command, errno.raw_os_error().unsigned_abs()),
            Ok(()) => {
                // Always answered here, so that requests and answers stay in step.
                request.header.flags = U32::new(0);
                request.send(server)?;
                let Some(mut reply) = Message::receive(server)? else { return Ok(()) };
                number_error(&mut reply.header, shared);
                reply
            }
        };
        let failed = reply.header.flags.get() & Header::ERROR != 0;
        if failed {
            log::debug!("message {}: errno {}", command.get(), reply.header.errno.get());
        }
        version_agreed |= !failed;
        if wants_reply {
            reply.send(client)?;
        }
        // Without an agreement there is nothing to talk about.
        if !version_agreed {
            return Ok(());
        }
    }
    Ok(())
}

/// Puts the reason into an error reply, which the server leaves at 0.
fn number_error(header: &mut Header, shared: &Shared) {
    let errno = shared.take_errno();
    if header.flags.get() & Header::ERROR != 0 && header.errno.get() == 0 {
        let invalid = Errno::INVAL.raw_os_error().unsigned_abs();
        header.errno = U32::new(errno.unwrap_or(invalid));
    }
}

fn refusal(id: U16, command: U16, errno: u32) -> Message {
    let flags = U32::new(Header::REPLY | Header::ERROR);
    let header = Header { id, command, flags, errno: U32::new(errno), ..Header::default() };
    Message { header, ..Message::default() }
}

/// Checks that a message is one that the server takes whole and can answer.
fn check(message: &mut Message, version_agreed: bool) -> Result<(), Errno> {
    if message.header.flags.get() & Header::TYPE_MASK != 0 {
        return Err(Errno::INVAL);
    }
    let command = Command::n(message.header.command.get()).ok_or(Errno::INVAL)?;
    // The version comes first, and once.
    if version_agreed == matches!(command, Command::Version) {
        return Err(Errno::INVAL);
    }
    let (body, fds) = (&message.body[..], message.fds.len());
    let fits = match command {
        Command::Version => return check_version(&mut message.body),
        Command::DmaMap => body.len() == 32 && fds <= 1,
        Command::DmaUnmap => body.len() == 24 && fds == 0,
        Command::DeviceGetInfo | Command::GetIrqInfo => body.len() == 16 && fds == 0,
        Command::DeviceGetRegionInfo => body.len() == 32 && fds == 0,
        Command::SetIrqs => {
            if dword(body, 4).is_some_and(|flags| flags & VFIO_IRQ_SET_DATA_BOOL != 0) {
                return Err(Errno::OPNOTSUPP);
            }
            let index = dword(body, 8).is_some_and(|index| index < VFIO_PCI_NUM_IRQS);
            body.len() == 20 && fds <= MAX_FDS && index
        }
        Command::RegionRead => body.len() == 16 && fds == 0 && access(body).is_some(),
        Command::RegionWrite => {
            let data = body.len().checked_sub(16);
            fds == 0 && data.is_some() && data == access(body)
        }
        Command::DeviceReset => body.is_empty() && fds == 0,
        _ => return Err(Errno::OPNOTSUPP),
    };
    if fits { Ok(()) } else { Err(Errno::INVAL) }
}

/// Length of an access, of a region that exists and within the limit.
fn access(body: &[u8]) -> Option<usize> {
    dword(body, 8).filter(|&region| region < VFIO_PCI_NUM_REGIONS)?;
    let count = dword(body, 12).filter(|&count| count <= MAX_ACCESS)?;
    usize::try_from(count).ok()
}

/// Version 0 of the protocol, and JSON that ends with the only NUL in it. The JSON may be absent.
fn check_version(body: &mut Vec<u8>) -> Result<(), Errno> {
    let (major, json) = body.split_first_chunk::<2>().ok_or(Errno::INVAL)?;
    let json = json.get(2..).ok_or(Errno::INVAL)?;
    if u16::from_ne_bytes(*major) != 0 || json.len() > MAX_VERSION_DATA {
        return Err(Errno::INVAL);
    }
    if json.is_empty() {
        body.extend_from_slice(NO_CAPABILITIES);
    } else if json.iter().position(|&byte| byte == 0) != Some(json.len() - 1) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn dword(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(command: Command, body: &[u8]) -> Message {
        let header = Header { command: U16::new(command as u16), ..Header::default() };
        Message { header, body: body.to_vec(), ..Message::default() }
    }

    fn verdict(command: Command, body: &[u8]) -> Result<(), Errno> {
        check(&mut message(command, body), true)
    }

    fn access_body(region: u32, count: u32, data: usize) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.extend_from_slice(&region.to_ne_bytes());
        body.extend_from_slice(&count.to_ne_bytes());
        body.resize(16 + data, 0);
        body
    }

    #[test]
    fn version_data_must_be_a_string_and_may_be_absent() {
        let first = |body: &[u8]| check(&mut message(Command::Version, body), false);
        assert_eq!(first(b"\0\0\x01\0{}\0"), Ok(()));
        assert_eq!(first(b"\0\0\x01\0{}"), Err(Errno::INVAL));
        assert_eq!(first(b"\0\0\x01\0{\0}\0"), Err(Errno::INVAL));
        assert_eq!(first(b"\x01\0\0\0{}\0"), Err(Errno::INVAL));
        assert_eq!(first(b"\0\0\x01"), Err(Errno::INVAL));
        assert_eq!(first(&[b'x'; 5000]), Err(Errno::INVAL));
        let mut absent = message(Command::Version, b"\0\0\x01\0");
        assert_eq!(check(&mut absent, false), Ok(()));
        assert!(absent.body.ends_with(b"}\0"));
        // Once, and before anything else.
        assert_eq!(verdict(Command::Version, b"\0\0\x01\0{}\0"), Err(Errno::INVAL));
        assert_eq!(check(&mut message(Command::DeviceReset, b""), false), Err(Errno::INVAL));
    }

    #[test]
    fn sizes_must_fit_the_command() {
        assert_eq!(verdict(Command::DeviceReset, &[]), Ok(()));
        assert_eq!(verdict(Command::DeviceReset, &[0]), Err(Errno::INVAL));
        assert_eq!(verdict(Command::DmaMap, &[0; 32]), Ok(()));
        assert_eq!(verdict(Command::DmaMap, &[0; 31]), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionRead, &access_body(0, 4, 0)), Ok(()));
        assert_eq!(verdict(Command::RegionRead, &access_body(9, 4, 0)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionRead, &access_body(0, u32::MAX, 0)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionWrite, &access_body(0, 4, 4)), Ok(()));
        assert_eq!(verdict(Command::RegionWrite, &access_body(0, 8, 4)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionWrite, &[0; 15]), Err(Errno::INVAL));
        assert_eq!(verdict(Command::UserDirtyPages, &[]), Err(Errno::OPNOTSUPP));
        assert_eq!(verdict(Command::DmaRead, &[0; 16]), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn booleans_for_interrupts_are_refused_with_their_data() {
        let mut body = [0; 20];
        assert_eq!(verdict(Command::SetIrqs, &body), Ok(()));
        body[8] = 5;
        assert_eq!(verdict(Command::SetIrqs, &body), Err(Errno::INVAL));
        body[4] = 2;
        assert_eq!(verdict(Command::SetIrqs, &body), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn replies_and_unknown_commands_are_refused() {
        let mut reply = message(Command::DeviceReset, &[]);
        reply.header.flags = U32::new(Header::REPLY);
        assert_eq!(check(&mut reply, true), Err(Errno::INVAL));
        let mut unknown = message(Command::DeviceReset, &[]);
        unknown.header.command = U16::new(999);
        assert_eq!(check(&mut unknown, true), Err(Errno::INVAL));
    }
}
