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
#[derive(Clone, Debug, Default)]
pub struct EmulatorBuilder {
    config: Config,
    socket: Option<PathBuf>,
}

impl EmulatorBuilder {
    /// Replaces all settings of the controller.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a namespace; see [`Config::namespace`].
    pub fn namespace(mut self, namespace: NamespaceConfig) -> Self {
        self.config = self.config.namespace(namespace);
        self
    }

    /// Sets the serial number; see [`Config::serial`].
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.config = self.config.serial(serial);
        self
    }

    /// Sets the model number; see [`Config::model`].
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.config = self.config.model(model);
        self
    }

    /// Sets the largest transfer of one command; see [`Config::mdts`].
    pub fn mdts(mut self, power: Option<u8>) -> Self {
        self.config = self.config.mdts(power);
        self
    }

    /// Sets the largest number of I/O queue pairs; see [`Config::max_queues`].
    pub fn max_queues(mut self, pairs: u16) -> Self {
        self.config = self.config.max_queues(pairs);
        self
    }

    /// Sets the largest number of entries of an I/O queue; see [`Config::max_queue_entries`].
    pub fn max_queue_entries(mut self, entries: u32) -> Self {
        self.config = self.config.max_queue_entries(entries);
        self
    }

    /// Sets the bytes between doorbells; see [`Config::doorbell_stride`].
    pub fn doorbell_stride(mut self, bytes: u32) -> Self {
        self.config = self.config.doorbell_stride(bytes);
        self
    }

    /// Sets the smallest and largest host page in bytes; see [`Config::page_sizes`].
    pub fn page_sizes(mut self, min: u32, max: u32) -> Self {
        self.config = self.config.page_sizes(min, max);
        self
    }

    /// Sets the faults; see [`Config::faults`].
    pub fn faults(mut self, faults: Faults) -> Self {
        self.config = self.config.faults(faults);
        self
    }

    /// Sets the speed of I/O commands; see [`Config::service`].
    pub fn service(mut self, service: Service) -> Self {
        self.config = self.config.service(service);
        self
    }

    /// Adds a volatile write cache, which a power cut loses; see [`Config::write_cache`].
    pub fn write_cache(mut self, bytes: u64) -> Self {
        self.config = self.config.write_cache(bytes);
        self
    }

    /// Sets the blocks of the largest atomic write; see [`Config::atomic_writes`].
    pub fn atomic_writes(mut self, normal: u32, power_fail: u32) -> Self {
        self.config = self.config.atomic_writes(normal, power_fail);
        self
    }

    /// Offers Format NVM; see [`Config::format_nvm`].
    pub fn format_nvm(mut self, offered: bool) -> Self {
        self.config = self.config.format_nvm(offered);
        self
    }

    /// Offers Namespace Management; see [`Config::namespace_management`].
    pub fn namespace_management(mut self, unallocated: u64) -> Self {
        self.config = self.config.namespace_management(unallocated);
        self
    }

    /// Offers doorbells in host memory; see [`Config::shadow_doorbells`].
    pub fn shadow_doorbells(mut self, offered: bool) -> Self {
        self.config = self.config.shadow_doorbells(offered);
        self
    }

    /// Offers SGLs for I/O commands; see [`Config::sgl`].
    pub fn sgl(mut self, offered: bool) -> Self {
        self.config = self.config.sgl(offered);
        self
    }

    /// Adds a Controller Memory Buffer for submission queues; see [`Config::controller_memory`].
    pub fn controller_memory(mut self, bytes: u64) -> Self {
        self.config = self.config.controller_memory(bytes);
        self
    }

    /// Adds a Controller Memory Buffer as before NVMe 1.4; see
    /// [`Config::legacy_controller_memory`].
    pub fn legacy_controller_memory(mut self, bytes: u64) -> Self {
        self.config = self.config.legacy_controller_memory(bytes);
        self
    }

    /// Requires working interrupts, as SPDK's target does; see [`Config::intx`].
    pub fn intx(mut self, required: bool) -> Self {
        self.config = self.config.intx(required);
        self
    }

    /// Sets the path of the socket. The default is in a private directory that only this user can
    /// enter. A socket of a dead process is replaced.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Opens the backings, listens, and starts the threads.
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
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Returns the path of the socket.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Applies a fault to the controller now; see [`Controller::inject`]. A removed device is
    /// inserted again when its client disconnects.
    pub fn inject(&self, fault: DeviceFault) {
        self.shared.device().inject(fault);
    }

    /// Cuts the power of the controller and restores it; see [`Controller::power_cut`]. The client
    /// stays connected, and its memory mapped.
    pub fn power_cut(&self, seed: u64) {
        self.shared.device().power_cut(seed);
    }

    /// Returns how often each fault has happened.
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
