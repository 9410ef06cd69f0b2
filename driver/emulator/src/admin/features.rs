//! Features of the controller (Base 5.27.1).

use nvio_spec::{HostBehaviorSupport, QueueCount, Status, critical_warning, feature_id, status};
use zerocopy::FromZeros;

/// Composite temperature threshold at reset, kelvin (Base 5.27.1.3).
pub(crate) const WARNING_TEMPERATURE: u16 = 343;
/// Composite temperature, kelvin. It is constant, because there is no hardware to heat up.
pub(crate) const TEMPERATURE: u16 = 310;
/// Granularity of the Keep Alive Timer in units of 100 ms (KAS).
pub(crate) const KEEP_ALIVE_GRANULARITY: u16 = 1;

/// The current values of the features. No value can be saved.
#[derive(Debug)]
pub(crate) struct Features {
    arbitration: u32,
    over_temperature: u16,
    under_temperature: u16,
    error_recovery: u32,
    write_cache: bool,
    coalescing: u32,
    /// Vectors for which coalescing is disabled.
    coalescing_disabled: Vec<bool>,
    write_atomicity: u32,
    events: u32,
    /// Milliseconds (KATO), a multiple of the granularity; 0 is disabled.
    keep_alive: u32,
    host_behavior: HostBehaviorSupport,
    max_queues: u16,
    granted: QueueCount,
    has_write_cache: bool,
    /// Supported bits of Asynchronous Event Configuration.
    event_mask: u32,
}

/// The state of the controller that features depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// An I/O queue exists.
    pub(crate) io_queues_exist: bool,
    /// The namespace identifier is that of an active namespace, or the broadcast value.
    pub(crate) nsid_is_active: bool,
    /// The namespace identifier is 0: the command names no namespace.
    pub(crate) nsid_is_zero: bool,
}

impl Features {
    /// Creates the values at reset of a controller that grants up to `max_queues` I/O queue pairs,
    /// has `vectors` interrupt vectors, and supports these `notices` (OAES).
    pub(crate) fn new(max_queues: u16, vectors: u16, has_write_cache: bool, notices: u32) -> Self {
        Self {
            arbitration: 0,
            over_temperature: WARNING_TEMPERATURE,
            under_temperature: 0,
            error_recovery: 0,
            write_cache: has_write_cache,
            coalescing: 0,
            coalescing_disabled: vec![false; usize::from(vectors)],
            write_atomicity: 0,
            events: 0,
            keep_alive: 0,
            host_behavior: HostBehaviorSupport::new_zeroed(),
            max_queues,
            granted: QueueCount { submission: max_queues, completion: max_queues },
            has_write_cache,
            event_mask: 0xff | notices,
        }
    }

    /// Returns true if the host enabled one of these notices.
    pub(crate) fn wants(&self, notices: u32) -> bool {
        self.events & notices != 0
    }

    /// Returns the bits of Critical Warning in the SMART / Health log (Base 5.16.1.3).
    pub(crate) fn critical_warning(&self) -> u8 {
        let inside = self.under_temperature < TEMPERATURE && TEMPERATURE < self.over_temperature;
        if inside { 0 } else { critical_warning::TEMPERATURE }
    }

    /// Returns the bits of Critical Warning for which the host enabled events (Base 5.27.1.9).
    pub(crate) fn notified_warnings(&self) -> u8 {
        self.critical_warning() & self.events.to_le_bytes()[0]
    }

    /// Returns the Keep Alive Timeout in milliseconds; 0 is disabled.
    pub(crate) fn keep_alive(&self) -> u32 {
        self.keep_alive
    }

    /// Returns Host Behavior Support.
    pub(crate) fn host_behavior(&self) -> HostBehaviorSupport {
        self.host_behavior
    }

    /// Sets Host Behavior Support.
    ///
    /// # Errors
    /// Invalid Field for a value that is reserved.
    pub(crate) fn set_host_behavior(&mut self, to: HostBehaviorSupport) -> Result<(), Status> {
        let defined = to.acre <= 1 && to.etdas <= 1 && to.lbafee <= 1;
        require(defined, status::INVALID_FIELD)?;
        self.host_behavior = to;
        Ok(())
    }

    /// Returns the granted queues: identifiers up to these may be created.
    pub(crate) fn granted(&self) -> QueueCount {
        self.granted
    }

    /// Returns true if the Volatile Write Cache feature is supported.
    pub(crate) fn has_write_cache(&self) -> bool {
        self.has_write_cache
    }

    /// Returns true if every write must be durable before it completes.
    pub(crate) fn write_through(&self) -> bool {
        self.has_write_cache && !self.write_cache
    }

