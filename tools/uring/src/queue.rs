//! A queue of requests to the kernel.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nvio_perf::target::{Counters, Error, Rejected, Request, Sink, Target};

use crate::memory::Pages;
use crate::passthrough::{NVME_URING_CMD_IO, Transfer};
use crate::place::{Namespace, Place};

/// Entries of reads and writes, or of NVMe commands.
enum Ring {
    Plain(IoUring),
    Commands(IoUring<squeue::Entry128, cqueue::Entry32>, Namespace),
}

/// Calls a function of either ring.
macro_rules! either {
    ($ring:expr, $it:ident => $call:expr) => {
        match $ring {
            Ring::Plain($it) => $call,
            Ring::Commands($it, _) => $call,
        }
    };
}

/// A queue of direct reads and writes, or of NVMe commands, for one thread.
pub struct Kernel {
    ring: Ring,
    place: Place,
    depth: usize,
    /// Memory of all requests, until it is registered with the first submission of a run.
    to_register: Vec<libc::iovec>,
    is_registered: bool,
    allocated: u16,
    /// Memory of the requests in flight, by slot.
    flying: Vec<Option<Pages>>,
    in_flight: usize,
    counters: Counters,
}

// SAFETY: the addresses in `to_register` are those of pages that may move between threads.
unsafe impl Send for Kernel {}

impl Kernel {
    /// Creates a queue of `depth` requests.
    ///
    /// # Errors
    /// If the kernel has no io_uring, or forbids it.
    pub fn new(place: &Place, depth: u16) -> Result<Self, Error> {
        let failed = |error: io::Error| Error(format!("io_uring: {error}"));
        let place = place.try_clone()?;
        let ring = match place.passthrough {
            None => Ring::Plain(build(place.polls, depth).map_err(failed)?),
            Some(namespace) => {
                Ring::Commands(build(place.polls, depth).map_err(failed)?, namespace)
            }
        };
        let fd = place.file.as_raw_fd();
        either!(&ring, it => it.submitter().register_files(&[fd])).map_err(failed)?;
        Ok(Self {
            ring,
            place,
            depth: depth.into(),
            to_register: Vec::new(),
            is_registered: false,
            allocated: 0,
            flying: Vec::new(),
            in_flight: 0,
            counters: Counters::default(),
        })
    }

    /// Registers the memory of all requests.
    #[cold]
    fn register(&mut self) -> io::Result<()> {
        let buffers = std::mem::take(&mut self.to_register);
        if std::mem::replace(&mut self.is_registered, true) {
            either!(&self.ring, it => it.submitter().unregister_buffers())?;
        }
        // SAFETY: the pages stay mapped while a request uses them, because it owns them. The kernel
        // keeps its own references to registered pages.
        either!(&self.ring, it => unsafe { it.submitter().register_buffers(&buffers) })
    }

    fn push(
        &mut self,
        request: &Request,
        pages: &Pages,
        slot: u64,
    ) -> Result<(), squeue::PushError> {
        let bytes = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let (file, address, index) = (Fixed(0), pages.address(), pages.index);
        match &mut self.ring {
            Ring::Plain(ring) => {
                let entry = match request.write {
                    false => opcode::ReadFixed::new(file, address, bytes, index)
                        .offset(request.pos)
                        .build(),
                    true => opcode::WriteFixed::new(file, address, bytes, index)
                        .offset(request.pos)
                        .build(),
                };
                // SAFETY: the pages stay in `flying` until the completion.
                unsafe { ring.submission().push(&entry.user_data(slot)) }
            }
            Ring::Commands(ring, Namespace { nsid, block_shift }) => {
                let transfer = Transfer {
                    nsid: *nsid,
                    write: request.write,
                    address: address as u64,
                    bytes,
                    lba: request.pos >> *block_shift,
                    blocks: bytes >> *block_shift,
                };
                let entry = opcode::UringCmd80::new(file, NVME_URING_CMD_IO)
                    .cmd(transfer.encode())
                    .buf_index(Some(index))
                    .build();
                // SAFETY: as above.
                unsafe { ring.submission().push(&entry.user_data(slot)) }
            }
        }
    }

    /// Returns the next completion: the slot and the result.
    #[inline]
    fn pop(&mut self) -> Option<(u64, i32)> {
        match &mut self.ring {
            Ring::Plain(ring) => ring.completion().next().map(|it| (it.user_data(), it.result())),
            Ring::Commands(ring, _) => {
                ring.completion().next().map(|it| (it.user_data(), it.result()))
            }
        }
    }

