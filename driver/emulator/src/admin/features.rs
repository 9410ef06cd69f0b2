//! Features of the controller (Base 5.27.1).

use std::collections::BTreeMap;

use nvio_spec::{
    FeatureEffects, HostBehaviorSupport, QueueCount, Status, critical_warning, feature_id, scope,
    status,
};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use crate::admin::fields::{low_half, require};
use crate::config::Config;
use crate::config::quirk::Quirk;
use crate::media::namespaces::Namespaces;

/// Composite temperature threshold at reset, kelvin (Base 5.27.1.3).
pub(crate) const WARNING_TEMPERATURE: u16 = 343;
/// Composite temperature, kelvin. It is constant, because there is no hardware to heat up.
pub(crate) const TEMPERATURE: u16 = 310;
/// Granularity of the Keep Alive Timer in units of 100 ms (KAS).
pub(crate) const KEEP_ALIVE_GRANULARITY: u16 = 1;

/// The features: identifier, writable bits of CDW11, and scope. A controller may lack some; see
/// [`Features::writable`].
const FEATURES: [(u8, u32, u32); 12] = [
    (feature_id::ARBITRATION, 0xffff_ff07, scope::CONTROLLER),
    (feature_id::POWER_MANAGEMENT, 0, scope::CONTROLLER),
    (feature_id::TEMPERATURE_THRESHOLD, 0xffff, scope::CONTROLLER),
    (feature_id::ERROR_RECOVERY, 0xffff, scope::NAMESPACE),
    (feature_id::VOLATILE_WRITE_CACHE, 1, scope::CONTROLLER),
    (feature_id::NUMBER_OF_QUEUES, u32::MAX, scope::CONTROLLER),
    (feature_id::INTERRUPT_COALESCING, 0xffff, scope::CONTROLLER),
    (feature_id::INTERRUPT_VECTOR_CONFIGURATION, 0x1_ffff, scope::CONTROLLER),
    (feature_id::WRITE_ATOMICITY_NORMAL, 1, scope::CONTROLLER),
    (feature_id::ASYNC_EVENT_CONFIGURATION, 0xff, scope::CONTROLLER),
    (feature_id::KEEP_ALIVE_TIMER, u32::MAX, scope::CONTROLLER),
    (feature_id::HOST_BEHAVIOR_SUPPORT, 0, scope::CONTROLLER),
];

/// Bound of the identifiers in [`FEATURES`].
const IDS_MAX: usize = 32;

/// The current values of the features. No value can be saved.
#[derive(Debug)]
pub(crate) struct Features {
    /// Values that the host has set, by identifier: features without a selector. Some are asked for
    /// in each command.
    values: [Option<u32>; IDS_MAX],
    /// Values that the host has set, by identifier and selector, which is not 0: the type of a
    /// temperature threshold, an interrupt vector.
    selected: BTreeMap<(u8, u16), u32>,
    host_behavior: HostBehaviorSupport,
    /// Largest number of I/O queue pairs.
    queues_max: u16,
    vectors: u16,
    has_write_cache: bool,
    /// Supported notices (OAES).
    notices: u32,
    /// Number of Queues is supported.
    has_queue_count: bool,
}

impl Features {
    /// Creates the values at reset.
    pub(crate) fn new(config: &Config, namespaces: &Namespaces) -> Self {
        let has_queue_count = !config.has_quirk(Quirk::NoQueueCount);
        Self {
            values: [None; IDS_MAX],
            selected: BTreeMap::new(),
            host_behavior: HostBehaviorSupport::new_zeroed(),
            queues_max: if has_queue_count { config.max_queues } else { 1 },
            vectors: config.vectors(),
            has_write_cache: namespaces.have_write_cache(),
            notices: namespaces.notices(),
            has_queue_count,
        }
    }

    /// Returns true if the host enabled one of these notices.
    pub(crate) fn wants(&self, notices: u32) -> bool {
        self.value(feature_id::ASYNC_EVENT_CONFIGURATION, 0) & notices != 0
    }

    /// Returns the bits of Critical Warning in the SMART / Health log (Base 5.16.1.3).
    pub(crate) fn critical_warning(&self) -> u8 {
        let threshold = |kind| low_half(self.value(feature_id::TEMPERATURE_THRESHOLD, kind));
        let inside = threshold(1) < TEMPERATURE && TEMPERATURE < threshold(0);
        if inside { 0 } else { critical_warning::TEMPERATURE }
    }

    /// Returns the bits of Critical Warning for which the host enabled events (Base 5.27.1.9).
    pub(crate) fn notified_warnings(&self) -> u8 {
        let events = self.value(feature_id::ASYNC_EVENT_CONFIGURATION, 0);
        self.critical_warning() & events.to_le_bytes()[0]
    }

    /// Returns the Keep Alive Timeout in milliseconds; 0 is disabled.
    pub(crate) fn keep_alive(&self) -> u32 {
        self.value(feature_id::KEEP_ALIVE_TIMER, 0)
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
        let granted = QueueCount::from_dword(self.value(feature_id::NUMBER_OF_QUEUES, 0));
        granted.unwrap_or(QueueCount { submission: 0, completion: 0 })
    }

