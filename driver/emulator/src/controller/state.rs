//! The state of a controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvio_spec::{Cqe, Sqe, Status, status};
use zerocopy::little_endian::{U16, U32};

use crate::admin::events::Events;
use crate::admin::features::Features;
use crate::config::Config;
use crate::controller::controller_memory::ControllerMemory;
use crate::controller::doorbells::Doorbells;
use crate::controller::queue::{CompletionQueue, SubmissionQueue};
use crate::controller::queue_table::QueueTable;
use crate::controller::registers::Registers;
use crate::controller::shadow_doorbells::ShadowDoorbells;
use crate::error::Error;
use crate::faults::schedule::{FaultSchedule, Stuck};
use crate::media::namespaces::Namespaces;
use crate::nvm::Media;

/// Commands fetched from one submission queue before the next queue's turn (round robin, Base
/// 3.4.4.1). Their completions are posted together.
pub(crate) const BURST: usize = 32;

/// An NVMe controller as a state machine.
///
/// The owner calls [`read_register`](Self::read_register) and
/// [`write_register`](Self::write_register) for the host's accesses to the first page of BAR0, and
/// [`process`](Self::process) to process the commands that the doorbells announce. A controller
/// that is stepped in the same order behaves in the same way. The owner moves the clock with
/// [`step`](Self::step) or [`advance_to`](Self::advance_to).
///
/// # Examples
/// ```
/// use nvio_emulator::{
///     Backing, Config, Controller, DeviceFault, Faults, HostMemory, NamespaceConfig,
/// };
/// use nvio_spec::register::{CC, CSTS, Cc, Csts};
///
/// let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
/// let config = Config::new().namespace(namespace).controller_memory(1 << 20);
/// let mut controller = Controller::new(&config.write_cache(64 << 10))?;
/// // No admin queues: enabling is refused, as the specification requires.
/// controller.write_register(CC, Cc::enabled(12).0);
/// assert!(Csts(controller.read_register(CSTS)).fatal());
/// controller.function_reset();
/// assert!(!controller.is_running());
///
/// // The host's memory, doorbells and memory of the controller are shared with a driver by file.
/// let memory = HostMemory::new();
/// println!("{:?}", controller.doorbells().file());
/// controller.place_controller_memory(Some(0x1000_0000));
/// println!("{:?}", controller.controller_memory().map(|memory| memory.bar_size()));
///
/// // Commands are processed when the caller says so, by its own clock or in steps.
/// assert_eq!(controller.process(&memory, 64), 0);
/// assert_eq!(controller.step(&memory), 0);
/// assert_eq!(controller.now(), Controller::STEP);
/// controller.advance_to(2 * Controller::STEP);
/// assert_eq!(controller.until_due(), None, "no command is delayed");
///
/// // Interrupts that became pending, of the vectors that are not masked.
/// for vector in controller.take_interrupts() {
///     println!("interrupt {vector}");
/// }
/// assert_eq!(controller.doorbell_changes(1), (0, 0), "there is no such queue");
/// println!("{} vectors, mask {:#x}", controller.vectors(), controller.interrupt_mask());
///
/// // Faults: by rules from now on, at once, and a power cut that loses cached writes by seed.
/// controller.set_faults(&Faults::new())?;
/// controller.inject(DeviceFault::Removed);
/// controller.reinsert();
/// controller.power_cut(17);
/// controller.flush();
/// println!("{:?}", controller.fault_counts());
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Debug)]
pub struct Controller {
    pub(crate) config: Arc<Config>,
    pub(crate) registers: Registers,
    pub(crate) features: Features,
    pub(crate) events: Events,
    pub(crate) media: Media,
    pub(crate) doorbells: Arc<Doorbells>,
    /// Queues by identifier; the admin queues are number 0.
    pub(crate) sqs: QueueTable<SubmissionQueue>,
    pub(crate) cqs: QueueTable<CompletionQueue>,
    /// Least identifier of the submission queue that is served next.
    pub(crate) turn: u16,
    /// Identifiers of deleted queues that are refused, and how many times.
    pub(crate) resting: BTreeMap<u16, u8>,
    /// Interrupt vectors with new completions, ascending.
    pub(crate) interrupts: Vec<u16>,
    /// Completions of a burst that have not been posted.
    pub(crate) staged: Vec<Cqe>,
    /// Fetched commands of a burst.
    pub(crate) fetched: Vec<Sqe>,
    /// Delays and faults, if the configuration has any.
    pub(crate) schedule: Option<Box<FaultSchedule>>,
    pub(crate) stuck: Stuck,
    /// Doorbells in host memory, while the host lends it.
    pub(crate) shadow: Option<ShadowDoorbells>,
    pub(crate) device_faults: u64,
    /// Time at which the Keep Alive Timer expires, in nanoseconds of the clock; `None` if it was
    /// started since the clock last moved.
    pub(crate) keep_alive_until: Option<u64>,
    /// The clock, in nanoseconds. Only the owner moves it.
    pub(crate) now: u64,
}

impl Controller {
    /// Time that [`Self::step`] adds to the clock, so that delays can be counted in steps.
    pub const STEP: Duration = Duration::from_micros(1);

    /// Creates a controller at power on and opens its backings.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error`] for a setting that is not allowed, and for a backing that cannot be opened.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let namespaces = config.check()?;
        let config = Arc::new(Config { namespaces: Vec::new(), ..config.clone() });
        let namespaces = Namespaces::open(&namespaces, &config)?;
        let transfer_bytes_max =
            config.mdts.map_or(u64::MAX, |mdts| u64::from(config.min_page_size) << mdts);
        let buffer = config.controller_memory.map(ControllerMemory::new).transpose()?;
        Ok(Self {
            registers: Registers::new(&config, buffer),
            features: Features::new(&config, &namespaces),
            events: Events::default(),
            media: Media::new(namespaces, transfer_bytes_max),
            doorbells: Arc::new(Doorbells::new(config.max_queues, config.doorbell_stride)?),
            sqs: QueueTable::default(),
            cqs: QueueTable::default(),
            turn: 0,
            resting: BTreeMap::new(),
            interrupts: Vec::new(),
            staged: Vec::with_capacity(BURST),
            fetched: vec![Sqe::default(); BURST],
            schedule: FaultSchedule::new(&config),
            stuck: Stuck::default(),
            shadow: None,
            device_faults: 0,
            keep_alive_until: None,
            now: 0,
            config,
        })
    }
}

#[inline]
pub(crate) fn completion(sqe: &Sqe, sqid: u16, head: u16, status: Status, dw0: u32) -> Cqe {
    Cqe {
        dw0: U32::new(dw0),
        dw1: U32::ZERO,
        sqhd: U16::new(head),
        sqid: U16::new(sqid),
        cid: sqe.cid,
        status_phase: Cqe::pack_status(status, false),
    }
}

/// Sets Do Not Retry, except on a status that may be transient.
#[cold]
pub(crate) fn final_status(error: Status) -> Status {
    let may_pass = error.kind() == 2
        || [status::DATA_TRANSFER_ERROR, status::INTERNAL_ERROR, status::NAMESPACE_NOT_READY]
            .contains(&error);
    if may_pass { error } else { error.do_not_retry() }
}