    /// Passes a completion on.
    fn settle(&mut self, (slot, result): (u64, i32), sink: &mut impl Sink<Pages>) {
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        let Some(pages) = self.flying.get_mut(at).and_then(Option::take) else { return };
        self.in_flight -= 1;
        let is_command = matches!(self.ring, Ring::Commands(..));
        let whole = if is_command { 0 } else { pages.len() };
        match usize::try_from(result) {
            Ok(found) if found == whole => sink.done(slot, pages),
            Ok(found) if is_command => {
                let error = Error(format!("NVMe status {found:#x}"));
                sink.failed(slot, error, Some(pages));
            }
            Ok(found) => {
                let error = Error(format!("{found} of {whole} bytes were transferred"));
                sink.failed(slot, error, Some(pages));
            }
            Err(_) => {
                let error = io::Error::from_raw_os_error(result.saturating_neg());
                sink.failed(slot, Error(error.to_string()), Some(pages));
            }
        }
    }
}

/// Builds a ring. A kernel that does not know the flags of newer ones gets none of them.
fn build<S: squeue::EntryMarker, C: cqueue::EntryMarker>(
    polls: bool,
    depth: u16,
) -> io::Result<IoUring<S, C>> {
    let entries = u32::from(depth).next_power_of_two();
    let mut builder = IoUring::builder();
    if polls {
        builder.setup_iopoll();
    }
    let plain = builder.clone();
    builder.setup_single_issuer();
    builder.build(entries).or_else(|_| plain.build(entries))
}

impl Target for Kernel {
    type Buf = Pages;

    fn alloc(&mut self, bytes: usize) -> Result<Pages, Error> {
        if self.to_register.is_empty() {
            // A new run, whose memory replaces that of the last one.
            self.allocated = 0;
        }
        let pages = Pages::new(bytes, self.allocated)?;
        self.allocated += 1;
        self.to_register.push(pages.whole());
        Ok(pages)
    }

    fn submit(
        &mut self,
        request: &Request,
        pages: Pages,
        slot: u64,
    ) -> Result<(), Box<Rejected<Pages>>> {
        let rejected = |text: String, busy, pages| {
            Box::new(Rejected { error: Error(text), busy, buf: Some(pages) })
        };
        if !self.to_register.is_empty()
            && let Err(error) = self.register()
        {
            return Err(rejected(format!("registering buffers: {error}"), false, pages));
        }
        if self.push(request, &pages, slot).is_err() {
            return Err(rejected("the queue is full".to_owned(), true, pages));
        }
        let at = usize::try_from(slot).unwrap_or(0);
        if self.flying.len() <= at {
            self.flying.resize_with(at + 1, || None);
        }
        if let Some(place) = self.flying.get_mut(at) {
            *place = Some(pages);
        }
        self.in_flight += 1;
        Ok(())
    }

