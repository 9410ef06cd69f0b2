//! Serves clients, one at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vfio_user::Server;

use crate::serve::gate;
use crate::serve::shared::{Messages, Shared};

/// Time that a second client waits for the end of the first. A connection outlives the process that
/// closed it if that process has just forked, and the next client often connects within that time.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Attempts to be the first at a listener of our own.
const PRIVATE_ATTEMPTS: u32 = 16;

/// The connection of a client and the thread that serves it.
struct Session {
    client: UnixStream,
    thread: JoinHandle<()>,
}

impl Session {
    /// Returns true if the client closes its end or its session ends within [`GRACE`].
    fn is_over(&self, stop: &OwnedFd) -> bool {
        let mut poll = [
            PollFd::from_borrowed_fd(self.client.as_fd(), PollFlags::RDHUP),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        // A session that ends closes the connection, which sets RDHUP, too.
        let polled = rustix::event::poll(&mut poll, Some(&GRACE));
        (polled.is_ok() && !poll[0].revents().is_empty()) || self.thread.is_finished()
    }

    /// Closes the connection and waits until the session has ended.
    fn end(self) {
        let _ = self.client.shutdown(std::net::Shutdown::Both);
        if self.thread.join().is_err() {
            log::error!("a session ended with a panic");
        }
    }
}

/// Serves the client at the other end of `client` until `stop` becomes readable.
pub(crate) fn serve_one(client: UnixStream, stop: &OwnedFd, shared: &Arc<Shared>) {
    match start(client, shared) {
        Ok(session) => {
            let mut poll = [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
            while rustix::event::poll(&mut poll, None) == Err(Errno::INTR) {}
            session.end();
        }
        Err(error) => log::error!("starting a session: {error}"),
    }
}

/// Accepts clients until `stop` becomes readable. The connection of a client that connects during
/// another's session is closed.
pub(crate) fn serve(listener: &UnixListener, stop: &OwnedFd, shared: &Arc<Shared>) {
    let mut session: Option<Session> = None;
    loop {
        match wait(listener, stop) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                log::error!("waiting for clients: {error}");
                break;
            }
        }
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                // The process is out of descriptors, or the client has closed the connection
                // already.
                log::warn!("accepting a client: {error}");
                std::thread::sleep(std::time::Duration::from_millis(10));
                continue;
            }
        };
        // The kernel may still be closing the connection of a client that was killed a moment ago.
        if let Some(over) = session.take_if(|session| session.is_over(stop)) {
            over.end();
        }
        if session.is_some() {
            log::info!("a client is served already: the second is refused");
            continue;
        }
        match start(client, shared) {
            Ok(started) => session = Some(started),
            Err(error) => log::error!("starting a session: {error}"),
        }
    }
    if let Some(session) = session {
        session.end();
    }
}

/// Waits for a client; `false` when `stop` is readable.
fn wait(listener: &UnixListener, stop: &OwnedFd) -> io::Result<bool> {
    let mut poll = [
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
    ];
    loop {
        match rustix::event::poll(&mut poll, None) {
            Ok(_) => return Ok(poll[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn start(client: UnixStream, shared: &Arc<Shared>) -> io::Result<Session> {
    let stream = client.try_clone()?;
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("nvio-emu-session".into()).spawn(move || {
        log::info!("client connected");
        match session(&stream, &shared) {
            Ok(()) => log::info!("client disconnected"),
            Err(error) => log::warn!("client disconnected: {error}"),
        }
        // The client's state is gone before the next client is accepted.
        shared.device().disconnect();
        let _ = stream.shutdown(std::net::Shutdown::Both);
    })?;
    Ok(Session { client, thread })
}

/// Runs a server for one client, behind the gate.
fn session(client: &UnixStream, shared: &Shared) -> io::Result<()> {
    let (listener, to_server) = private_connection()?;
    let (irqs, regions) = {
        let device = shared.device();
        (device.interrupts.describe(), device.regions())
    };
    let server = Server::from_owned_fd(listener, true, irqs, regions);
    std::thread::scope(|scope| {
        let run = move || server.run(&mut Messages(shared));
        let running =
            std::thread::Builder::new().name("nvio-emu-server".into()).spawn_scoped(scope, run)?;
        let relayed = gate::relay(client, &to_server, shared);
        // The server ends when its connection is closed.
        drop(to_server);
        match running.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("server: {error}"),
            Err(_) => log::error!("server: ended with a panic"),
        }
        relayed
    })
}

/// Returns a listener whose only connection, which waits to be accepted, is the one returned.
///
/// The server accepts its connection itself, so that a pair of sockets is not enough. The listener
/// has an abstract address, which leaves no file. Other processes can connect to it, too, but its
/// backlog has room for one connection: if ours is in it, no other was there before.
fn private_connection() -> io::Result<(OwnedFd, UnixStream)> {
    let mut last = Errno::AGAIN;
    for _ in 0..PRIVATE_ATTEMPTS {
        let socket = || {
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        };
        let (listener, connection) = (socket()?, socket()?);
        // The kernel chooses the name.
        rustix::net::bind(&listener, &SocketAddrUnix::new_unnamed())?;
        rustix::net::listen(&listener, 0)?;
        rustix::io::ioctl_fionbio(&connection, true)?;
        match rustix::net::connect(&connection, &rustix::net::getsockname(&listener)?) {
            Ok(()) => {
                rustix::io::ioctl_fionbio(&connection, false)?;
                return Ok((listener, connection.into()));
            }
            Err(errno) => last = errno,
        }
    }
    Err(last.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_one_connection() {
        let (listener, mut connection) = private_connection().unwrap();
        let address = rustix::net::getsockname(&listener).unwrap();
        let flags = SocketFlags::NONBLOCK;
        let other = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let other = other.unwrap();
        assert_eq!(rustix::net::connect(&other, &address), Err(Errno::AGAIN));

        let accepted = rustix::net::accept(&listener).unwrap();
        io::Write::write_all(&mut connection, b"ours").unwrap();
        let mut bytes = [0; 4];
        io::Read::read_exact(&mut UnixStream::from(accepted), &mut bytes).unwrap();
        assert_eq!(&bytes, b"ours");
    }
}
