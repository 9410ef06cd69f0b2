//! Iteration over the mappings of a range.

use crate::contract::mapper::{ErrorOf, Mapper, Mapping, MappingFlags, Op};
use crate::error::Error;

/// Rounds in a row without progress because the mapping was stale.
const MOST_STALE_ROUNDS: u32 = 64;

/// The result of an iteration.
///
/// See the [example](iterate#examples).
#[derive(Debug)]
pub struct Iterated<E> {
    /// Bytes processed from the start of the range.
    pub processed: u64,
    /// The error that ended it early. `None` also if the body made no progress.
    pub error: Option<E>,
}

/// Walks `[pos, pos + length)` mapping by mapping.
///
/// `body` receives each mapping with a position and a number of bytes inside it, and returns the
/// number of bytes processed. It may mark the mapping [`MappingFlags::STALE`], and the rest is
/// mapped again. The walk ends at the end of the range, at an error, or after a round without
/// progress whose mapping is not stale.
///
/// [`Mapper::end`] is called once for each successful [`Mapper::begin`]. Its error is the result
/// only if the round processed nothing.
///
/// # Examples
/// ```
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
/// # struct NoState;
/// # impl OpenFile for NoState {
/// #     type Error = Error;
/// # }
/// # struct OneExtent(FileRef<NoState>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = NoState;
/// #     fn open_file(&self) -> &FileRef<NoState> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
/// # let mut file = OneExtent(FileRef::new(NoState));
/// use nvio_iomap::{MappingKind, iterate};
///
/// // Count the mapped bytes among the first 10,000 of a file.
/// let mut mapped = 0;
/// let walk = iterate(&mut file, 0, 10_000, Op::REPORT, |_, mapping, _pos, length| {
///     if mapping.kind == MappingKind::Mapped {
///         mapped += length;
///     }
///     Ok(length)
/// });
/// assert!(walk.error.is_none());
/// assert_eq!((walk.processed, mapped), (10_000, 10_000));
/// ```
#[inline]
pub fn iterate<M: Mapper>(
    mapper: &mut M,
    pos: u64,
    length: u64,
    op: Op,
    body: impl FnMut(&mut M, &mut Mapping, u64, u64) -> Result<u64, ErrorOf<M>>,
) -> Iterated<ErrorOf<M>> {
    iterate_from(mapper, None, (pos, length), op, body)
}

/// Iterates as [`iterate`] does. `first` is the mapping of the first round, if [`Mapper::begin`]
/// was called for it already, with `pos` and `length`.
#[inline(always)]
pub(crate) fn iterate_from<M: Mapper>(
    mapper: &mut M,
    mut first: Option<Mapping>,
    (pos, length): (u64, u64),
    op: Op,
    mut body: impl FnMut(&mut M, &mut Mapping, u64, u64) -> Result<u64, ErrorOf<M>>,
) -> Iterated<ErrorOf<M>> {
    let (mut processed, mut stale_rounds) = (0, 0);
    let error = loop {
        let (at, left) = (pos.saturating_add(processed), length - processed);
        if left == 0 {
            break None;
        }
        let mut mapping = match first.take() {
            Some(mapping) => mapping,
            None => match mapper.begin(at, left, op) {
                Ok(mapping) => mapping,
                Err(error) => break Some(error),
            },
        };
        let here = left.min(mapping.bytes_from(at));
        let result = match here {
            0 => Err(bad_mapping(&mapping, at).into()),
            _ => body(mapper, &mut mapping, at, here),
        };
        let result = result.and_then(|n| match n <= here {
            true => Ok(n),
            false => Err(Error::AdvanceTooFar { by: n, left: here }.into()),
        });
        let n = *result.as_ref().unwrap_or(&0);
        let ended = mapper.end(&mapping, at, left, n, op);
        let stale = mapping.flags.contains(MappingFlags::STALE);
        match (result, ended) {
            (Err(error), _) | (Ok(0), Err(error)) => break Some(error),
            (Ok(0), Ok(())) if !stale => break None,
            (Ok(0), Ok(())) if stale_rounds == MOST_STALE_ROUNDS => {
                break Some(Error::Stale { pos: at }.into());
            }
            (Ok(0), Ok(())) => stale_rounds += 1,
            (Ok(n), _) => {
                processed += n;
                stale_rounds = 0;
            }
        }
    };
    Iterated { processed, error }
}

