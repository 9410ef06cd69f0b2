//! The device, shared by the thread that polls and the thread that serves messages.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::io::Errno;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};

use crate::host::access::Access;
use crate::serve::device::Device;

/// The device behind a lock, which both threads hold briefly.
#[derive(Debug)]
pub(crate) struct Shared {
    device: Mutex<Device>,
    /// Number of messages that wait for the lock. The polling thread takes the lock so often that
    /// an unfair lock would starve them: it waits until this is 0.
    waiting: AtomicUsize,
    /// Signalled when the device may have become active, and at the end.
    wake: Condvar,
    stopping: AtomicBool,
    /// Errno of the last failed message, because the server's own reply has none.
    errno: AtomicI32,
    /// Commands that threads of the client have executed since the polling thread last looked.
    helped: AtomicUsize,
}

/// Answer to the thread that polls.
pub(crate) enum Look<'a> {
    Device(MutexGuard<'a, Device>),
    /// Another thread has the device.
    Busy,
    End,
}

impl Shared {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device: Mutex::new(device),
            waiting: AtomicUsize::new(0),
            wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            errno: AtomicI32::new(0),
            helped: AtomicUsize::new(0),
        }
    }

    /// Locks the device for a message, and sets its clock.
    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut device = self.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        device.set_clock();
        device
    }

    /// Waits until the device is active, and locks it for polling, unless another thread has it.
    pub(crate) fn look(&self) -> Look<'_> {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let mut device = match self.device.try_lock() {
            Ok(device) => device,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Look::Busy,
        };
        while !device.is_active() && !self.is_stopping() {
            device = self.wake.wait(device).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_stopping() { Look::End } else { Look::Device(device) }
    }

    /// Processes commands in the thread of a client, and returns true if the client should look for
    /// completions. While another thread has the device, the caller yields to it.
    pub(crate) fn help(&self, budget: usize) -> bool {
        let mut device = match self.device.try_lock() {
            Ok(device) => device,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::yield_now();
                return true;
            }
        };
        let done = device.process(budget);
        drop(device);
        self.helped.fetch_add(done, Ordering::Relaxed);
        done > 0
    }

    /// Returns the number of commands that clients have executed since the last call.
    pub(crate) fn take_helped(&self) -> usize {
        self.helped.swap(0, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the polling thread.
    pub(crate) fn stop(&self) {
        // Under the lock, so that a thread about to wait sees the flag or is woken.
        let _device = self.device();
        self.stopping.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Returns and clears the errno of the last failed message.
    pub(crate) fn take_errno(&self) -> Option<u32> {
        u32::try_from(self.errno.swap(0, Ordering::Relaxed)).ok().filter(|&errno| errno != 0)
    }

    /// Executes a message, wakes the polling thread if the device is active, and stores the errno
    /// of a failure.
    fn message(&self, run: impl FnOnce(&mut Device) -> io::Result<()>) -> io::Result<()> {
        let mut device = self.device();
        let result = run(&mut device);
        if device.is_active() {
            self.wake.notify_all();
        }
        drop(device);
        if let Err(error) = &result {
            let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            self.errno.store(errno, Ordering::Relaxed);
        }
        result
    }
}

/// The backend that the vfio-user server calls for each message.
pub(crate) struct Messages<'a>(pub(crate) &'a Shared);

impl ServerBackend for Messages<'_> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.message(|device| device.region_read(region, offset, data))
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.message(|device| device.region_write(region, offset, data))
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let access = Access {
            read: flags.contains(DmaMapFlags::READ),
            write: flags.contains(DmaMapFlags::WRITE),
        };
        self.0.message(|device| {
            // Memory without a file is unreachable.
            let file = fd.filter(|_| access.read || access.write);
            let file = file.ok_or_else(|| io::Error::from(Errno::INVAL))?;
            device.memory.map_file(address, size, file, offset, access)
        })
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.0.message(|device| {
            if flags.contains(DmaUnmapFlags::GET_DIRTY_PAGE_INFO) {
                return Err(Errno::OPNOTSUPP.into());
            }
            if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
                device.memory.clear();
                return Ok(());
            }
            device.memory.unmap(address, size)
        })
    }

    /// Executes a function level reset. Mappings, interrupts and configuration space stay, because
    /// the kernel's VFIO saves and restores them for its clients, too.
    fn reset(&mut self) -> io::Result<()> {
        self.0.message(|device| {
            device.controller.function_reset();
            Ok(())
        })
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        self.0.message(|device| device.interrupts.set(index, flags, start, count, fds))
    }
}