    fn ring(&mut self) {
        self.counters.doorbells += 1;
        if let Err(error) = either!(&self.ring, it => it.submit()) {
            // Busy or interrupted: the entries stay in the ring, and the next call submits them.
            if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) {
                // Without a result the run would not end; the completions report the reason.
                let _ = either!(&self.ring, it => it.submit_and_wait(0));
            }
        }
    }

    fn poll(&mut self, limit: usize, sink: &mut impl Sink<Pages>) -> usize {
        self.counters.polls += 1;
        let mut count = 0;
        while count < limit
            && let Some(done) = self.pop()
        {
            self.settle(done, sink);
            count += 1;
        }
        if count == 0 {
            self.counters.empty_polls += 1;
            if self.place.polls {
                // The kernel looks at the device's queue.
                let _ = either!(&self.ring, it => it.submit_and_wait(0));
            }
        }
        count
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<Pages>,
    ) -> Result<usize, Error> {
        let waited = match within {
            None => either!(&self.ring, it => it.submit_and_wait(1)),
            Some(within) if self.in_flight == 0 => {
                std::thread::sleep(within);
                return Ok(0);
            }
            // Without interrupts the kernel has nothing to wake it in time.
            Some(_) if self.place.polls => return Ok(self.poll(usize::MAX, sink)),
            Some(within) => {
                let time = Timespec::from(within);
                let args = SubmitArgs::new().timespec(&time);
                either!(&self.ring, it => it.submitter().submit_with_args(1, &args))
            }
        };
        match waited.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::EINTR | libc::ETIME), _)) => Ok(self.poll(usize::MAX, sink)),
            Err((_, error)) => Err(Error::of(&error)),
        }
    }

    fn capacity(&self) -> usize {
        self.depth
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        self.place.passthrough.map(|namespace| pos >> namespace.block_shift)
    }

    fn flush(&mut self) -> Result<(), Error> {
        match self.place.passthrough {
            // Its writes are as durable as those of `--raw` without a flush.
            Some(_) => Ok(()),
            None => self.place.file.sync_data().map_err(|error| Error::of(&error)),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // The kernel may still write to the memory of requests in flight.
        if self.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut self.flying));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use nvio_perf::target::Buffer;

    #[derive(Default)]
    struct Taken {
        done: Vec<(u64, Pages)>,
        failed: Vec<(u64, Error)>,
    }

    impl Sink<Pages> for Taken {
        fn done(&mut self, slot: u64, buf: Pages) {
            self.done.push((slot, buf));
        }

        fn failed(&mut self, slot: u64, error: Error, _buf: Option<Pages>) {
            self.failed.push((slot, error));
        }
    }

    /// A file on a disk, because not every memory filesystem has O_DIRECT. `None` if the kernel has
    /// no io_uring for this process.
    fn queue(bytes: usize, writable: bool) -> Option<(tempfile::NamedTempFile, Kernel)> {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let data: Vec<u8> = (0..bytes).map(|at| (at / 4096 % 256) as u8).collect();
        std::fs::write(file.path(), data).unwrap();
        let place = Place::open(file.path(), writable).unwrap();
        assert_eq!(place.bytes(), bytes as u64);
        match Kernel::new(&place, 4) {
            Ok(queue) => Some((file, queue)),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn run(queue: &mut Kernel, requests: &[Request]) -> Taken {
        let mut bufs: Vec<Pages> =
            requests.iter().map(|it| queue.alloc(it.bytes).unwrap()).collect();
        for (at, request) in requests.iter().enumerate().rev() {
            let slot = at as u64;
            let mut buf = bufs.pop().unwrap();
            buf.bytes().fill(0xee);
            queue.submit(request, buf, slot).unwrap();
        }
        queue.ring();
        let mut taken = Taken::default();
        while taken.done.len() + taken.failed.len() < requests.len() {
            queue.wait(None, &mut taken).unwrap();
        }
        taken
    }

    #[test]
    fn reads_return_the_bytes_of_the_file() {
        let Some((_file, mut queue)) = queue(1 << 20, false) else { return };
        // Each run has memory of its own.
        for _ in 0..2 {
            let read = |pos| Request { pos, bytes: 8192, write: false };
            let taken = run(&mut queue, &[read(0), read(40 << 12), read(200 << 12)]);
            assert_eq!((taken.done.len(), taken.failed.len()), (3, 0));
            for (slot, mut pages) in taken.done {
                let first = [0, 40, 200][usize::try_from(slot).unwrap()];
                assert_eq!((pages.bytes()[4095], pages.bytes()[8191]), (first, first + 1));
            }
        }
    }

    #[test]
    fn writes_reach_the_file_and_errors_come_back() {
        let Some((file, mut queue)) = queue(64 << 10, true) else { return };
        let write = Request { pos: 4096, bytes: 4096, write: true };
        let past = Request { pos: 1 << 20, bytes: 4096, write: false };
        let unaligned = Request { pos: 17, bytes: 4096, write: false };
        let taken = run(&mut queue, &[write, past, unaligned]);
        assert_eq!(taken.done.len(), 1);
        let mut failed: Vec<&str> = taken.failed.iter().map(|(_, error)| &error.0[..]).collect();
        failed.sort_unstable();
        assert_eq!(failed[0], "0 of 4096 bytes were transferred");
        assert!(failed[1].contains("Invalid argument"), "{failed:?}");
        queue.flush().unwrap();
        let data = std::fs::read(file.path()).unwrap();
        assert!(data[4096..8192].iter().all(|&byte| byte == 0xee));
        assert_eq!((data[4095], data[8192]), (0, 2));
    }

    #[test]
    fn other_devices_are_refused() {
        for path in ["/dev/null", "/no/such/file"] {
            assert!(Place::open(std::path::Path::new(path), false).is_err(), "{path}");
        }
    }
}
