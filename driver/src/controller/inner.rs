//! The state that a controller shares with its queue pairs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::IdentifyController;
use nvio_spec::register::{Cap, Version};
use parking_lot::Mutex;

use super::controller_memory::ControllerMemory;
use super::handles::Handles;
use super::health::{Health, Managed};
use super::options::Options;
use super::registered::Registered;
use super::resets::Resets;
use crate::admin;
use crate::aer::AsyncEvent;
use crate::dma::Arena;
use crate::error::Result;
use crate::interrupts::Interrupts;
use crate::mmio::DoorbellMemory;
use crate::queue::pending::BOUND_MS_MAX;
use crate::quirks::{Quirk, Quirks};
use crate::transport::Transport;

/// The state that a controller shares with its queue pairs.
pub(crate) struct Inner {
    // Fields drop in order: the admin queue's doorbells are part of the transport's windows, and
    // the transport ends the device's access to memory.
    pub(super) managed: Mutex<Managed>,
    /// A copy of [`Managed::epoch`] that is read without the mutex.
    pub(super) epoch: AtomicU32,
    pub(super) events: Arc<ArrayQueue<AsyncEvent>>,
    pub(super) doorbell_memory: Option<Arc<DoorbellMemory>>,
    /// The memory for submission queues, if they are not in host memory.
    pub(super) controller_memory: Option<Arc<ControllerMemory>>,
    pub(super) resets: Resets,
    /// Set once, with [`Wait::Interrupt`](crate::Wait::Interrupt) and a device that has vectors.
    pub(super) interrupts: OnceLock<Arc<Interrupts>>,
    pub(super) transport: Box<dyn Transport>,
    /// The memory besides the arena that the device sees.
    pub(super) registered: Registered,
    pub(crate) arena: Arena,
    pub(super) cap: Cap,
    pub(crate) quirks: Quirks,
    pub(super) version: Version,
    pub(super) identify: Box<IdentifyController>,
    /// Most bytes of one command.
    pub(super) max_transfer: usize,
    /// Identifiers of I/O queues that are not in use. The one that was freed first is used next,
    /// because some controllers refuse an identifier for a while after its queues were deleted.
    pub(super) free_queues: Mutex<VecDeque<u16>>,
    /// Locked before `managed` by a caller that locks both.
    pub(super) handles: Mutex<Handles>,
    pub(super) options: Options,
}

impl Inner {
    /// Returns true if the controller accepts SGLs without an alignment (Base figure 275, SGLS bits
    /// 1:0).
    pub(super) fn has_sgl(&self) -> bool {
        self.identify.sgls.get() & 0b11 == 0b01 && !self.quirks.has(Quirk::NoSgl)
    }

    /// Returns the number of times the controller was stopped. Queues of an earlier epoch do not
    /// exist any more.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns the epoch and the health.
    pub(crate) fn lifecycle(&self) -> (u32, Health) {
        let managed = self.managed.lock();
        (managed.epoch, managed.health)
    }

    /// Returns true if the controller was reset on request after `epoch`.
    pub(crate) fn was_reset_on_request(&self, epoch: u32) -> bool {
        self.managed.lock().requested.wrapping_sub(epoch).cast_signed() > 0
    }

    /// Fails if the controller is gone or has failed.
    pub(crate) fn check_alive(&self) -> Result<()> {
        admin::check_alive(&*self.transport, Duration::MAX)
    }

    /// Stores the events that the controller has posted, unless the admin queue is in use.
    pub(crate) fn note_events(&self) {
        if let Some(mut managed) = self.managed.try_lock()
            && managed.health == Health::Live
        {
            managed.admin.poll();
        }
    }

    /// Returns the time of the clock that measures timeouts.
    pub(crate) fn now(&self) -> Duration {
        self.transport.now()
    }

    /// Lets a device of this process work in this thread; see [`Transport::run_device`].
    pub(crate) fn run_device(&self) -> bool {
        self.transport.run_device()
    }

    /// Returns the time of the clock in milliseconds, which wrap.
    pub(crate) fn millis(&self) -> u32 {
        u32::try_from(self.now().as_millis() & u128::from(u32::MAX)).unwrap_or(0)
    }

    pub(crate) fn io_timeout(&self) -> Duration {
        self.options.io_timeout
    }

    /// Returns the longest time of a command until it is aborted, and of an aborted command until
    /// the controller is reset, in milliseconds.
    pub(crate) fn io_bounds_ms(&self) -> (u32, u32) {
        let millis = |time: Duration| {
            u32::try_from(time.as_millis()).unwrap_or(BOUND_MS_MAX).min(BOUND_MS_MAX)
        };
        let command = millis(self.options.io_timeout);
        (command, command.min(millis(self.options.admin_timeout)))
    }
}
