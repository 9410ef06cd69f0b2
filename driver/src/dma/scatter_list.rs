//! The memory of a command that is in more than one place.

use super::DmaBuf;

/// The memory of one command: its data, in one or more buffers that follow each other in the
/// transfer, and its metadata, where that is apart from the data.
///
/// Buffers that begin or end inside a memory page in the middle of the transfer need a controller
/// with SGLs ([`Controller::has_sgl`](crate::Controller::has_sgl)).
///
/// Like a [`DmaBuf`] it is owned: it moves into the request, and comes back with the completion,
/// inside of the completion's buffer. Made once, it can be used again and again.
#[derive(Debug)]
// The parts are in an empty buffer, so that a completion has one kind of memory and no more.
pub struct ScatterList(DmaBuf);

/// What an empty buffer carries.
#[derive(Debug, Default)]
pub(super) struct Memory {
    data: Vec<DmaBuf>,
    metadata: Option<DmaBuf>,
    label: u64,
}

impl ScatterList {
    /// Data, and metadata, which is contiguous.
    pub fn new(data: Vec<DmaBuf>, metadata: Option<DmaBuf>) -> Self {
        Self::labelled(data, metadata, 0)
    }

    /// The same with a number, by which their owner knows them again when they come back.
    pub fn labelled(data: Vec<DmaBuf>, metadata: Option<DmaBuf>, label: u64) -> Self {
        Self(DmaBuf::carrying(Memory { data, metadata, label }))
    }

    /// The number that they were made with; else 0.
    pub fn label(&self) -> u64 {
        self.0.carried().map_or(0, |memory| memory.label)
    }

    /// Takes the parts out of the buffer of a completion.
    ///
    /// # Errors
    /// Gives the buffer back if its command was not given parts, or if they were given up.
    pub fn from_completed(buf: DmaBuf) -> Result<Self, DmaBuf> {
        if buf.carried().is_some() { Ok(Self(buf)) } else { Err(buf) }
    }

    /// An empty buffer that carries the parts, as a completion has it.
    pub fn into_completed(self) -> DmaBuf {
        self.0
    }

    /// Adds data at the end, and metadata if there is none yet. Where other data was
    /// [removed](Self::remove) before, this takes no memory.
    pub fn insert(&mut self, data: DmaBuf, metadata: Option<DmaBuf>) {
        if let Some(memory) = self.0.carried_mut() {
            memory.data.push(data);
            memory.metadata = memory.metadata.take().or(metadata);
        }
    }

    /// Takes the last data out, and the metadata.
    pub fn remove(&mut self) -> (Option<DmaBuf>, Option<DmaBuf>) {
        self.0
            .carried_mut()
            .map_or((None, None), |memory| (memory.data.pop(), memory.metadata.take()))
    }

    /// The data.
    pub fn data(&self) -> &[DmaBuf] {
        self.0.carried().map_or(&[], |memory| &memory.data)
    }

    /// The data, to be filled.
    pub fn data_mut(&mut self) -> &mut [DmaBuf] {
        self.0.carried_mut().map_or(&mut [], |memory| &mut memory.data)
    }

    /// Bytes of data.
    pub fn data_len(&self) -> usize {
        self.data().iter().map(DmaBuf::len).sum()
    }

    /// The metadata.
    pub fn metadata(&self) -> Option<&DmaBuf> {
        self.0.carried()?.metadata.as_ref()
    }

    /// The metadata, to be filled.
    pub fn metadata_mut(&mut self) -> Option<&mut DmaBuf> {
        self.0.carried_mut()?.metadata.as_mut()
    }

    /// The buffers of the data, and that of the metadata.
    pub fn into_inner(mut self) -> (Vec<DmaBuf>, Option<DmaBuf>) {
        let Memory { data, metadata, .. } =
            self.0.carried_mut().map(std::mem::take).unwrap_or_default();
        (data, metadata)
    }
}

impl From<DmaBuf> for ScatterList {
    fn from(buf: DmaBuf) -> Self {
        Self::new(vec![buf], None)
    }
}
