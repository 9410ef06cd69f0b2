//! The controller's side: a stepped controller, its view of memory, and the clock of both sides.
//!
//! The controller makes progress whenever time passes: while the driver reads the clock, waits or
//! accesses a register (by an amount drawn from the seed), and between the turns of the run.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::Arena;
use nvio_driver::spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cc, Csts, GONE};
use nvio_emulator::{Access, Config, Controller, DeviceFault, FaultCounts, Faults, HostMemory};

use super::lend::Table;
use super::lock;
use super::trace::Trace;
use nvio_testkit::random::Rng;

/// Duration of a register access.
const REGISTER_ACCESS: Duration = Duration::from_micros(1);
/// Duration of reading the clock, with the driver's work between two reads.
const LOOK: Duration = Duration::from_micros(10);
/// Maximum number of commands that the controller processes during a register access.
const MOST_MEANWHILE: u64 = 8;

/// Faults of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The function cannot be reset.
    pub reset: bool,
    /// Memory cannot be unmapped.
    pub unmap: bool,
}

/// The controller and its environment.
pub struct Machine {
    controller: Controller,
    memory: HostMemory,
    rng: Rng,
    /// Time passes only while the driver waits.
    host_is_idle: bool,
    /// The driver's actions take no time, and the controller does nothing meanwhile.
    is_held: bool,
    /// The table of lent memory.
    pub table: Arc<Mutex<Table>>,
    /// The trace of the run.
    pub trace: Arc<Mutex<Trace>>,
    /// Faults of the transport.
    pub broken: Broken,
    /// Preferred address of the arena.
    pub iova: u64,
}

