//! The emulator: a controller with threads and a socket.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

use crate::config::Config;
use crate::config::namespace::NamespaceConfig;
use crate::controller::state::Controller;
use crate::error::Error;
use crate::faults::plan::DeviceFault;
use crate::faults::service::Service;
use crate::faults::{FaultCounts, Faults};
use crate::serve::device::Device;
use crate::serve::poller;
use crate::serve::server;
use crate::serve::shared::Shared;
use crate::serve::socket::{Socket, private_directory};

/// The settings of an emulator: those of [`Config`], and its socket. See [`Emulator`] for an
/// example.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Emulator, Faults, NamespaceConfig, Service};
///
/// let emulator = Emulator::builder()
///     .namespace(NamespaceConfig::new(Backing::memory(1 << 20)))
///     .serial("TEST0001")
///     .model("A drive")
///     .mdts(Some(5))
///     .max_queues(4)
///     .max_queue_entries(256)
///     .doorbell_stride(4)
///     .page_sizes(4096, 65536)
///     .faults(Faults::new())
///     .service(Service::new())
///     .write_cache(1 << 20)
///     .atomic_writes(8, 1)
///     .format_nvm(true)
///     .namespace_management(16 << 20)
///     .shadow_doorbells(true)
///     .sgl(true)
///     .controller_memory(1 << 20)
///     .intx(false)
///     .start()?;
/// println!("vfio-user:{}", emulator.socket().display());
///
/// // From a configuration, on a socket at a given path.
/// let folder = tempfile::tempdir()?;
/// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// let builder = Emulator::builder().config(config).legacy_controller_memory(1 << 20);
/// let emulator = builder.socket(folder.path().join("nvme.sock")).start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct EmulatorBuilder {
    config: Config,
    socket: Option<PathBuf>,
}

impl EmulatorBuilder {
    /// Replaces all settings of the controller.
    ///
    /// See the [example](Self#examples).
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a namespace; see [`Config::namespace`].
    ///
    /// See the [example](Self#examples).
    pub fn namespace(mut self, namespace: NamespaceConfig) -> Self {
        self.config = self.config.namespace(namespace);
        self
    }

