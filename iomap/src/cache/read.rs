//! Buffered reads.

use std::ops::Range;
use std::sync::Arc;

use super::file::FileCache;
use super::folio::{Access, Folio};
use crate::contract::mapper::{ErrorOf, Mapper};

impl<M: Mapper> FileCache<M> {
    /// Reads bytes from `pos` on, and returns their number: fewer only at the end of the file, or
    /// before a byte that cannot be read.
    pub(super) async fn read_at(
        &self,
        pos: u64,
        out: &mut [u8],
        recent: &mut Option<Arc<Folio>>,
    ) -> Result<usize, ErrorOf<M>> {
        let left = self.state.size().saturating_sub(pos);
        let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = pos + done as u64;
            let Some(folio) = self.state.folio(at) else {
                match self.miss(at, (len - done) as u64).await {
                    Err(_) if done > 0 => break,
                    other => other?,
                }
                continue;
            };
            match folio.read(at, &mut out[done..len]) {
                Access::Copied(n) => done += n,
                Access::Failed(_) if done > 0 => break,
                other => self.settle(&folio, at, other).await?,
            }
            *recent = Some(folio);
        }
        Ok(done)
    }

    /// Reads all of `out` from `folio`. Returns false if it is another folio, or the rest of the folio
    /// is not there.
    #[inline(always)]
    pub(super) fn read_again(&self, folio: &Folio, pos: u64, out: &mut [u8]) -> bool {
        let end = pos.wrapping_add(out.len() as u64);
        folio.has(pos, out.len()) && end <= self.state.size() && folio.read_all(pos, out)
    }

    async fn miss(&self, at: u64, wanted: u64) -> Result<(), ErrorOf<M>> {
        match self.add_folio(at, wanted).await? {
            Some(folio) => self.fill(&folio, at).await,
            None => Ok(()),
        }
    }

    /// Begins to read a range, as far as there is memory. Errors are left to the read that needs the
    /// data.
    pub(super) async fn read_ahead(&self, range: Range<u64>) {
        let end = range.end.min(self.state.size());
        let mut at = range.start;
        while at < end {
            let at_once = match self.state.folio(at) {
                Some(folio) => {
                    at = folio.end();
                    continue;
                }
                None => self.try_add_folio(at, end - at),
            };
            let Ok(Some(folio)) = at_once else { return };
            if self.state.insert(&folio) {
                self.pool.track(&self.state, &folio);
                if self.fill(&folio, at).await.is_err() {
                    return;
                }
            }
            at = folio.end();
        }
    }
}
