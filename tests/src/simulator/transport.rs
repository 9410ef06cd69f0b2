//! The driver's transport to a [`Machine`] in the same thread.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::spec::register::DOORBELLS;
use nvio_driver::{Arena, Error, Mmio, Result, Transport};

use super::lock;
use super::machine::Machine;

/// A transport to a machine. Both sides share the memory of the doorbells, as with a vfio-user
/// server.
pub struct Simulated {
    machine: Arc<Mutex<Machine>>,
    doorbells: Arc<Mmio>,
}

impl Simulated {
    /// Creates a transport to `machine`.
    ///
    /// # Errors
    /// If the doorbells cannot be mapped.
    pub fn new(machine: &Arc<Mutex<Machine>>) -> Result<Self> {
        let doorbells = {
            let machine = lock(machine);
            let (file, size) = machine.doorbells();
            let len = usize::try_from(size - DOORBELLS).unwrap_or(4096);
            Arc::new(Mmio::map(file, DOORBELLS, DOORBELLS, len)?)
        };
        Ok(Self { machine: Arc::clone(machine), doorbells })
    }
}

fn refused(call: &'static str) -> Error {
    Error::System { call, source: io::Error::from_raw_os_error(libc::EIO) }
}

// SAFETY: the controller runs in this thread, and a call returns after its effect. The controller
// accesses memory only through its table of mappings.
unsafe impl Transport for Simulated {
    fn read32(&self, offset: u64) -> Result<u32> {
        Ok(lock(&self.machine).read(offset))
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        lock(&self.machine).write(offset, value);
        Ok(())
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        &self.doorbells
    }

    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64> {
        Ok(lock(&self.machine).choose_iova(bytes, used))
    }

    fn map(&self, arena: &Arena) -> Result<()> {
        let mapped = lock(&self.machine).map(arena);
        mapped.map_err(|source| Error::System { call: "map", source })
    }

    fn unmap(&self, arena: &Arena) -> Result<()> {
        lock(&self.machine).unmap(arena).then_some(()).ok_or(refused("unmap"))
    }

    fn reset(&self) -> Result<()> {
        lock(&self.machine).function_reset().then_some(()).ok_or(refused("reset"))
    }

    fn now(&self) -> Duration {
        lock(&self.machine).look()
    }

    fn pause(&self, time: Duration) {
        lock(&self.machine).wait(time);
    }
}
