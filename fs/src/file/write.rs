//! Overwrites of file data.

use std::io::IoSlice;

use nvio_iomap::{
    Cursor, DmaBuf, Failed, IoArgs, IoFlags, Memory, Op, Rejected, Source, Tag, WriteQueue,
};

use crate::error::Error;
use crate::file::open_inode::OpenInode;
use crate::file::read::Queued;
use crate::file::writable_file::WritableFile;
use crate::number::{as_u64, as_usize};

/// # Overwriting
/// A write must be inside the file, in blocks that were written before: not in holes, not in
/// unwritten extents, and not past the end. The whole range is checked before the first byte is
/// written, so that a rejected write has changed nothing. No metadata is written, so the file's
/// times do not change.
///
/// [`write_at`](Self::write_at) and [`write_vectored_at`](Self::write_vectored_at) write from plain
/// memory at any position; they wait, and copy the data. [`write_with`](Self::write_with), which
/// waits, and [`submit_write_with`](Self::submit_write_with), which does not, accept flags and any
/// kind of memory, and do not copy DMA memory.
///
/// A write with [`IoFlags::DSYNC`] is durable when it completes. Any other write is durable after a
/// later flush of the device, or a later write with that flag, has completed. Requests in flight at
/// the same time are executed in any order, even if they write the same blocks.
///
/// ```
/// use nvio_driver::{Address, Controller, Options};
/// use nvio_emulator::{Backing, Emulator, NamespaceConfig};
/// use nvio_ext4::{FileQueue, Filesystem, QueueSource};
/// use nvio_iomap::{DiskQueue, DiskReader, IoArgs, IoFlags, WritableDisk};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (folder, image) = (dir.path().join("folder"), dir.path().join("disk.img"));
/// # std::fs::create_dir(&folder)?;
/// # std::fs::write(folder.join("data"), vec![7; 100_000])?;
/// # let made = std::process::Command::new("/sbin/mke2fs")
/// #     .args(["-q", "-t", "ext4", "-d"]).args([&folder, &image]).arg("8M").status()?;
/// # assert!(made.success());
/// let disk = NamespaceConfig::new(Backing::image(&image, false));
/// let emulator = Emulator::builder().namespace(disk).start()?;
/// let options = Options { writable: true, ..Options::default() };
/// let address = Address::VfioUser(emulator.socket().to_owned());
/// let controller = Controller::open_with(&address, options)?;
/// let disk = WritableDisk::whole(&controller.writable()?.writable_namespace(1)?);
/// let fs = Filesystem::open(QueueSource::new(DiskReader::new(&controller, &disk, 32)?))?;
/// let fs = fs.writable()?;
/// let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 128)?);
/// let mut file = fs.writable_file(&fs.lookup(b"/data")?)?;
///
/// // Writes bytes at any position from plain memory.
/// file.write_at(&mut queue, 99_995, b"nvio!")?;
/// assert!(file.write_at(&mut queue, 99_996, b"nvio!").is_err(), "past the end");
///
/// // Writes a block from DMA memory, and makes it durable.
/// let mut buf = controller.alloc(4096)?;
/// buf.fill(8);
/// let io = IoArgs::at(8192).flags(IoFlags::DSYNC);
/// let (memory, n) = file.write_with(&mut queue, io, buf)?;
/// assert_eq!((memory.len(), n), (4096, 4096));
///
/// let mut back = vec![0; 100_000];
/// file.read_at(&mut queue, 0, &mut back)?;
/// assert_eq!((back[8191], back[8192], &back[99_995..]), (7, 8, &b"nvio!"[..]));
/// # Ok(())
/// # }
/// ```
impl WritableFile {
    /// Writes `data` at `pos`, and waits. Neither position nor length need be aligned: the device's
    /// blocks at both ends are read, changed and written, so no other write to them may be in
    /// flight. The data is copied.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Hole`], [`Error::Unwritten`], [`Error::PastEnd`], or damage to the file's map:
    /// nothing was written. After a failure of the device, any part of the range may have been
    /// written.
    pub fn write_at<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        data: &[u8],
    ) -> Result<usize, Error> {
        self.write_from(queue, IoArgs::at(pos), &mut Cursor::new(data))
    }

    /// Writes the slices of `data` in order from `pos` on, like [`write_at`](Self::write_at).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_vectored_at<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        data: &[IoSlice<'_>],
    ) -> Result<usize, Error> {
        self.write_from(queue, IoArgs::at(pos), &mut Cursor::new(data))
    }

    /// Writes the rest of `source` at `io.pos`, with `io.flags`, waits, and returns the number of
    /// bytes, by which the cursor advances. See [`write_at`](Self::write_at). With
    /// [`IoFlags::ATOMIC`], position and length must be aligned.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and
    /// [`FileQueue::write_from`](nvio_iomap::FileQueue::write_from).
    pub fn write_from<Q: WriteQueue<Tag<OpenInode>>, S: Source>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        source: &mut Cursor<S>,
    ) -> Result<usize, Error> {
        self.check_device(queue.device().size())?;
        let block = 1u64.wrapping_shl(queue.device().block_shift());
        let length = as_u64(source.memory.len().saturating_sub(source.at));
        if length == 0 {
            return Ok(as_usize(io.done_before));
        }
        let in_place = IoFlags::ATOMIC.union(IoFlags::FSBLOCK_ALIGNED).union(IoFlags::NOWAIT);
        if (io.pos | length).is_multiple_of(block) || io.flags.intersects(in_place) {
            return queue.write_from(self, io, source);
        }
        self.with_tail = true;
        let result = self.write_around(queue, io, source, block);
        self.with_tail = false;
        result
    }

    /// Writes a range that does not begin and end at a boundary of the device's blocks: the partial
    /// blocks are read first.
    fn write_around<Q: WriteQueue<Tag<OpenInode>>, S: Source>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        source: &mut Cursor<S>,
        block: u64,
    ) -> Result<usize, Error> {
        let length = source.memory.len().saturating_sub(source.at);
        let (inode, size) = (self.inode().number(), self.size());
        let Some(end) = io.pos.checked_add(as_u64(length)).filter(|&end| end <= size) else {
            return Err(Error::PastEnd { inode, end: io.pos.saturating_add(as_u64(length)), size });
        };
        let mask = block.wrapping_sub(1);
        let first = io.pos & !mask;
        let all = end.next_multiple_of(block).saturating_sub(first);
        self.begin_write(first, all, Op::WRITE)?;
        let mut moved = 0;
        while moved < length {
            let pos = io.pos.saturating_add(as_u64(moved));
            let left = length.saturating_sub(moved);
            let (offset, whole) = (as_usize(pos & mask), left & !as_usize(mask));
            let at = source.at.saturating_add(moved);
            let part = if offset == 0 && whole > 0 {
                let part = Part { source: &mut source.memory, at, length: whole };
                let io = IoArgs { pos, done_before: 0, ..io };
                queue.write_from(self, io, &mut Cursor::new(part))
            } else {
                let n = left.min(as_usize(block).saturating_sub(offset));
                let part = Part { source: &mut source.memory, at, length: n };
                self.write_inside(queue, IoArgs { pos, done_before: 0, ..io }, part, block)
            };
            match part {
                Ok(n) if n > 0 => moved = moved.saturating_add(n),
                // The caller's memory faulted after some bytes were written.
                Err(Error::Iomap(error))
                    if moved > 0
                        && io.flags.contains(IoFlags::PARTIAL)
                        && matches!(*error, nvio_iomap::Error::Fault { .. }) =>
                {
                    break;
                }
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        source.at = source.at.saturating_add(moved);
        Ok(moved.saturating_add(as_usize(io.done_before)))
    }

    /// Writes a part of one block of the device, by reading, changing and writing the block.
    fn write_inside<Q: WriteQueue<Tag<OpenInode>>, S: Source>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        mut part: Part<'_, S>,
        block: u64,
    ) -> Result<usize, Error> {
        let offset = io.pos & block.wrapping_sub(1);
        let start = io.pos.wrapping_sub(offset);
        // Bytes past the end of the file are zero here, and so become zero on the device.
        let mut whole = vec![0; as_usize(block)];
        queue.read_at(self, start, &mut whole)?;
        let n = part.length;
        let nofault = io.flags.contains(IoFlags::NOFAULT);
        let place = whole.get_mut(as_usize(offset)..).and_then(|rest| rest.get_mut(..n));
        let copied = place.map_or(0, |place| part.copy_out(0, place, nofault));
        if copied < n {
            return Err(nvio_iomap::Error::Fault { at: as_u64(copied) }.into());
        }
        queue.write_from(self, IoArgs { pos: start, ..io }, &mut Cursor::new(&whole[..]))?;
        Ok(n)
    }

    /// Writes all of `memory` at `io.pos`, with `io.flags`, waits, and returns the memory and the
    /// number of bytes. Position and length must be multiples of the device's logical block size.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and
    /// [`FileQueue::write_with`](nvio_iomap::FileQueue::write_with).
    pub fn write_with<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(Memory, usize), Failed<Error>> {
        let memory = memory.into();
        match self.check_device(queue.device().size()) {
            Ok(()) => queue.write_with(self, io, memory),
            Err(error) => Err(Failed { error, payload: Some(memory) }),
        }
    }

    /// Submits a write of all of `buf` at `pos`. The queue's [`poll`](nvio_iomap::FileQueue::poll)
    /// returns its result with `token`. Position and length must be multiples of the device's
    /// logical block size.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`submit_write_with`](Self::submit_write_with).
    pub fn submit_write<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        buf: DmaBuf,
        token: u64,
    ) -> Result<(), Rejected<Error>> {
        self.submit_write_with(queue, IoArgs::at(pos).token(token), buf)
    }

    /// Submits a write of all of `memory` at `io.pos`, with `io.flags`. The queue's
    /// [`poll`](nvio_iomap::FileQueue::poll) returns its result with `io.token`. Position and
    /// length must be multiples of the device's logical block size.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and
    /// [`FileQueue::submit_write_with`](nvio_iomap::FileQueue::submit_write_with).
    pub fn submit_write_with<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        io: IoArgs,
        memory: impl Into<Memory>,
    ) -> Result<(), Rejected<Error>> {
        let memory = memory.into();
        match self.check_device(queue.device().size()) {
            Ok(()) => queue.submit_write_with(self, io, memory),
            Err(error) => Err(Rejected { error, payload: memory }),
        }
    }
}

/// `length` bytes of a source, from byte `at` on.
struct Part<'a, S> {
    source: &'a mut S,
    at: usize,
    length: usize,
}

impl<S: Source> Source for Part<'_, S> {
    fn len(&self) -> usize {
        self.length
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize {
        let n = self.length.saturating_sub(at).min(out.len());
        let out = out.get_mut(..n).unwrap_or_default();
        self.source.copy_out(self.at.saturating_add(at), out, nofault)
    }
}
