//! The table of the requests of the generic path.

use crate::contract::open_file::OpenFile;
use crate::queue::request::Request;

/// A fixed number of requests. Each is in a box of its own, which is used again: so a request moves
/// between its submitter and the table as one word.
pub(crate) struct Requests<I: OpenFile> {
    idle: Vec<Box<Request<I>>>,
    /// Requests that have commands in flight or work left, by index.
    in_flight: Box<[Option<Box<Request<I>>>]>,
}

impl<I: OpenFile> Requests<I> {
    pub(crate) fn new(count: u32) -> Self {
        let idle = (0..count).rev().map(|index| Box::new(Request::idle(index)));
        Self { idle: idle.collect(), in_flight: (0..count).map(|_| None).collect() }
    }

    /// Returns a request that is not in use, if there is one.
    #[inline]
    pub(crate) fn take_idle(&mut self) -> Option<Box<Request<I>>> {
        self.idle.pop()
    }

    /// Takes a request back that is done, or was not accepted.
    #[inline]
    pub(crate) fn put_idle(&mut self, request: Box<Request<I>>) {
        self.idle.push(request);
    }

    /// Stores a request whose submission ended.
    #[inline]
    pub(crate) fn put(&mut self, request: Box<Request<I>>) {
        if let Some(place) = self.in_flight.get_mut(request.index as usize) {
            *place = Some(request);
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Request<I>> {
        self.in_flight.get_mut(index as usize)?.as_deref_mut()
    }

    /// Takes a request of the table back that is done.
    #[inline]
    pub(crate) fn recycle(&mut self, index: u32) {
        if let Some(request) = self.take(index) {
            self.put_idle(request);
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, index: u32) -> Option<Box<Request<I>>> {
        self.in_flight.get_mut(index as usize)?.take()
    }
}
