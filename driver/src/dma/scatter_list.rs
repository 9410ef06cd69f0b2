//! The memory of a command that consists of several buffers.

use super::buf::{Carried, DmaBuf};

/// The memory of one command: its data, in one or more buffers in the order of the transfer, and
/// its metadata, if it is separate from the data.
///
/// Buffers that begin or end inside a memory page in the middle of the transfer need a controller
/// with SGLs ([`Controller::has_sgl`](crate::Controller::has_sgl)). Each buffer begins at a
/// multiple of 4 bytes.
///
/// Like a [`DmaBuf`] a list is owned: it moves into the command, and comes back inside of the
/// completion's buffer. It can be reused without further allocations.
#[derive(Debug)]
// The buffers are in an empty `DmaBuf`, so that a completion has one kind of memory.
pub struct ScatterList(DmaBuf);

impl ScatterList {
    /// Creates a list of data buffers, and of a contiguous metadata buffer.
    pub fn new(data: Vec<DmaBuf>, metadata: Option<DmaBuf>) -> Self {
        Self::labelled(data, metadata, 0)
    }

    /// Creates a list with a number, by which its owner identifies it in a completion.
    pub fn labelled(data: Vec<DmaBuf>, metadata: Option<DmaBuf>, label: u64) -> Self {
        Self(DmaBuf::carrying(Carried { data, metadata, label }))
    }

    /// Creates a list of one buffer: `buf[..data_len]` is the data, and the rest, if there is any,
    /// is the metadata. [`into_joined`](Self::into_joined) returns the buffer.
    pub fn split_at(mut buf: DmaBuf, data_len: usize) -> Self {
        match buf.split_to(data_len) {
            Some(data) if !buf.is_empty() => Self::new(vec![data], Some(buf)),
            Some(data) => Self::new(vec![data], None),
            None => Self::from(buf),
        }
    }

    /// Returns the label of the list; 0 if it was created without one.
    pub fn label(&self) -> u64 {
        self.0.carried().map_or(0, |carried| carried.label)
    }

    /// Extracts the list from the buffer of a completion.
    ///
    /// # Errors
    /// Returns the buffer if the command had no list, or if its memory is lost.
    pub fn from_completed(buf: DmaBuf) -> Result<Self, DmaBuf> {
        if buf.carried().is_some() { Ok(Self(buf)) } else { Err(buf) }
    }

    /// Returns an empty buffer that carries the list, as completions have it.
    pub fn into_completed(self) -> DmaBuf {
        self.0
    }

    /// Appends data, and adds metadata if there is none yet. This allocates no memory if data was
    /// [removed](Self::remove) before.
    pub fn insert(&mut self, data: DmaBuf, metadata: Option<DmaBuf>) {
        if let Some(carried) = self.0.carried_mut() {
            carried.data.push(data);
            carried.metadata = carried.metadata.take().or(metadata);
        }
    }

    /// Removes the last data buffer, and the metadata.
    pub fn remove(&mut self) -> (Option<DmaBuf>, Option<DmaBuf>) {
        self.0
            .carried_mut()
            .map_or((None, None), |carried| (carried.data.pop(), carried.metadata.take()))
    }

    /// Returns the data buffers.
    pub fn data(&self) -> &[DmaBuf] {
        self.0.carried().map_or(&[], |carried| &carried.data)
    }

    /// Returns the data buffers, mutable.
    pub fn data_mut(&mut self) -> &mut [DmaBuf] {
        self.0.carried_mut().map_or(&mut [], |carried| &mut carried.data)
    }

    /// Returns the number of bytes of data.
    pub fn data_len(&self) -> usize {
        self.data().iter().map(DmaBuf::len).sum()
    }

    /// Returns the metadata buffer.
    pub fn metadata(&self) -> Option<&DmaBuf> {
        self.0.carried()?.metadata.as_ref()
    }

    /// Returns the metadata buffer, mutable.
    pub fn metadata_mut(&mut self) -> Option<&mut DmaBuf> {
        self.0.carried_mut()?.metadata.as_mut()
    }

    /// Returns the data buffers and the metadata buffer.
    pub fn into_inner(mut self) -> (Vec<DmaBuf>, Option<DmaBuf>) {
        let Carried { data, metadata, .. } =
            self.0.carried_mut().map(std::mem::take).unwrap_or_default();
        (data, metadata)
    }

    /// Joins data and metadata that are consecutive parts of one buffer. `None`, and the memory is
    /// freed, if they are not.
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