    /// Sets a feature and returns DW0 of the completion.
    pub(crate) fn set(&mut self, id: u8, value: u32, when: Conditions) -> Result<u32, Status> {
        match id {
            feature_id::ARBITRATION => self.arbitration = value & 0xffff_ff07,
            // Power state 0 is the only one.
            feature_id::POWER_MANAGEMENT if value & 0x1f == 0 => {}
            feature_id::TEMPERATURE_THRESHOLD => *self.threshold(value)? = low_half(value),
            feature_id::ERROR_RECOVERY => {
                require(when.nsid_is_active, status::INVALID_NAMESPACE)?;
                // DULBE needs a namespace that reports deallocated blocks, and none does.
                require(value & 1 << 16 == 0, status::INVALID_FIELD)?;
                self.error_recovery = value & 0xffff;
            }
            feature_id::VOLATILE_WRITE_CACHE if self.has_write_cache => {
                self.write_cache = value & 1 != 0;
            }
            feature_id::NUMBER_OF_QUEUES => return self.grant(value, when),
            feature_id::INTERRUPT_COALESCING => self.coalescing = value & 0xffff,
            feature_id::INTERRUPT_VECTOR_CONFIGURATION => {
                *self.vector(value)? = value & 1 << 16 != 0;
            }
            feature_id::WRITE_ATOMICITY_NORMAL => self.write_atomicity = value & 1,
            feature_id::ASYNC_EVENT_CONFIGURATION => self.events = value & self.event_mask,
            feature_id::KEEP_ALIVE_TIMER => {
                let unit = u32::from(KEEP_ALIVE_GRANULARITY) * 100;
                self.keep_alive = value.checked_next_multiple_of(unit).unwrap_or(u32::MAX);
            }
            _ => return Err(status::INVALID_FIELD),
        }
        Ok(0)
    }

    /// Returns the current value of a feature, DW0 of the completion.
    pub(crate) fn get(&mut self, id: u8, cdw11: u32, when: Conditions) -> Result<u32, Status> {
        Ok(match id {
            feature_id::ARBITRATION => self.arbitration,
            feature_id::POWER_MANAGEMENT => 0,
            feature_id::TEMPERATURE_THRESHOLD => u32::from(*self.threshold(cdw11)?),
            feature_id::ERROR_RECOVERY => {
                require(when.nsid_is_active || when.nsid_is_zero, status::INVALID_NAMESPACE)?;
                self.error_recovery
            }
            feature_id::VOLATILE_WRITE_CACHE if self.has_write_cache => self.write_cache.into(),
            feature_id::NUMBER_OF_QUEUES => self.granted.to_dword(),
            feature_id::INTERRUPT_COALESCING => self.coalescing,
            feature_id::INTERRUPT_VECTOR_CONFIGURATION => {
                cdw11 & 0xffff | u32::from(*self.vector(cdw11)?) << 16
            }
            feature_id::WRITE_ATOMICITY_NORMAL => self.write_atomicity,
            feature_id::ASYNC_EVENT_CONFIGURATION => self.events,
            feature_id::KEEP_ALIVE_TIMER => self.keep_alive,
            _ => return Err(status::INVALID_FIELD),
        })
    }

    /// Sets Number of Queues (Base 5.27.1.5): grants the requested queues, up to the maximum.
    fn grant(&mut self, value: u32, when: Conditions) -> Result<u32, Status> {
        let asked = QueueCount::from_dword(value).ok_or(status::INVALID_FIELD)?;
        require(!when.io_queues_exist, status::COMMAND_SEQUENCE_ERROR)?;
        self.granted = QueueCount {
            submission: asked.submission.min(self.max_queues),
            completion: asked.completion.min(self.max_queues),
        };
        Ok(self.granted.to_dword())
    }

    /// Returns the threshold that TMPSEL and THSEL select: of the composite temperature only.
    fn threshold(&mut self, value: u32) -> Result<&mut u16, Status> {
        match (value >> 16 & 0xf, value >> 20 & 3) {
            // All sensors: the composite temperature is the only one.
            (0 | 0xf, 0) => Ok(&mut self.over_temperature),
            (0 | 0xf, 1) => Ok(&mut self.under_temperature),
            _ => Err(status::INVALID_FIELD),
        }
    }

    fn vector(&mut self, value: u32) -> Result<&mut bool, Status> {
        let vector = usize::from(low_half(value));
        self.coalescing_disabled.get_mut(vector).ok_or(status::INVALID_FIELD)
    }
}

fn low_half(value: u32) -> u16 {
    (value & 0xffff) as u16
}

fn require(good: bool, otherwise: Status) -> Result<(), Status> {
    if good { Ok(()) } else { Err(otherwise) }
}