    /// Returns true if every write must be durable before it completes.
    #[inline]
    pub(crate) fn write_through(&self) -> bool {
        self.has_write_cache && self.value(feature_id::VOLATILE_WRITE_CACHE, 0) == 0
    }

    /// Sets a feature and returns DW0 of the completion.
    pub(crate) fn set(&mut self, id: u8, value: u32) -> Result<u32, Status> {
        let writable = self.writable(id).ok_or(status::INVALID_FIELD)?;
        let selector = self.selector(id, value)?;
        let value = match id {
            // Power state 0 is the only one.
            feature_id::POWER_MANAGEMENT if value & 0x1f != 0 => return Err(status::INVALID_FIELD),
            // DULBE needs a namespace that reports deallocated blocks, and none does.
            feature_id::ERROR_RECOVERY if value & 1 << 16 != 0 => {
                return Err(status::INVALID_FIELD);
            }
            feature_id::NUMBER_OF_QUEUES => self.grant(value)?,
            feature_id::KEEP_ALIVE_TIMER => {
                let unit = u32::from(KEEP_ALIVE_GRANULARITY) * 100;
                value.checked_next_multiple_of(unit).unwrap_or(u32::MAX)
            }
            _ => value & writable,
        };
        match self.values.get_mut(usize::from(id)) {
            Some(plain) if selector == 0 => *plain = Some(value),
            _ => drop(self.selected.insert((id, selector), value)),
        }
        Ok(if id == feature_id::NUMBER_OF_QUEUES { value } else { 0 })
    }

    /// Returns the current value of a feature, DW0 of the completion.
    pub(crate) fn get(&self, id: u8, cdw11: u32) -> Result<u32, Status> {
        self.writable(id).ok_or(status::INVALID_FIELD)?;
        Ok(self.value(id, self.selector(id, cdw11)?))
    }

    /// Returns Feature Identifiers Supported and Effects (Base 5.16.1.18). No feature changes user
    /// data or the capabilities of the controller.
    pub(crate) fn effects(&self) -> FeatureEffects {
        let mut page = FeatureEffects::new_zeroed();
        for (id, _, scope) in FEATURES.into_iter().filter(|(id, ..)| self.writable(*id).is_some()) {
            page.feature[usize::from(id)] = U32::new(FeatureEffects::SUPPORTED | scope);
        }
        page
    }

    /// Returns the writable bits of a feature; `None` if the controller lacks it.
    fn writable(&self, id: u8) -> Option<u32> {
        let (.., writable, _) = *FEATURES.iter().find(|(feature, ..)| *feature == id)?;
        match id {
            feature_id::NUMBER_OF_QUEUES => self.has_queue_count.then_some(writable),
            feature_id::VOLATILE_WRITE_CACHE => self.has_write_cache.then_some(writable),
            feature_id::ASYNC_EVENT_CONFIGURATION => Some(writable | self.notices),
            _ => Some(writable),
        }
    }

    /// Returns the present value of a feature.
    fn value(&self, id: u8, selector: u16) -> u32 {
        let all = QueueCount { submission: self.queues_max, completion: self.queues_max };
        let set = match selector {
            0 => self.values.get(usize::from(id)).copied().flatten(),
            _ => self.selected.get(&(id, selector)).copied(),
        };
        set.unwrap_or_else(|| match (id, selector) {
            (feature_id::TEMPERATURE_THRESHOLD, 0) => WARNING_TEMPERATURE.into(),
            (feature_id::VOLATILE_WRITE_CACHE, _) => 1,
            (feature_id::NUMBER_OF_QUEUES, _) => all.to_dword(),
            (feature_id::INTERRUPT_VECTOR_CONFIGURATION, vector) => vector.into(),
            _ => 0,
        })
    }

    /// Returns the selector in CDW11: a temperature threshold of the composite temperature, or an
    /// interrupt vector.
    fn selector(&self, id: u8, cdw11: u32) -> Result<u16, Status> {
        match (id, low_half(cdw11), cdw11 >> 16 & 0xf, cdw11 >> 20 & 3) {
            // All sensors: the composite temperature is the only one.
            (feature_id::TEMPERATURE_THRESHOLD, _, 0 | 0xf, kind @ 0..=1) => Ok(low_half(kind)),
            (feature_id::TEMPERATURE_THRESHOLD, ..) => Err(status::INVALID_FIELD),
            (feature_id::INTERRUPT_VECTOR_CONFIGURATION, vector, ..) => {
                require(vector < self.vectors, status::INVALID_FIELD).map(|()| vector)
            }
            _ => Ok(0),
        }
    }

    /// Returns the granted part of the requested queues (Base 5.27.1.5).
    fn grant(&self, value: u32) -> Result<u32, Status> {
        let QueueCount { submission, completion } =
            QueueCount::from_dword(value).ok_or(status::INVALID_FIELD)?;
        let granted = |asked: u16| asked.min(self.queues_max);
        let queues =
            QueueCount { submission: granted(submission), completion: granted(completion) };
        Ok(queues.to_dword())
    }
}
