use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

fn pair() -> (Channel, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (Channel::over(client.into()), server)
}

/// A message with a header for its body.
fn message(id: u16, command: u16, flags: u32, errno: u32, body: &[u8]) -> Vec<u8> {
    let header = Header {
        id: U16::new(id),
        command: U16::new(command),
        size: U32::new((HEADER_BYTES + body.len()) as u32),
        flags: U32::new(flags),
        errno: U32::new(errno),
    };
    [header.as_bytes(), body].concat()
}

fn reply(id: u16, command: u16, body: &[u8]) -> Vec<u8> {
    message(id, command, Header::REPLY, 0, body)
}

fn errno(fault: &Fault) -> Option<i32> {
    match fault {
        Fault::Io(error) => error.raw_os_error(),
        _ => None,
    }
}

#[test]
fn a_command_and_its_reply_cross_whole() {
    let (mut channel, mut server) = pair();
    server.write_all(&reply(0, 9, &[7; 30_000])).unwrap();
    let file = tempfile::tempfile().unwrap();
    let answer = channel.call(9, b"body", &[file.as_fd()], LONG).unwrap();
    assert_eq!((answer.body.len(), answer.fds.len()), (30_000, 0));
    let mut sent = [0; HEADER_BYTES + 4];
    server.read_exact(&mut sent).unwrap();
    assert_eq!(sent[..], message(0, 9, 0, 0, b"body")[..]);
}

#[test]
fn descriptors_come_with_the_reply() {
    let (mut channel, server) = pair();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"through the socket").unwrap();
    let header =
        Header { command: U16::new(5), flags: U32::new(Header::REPLY), ..Header::default() };
    let server = server.into();
    send(&server, header, b"body", &[file.as_fd()]).unwrap();
    let mut answer = channel.call(5, b"", &[], LONG).unwrap();
    let file = File::from(answer.fds.pop().unwrap());
    assert_eq!((file.metadata().unwrap().len(), answer.fds.len()), (18, 0));
}

#[test]
fn an_error_reply_has_its_number_and_leaves_the_connection_usable() {
    let (mut channel, mut server) = pair();
    let error = Header::REPLY | Header::ERROR;
    for (id, sent, expected) in
        [(0, 28, libc::ENOSPC), (1, 0, libc::EINVAL), (2, u32::MAX, libc::EINVAL)]
    {
        server.write_all(&message(id, 2, error, sent, b"")).unwrap();
        let fault = channel.call(2, b"", &[], LONG).unwrap_err();
        assert_eq!(errno(&fault), Some(expected));
    }
    server.write_all(&reply(3, 2, b"")).unwrap();
    assert!(channel.call(2, b"", &[], LONG).is_ok());
}

#[test]
fn a_silent_server_is_waited_for_once() {
    let (mut channel, mut server) = pair();
    let begin = Instant::now();
    assert!(matches!(channel.call(9, b"", &[], SHORT), Err(Fault::Silent)));
    assert!(begin.elapsed() >= SHORT);
    // At once, although the bound is long; also when the reply has begun to arrive.
    assert!(matches!(channel.call(10, b"", &[], LONG), Err(Fault::Silent)));
    let late = reply(0, 9, b"late");
    server.write_all(&late[..18]).unwrap();
    assert!(matches!(channel.call(10, b"", &[], LONG), Err(Fault::Silent)));
    assert!(begin.elapsed() < LONG);
    // The late reply is not taken for another command's.
    server.write_all(&late[18..]).unwrap();
    server.write_all(&reply(1, 10, b"in time")).unwrap();
    assert_eq!(channel.call(10, b"", &[], LONG).unwrap().body, b"in time");
}

#[test]
fn a_closed_connection_is_closed_at_once() {
    for cut in [0, 3, 20] {
        let (mut channel, mut server) = pair();
        server.write_all(&reply(0, 9, &[0; 16])[..cut]).unwrap();
        drop(server);
        let begin = Instant::now();
        for _ in 0..2 {
            assert!(matches!(channel.call(9, b"", &[], LONG), Err(Fault::Closed)));
        }
        assert!(begin.elapsed() < LONG);
    }
}

#[test]
fn messages_that_cannot_be_told_apart_end_the_connection() {
    let mut small = reply(0, 9, b"");
    small[4] = 15;
    let mut large = reply(0, 9, b"");
    large[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    let command = message(0, 9, 0, 0, b"");
    for wrong in [small, large, command, reply(1, 9, b""), reply(0, 10, b"")] {
        let (mut channel, mut server) = pair();
        server.write_all(&wrong).unwrap();
        assert!(matches!(channel.call(9, b"", &[], LONG), Err(Fault::Io(_))), "{wrong:?}");
        assert!(matches!(channel.call(9, b"", &[], LONG), Err(Fault::Closed)), "{wrong:?}");
    }
}

#[test]
fn a_server_that_does_not_accept_is_waited_for_with_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    assert_eq!(errno(&Channel::connect(&path, LONG).unwrap_err()), Some(libc::ENOENT));
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_eq!(errno(&Channel::connect(&path, LONG).unwrap_err()), Some(libc::ECONNREFUSED));
    rustix::net::listen(&socket, 0).unwrap();
    let begin = Instant::now();
    let mut connected = Vec::new();
    let fault = loop {
        match Channel::connect(&path, SHORT) {
            Ok(channel) if connected.len() < 100 => connected.push(channel),
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(fault, Fault::Silent) && begin.elapsed() < LONG);
    drop(connected);
}
