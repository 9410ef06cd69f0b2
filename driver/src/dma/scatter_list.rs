//! The memory of a command that consists of several buffers.

use super::buf::{Carried, DmaBuf};
use super::frozen::FrozenBuf;

/// The memory of one command: its data, in one or more buffers in the order of the transfer, and
/// its metadata, if it is separate from the data.
///
/// Buffers that begin or end inside a memory page in the middle of the transfer need a controller
/// with SGLs ([`Controller::has_sgl`](crate::Controller::has_sgl)). Each buffer begins at a
/// multiple of 4 bytes.
///
/// Like a [`DmaBuf`] a list is owned: it moves into the command, and comes back inside of the
/// completion's buffer. It can be reused without further allocations.
///
/// # Examples
/// ```
/// use nvio_driver::{Arena, ScatterList};
///
/// let arena = Arena::detached(2 << 20)?;
/// let data = vec![arena.alloc(4096)?, arena.alloc(8192)?];
/// let mut list = ScatterList::new(data, Some(arena.alloc(192)?));
/// list.data_mut()[0].fill(7);
/// if let Some(metadata) = list.metadata_mut() {
///     metadata.fill(1);
/// }
/// assert_eq!((list.data().len(), list.data_len(), list.label()), (2, 12288, 0));
/// assert_eq!(list.metadata().map(|metadata| metadata.len()), Some(192));
///
/// // A completion carries the list in an empty buffer.
/// let list = ScatterList::from_completed(list.into_completed()).map_err(|_| "no list")?;
/// let (mut data, metadata) = list.into_inner();
///
/// // A list that is used again and again, with a number by which its owner finds it.
/// let mut list = ScatterList::labelled(Vec::with_capacity(1), None, 17);
/// list.insert(data.remove(0), metadata);
/// let (data, metadata) = list.remove();
/// assert!(data.is_some() && metadata.is_some());
///
/// // Data and metadata in one buffer.
/// let list = ScatterList::split_at(arena.alloc(4096 + 64)?, 4096);
/// assert_eq!(list.into_joined().map(|buf| buf.len()), Some(4160));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
// The buffers are in an empty `DmaBuf`, so that a completion has one kind of memory.
pub struct ScatterList(DmaBuf);

impl ScatterList {
    /// Creates a list of data buffers, and of a contiguous metadata buffer.
    ///
    /// See the [example](Self#examples).
    pub fn new(data: Vec<DmaBuf>, metadata: Option<DmaBuf>) -> Self {
        Self::labelled(data, metadata, 0)
    }

    /// Creates a list with a number, by which its owner identifies it in a completion.
    ///
    /// See the [example](Self#examples).
    pub fn labelled(data: Vec<DmaBuf>, metadata: Option<DmaBuf>, label: u64) -> Self {
        Self(DmaBuf::carrying(Carried { data, metadata, label, shared: Vec::new() }))
    }

    /// Creates a list for a write of memory that the host may read meanwhile. Its buffers cannot be
    /// taken out.
    pub(crate) fn of_frozen(parts: &[FrozenBuf]) -> Self {
        let shared = parts.iter().map(|part| part.as_buf().alias()).collect();
        Self(DmaBuf::carrying(Carried { shared, ..Carried::default() }))
    }

    /// Returns the buffers of the transfer in order.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &DmaBuf> + Clone {
        let shared = self.0.carried().map_or(&[][..], |carried| &carried.shared);
        self.data().iter().chain(shared)
    }

    /// Creates a list of one buffer: `buf[..data_len]` is the data, and the rest, if there is any,
    /// is the metadata. [`into_joined`](Self::into_joined) returns the buffer.
    ///
    /// See the [example](Self#examples).
    pub fn split_at(mut buf: DmaBuf, data_len: usize) -> Self {
        match buf.split_to(data_len) {
            Some(data) if !buf.is_empty() => Self::new(vec![data], Some(buf)),
            Some(data) => Self::new(vec![data], None),
            None => Self::from(buf),
        }
    }

    /// Returns the label of the list; 0 if it was created without one.
    ///
    /// See the [example](Self#examples).
    pub fn label(&self) -> u64 {
        self.0.carried().map_or(0, |carried| carried.label)
    }

    /// Extracts the list from the buffer of a completion.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the buffer if the command had no list, or if its memory is lost.
    pub fn from_completed(buf: DmaBuf) -> Result<Self, DmaBuf> {
        if buf.carried().is_some() { Ok(Self(buf)) } else { Err(buf) }
    }

    /// Returns an empty buffer that carries the list, as completions have it.
    ///
    /// See the [example](Self#examples).
    pub fn into_completed(self) -> DmaBuf {
        self.0
    }

    /// Appends data, and adds metadata if there is none yet. This allocates no memory if data was
    /// [removed](Self::remove) before.
    ///
    /// See the [example](Self#examples).
    pub fn insert(&mut self, data: DmaBuf, metadata: Option<DmaBuf>) {
        if let Some(carried) = self.0.carried_mut() {
            carried.data.push(data);
            carried.metadata = carried.metadata.take().or(metadata);
        }
    }

    /// Removes the last data buffer, and the metadata.
    ///
    /// See the [example](Self#examples).
    pub fn remove(&mut self) -> (Option<DmaBuf>, Option<DmaBuf>) {
        self.0
            .carried_mut()
            .map_or((None, None), |carried| (carried.data.pop(), carried.metadata.take()))
    }

    /// Returns the data buffers.
    ///
    /// See the [example](Self#examples).
    pub fn data(&self) -> &[DmaBuf] {
        self.0.carried().map_or(&[], |carried| &carried.data)
    }

    /// Returns the data buffers, mutable.
    ///
    /// See the [example](Self#examples).
    pub fn data_mut(&mut self) -> &mut [DmaBuf] {
        self.0.carried_mut().map_or(&mut [], |carried| &mut carried.data)
    }

    /// Returns the number of bytes of data.
    ///
    /// See the [example](Self#examples).
    pub fn data_len(&self) -> usize {
        self.data().iter().map(DmaBuf::len).sum()
    }

    /// Returns the metadata buffer.
    ///
    /// See the [example](Self#examples).
    pub fn metadata(&self) -> Option<&DmaBuf> {
        self.0.carried()?.metadata.as_ref()
    }

    /// Returns the metadata buffer, mutable.
    ///
    /// See the [example](Self#examples).
    pub fn metadata_mut(&mut self) -> Option<&mut DmaBuf> {
        self.0.carried_mut()?.metadata.as_mut()
    }

    /// Returns the data buffers and the metadata buffer.
    ///
    /// See the [example](Self#examples).
    pub fn into_inner(mut self) -> (Vec<DmaBuf>, Option<DmaBuf>) {
        let Carried { data, metadata, .. } =
            self.0.carried_mut().map(std::mem::take).unwrap_or_default();
        (data, metadata)
    }

    /// Joins data and metadata that are consecutive parts of one buffer. `None`, and the memory is
    /// freed, if they are not.
    ///
    /// See the [example](Self#examples).
    pub fn into_joined(self) -> Option<DmaBuf> {
        let (data, metadata) = self.into_inner();
        let mut buffers = data.into_iter().chain(metadata);
        let mut joined = buffers.next()?;
        for buf in buffers {
            joined.join(buf).ok()?;
        }
        Some(joined)
    }
}

impl From<DmaBuf> for ScatterList {
    fn from(buf: DmaBuf) -> Self {
        Self::new(vec![buf], None)
    }
}
