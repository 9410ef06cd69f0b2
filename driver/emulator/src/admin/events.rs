//! Asynchronous events, and the requests that wait for them (Base 5.2).

use std::collections::VecDeque;

use nvio_spec::{EventType, Status, log_id, status};

/// Largest number of outstanding requests; AERL of Identify is this number, 0's based.
pub(crate) const REQUESTS_MAX: u8 = 4;
/// Events kept without a request. Later ones are dropped, because the log page has their data.
const EVENTS_MAX: usize = 16;

/// An asynchronous event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventType,
    pub(crate) info: u8,
    pub(crate) log: u8,
}

impl Event {
    /// Creates an event of type Error, whose log page is Error Information.
    pub(crate) fn error(info: u8) -> Self {
        Self { kind: EventType::ERROR, info, log: log_id::ERROR_INFORMATION }
    }

    /// Creates an event of type SMART / Health, whose log page is SMART / Health Information.
    pub(crate) fn health(info: u8) -> Self {
        Self { kind: EventType::HEALTH, info, log: log_id::HEALTH }
    }

    /// Returns DW0 of the completion (Base 5.2.1, figure 145).
    pub(crate) fn dw0(self) -> u32 {
        u32::from(self.log) << 16 | u32::from(self.info) << 8 | u32::from(self.kind.0)
    }
}

/// Outstanding requests and pending events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Command identifiers of outstanding requests.
    requests: Vec<u16>,
    waiting: VecDeque<Event>,
    /// Requests that Abort has ended and that have not been completed.
    withdrawn: Vec<u16>,
    /// Reported types whose log page the host has not read yet, by bit.
    masked: u8,
}

impl Events {
    /// Adds an Asynchronous Event Request.
    pub(crate) fn request(&mut self, cid: u16) -> Result<(), Status> {
        if self.requests.contains(&cid) || self.withdrawn.contains(&cid) {
            return Err(status::COMMAND_ID_CONFLICT);
        }
        if self.requests.len() + self.withdrawn.len() >= usize::from(REQUESTS_MAX) {
            return Err(status::AER_LIMIT_EXCEEDED);
        }
        self.requests.push(cid);
        Ok(())
    }

    /// Ends a request for Abort. Returns false if no request has this identifier.
    pub(crate) fn withdraw(&mut self, cid: u16) -> bool {
        let found = self.requests.iter().position(|&request| request == cid);
        self.withdrawn.extend(found.map(|at| self.requests.remove(at)));
        found.is_some()
    }

    /// Returns the next request that Abort has ended.
    pub(crate) fn take_withdrawn(&mut self) -> Option<u16> {
        self.withdrawn.pop()
    }

    /// Adds an event, unless an equal event is pending.
    pub(crate) fn raise(&mut self, event: Event) {
        if self.waiting.len() < EVENTS_MAX && !self.waiting.contains(&event) {
            self.waiting.push_back(event);
        }
    }

    /// Returns true if a request may complete: an event is pending, whose type may still be masked,
    /// or Abort has ended a request.
    #[inline]
    pub(crate) fn ready(&self) -> bool {
        !self.waiting.is_empty() && !self.requests.is_empty() || !self.withdrawn.is_empty()
    }

    /// Returns the next request to complete and its event. The type of the event is masked until
    /// the log page has been read.
    pub(crate) fn meet(&mut self) -> Option<(u16, Event)> {
        if self.requests.is_empty() {
            return None;
        }
        let at = self.waiting.iter().position(|event| self.masked & mask(event.kind) == 0)?;
        let event = self.waiting.remove(at)?;
        self.masked |= mask(event.kind);
        Some((self.requests.remove(0), event))
    }

    /// Unmasks the events of a log page that the host read with RAE clear.
    pub(crate) fn log_read(&mut self, log: u8) {
        let kind = match log {
            log_id::ERROR_INFORMATION => EventType::ERROR,
            log_id::HEALTH => EventType::HEALTH,
            _ => EventType::NOTICE,
        };
        self.masked &= !mask(kind);
    }

    /// Drops events and requests, which a controller reset does not complete.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn mask(kind: EventType) -> u8 {
    1 << (kind.0 & 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_meets_one_request_and_its_type_is_masked_until_the_log_is_read() {
        let mut events = Events::default();
        events.raise(Event::error(1));
        events.raise(Event::error(1));
        events.raise(Event::error(0));
        assert_eq!(events.meet(), None);
        events.request(7).unwrap();
        events.request(8).unwrap();
        assert_eq!(events.meet(), Some((7, Event::error(1))));
        assert_eq!(events.meet(), None);
        events.log_read(log_id::HEALTH);
        assert_eq!(events.meet(), None);
        events.log_read(log_id::ERROR_INFORMATION);
        assert_eq!(events.meet(), Some((8, Event::error(0))));
        assert_eq!(Event::error(1).dw0(), 0x0001_0100);
    }

    #[test]
    fn requests_are_limited_and_identified() {
        let mut events = Events::default();
        for cid in 0..4 {
            events.request(cid).unwrap();
        }
        assert_eq!(events.request(9), Err(status::AER_LIMIT_EXCEEDED));
        assert_eq!(events.request(3), Err(status::COMMAND_ID_CONFLICT));
        events.clear();
        events.request(3).unwrap();
    }
}
