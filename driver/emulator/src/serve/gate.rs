//! The gate between a client and the vfio-user server.
//!
//! The server of crate `vfio_user` trusts its client: a version message without its NUL panics, a
//! count of 4 GiB is allocated, bytes beyond the structure of a message stay on the stream and
//! become the next message, and the errno of a refusal is 0. It accepts its one connection itself
//! and does not close it on request. Therefore it serves a private connection. Between that one and
//! the client's, the gate receives each message whole, checks it, passes it on and relays the reply
//! before it receives the next message. The gate fills in the errno of a refusal, and keeps the
//! connection to the client, so that the emulator can close it.
//!
//! # Longer messages
//! libvfio-user accepts every body that holds at least the structure of its command, and clients
//! rely on it: SPDK's sends `VFIO_USER_DEVICE_GET_REGION_INFO` with a body as long as the reply may
//! be (argsz, 4064 bytes), of which only the structure is not zero. The gate passes on the
//! structure and drops the rest. `argsz` stays as it is, because it bounds the body of the reply; a
//! value below the size of the reply's structure is refused.
//!
//! Descriptors that arrive with a command that takes none are closed, and the command goes on:
//! SPDK's client sends the region's descriptor with `VFIO_USER_DMA_UNMAP`.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_DATA_BOOL, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
};
use vfio_user::Command;
use zerocopy::native_endian::{U16, U32};

use crate::serve::message::{FDS_MAX, Header, Message};
use crate::serve::shared::Shared;

/// Largest JSON that a version message may carry.
const VERSION_DATA_BYTES_MAX: usize = 4096;
/// Largest access to a region, as negotiated (`max_data_xfer_size`).
const ACCESS_BYTES_MAX: u32 = 1 << 20;
/// JSON for a client that sends none.
const NO_CAPABILITIES: &[u8] = b"{\"capabilities\":{}}\0";

