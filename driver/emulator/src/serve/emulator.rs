//! The emulator: a controller with threads and a socket.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

use crate::config::Config;
use crate::controller::state::Controller;
use crate::error::Error;
use crate::faults::FaultCounts;
use crate::faults::plan::DeviceFault;
use crate::serve::device::Device;
use crate::serve::helper::Helper;
use crate::serve::poller;
use crate::serve::server;
use crate::serve::shared::Shared;
use crate::serve::socket::{Socket, private_directory};

impl Config {
    /// Starts an emulator: opens the backings, listens, and starts the threads.
    ///
    /// # Errors
    /// [`Error`], for settings, backings, the socket and threads.
    ///
    /// # Examples
    /// ```
    /// use nvio_emulator::{Backing, Config, NamespaceConfig};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
    /// let emulator = config.socket(folder.path().join("nvme.sock")).start()?;
    /// println!("vfio-user:{}", emulator.socket().display());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(self) -> Result<Emulator, Error> {
        let controller = Controller::new(&self)?;
        let (directory, path) = match self.socket {
            Some(path) => (None, path),
            None => {
                let directory = private_directory()?;
                let path = directory.path().join("nvme");
                (Some(directory), path)
            }
        };
        let (socket, listener) = Socket::bind(&path)?;
        let mut emulator = Emulator::idle(controller)?;
        emulator.listening = Some(Listening { socket, _directory: directory });
        let (stop, shared) = (Arc::clone(&emulator.stop), Arc::clone(&emulator.shared));
        emulator.spawn_poller()?;
        emulator.spawn("nvio-emu-accept", move || server::serve(&listener, &stop, &shared))?;
        Ok(emulator)
    }

    /// Starts an emulator for the one client that gets the returned connection. Nothing is created
    /// in the filesystem; [`socket`](Self::socket) is ignored.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// use nvio_emulator::{Backing, Config, NamespaceConfig};
    ///
    /// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
    /// let (emulator, connection) = config.connect()?;
    /// assert_eq!(emulator.socket(), std::path::Path::new(""));
    /// println!("a vfio-user client speaks on {connection:?}");
    /// # Ok::<(), nvio_emulator::Error>(())
    /// ```
    pub fn connect(self) -> Result<(Emulator, UnixStream), Error> {
        let (ours, clients) = UnixStream::pair().map_err(Error::Thread)?;
        let mut emulator = Emulator::idle(Controller::new(&self)?)?;
        let (stop, shared) = (Arc::clone(&emulator.stop), Arc::clone(&emulator.shared));
        emulator.spawn_poller()?;
        emulator.spawn("nvio-emu-serve", move || server::serve_one(ours, &stop, &shared))?;
        Ok((emulator, clients))
    }
}

/// The socket of an emulator, and the directory that was created for it.
#[derive(Debug)]
struct Listening {
    socket: Socket,
    _directory: Option<TempDir>,
}

/// A running NVMe controller that vfio-user clients can connect to, one at a time.
///
/// Dropping it closes the client's connection, ends the threads, flushes images and removes the
/// socket. The [front page](crate) has an example.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, DeviceFault, Emulator, NamespaceConfig};
///
/// let disk = NamespaceConfig::new(Backing::memory(1 << 20));
/// let emulator = Emulator::builder().namespace(disk).write_cache(64 << 10).start()?;
/// println!("clients connect to {}", emulator.socket().display());
///
/// // Lose some of the writes that were not flushed, and report a fatal error.
/// emulator.power_cut(17);
/// emulator.inject(DeviceFault::Fatal);
/// println!("{:?}", emulator.fault_counts());
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    listening: Option<Listening>,
}

impl Emulator {
    /// Returns an emulator without threads.
    fn idle(controller: Controller) -> Result<Self, Error> {
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| Error::Thread(error.into()))?;
        Ok(Self {
            shared: Arc::new(Shared::new(Device::new(controller))),
            stop: Arc::new(stop),
            threads: Vec::with_capacity(2),
            listening: None,
        })
    }

    /// Returns the settings of [`Config::default`], to which at least one namespace has to be
    /// added. [`Config::start`] starts the emulator.
    ///
    /// See the [example](Self#examples).
    pub fn builder() -> Config {
        Config::new()
    }

    /// Returns the path of the socket, which is empty after [`Config::connect`].
    ///
    /// See the [example](Self#examples).
    pub fn socket(&self) -> &Path {
        self.listening.as_ref().map_or(Path::new(""), |listening| listening.socket.path())
    }

    /// Applies a fault to the controller now; see [`Controller::inject`]. A removed device is
    /// inserted again when its client disconnects.
    ///
    /// See the [example](Self#examples).
    pub fn inject(&self, fault: DeviceFault) {
        self.shared.device().controller.inject(fault);
    }

    /// Cuts the power of the controller and restores it; see [`Controller::power_cut`]. The client
    /// stays connected, and its memory mapped.
    ///
    /// See the [example](Self#examples).
    pub fn power_cut(&self, seed: u64) {
        self.shared.device().controller.power_cut(seed);
    }

    /// Returns how often each fault has happened.
    ///
    /// See the [example](Self#examples).
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.device().controller.fault_counts()
    }

    /// Returns a handle with which threads of a client in this process execute its commands.
    ///
    /// See the [example](Helper#examples).
    pub fn helper(&self) -> Helper {
        Helper(Arc::clone(&self.shared))
    }

    fn spawn_poller(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        self.spawn("nvio-emu-poll", move || poller::poll(&shared))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push(spawned.map_err(Error::Thread)?);
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The thread that accepts ends first: it ends the session, which still needs the device.
        if let Err(error) = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            log::error!("stopping: {error}");
        }
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the emulator ended with a panic");
            }
        }
        self.shared.device().controller.flush();
    }
}