/// The error of a mapping that does not serve position `pos`.
#[cold]
pub(crate) fn bad_mapping(mapping: &Mapping, pos: u64) -> Error {
    Error::BadMapping { pos, offset: mapping.offset, length: mapping.length }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::mock::{Fail, Script};

    fn run(script: &mut Script, length: u64, step: u64) -> (u64, Option<String>) {
        let done = iterate(script, 0, length, Op::empty(), |_, _, _, here| Ok(here.min(step)));
        script.assert_balanced();
        (done.processed, done.error.map(|error| name(&error)))
    }

    fn name(error: &Fail) -> String {
        let debug = format!("{error:?}");
        debug.split(['(', ' ']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn mappings_shorter_and_longer_than_the_range_are_walked() {
        let mut script = Script::new([Mapping::hole(0, 10), Mapping::hole(10, 100)]);
        assert_eq!(run(&mut script, 50, u64::MAX), (50, None));
        assert_eq!(script.begins(), 2);
    }

    #[test]
    fn a_body_may_take_several_rounds_for_one_mapping() {
        let mut script = Script::new([Mapping::hole(0, 10); 4]);
        assert_eq!(run(&mut script, 10, 3), (10, None));
        assert_eq!(script.ends(), [3, 3, 3, 1]);
    }

    #[test]
    fn no_progress_ends_the_walk_without_an_error() {
        let mut script = Script::new([Mapping::hole(0, 10)]);
        assert_eq!(run(&mut script, 10, 0), (0, None));
    }

    #[test]
    fn mappings_that_do_not_serve_are_refused_and_still_ended() {
        let stale = Mapping { flags: MappingFlags::STALE, ..Mapping::hole(0, 10) };
        let overflow = Mapping { offset: u64::MAX, ..Mapping::hole(0, 10) };
        for bad in [Mapping::hole(0, 0), Mapping::hole(5, 10), stale, overflow] {
            let mut script = Script::new([bad]);
            assert_eq!(run(&mut script, 10, 10), (0, Some("Iomap".into())));
            assert_eq!(script.ends(), [0]);
        }
    }

    #[test]
    fn a_body_that_moves_too_far_is_an_error() {
        let mut script = Script::new([Mapping::hole(0, 10)]);
        let done = iterate(&mut script, 0, 20, Op::empty(), |_, _, _, _| Ok(11));
        assert_eq!((done.processed, done.error.as_ref().map(name)), (0, Some("Iomap".into())));
        script.assert_balanced();
    }

    #[test]
    fn a_stale_mapping_is_mapped_again_but_not_for_ever() {
        let mut script = Script::new([Mapping::hole(0, 10); 2]);
        let mut first = true;
        let done = iterate(&mut script, 0, 10, Op::empty(), |_, mapping, _, here| {
            if std::mem::take(&mut first) {
                mapping.flags |= MappingFlags::STALE;
                return Ok(0);
            }
            Ok(here)
        });
        assert!(done.processed == 10 && done.error.is_none());
        let mut script = Script::new([Mapping::hole(0, 10); 100]);
        let done = iterate(&mut script, 0, 10, Op::empty(), |_, mapping, _, _| {
            mapping.flags |= MappingFlags::STALE;
            Ok(0)
        });
        assert_eq!(done.error.as_ref().map(name), Some("Iomap".into()));
        script.assert_balanced();
    }

    #[test]
    fn an_error_of_end_counts_only_when_nothing_was_processed() {
        let mut script = Script::new([Mapping::hole(0, 10), Mapping::hole(10, 10)]);
        script.fail_end(0);
        assert_eq!(run(&mut script, 20, u64::MAX), (20, None));
        let mut script = Script::new([Mapping::hole(0, 10)]);
        script.fail_end(0);
        assert_eq!(run(&mut script, 20, 0), (0, Some("End".into())));
    }

    #[test]
    fn an_error_of_begin_keeps_what_was_processed() {
        let mut script = Script::new([Mapping::hole(0, 10)]);
        assert_eq!(run(&mut script, 20, u64::MAX), (10, Some("Begin".into())));
    }
}
