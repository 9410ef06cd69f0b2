//! A request in flight.

use super::effect::Effect;
use super::filesystem::Visit;
use super::memory::Lease;
use super::request::{Class, Request};
use super::source::Sources;
use super::watch::Command;
use crate::simulator::model::Moment;

/// A submitted request with everything that is known of it.
pub struct Pending {
    /// The request.
    pub request: Request,
    /// Token of the request.
    pub token: u64,
    /// Moment of the submission.
    pub begun: Moment,
    /// Causes that make it fail in any case.
    pub certain: Vec<Class>,
    /// Causes that may make it fail.
    pub possible: Vec<Class>,
    /// Number of other requests in flight or with unpolled results at the submission.
    pub outstanding: usize,
    /// Initial contents of its memory.
    pub data: Vec<u8>,
    /// The memory.
    pub lease: Lease,
    /// Mappings of the request.
    pub visits: Vec<Visit>,
    /// Commands that the request has submitted, but for those that an earlier request may have
    /// submitted from the backlog.
    pub commands: Vec<Command>,
    /// The request is in flight, so that the backlog may contain commands of it.
    pub backlogged: bool,
    /// The request may have commands: in the backlog, or mixed with those of earlier requests.
    pub possible_commands: bool,
    /// Number of commands that were rejected by a full queue.
    pub refused: u32,
    /// Number of failed allocations of bounce memory.
    pub short: u32,
    /// Number of injected failures of the filesystem.
    pub fired: u32,
    /// Effect of a write.
    pub effect: Effect,
    /// Sources of a read.
    pub sources: Sources,
}

impl Pending {
    /// Creates a request without results.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            token: 0,
            begun: 0,
            certain: Vec::new(),
            possible: Vec::new(),
            outstanding: 0,
            data: Vec::new(),
            lease: Lease::default(),
            visits: Vec::new(),
            commands: Vec::new(),
            backlogged: false,
            possible_commands: false,
            refused: 0,
            short: 0,
            fired: 0,
            effect: Effect::default(),
            sources: Sources::default(),
        }
    }

    /// Returns true if the request may submit this command later, from the backlog.
    pub fn allows(&self, command: &Command) -> bool {
        let inside = |visit: &Visit| {
            let mapping = &visit.mapping;
            mapping.addr <= command.addr
                && command.addr + command.len <= mapping.addr + mapping.length
        };
        self.backlogged
            && command.write == self.request.write
            && match command.write {
                true => self.effect.allows(command),
                false => self.visits.iter().any(inside),
            }
    }
}
