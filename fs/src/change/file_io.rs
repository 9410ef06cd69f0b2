//! Direct writes of files that grow.

use nvio_iomap::{Cursor, Failed, IoArgs, Memory, Rejected, Tag, WriteQueue};

use crate::change::file::JournaledFile;
use crate::error::Error;
use crate::file::open_inode::OpenInode;
use crate::file::read::Queued;
use crate::number::as_u64;

/// # Writing
/// A direct write waits for the journal only where blocks are missing. Its data is durable after
/// [`sync_data`](crate::JournaledFilesystem::sync_data); with [`IoFlags::DSYNC`](nvio_iomap::IoFlags) the
/// data itself is durable at the end of the write, but its blocks and the size of the file may need the
/// sync.
impl JournaledFile {
    /// Writes `data` at `pos` past the cache, waits, and returns the number of bytes. Writes that are not
    /// aligned to the device's blocks are made by
    /// [`JournaledFilesystem::write_at`](crate::JournaledFilesystem::write_at).
    ///
    /// See the [example](crate::JournaledFilesystem#open-files).
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::FileTooLarge`], [`Error::OtherDevice`]; damage; a failure of the
    /// device, after which any part of the range may have been written.
    pub fn write_at<Q: WriteQueue<Tag<OpenInode>>>(
        &mut self,
        queue: &mut Queued<Q>,
        pos: u64,
        data: &[u8],
    ) -> Result<usize, Error> {
        self.check_device(queue.device().size())?;
        let mask = 1u64.wrapping_shl(queue.device().block_shift()).wrapping_sub(1);
        if (pos | as_u64(data.len())) & mask == 0 {
            return queue.write_from(self, IoArgs::at(pos), &mut Cursor::new(data));
        }
        let number = self.inode().number();
        self.journaled().write_at(number, pos, data)?;
        Ok(data.len())
    }

    /// Writes all of `memory` at `io.pos` with `io.flags`, waits, and returns the memory and the number of
    /// bytes.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and
    /// [`FileQueue::write_with`](nvio_iomap::FileQueue::write_with).
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # use std::fs::File;
    /// # use nvio_ext4::{JournaledFilesystem, Options};
    /// # use nvio_iomap::{FileQueue, ImageQueue, IoArgs};
    /// # let device = File::options().read(true).write(true).open(sample.path())?;
    /// # let mut queue = FileQueue::new(ImageQueue::new(device.try_clone()?, 32)?);
    /// # let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let mut file = fs.open_file(&fs.lookup("/hello.txt")?)?;
    /// let (memory, n) = file.write_with(&mut queue, IoArgs::at(4096), vec![7; 8192])?;
    /// assert_eq!((memory.len(), n, fs.lookup("/hello.txt")?.size()), (8192, 8192, 12_288));
    ///
    /// // Does not wait for the data.
    /// let buf = queue.alloc(4096)?;
    /// file.submit_write_with(&mut queue, IoArgs::at(12_288).token(5), buf)?;
    /// queue.ring();
    /// while file.in_flight() > 0 {
    ///     queue.poll(1, |done| assert_eq!((done.token, done.result.unwrap()), (5, 4096)));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Submits a write of all of `memory` at `io.pos`, with `io.flags`. The queue's
    /// [`poll`](nvio_iomap::FileQueue::poll) returns its result with `io.token`.
    ///
    /// See the [example](Self::write_with).
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with).
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
