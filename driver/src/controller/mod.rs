//! A controller: bring-up, identification, queues, shutdown (Base 3.5, 3.6).

mod bringup;
pub(crate) mod controller_memory;
mod dma_registration;
mod enable;
pub(crate) mod feature;
mod handles;
pub(crate) mod health;
mod identify;
pub(crate) mod inner;
pub(crate) mod log_page;
pub(crate) mod management;
pub(crate) mod options;
mod queues;
mod recovery;
mod registered;
pub(crate) mod resets;
mod shutdown;
pub(crate) mod writable;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nvio_spec::IdentifyController;
use nvio_spec::register::{Cap, Version};

use self::bringup::bring_up;
use self::inner::Inner;
use self::options::Options;
use self::resets::Resets;
use crate::address::Address;
use crate::aer::AsyncEvent;
use crate::dma::{Arena, DmaBuf};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::namespace::Namespace;
use crate::quirks::Quirks;
use crate::transport::Transport;
use crate::transport::open::{open, open_stream};

/// An NVMe controller that this process drives. Cheap to clone; shared between threads.
///
/// A controller that fails, or does not complete a command in time, is reset. Its queue pairs
/// continue after the reset, and commands that were in flight complete with
/// [`ABORTED_BY_HOST`](nvio_spec::status::ABORTED_BY_HOST), or with
/// [`HOST_PATHING_ERROR`](nvio_spec::status::HOST_PATHING_ERROR) if the controller is gone.
///
/// When the last clone and the last queue pair are dropped, the controller is shut down
/// (CC.SHN), disabled and reset, and this process's memory is unmapped.
///
/// The [crate](crate) has an example.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// use nvio_driver::{Address, Controller, LogPage, Options};
/// use nvio_driver::spec::log_id;
///
/// # let address = Address::vfio_user(served.emulator.socket());
/// # drop(served.controller);
/// // `address` is a PCI function bound to vfio-pci, or the socket of a vfio-user server.
/// let options = Options { queues: 4, writable: true, ..Options::default() };
/// let controller = Controller::open_with(&address, options)?;
/// println!("{}, NVMe {}", controller.identify().model(), controller.version());
/// println!("{:?}", controller.capabilities());
/// println!("{} queues, quirks: {}", controller.granted_queues(), controller.quirks());
/// println!("{} bytes a command", controller.max_transfer());
/// println!("scatter gather lists: {}", controller.has_sgl());
///
/// // Namespaces, queues, memory.
/// assert_eq!(controller.namespace_ids()?, [1]);
/// let namespace = controller.namespace(1)?;
/// println!("{} blocks", controller.identify_namespace(1)?.nsze);
/// let mut queue = controller.queue_pair(64)?;
/// queue.read(&namespace, 0, controller.alloc(4096)?, ())?;
/// let uncleared = controller.alloc_uncleared(4096)?;
/// queue.wait(|done| assert!(done.status.is_success()))?;
/// assert!(controller.arena().size() > 0);
/// let for_writing = controller.writable()?;
///
/// // Log pages.
/// println!("{} kelvins", controller.health(None)?.temperature());
/// println!("firmware slot {}", controller.firmware_slots()?.active_slot());
/// println!("{} errors", controller.error_log()?.len());
/// let pages: Vec<u8> = controller.supported_log_pages()?.ids().collect();
/// if pages.contains(&log_id::CHANGED_NAMESPACES) {
///     println!("{:?}", controller.changed_namespaces()?.ids().next());
/// }
/// let effects = controller.command_effects()?;
/// let mut raw = [0; 512];
/// controller.read_log_page(LogPage::new(log_id::HEALTH), 0, &mut raw)?;
///
/// // Events that the controller reports, and resets.
/// while let Some(event) = controller.next_event() {
///     println!("{event:?}");
/// }
/// controller.poll_events(|event| println!("{event:?}"));
/// drop((queue, namespace));
/// controller.reset()?;
/// assert_eq!(controller.resets().requested(), 1);
///
/// // From the thread that handles signals: no command is accepted any more.
/// controller.shut_down()?;
/// assert!(controller.namespace_ids().is_err());
/// # drop((for_writing, controller));
///
/// // A server that is already connected.
/// # let socket = served.emulator.socket();
/// let stream = std::os::unix::net::UnixStream::connect(socket)?;
/// let controller = Controller::open_stream(stream, Options::default())?;
/// # drop(controller);
///
/// // A server of this process, whose commands run in the threads that wait for them.
/// let helper = served.emulator.helper();
/// # let stream = std::os::unix::net::UnixStream::connect(socket)?;
/// let controller = Controller::open_local(stream, move || helper.run(), Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, derive_more::Debug)]
#[debug("Controller(version {}, {:?})", self.version(), self.0.resets)]
pub struct Controller(pub(crate) Arc<Inner>);

