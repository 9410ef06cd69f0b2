//! Copy: blocks of several ranges of a namespace to one range (NVM 3.2.2).

use nvio_spec::protection::prinfo;
use nvio_spec::{CopyRange, GuardFormat, MAX_RANGES, Sqe, Status, status};
use zerocopy::IntoBytes;

use crate::config::namespace::CopyLimits;
use crate::host::request::Request;
use crate::media::namespace::Namespace;
use crate::nvm::Media;
use crate::nvm::blocks::Blocks;
use crate::nvm::protection::Checks;

/// CDW12 bits 11:8: the descriptor format of the source ranges.
const FORMAT_SHIFT: u32 = 8;

impl Media {
    /// Executes Copy. Ranges are copied one after the other, in pieces. [`Self::take_dw0`] returns
    /// the number of the range that failed.
    #[inline(never)]
    pub(crate) fn copy(&mut self, request: Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.for_command(request.nsid())?;
        let cdw12 = request.sqe.cdw12.get();
        let (count, format) = (cdw12 & 0xff, cdw12 >> FORMAT_SHIFT & 0xf);
        // The format is for guards of 16 bits (NVM 3.2.2).
        if format != 0 || namespace.config.information.guard() != GuardFormat::Bits16 {
            return Err(status::INVALID_FIELD);
        }
        if count >= u32::from(namespace.config.copy_limits.ranges) {
            return Err(status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        let list = &mut [CopyRange::default(); MAX_RANGES][..count as usize + 1];
        self.transfers.receive(request, list.as_mut_bytes())?;
        let (sources, destination) = check(namespace, request.sqe, list)?;
        let mut done = 0;
        for (number, source) in (0..).zip(sources) {
            for piece in source.pieces() {
                let read = source.read(&mut namespace.store, piece, &mut self.staging);
                let copied = read.and_then(|has_data| {
                    destination.protect(done, &mut self.staging, has_data)?;
                    let at = destination.offset + u64::from(done) * source.block_size as u64;
                    self.staging.write(&mut namespace.store, at)
                });
                copied.inspect_err(|_| self.failed_range = number)?;
                done += piece.blocks;
            }
        }
        destination.commit(&mut namespace.store, request.fua() || request.write_through)
    }

    /// Returns DW0 of the completion of the I/O command that has just failed: for Copy the number
    /// of the first source range that was not copied, for other commands 0 (NVM 3.2.2.1).
    pub(crate) fn take_dw0(&mut self) -> u32 {
        std::mem::take(&mut self.failed_range)
    }
}

/// Checks the parameters of a Copy command. Returns its source ranges and its destination.
fn check(
    namespace: &Namespace,
    sqe: &Sqe,
    list: &[CopyRange],
) -> Result<(Vec<Blocks>, Blocks), Status> {
    let CopyLimits { range, total, .. } = namespace.config.copy_limits;
    // The sum is at most 256 times 65,536.
    let blocks = list.iter().map(CopyRange::blocks).sum();
    if blocks > total || list.iter().any(|source| source.blocks() > range.into()) {
        return Err(status::COMMAND_SIZE_LIMIT_EXCEEDED);
    }
    // PRINFOR as the bits of `prinfo`.
    let read_prinfo = sqe.cdw12.get() << prinfo::COPY_READ_SHIFT & prinfo::MASK;
    let source = |range: &CopyRange| {
        let checks = Checks {
            prinfo: read_prinfo,
            slba: range.slba.get(),
            tags: (0, range.ref_tag.get().into()),
            app_tag: range.app_tag.get(),
            app_mask: range.app_mask.get(),
        };
        Blocks::new(namespace, checks, range.blocks(), false)
    };
    let destination =
        Blocks::new(namespace, Checks::of(sqe, namespace.config.information), blocks, true)?;
    let sources = list.iter().map(source).collect::<Result<_, _>>()?;
    // Protection information that is stripped from the source is inserted at the destination.
    if (read_prinfo ^ sqe.prinfo()) & prinfo::PRACT != 0 {
        return Err(status::INVALID_FIELD);
    }
    namespace.check_writable()?;
    Ok((sources, destination))
}