impl Machine {
    /// Creates a machine with a controller at power on. `seed` determines when the controller makes
    /// progress.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn new(
        config: &Config,
        seed: u64,
        iova: u64,
        print: bool,
    ) -> Result<Self, nvio_emulator::Error> {
        let trace = Arc::new(Mutex::new(Trace::new(print)));
        let table = Arc::new(Mutex::new(Table::new(Arc::clone(&trace))));
        let mut memory = HostMemory::new();
        let observer = Arc::clone(&table);
        memory.observe(move |dma| lock(&observer).access(dma));
        let controller = Controller::new(config)?;
        let (rng, broken) = (Rng::new(seed), Broken::default());
        let (host_is_idle, is_held) = (false, false);
        Ok(Self { controller, memory, rng, host_is_idle, is_held, table, trace, broken, iova })
    }

    /// Makes time pass only while the driver waits, up to the next completion, as with a host whose
    /// instructions take no time: a run then takes the time of its device. No seed is used.
    pub fn count_device_time(&mut self) {
        self.host_is_idle = true;
    }

    /// Lets time pass only while the driver waits and in [`pass`](Self::pass), until this is called with
    /// false. The controller then makes no progress while the driver reads registers or the clock.
    pub fn hold_clock(&mut self, held: bool) {
        self.is_held = held;
    }

    /// Returns the time.
    pub fn now(&self) -> Duration {
        self.controller.now()
    }

    /// Returns the time until the next completion is due, if the controller has a command.
    pub fn until_due(&self) -> Option<Duration> {
        self.controller.until_due()
    }

    /// Advances the clock and lets the controller process up to `budget` commands and completions.
    /// Returns their number.
    pub fn pass(&mut self, time: Duration, budget: usize) -> usize {
        let now = self.controller.now() + time;
        self.controller.advance_to(now);
        lock(&self.trace).now = now;
        self.controller.process(&self.memory, budget)
    }

    /// Advances the clock during an action of the driver.
    fn meanwhile(&mut self, time: Duration) {
        if self.is_held {
            return;
        }
        if self.host_is_idle {
            self.pass(Duration::ZERO, usize::MAX);
            return;
        }
        let budget = self.rng.range(0, MOST_MEANWHILE + 1);
        self.pass(time, usize::try_from(budget).unwrap_or(0));
    }

    /// Returns the time to the driver.
    pub fn look(&mut self) -> Duration {
        if self.is_held {
            // The time stands still.
        } else if !self.host_is_idle {
            self.meanwhile(LOOK);
        } else if self.pass(Duration::ZERO, usize::MAX) == 0 {
            // The driver reads the clock after polls in vain: it waits for a command.
            let next = self.controller.until_due().unwrap_or(LOOK);
            self.pass(next, usize::MAX);
        }
        self.now()
    }

    /// Advances the clock while the driver waits.
    pub fn wait(&mut self, time: Duration) {
        self.pass(time, usize::MAX);
    }

    /// Handles a register read of the driver.
    pub fn read(&mut self, offset: u64) -> u32 {
        self.meanwhile(REGISTER_ACCESS);
        let value = self.controller.read_register(offset);
        lock(&self.trace).note("read register", &[offset, value.into()]);
        let enabled = Cc(self.controller.read_register(CC)).en();
        if offset == CSTS && (value == GONE || !(enabled || Csts(value).ready())) {
            lock(&self.table).stopped();
        }
        value
    }

    /// Handles a register write of the driver.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.meanwhile(REGISTER_ACCESS);
        // Addresses are not traced, because they differ between runs of one seed.
        let shown = if (ASQ..ACQ + 8).contains(&offset) { 0 } else { value };
        lock(&self.trace).note("write register", &[offset, shown.into()]);
        let before = self.controller.read_register(CC);
        if offset == CC && before != GONE && Cc(value).en() && !Cc(before).en() {
            if Csts(self.controller.read_register(CSTS)).ready() {
                // Base 3.1.3.5: not before the last change of EN has completed.
                lock(&self.table).accuse("CC.EN is set while CSTS.RDY is still 1");
            }
            let register = |offset| self.controller.read_register(offset);
            let base = |at| u64::from(register(at + 4)) << 32 | u64::from(register(at));
            let entries = |size: u32| (size & 0xfff) + 1;
            let (sq, cq) = (entries(register(AQA)), entries(register(AQA) >> 16));
            lock(&self.table).enabled((base(ASQ), sq), (base(ACQ), cq));
        }
        self.controller.write_register(offset, value);
    }

    /// Resets the function for the driver. Returns false if that is impossible.
    pub fn function_reset(&mut self) -> bool {
        self.meanwhile(REGISTER_ACCESS);
        let works = !self.broken.reset && self.controller.read_register(CSTS) != GONE;
        lock(&self.trace).note("function reset", &[u64::from(works)]);
        if works {
            self.controller.function_reset();
            lock(&self.table).stopped();
        }
        works
    }

    /// Returns an address for an arena: the first free one from the preferred address on. It
    /// depends on other runs in the process, so it must not influence the run.
    pub fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> u64 {
        used.iter().fold(self.iova, |start, taken| {
            let overlaps = taken.start < start + bytes && start < taken.end;
            if overlaps { taken.end.next_multiple_of(2 << 20) } else { start }
        })
    }

    /// Maps an arena for the controller.
    ///
    /// # Errors
    /// As [`HostMemory::map_file`].
    pub fn map(&mut self, arena: &Arena) -> io::Result<()> {
        let file = || arena.as_fd().try_clone_to_owned().map(File::from);
        let size = arena.size() as u64;
        lock(&self.trace).note("map", &[size]);
        let offset = arena.file_offset();
        self.memory.map_file(arena.iova(), size, file()?, offset, Access::READ_WRITE)?;
        lock(&self.table).mapped(arena, file()?);
        Ok(())
    }

    /// Unmaps an arena. Returns false if that is impossible.
    pub fn unmap(&mut self, arena: &Arena) -> bool {
        let works =
            !self.broken.unmap && self.memory.unmap(arena.iova(), arena.size() as u64).is_ok();
        lock(&self.trace).note("unmap", &[u64::from(works)]);
        if works {
            lock(&self.table).unmapped();
        }
        works
    }

    /// Unmaps all memory.
    pub fn unplug_memory(&mut self) {
        self.memory.clear();
        lock(&self.table).unmapped();
    }

    /// Injects a fault of the whole controller.
    pub fn inject(&mut self, fault: DeviceFault) {
        lock(&self.trace).say(|| format!("{fault:?}"));
        self.controller.inject(fault);
        if fault == DeviceFault::Removed {
            lock(&self.table).stopped();
        }
    }

    /// Reinserts a removed controller. One that is present is reset.
    pub fn replug(&mut self) {
        lock(&self.trace).note("replug", &[]);
        self.controller.reinsert();
        self.controller.function_reset();
        lock(&self.table).stopped();
    }

    /// Cuts the power and restores it.
    pub fn power_cut(&mut self, seed: u64) {
        lock(&self.trace).note("power cut", &[seed]);
        self.controller.power_cut(seed);
        lock(&self.table).stopped();
    }

    /// Replaces the faults.
    ///
    /// # Errors
    /// If a rate is invalid.
    pub fn set_faults(&mut self, faults: &Faults) -> Result<(), nvio_emulator::Error> {
        self.controller.set_faults(faults)
    }

    /// Returns the number of injected faults.
    pub fn fault_counts(&self) -> FaultCounts {
        self.controller.fault_counts()
    }

    /// Returns the numbers of doorbell values of queue pair `qid` that the controller has seen; see
    /// [`Controller::doorbell_changes`].
    pub fn doorbell_changes(&self, qid: u16) -> (u64, u64) {
        self.controller.doorbell_changes(qid)
    }

    /// Returns the doorbells as a file of the size of BAR0, and that size.
    pub fn doorbells(&self) -> (BorrowedFd<'_>, u64) {
        let doorbells = self.controller.doorbells();
        (doorbells.file(), doorbells.bar_size())
    }
}
