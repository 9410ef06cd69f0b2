//! The table of the requests of the generic path.

use std::mem::{forget, replace};

use crate::contract::bytes::to_usize;
use crate::contract::open_file::OpenFile;
use crate::queue::request::Request;

/// A fixed number of requests. Each is in a box of its own, which is used again: so a request moves
/// between its submitter and the table as one word.
pub(crate) struct Requests<I: OpenFile> {
    /// Requests by index; `None` while the submitter owns the request.
    table: Box<[Option<Box<Request<I>>>]>,
    /// Index of the first idle request. Idle requests form a list through
    /// [`next_idle`](Request::next_idle).
    idle: u32,
}

impl<I: OpenFile> Requests<I> {
    pub(crate) fn new(count: u32) -> Self {
        let idle = (0..count).map(|index| Some(Box::new(Request::idle(index))));
        Self { table: idle.collect(), idle: 0 }
    }

    /// Takes a request that is idle from the table, if there is one.
    #[inline]
    pub(crate) fn take_idle(&mut self) -> Option<Box<Request<I>>> {
        let request = self.table.get_mut(self.idle as usize)?.take()?;
        self.idle = request.next_idle;
        Some(request)
    }

    /// Stores a request whose submission ended.
    #[inline]
    pub(crate) fn put(&mut self, request: Box<Request<I>>) {
        if let Some(place) = self.table.get_mut(request.index as usize) {
            // The place is empty, so that there is nothing to drop.
            forget(place.replace(request));
        }
    }

    /// Stores a request that was not accepted.
    pub(crate) fn put_idle(&mut self, request: Box<Request<I>>) {
        let index = request.index;
        self.put(request);
        self.recycle(index);
    }

    /// Returns a request of the table.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Request<I>> {
        self.table.get_mut(to_usize(index))?.as_deref_mut()
    }

    /// Returns a request of the table with its place.
    #[inline]
    pub(crate) fn get(&mut self, index: u64) -> Option<Entry<'_, I>> {
        let Self { table, idle } = self;
        let request = table.get_mut(to_usize(index))?.as_deref_mut()?;
        Some(Entry { request, idle })
    }

    /// Makes a request of the table idle, which is done.
    pub(crate) fn recycle(&mut self, index: u32) {
        if let Some(entry) = self.get(index.into()) {
            *entry.request = Request::idle(index);
            entry.recycle();
        }
    }
}

/// A request in the table.
pub(crate) struct Entry<'t, I: OpenFile> {
    pub(crate) request: &'t mut Request<I>,
    idle: &'t mut u32,
}

impl<I: OpenFile> Entry<'_, I> {
    /// Makes the request idle, which is done and was [`quick`](Request::quick).
    #[inline]
    pub(crate) fn recycle(self) {
        let Self { request, idle } = self;
        request.next_idle = replace(idle, request.index);
    }
}