impl Controller {
    /// Opens the controller at `address` with the default [`Options`].
    ///
    /// See the [example](crate).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(address: &Address) -> Result<Self> {
        Self::open_with(address, Options::default())
    }

    /// Opens the controller at `address`: resets it, brings it up (Base 3.5.1), identifies it and
    /// requests queues.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the device cannot be reached, is not an NVMe controller, fails, or does not become ready
    /// within CAP.TO.
    pub fn open_with(address: &Address, options: Options) -> Result<Self> {
        Self::open_on(open(address, reply_timeout(&options))?, options)
    }

    /// Opens the controller behind `transport`.
    ///
    /// See the [example](crate::Transport#examples).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open_on(transport: Box<dyn Transport>, options: Options) -> Result<Self> {
        Ok(Self(Arc::new(bring_up(transport, options)?)))
    }

    /// Resets the controller and brings it up again. Commands in flight complete with
    /// [`ABORTED_BY_HOST`](nvio_spec::status::ABORTED_BY_HOST), and queue pairs continue
    /// afterwards.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the controller does not come up again. It accepts no commands then.
    pub fn reset(&self) -> Result<()> {
        self.0.reset()
    }

    /// Shuts the controller down (CC.SHN, Base 3.6.1) and disables it, for a program that has to end
    /// while another thread uses the controller. The last drop shuts a controller down otherwise.
    ///
    /// Commands in flight complete with
    /// [`ABORTED_BY_HOST`](nvio_spec::status::ABORTED_BY_HOST); the controller may have executed
    /// them. Later calls fail with [`Error::ShutDown`](crate::Error::ShutDown). An admin command or
    /// a reset in progress ends first. Does nothing if the controller has failed or was shut down.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the controller does not report that the shutdown is complete. It is disabled all the same.
    pub fn shut_down(&self) -> Result<()> {
        self.0.shut_down()
    }

    /// Opens the controller that a vfio-user server serves on `stream`, a connected socket, as
    /// [`open_with`](Self::open_with) does with the path of a socket.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open_stream(stream: UnixStream, options: Options) -> Result<Self> {
        Self::open_on(open_stream(stream, reply_timeout(&options), None)?, options)
    }

    /// Opens the controller that a server in this process serves on `stream`, as
    /// [`open_stream`](Self::open_stream) does. `run` lets it work in the thread of a call that waits;
    /// see [`Transport::run_device`](crate::Transport::run_device).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open_local(
        stream: UnixStream,
        run: impl Fn() -> bool + Send + Sync + 'static,
        options: Options,
    ) -> Result<Self> {
        let timeout = reply_timeout(&options);
        Self::open_on(open_stream(stream, timeout, Some(Box::new(run)))?, options)
    }

    /// Returns the numbers of resets since the controller was opened.
    ///
    /// See the [example](Self#examples).
    pub fn resets(&self) -> Resets {
        self.0.resets.clone()
    }

    /// Returns the oldest asynchronous event that was not returned yet. Events are received while
    /// admin commands run, while queue pairs are polled, and by [`poll_events`](Self::poll_events).
    ///
    /// See the [example](Self#examples).
    pub fn next_event(&self) -> Option<AsyncEvent> {
        self.0.events.pop()
    }

    /// Calls `handler` for each asynchronous event that has arrived, and returns their number.
    /// Never waits.
    ///
    /// See the [example](Self#examples).
    pub fn poll_events(&self, mut handler: impl FnMut(AsyncEvent)) -> usize {
        self.0.note_events();
        let mut count = 0;
        // At most as many as the queue holds, however fast they arrive.
        while let Some(event) = self.next_event().filter(|_| count < self.0.events.capacity()) {
            count += 1;
            handler(event);
        }
        count
    }

    /// Returns true if the controller accepts SGLs (SGLS of Identify Controller, Base 5.17.2.1).
    ///
    /// See the [example](Self#examples).
    pub fn has_sgl(&self) -> bool {
        self.0.has_sgl()
    }

    /// Returns the controller's capabilities (Base 3.1.3.1).
    ///
    /// See the [example](Self#examples).
    pub fn capabilities(&self) -> Cap {
        self.0.cap
    }

    /// Returns the version of the specification that the controller reports.
    ///
    /// See the [example](Self#examples).
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Returns the workarounds in use: those that are known of the PCI function, and those of
    /// [`Options::quirks`].
    ///
    /// See the [example](Self#examples).
    pub fn quirks(&self) -> Quirks {
        self.0.quirks
    }

    /// Returns the Identify Controller data structure (Base 5.17.2.1).
    ///
    /// See the [example](Self#examples).
    pub fn identify(&self) -> &IdentifyController {
        &self.0.identify
    }

    /// Returns the number of I/O queue pairs that the controller granted.
    ///
    /// See the [example](Self#examples).
    pub fn granted_queues(&self) -> u16 {
        self.0.managed.lock().granted
    }

    /// Returns the most bytes of one command, the smaller of MDTS and [`Options::max_transfer`].
    ///
    /// See the [example](Self#examples).
    pub fn max_transfer(&self) -> usize {
        self.0.max_transfer
    }

    /// Returns the arena from which buffers are allocated.
    ///
    /// See the [example](Self#examples).
    pub fn arena(&self) -> &Arena {
        &self.0.arena
    }

    /// Allocates a zeroed buffer of `bytes`; see [`Arena::alloc`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::ArenaFull`].
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf> {
        self.0.arena.alloc(bytes)
    }

    /// Allocates a buffer of `bytes` with the contents of earlier ones; see [`Arena::alloc_uncleared`].
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::ArenaFull`].
    pub fn alloc_uncleared(&self, bytes: usize) -> Result<DmaBuf> {
        self.0.arena.alloc_uncleared(bytes)
    }

    /// Returns the IDs of the active namespaces, ascending (Base 5.17.2.2). A controller without
    /// namespaces is not an error.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the command fails, or the list is not ascending.
    pub fn namespace_ids(&self) -> Result<Vec<u32>> {
        self.0.active_namespaces()
    }

    /// Returns an active namespace (NVM 4.1.5.1).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if the namespace is not active; [`Error::Unsupported`], with the
    /// property, if its format is not supported.
    pub fn namespace(&self, nsid: u32) -> Result<Namespace> {
        // Locked until the handle is in the table, so that the namespace is not formatted before.
        let mut handles = self.0.handles.lock();
        let namespace = self.0.identify_active(nsid)?;
        handles.add(&namespace);
        Ok(namespace)
    }
}

/// Returns the longest wait for the reply of a vfio-user server.
fn reply_timeout(options: &Options) -> Duration {
    options.admin_timeout.min(options.io_timeout)
}