    /// Sets the serial number; see [`Config::serial`].
    ///
    /// See the [example](Self#examples).
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.config = self.config.serial(serial);
        self
    }

    /// Sets the model number; see [`Config::model`].
    ///
    /// See the [example](Self#examples).
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.config = self.config.model(model);
        self
    }

    /// Sets the largest transfer of one command; see [`Config::mdts`].
    ///
    /// See the [example](Self#examples).
    pub fn mdts(mut self, power: Option<u8>) -> Self {
        self.config = self.config.mdts(power);
        self
    }

    /// Sets the largest number of I/O queue pairs; see [`Config::max_queues`].
    ///
    /// See the [example](Self#examples).
    pub fn max_queues(mut self, pairs: u16) -> Self {
        self.config = self.config.max_queues(pairs);
        self
    }

    /// Sets the largest number of entries of an I/O queue; see [`Config::max_queue_entries`].
    ///
    /// See the [example](Self#examples).
    pub fn max_queue_entries(mut self, entries: u32) -> Self {
        self.config = self.config.max_queue_entries(entries);
        self
    }

    /// Sets the bytes between doorbells; see [`Config::doorbell_stride`].
    ///
    /// See the [example](Self#examples).
    pub fn doorbell_stride(mut self, bytes: u32) -> Self {
        self.config = self.config.doorbell_stride(bytes);
        self
    }

    /// Sets the smallest and largest host page in bytes; see [`Config::page_sizes`].
    ///
    /// See the [example](Self#examples).
    pub fn page_sizes(mut self, min: u32, max: u32) -> Self {
        self.config = self.config.page_sizes(min, max);
        self
    }

    /// Sets the faults; see [`Config::faults`].
    ///
    /// See the [example](Self#examples).
    pub fn faults(mut self, faults: Faults) -> Self {
        self.config = self.config.faults(faults);
        self
    }

    /// Sets the speed of I/O commands; see [`Config::service`].
    ///
    /// See the [example](Self#examples).
    pub fn service(mut self, service: Service) -> Self {
        self.config = self.config.service(service);
        self
    }

    /// Adds a volatile write cache, which a power cut loses; see [`Config::write_cache`].
    ///
    /// See the [example](Self#examples).
    pub fn write_cache(mut self, bytes: u64) -> Self {
        self.config = self.config.write_cache(bytes);
        self
    }

    /// Sets the blocks of the largest atomic write; see [`Config::atomic_writes`].
    ///
    /// See the [example](Self#examples).
    pub fn atomic_writes(mut self, normal: u32, power_fail: u32) -> Self {
        self.config = self.config.atomic_writes(normal, power_fail);
        self
    }

    /// Offers Format NVM; see [`Config::format_nvm`].
    ///
    /// See the [example](Self#examples).
    pub fn format_nvm(mut self, offered: bool) -> Self {
        self.config = self.config.format_nvm(offered);
        self
    }

    /// Offers Namespace Management; see [`Config::namespace_management`].
    ///
    /// See the [example](Self#examples).
    pub fn namespace_management(mut self, unallocated: u64) -> Self {
        self.config = self.config.namespace_management(unallocated);
        self
    }

    /// Offers doorbells in host memory; see [`Config::shadow_doorbells`].
    ///
    /// See the [example](Self#examples).
    pub fn shadow_doorbells(mut self, offered: bool) -> Self {
        self.config = self.config.shadow_doorbells(offered);
        self
    }

    /// Offers SGLs for I/O commands; see [`Config::sgl`].
    ///
    /// See the [example](Self#examples).
    pub fn sgl(mut self, offered: bool) -> Self {
        self.config = self.config.sgl(offered);
        self
    }

    /// Adds a Controller Memory Buffer for submission queues; see [`Config::controller_memory`].
    ///
    /// See the [example](Self#examples).
    pub fn controller_memory(mut self, bytes: u64) -> Self {
        self.config = self.config.controller_memory(bytes);
        self
    }

    /// Adds a Controller Memory Buffer as before NVMe 1.4; see
    /// [`Config::legacy_controller_memory`].
    ///
    /// See the [example](Self#examples).
    pub fn legacy_controller_memory(mut self, bytes: u64) -> Self {
        self.config = self.config.legacy_controller_memory(bytes);
        self
    }

    /// Requires working interrupts, as SPDK's target does; see [`Config::intx`].
    ///
    /// See the [example](Self#examples).
    pub fn intx(mut self, required: bool) -> Self {
        self.config = self.config.intx(required);
        self
    }

    /// Sets the path of the socket. The default is in a private directory that only this user can
    /// enter. A socket of a dead process is replaced.
    ///
    /// See the [example](Self#examples).
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Opens the backings, listens, and starts the threads.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error`], for settings, backings, the socket and threads.
    pub fn start(self) -> Result<Emulator, Error> {
        let controller = Controller::new(&self.config)?;
        let directory = private_directory()?;
        let path = self.socket.unwrap_or_else(|| directory.path().join("nvme"));
        let (socket, listener) = Socket::bind(&path)?;
        let thread_error = |error: rustix::io::Errno| Error::Thread(error.into());
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(thread_error)?);
        let shared = Arc::new(Shared::new(Device::new(controller, self.config.intx)));
        // From here on, dropping the emulator ends its threads.
        let mut emulator = Emulator {
            shared: Arc::clone(&shared),
            stop: Arc::clone(&stop),
            threads: Vec::with_capacity(2),
            socket,
            directory,
        };
        let polled = Arc::clone(&shared);
        emulator.spawn("nvio-emu-poll", move || poller::poll(&polled))?;
        let inner = emulator.directory.path().to_owned();
        emulator.spawn("nvio-emu-accept", move || {
            server::serve(&listener, &stop, &shared, &inner);
        })?;
        Ok(emulator)
    }
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
    socket: Socket,
    directory: TempDir,
}

impl Emulator {
    /// Creates a builder with the settings of [`Config::default`]. At least one namespace has to be
    /// added.
    ///
    /// See the [example](Self#examples).
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Returns the path of the socket.
    ///
    /// See the [example](Self#examples).
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Applies a fault to the controller now; see [`Controller::inject`]. A removed device is
    /// inserted again when its client disconnects.
    ///
    /// See the [example](Self#examples).
    pub fn inject(&self, fault: DeviceFault) {
        self.shared.device().inject(fault);
    }

    /// Cuts the power of the controller and restores it; see [`Controller::power_cut`]. The client
    /// stays connected, and its memory mapped.
    ///
    /// See the [example](Self#examples).
    pub fn power_cut(&self, seed: u64) {
        self.shared.device().power_cut(seed);
    }

    /// Returns how often each fault has happened.
    ///
    /// See the [example](Self#examples).
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.device().fault_counts()
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
        self.shared.device().flush();
    }
}
