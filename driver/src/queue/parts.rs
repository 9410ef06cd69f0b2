//! The memory of a command that is in more than one place.

use super::pointer::Range;
use crate::dma::DmaBuf;

/// The memory of one command: its data, in one or more buffers that follow each other in the
/// transfer, and its metadata, where that is apart from the data.
///
/// Buffers that begin or end inside a memory page in the middle of the transfer need a controller
/// with SGLs ([`Controller::has_sgl`](crate::Controller::has_sgl)).
#[derive(Debug, Default)]
pub struct Parts {
    /// The data.
    pub data: Vec<DmaBuf>,
    /// The metadata, contiguous.
    pub metadata: Option<DmaBuf>,
}

impl Parts {
    /// Bytes of data.
    pub fn data_len(&self) -> usize {
        self.data.iter().map(DmaBuf::len).sum()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> + Clone {
        let parts = self.data.iter().filter(|buf| !buf.is_empty());
        parts.map(|buf| Range { iova: buf.iova(), len: buf.len() })
    }
}

impl From<DmaBuf> for Parts {
    fn from(buf: DmaBuf) -> Self {
        Self { data: vec![buf], metadata: None }
    }
}
