//! The purpose of a command of the cache.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use nvio_driver::DmaBuf;

use super::folio::{Ending, Folio};
use super::state::FileState;
use super::sync::{AtomicBool, Mutex};
use crate::error::BioError;

/// The tag of a command of a [`PageCache`](crate::PageCache).
///
/// See the [example](crate::CachedFile#examples).
pub struct Ticket(pub(super) Purpose);

pub(super) enum Purpose {
    /// Reads blocks of a folio in place.
    Fill(Target),
    /// Reads blocks of a folio that has other content.
    Patch(Target),
    /// Writes blocks of folios of one file.
    Write(Vec<(Target, Option<Ending>)>),
    Flush(Arc<Flush>),
}

/// Blocks of a folio of a file.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) file: Arc<FileState>,
    pub(super) folio: Arc<Folio>,
    pub(super) blocks: Range<u32>,
}

/// A flush that somebody waits for.
#[derive(Default)]
pub(super) struct Flush {
    pub(super) ended: AtomicBool,
    pub(super) failed: Mutex<Option<BioError>>,
}

impl Ticket {
    /// Ends a write or a flush, whose memory the queue does not have.
    pub(super) fn end(self, result: Result<(), BioError>) {
        match self.0 {
            Purpose::Write(parts) => {
                for (Target { file, folio, blocks }, ending) in parts {
                    file.written(&folio, blocks, ending, result);
                    file.end_command(true);
                }
            }
            Purpose::Flush(flush) => {
                *flush.failed.lock() = result.err();
                flush.ended.store(true, Release);
            }
            Purpose::Fill(Target { file, .. }) | Purpose::Patch(Target { file, .. }) => {
                file.end_command(false);
            }
        }
    }

    /// Ends the command.
    pub(super) fn complete(self, buf: DmaBuf, result: Result<(), BioError>) {
        match self.0 {
            Purpose::Fill(Target { file, folio, blocks }) => {
                if !folio.filled(blocks, buf, result) {
                    file.forget(&folio);
                }
                file.end_command(false);
            }
            Purpose::Patch(Target { file, folio, blocks }) => {
                folio.patched(blocks, result.map(|()| &buf[..]));
                file.end_command(false);
            }
            other => {
                // The memory is thawed only when no command has it.
                drop(buf);
                Self(other).end(result);
            }
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Purpose::Fill(_) => "Fill",
            Purpose::Patch(_) => "Patch",
            Purpose::Write(_) => "Write",
            Purpose::Flush(_) => "Flush",
        })
    }
}
