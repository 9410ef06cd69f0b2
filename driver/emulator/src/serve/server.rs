//! Serves clients, one at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use vfio_user::Server;

use crate::serve::gate;
use crate::serve::shared::{Messages, Shared};

/// Time that a second client waits for the end of the first. A connection outlives the process that
/// closed it if that process has just forked, and the next client often connects within that time.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

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

/// Accepts clients until `stop` becomes readable. The connection of a client that connects during
/// another's session is closed.
pub(crate) fn serve(
    listener: &UnixListener,
    stop: &OwnedFd,
    shared: &Arc<Shared>,
    directory: &Path,
) {
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
        match start(client, shared, directory) {
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
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn start(client: UnixStream, shared: &Arc<Shared>, directory: &Path) -> io::Result<Session> {
    let stream = client.try_clone()?;
    let shared = Arc::clone(shared);
    let path = directory.join("server");
    let thread = std::thread::Builder::new().name("nvio-emu-session".into()).spawn(move || {
        log::info!("client connected");
        match session(&stream, &shared, path) {
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
fn session(client: &UnixStream, shared: &Shared, path: PathBuf) -> io::Result<()> {
    // The server accepts its connection itself. It gets a listener of its own, with our connection
    // waiting in it, in a private directory.
    let listener = UnixListener::bind(&path)?;
    let connected = UnixStream::connect(&path);
    let _ = std::fs::remove_file(&path);
    let to_server = connected?;
    let (irqs, regions) = {
        let device = shared.device();
        (device.interrupts.describe(), device.regions())
    };
    let server = Server::from_owned_fd(listener.into(), true, irqs, regions);
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
