//! The controller's side: a stepped controller, its view of memory, and the clock of both sides.
//!
//! The controller works whenever time passes: while the driver looks at the clock, waits or
//! accesses a register, as much as the seed says, and when the run lets it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::Arena;
use nvio_driver::spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cc, Csts, GONE};
use nvio_emulator::{Access, ClientMemory, Config, Controller, DeviceFault, FaultCounts, Faults};

use super::lend::Table;
use super::lock;
use super::trace::Trace;
use nvio_testkit::random::Rng;

/// How long a register access takes.
const REGISTER_ACCESS: Duration = Duration::from_micros(1);
/// How long it takes to look at the clock, with what a driver does between two looks.
const LOOK: Duration = Duration::from_micros(10);
/// Commands that the controller takes while the driver accesses a register, at most.
const MOST_MEANWHILE: u64 = 8;

/// How the way to the controller fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The function cannot be reset.
    pub reset: bool,
    /// Memory cannot be unmapped.
    pub unmap: bool,
}

/// The controller with its surroundings.
pub struct Machine {
    controller: Controller,
    memory: ClientMemory,
    rng: Rng,
    /// What is lent.
    pub table: Arc<Mutex<Table>>,
    /// What has happened.
    pub trace: Arc<Mutex<Trace>>,
    /// What fails on the way to it.
    pub broken: Broken,
    /// Where the arena is to be, or after that.
    pub iova: u64,
}

impl Machine {
    /// A machine with a controller at power on; `seed` decides when the controller works.
    ///
    /// # Errors
    /// For settings that are not allowed.
    pub fn new(
        config: &Config,
        seed: u64,
        iova: u64,
        print: bool,
    ) -> Result<Self, nvio_emulator::Error> {
        let trace = Arc::new(Mutex::new(Trace::new(print)));
        let table = Arc::new(Mutex::new(Table::new(Arc::clone(&trace))));
        let mut memory = ClientMemory::new();
        let observer = Arc::clone(&table);
        memory.observe(move |dma| lock(&observer).access(dma));
        let controller = Controller::new(config)?;
        let (rng, broken) = (Rng::new(seed), Broken::default());
        Ok(Self { controller, memory, rng, table, trace, broken, iova })
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.controller.now()
    }

    /// Lets time pass, and the controller handle up to `budget` commands and completions.
    pub fn pass(&mut self, time: Duration, budget: usize) {
        let now = self.controller.now() + time;
        self.controller.advance_to(now);
        lock(&self.trace).now = now;
        self.controller.process(&self.memory, budget);
    }

    /// Time passes while the driver does something.
    fn meanwhile(&mut self, time: Duration) {
        let budget = self.rng.range(0, MOST_MEANWHILE + 1);
        self.pass(time, usize::try_from(budget).unwrap_or(0));
    }

    /// The driver looks at the clock.
    pub fn look(&mut self) -> Duration {
        self.meanwhile(LOOK);
        self.now()
    }

    /// The driver waits.
    pub fn wait(&mut self, time: Duration) {
        self.pass(time, usize::MAX);
    }

    /// The driver reads a register.
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

    /// The driver writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.meanwhile(REGISTER_ACCESS);
        // Addresses are not the same in all runs of a seed.
        let shown = if (ASQ..ACQ + 8).contains(&offset) { 0 } else { value };
        lock(&self.trace).note("write register", &[offset, shown.into()]);
        let before = self.controller.read_register(CC);
        if offset == CC && before != GONE && Cc(value).en() && !Cc(before).en() {
            if Csts(self.controller.read_register(CSTS)).ready() {
                // Base 3.1.3.5: not before the last change of EN has been worked on.
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

    /// A reset of the function by the driver; `false` if that cannot be done.
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

    /// A place for an arena: the first that is free from the preferred one on. Which that is
    /// depends on other runs of the process, and nothing else depends on it.
    pub fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> u64 {
        used.iter().fold(self.iova, |start, taken| {
            let overlaps = taken.start < start + bytes && start < taken.end;
            if overlaps { taken.end.next_multiple_of(2 << 20) } else { start }
        })
    }

    /// Maps an arena for the controller.
    ///
    /// # Errors
    /// As [`ClientMemory::map_file`].
    pub fn map(&mut self, arena: &Arena) -> io::Result<()> {
        let file = || arena.as_fd().try_clone_to_owned().map(File::from);
        let size = arena.size() as u64;
        lock(&self.trace).note("map", &[size]);
        let offset = arena.file_offset();
        self.memory.map_file(arena.iova(), size, file()?, offset, Access::READ_WRITE)?;
        lock(&self.table).mapped(arena, file()?);
        Ok(())
    }

    /// Ends the mapping of an arena; `false` if that cannot be done.
    pub fn unmap(&mut self, arena: &Arena) -> bool {
        let works =
            !self.broken.unmap && self.memory.unmap(arena.iova(), arena.size() as u64).is_ok();
        lock(&self.trace).note("unmap", &[u64::from(works)]);
        if works {
            lock(&self.table).unmapped();
        }
        works
    }

    /// Whatever is mapped is not any more.
    pub fn unplug_memory(&mut self) {
        self.memory.clear();
        lock(&self.table).unmapped();
    }

    /// Something happens to the controller.
    pub fn inject(&mut self, fault: DeviceFault) {
        lock(&self.trace).say(|| format!("{fault:?}"));
        self.controller.inject(fault);
        if fault == DeviceFault::Removed {
            lock(&self.table).stopped();
        }
    }

    /// A controller that was removed is put back; one that is there is reset all the same.
    pub fn replug(&mut self) {
        lock(&self.trace).note("replug", &[]);
        self.controller.reinsert();
        self.controller.function_reset();
        lock(&self.table).stopped();
    }

    /// The power goes off and on.
    pub fn power_cut(&mut self, seed: u64) {
        lock(&self.trace).note("power cut", &[seed]);
        self.controller.power_cut(seed);
        lock(&self.table).stopped();
    }

    /// Other faults from now on.
    ///
    /// # Errors
    /// For a rate that is not one.
    pub fn set_faults(&mut self, faults: &Faults) -> Result<(), nvio_emulator::Error> {
        self.controller.set_faults(faults)
    }

    /// How often faults have happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.controller.fault_counts()
    }

    /// The doorbells, as a file of the size of BAR0, and that size.
    pub fn doorbells(&self) -> (BorrowedFd<'_>, u64) {
        let doorbells = self.controller.doorbells();
        (doorbells.file(), doorbells.bar_size())
    }
}