/// Passes messages between client and server until one of them closes the connection.
///
/// # Errors
/// The errors of the sockets; `InvalidData` if the bounds of the client's messages are lost.
pub(crate) fn relay(client: &UnixStream, server: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut version_agreed = false;
    while let Some(mut request) = Message::receive(client)? {
        let (id, command) = (request.header.id, request.header.command);
        let wants_reply = request.header.flags.get() & Header::NO_REPLY == 0;
        let checked = admit(&mut request, version_agreed);
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

/// Checks a message, and reduces it to the part that the server takes.
///
/// # Errors
/// `EINVAL` for a message that its sender must not send, `EOPNOTSUPP` for a command or a form of it
/// that the server does not have.
fn admit(message: &mut Message, version_agreed: bool) -> Result<(), Errno> {
    if message.header.flags.get() & Header::TYPE_MASK != 0 {
        return Err(Errno::INVAL);
    }
    let command = Command::n(message.header.command.get()).ok_or(Errno::INVAL)?;
    // The version comes first, and once.
    if version_agreed == matches!(command, Command::Version) {
        return Err(Errno::INVAL);
    }
    let body = &message.body[..];
    // Bytes of the command's structure, and of the structure that replies to it.
    let (structure, reply) = match command {
        Command::Version => {
            message.fds.clear();
            return admit_version(&mut message.body);
        }
        Command::DmaMap => (32, 0),
        Command::DmaUnmap => (24, 24),
        Command::DeviceGetInfo | Command::GetIrqInfo => (16, 16),
        Command::DeviceGetRegionInfo => (32, 32),
        Command::SetIrqs => (20, 0),
        Command::RegionRead => (access(body).map(|_| ACCESS).ok_or(Errno::INVAL)?, 0),
        Command::RegionWrite => (ACCESS + access(body).ok_or(Errno::INVAL)?, 0),
        Command::DeviceReset => (0, 0),
        _ => return Err(Errno::OPNOTSUPP),
    };
    if body.len() < structure || reply != 0 && dword(body, 0).is_none_or(|argsz| argsz < reply) {
        return Err(Errno::INVAL);
    }
    message.body.truncate(structure);
    match command {
        Command::DmaMap if message.fds.len() > 1 => Err(Errno::INVAL),
        Command::DmaMap => Ok(()),
        Command::SetIrqs => check_irqs(message),
        _ => {
            message.fds.clear();
            Ok(())
        }
    }
}

/// Checks the fields of `VFIO_USER_DEVICE_SET_IRQS` that the server answers without an errno.
fn check_irqs(message: &Message) -> Result<(), Errno> {
    let field = |at| dword(&message.body, at).unwrap_or(0);
    if field(4) & VFIO_IRQ_SET_DATA_BOOL != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let fits = field(8) < VFIO_PCI_NUM_IRQS && message.fds.len() <= FDS_MAX;
    if fits { Ok(()) } else { Err(Errno::INVAL) }
}

/// Bytes of `VFIO_USER_REGION_READ` and `VFIO_USER_REGION_WRITE` before their data.
const ACCESS: usize = 16;

/// Returns the length of an access if its region exists and the length is within the limit.
fn access(body: &[u8]) -> Option<usize> {
    dword(body, 8).filter(|&region| region < VFIO_PCI_NUM_REGIONS)?;
    let count = dword(body, 12).filter(|&count| count <= ACCESS_BYTES_MAX)?;
    usize::try_from(count).ok()
}

/// Checks the version, which is 0, and its JSON. The JSON may be absent; otherwise it ends with a
/// NUL, after which more NULs may pad the message.
fn admit_version(body: &mut Vec<u8>) -> Result<(), Errno> {
    let (major, json) = body.split_first_chunk::<2>().ok_or(Errno::INVAL)?;
    let json = json.get(2..).ok_or(Errno::INVAL)?;
    if u16::from_ne_bytes(*major) != 0 || json.len() > VERSION_DATA_BYTES_MAX {
        return Err(Errno::INVAL);
    }
    if json.is_empty() {
        body.extend_from_slice(NO_CAPABILITIES);
        return Ok(());
    }
    let end = json.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
    let (text, padding) = json.split_at(end + 1);
    if padding.iter().any(|&byte| byte != 0) {
        return Err(Errno::INVAL);
    }
    let length = 4 + text.len();
    body.truncate(length);
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
        admit(&mut message(command, body), true)
    }

    /// Returns a body of `bytes` bytes that begins with the argsz.
    fn sized(argsz: u32, bytes: usize) -> Vec<u8> {
        let mut body = argsz.to_ne_bytes().to_vec();
        body.resize(bytes, 0);
        body
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
        let first = |body: &[u8]| admit(&mut message(Command::Version, body), false);
        assert_eq!(first(b"\0\0\x01\0{}\0"), Ok(()));
        assert_eq!(first(b"\0\0\x01\0{}"), Err(Errno::INVAL));
        assert_eq!(first(b"\0\0\x01\0{\0}\0"), Err(Errno::INVAL));
        assert_eq!(first(b"\x01\0\0\0{}\0"), Err(Errno::INVAL));
        assert_eq!(first(b"\0\0\x01"), Err(Errno::INVAL));
        assert_eq!(first(&[b'x'; 5000]), Err(Errno::INVAL));
        let mut absent = message(Command::Version, b"\0\0\x01\0");
        assert_eq!(admit(&mut absent, false), Ok(()));
        assert!(absent.body.ends_with(b"}\0"));
        let mut padded = message(Command::Version, b"\0\0\x01\0{}\0\0\0\0");
        assert_eq!(admit(&mut padded, false), Ok(()));
        assert_eq!(padded.body, b"\0\0\x01\0{}\0");
        // Once, and before anything else.
        assert_eq!(verdict(Command::Version, b"\0\0\x01\0{}\0"), Err(Errno::INVAL));
        assert_eq!(admit(&mut message(Command::DeviceReset, b""), false), Err(Errno::INVAL));
    }

    #[test]
    fn bodies_hold_the_structure_and_lose_the_rest() {
        for (command, structure) in [
            (Command::DmaMap, 32),
            (Command::DmaUnmap, 24),
            (Command::DeviceGetInfo, 16),
            (Command::DeviceGetRegionInfo, 32),
            (Command::GetIrqInfo, 16),
            (Command::SetIrqs, 20),
            (Command::DeviceReset, 0),
        ] {
            for more in [0, 1, 4064] {
                let mut request = message(command, &sized(4064, structure.max(4) + more));
                assert_eq!(admit(&mut request, true), Ok(()), "{command:?} {more}");
                assert_eq!(request.body.len(), structure, "{command:?} {more}");
                let argsz = 4064u32.to_ne_bytes();
                assert!(argsz.starts_with(&request.body[..structure.min(4)]));
            }
            if structure > 0 {
                let short = sized(4064, structure - 1);
                assert_eq!(verdict(command, &short), Err(Errno::INVAL), "{command:?}");
            }
        }
        assert_eq!(verdict(Command::RegionRead, &access_body(0, 4, 0)), Ok(()));
        assert_eq!(verdict(Command::RegionRead, &access_body(9, 4, 0)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionRead, &access_body(0, u32::MAX, 0)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionWrite, &access_body(0, 4, 4)), Ok(()));
        assert_eq!(verdict(Command::RegionWrite, &access_body(0, 8, 4)), Err(Errno::INVAL));
        assert_eq!(verdict(Command::RegionWrite, &[0; 15]), Err(Errno::INVAL));
        assert_eq!(verdict(Command::UserDirtyPages, &[]), Err(Errno::OPNOTSUPP));
        assert_eq!(verdict(Command::DmaRead, &[0; 16]), Err(Errno::OPNOTSUPP));
        for (command, data, kept) in
            [(Command::RegionRead, 100, 16), (Command::RegionWrite, 100, 20)]
        {
            let mut request = message(command, &access_body(0, 4, data));
            assert_eq!(admit(&mut request, true), Ok(()));
            assert_eq!(request.body, access_body(0, 4, kept - 16));
        }
    }

    #[test]
    fn argsz_covers_the_reply() {
        for (command, reply) in [
            (Command::DmaUnmap, 24),
            (Command::DeviceGetInfo, 16),
            (Command::DeviceGetRegionInfo, 32),
            (Command::GetIrqInfo, 16),
        ] {
            assert_eq!(verdict(command, &sized(reply, 4064)), Ok(()), "{command:?}");
            assert_eq!(verdict(command, &sized(reply - 1, 4064)), Err(Errno::INVAL), "{command:?}");
        }
    }

    #[test]
    fn descriptors_without_a_use_are_closed() {
        let with_descriptors = |command, bytes, count| {
            let mut request = message(command, &sized(4064, bytes));
            let open = || tempfile::tempfile().unwrap().into();
            request.fds = std::iter::repeat_with(open).take(count).collect();
            admit(&mut request, true).map(|()| request.fds.len())
        };
        for (command, bytes) in [
            (Command::DmaUnmap, 24),
            (Command::DeviceGetInfo, 16),
            (Command::DeviceGetRegionInfo, 32),
            (Command::GetIrqInfo, 16),
            (Command::RegionRead, 16),
            (Command::RegionWrite, 16),
            (Command::DeviceReset, 0),
        ] {
            assert_eq!(with_descriptors(command, bytes, 3), Ok(0), "{command:?}");
        }
        assert_eq!(with_descriptors(Command::DmaMap, 32, 1), Ok(1));
        assert_eq!(with_descriptors(Command::DmaMap, 32, 2), Err(Errno::INVAL));
        assert_eq!(with_descriptors(Command::SetIrqs, 20, 16), Ok(16));
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
        assert_eq!(admit(&mut reply, true), Err(Errno::INVAL));
        let mut unknown = message(Command::DeviceReset, &[]);
        unknown.header.command = U16::new(999);
        assert_eq!(admit(&mut unknown, true), Err(Errno::INVAL));
    }
}
