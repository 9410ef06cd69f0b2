//! The controller's registers: the first page of BAR0 (Base 3.1.3).

use std::sync::atomic::{AtomicU32, Ordering};

use nvio_spec::register::{self, Cap, Cc, Csts, Version};

use crate::config::Config;
use crate::config::quirk::Quirk;
use crate::controller::controller_memory::ControllerMemory;

/// The version of the specification whose mandatory features are supported.
pub(crate) const VERSION: Version = Version::new(1, 4, 0);
/// CAP.TO, in units of 500 ms. A change of CC takes effect at once; the time covers a machine so
/// loaded that the server's thread does not run.
const TIMEOUT: u64 = 20;
/// Reads that return all ones after a reset, with [`Quirk::OnesAfterReset`].
const ONES: u32 = 40;
/// Writable bits of CC: all defined bits except CRIME.
const CC_WRITABLE: u32 = 0x00ff_fff1;
/// Fields of CC that may change only while the controller is disabled: CSS, MPS and AMS.
const CC_HELD: u32 = 0x0000_3ff0;
/// Writable bits of AQA: ACQS and ASQS.
const AQA_WRITABLE: u32 = 0x0fff_0fff;
/// Mask of admin queue addresses, which are aligned to 4 KiB.
const QUEUE_BASE_LOW: u32 = 0xffff_f000;

/// The transition that a register write requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// No transition.
    None,
    /// CC.EN went from 0 to 1.
    Enable,
    /// CC.EN went from 1 to 0.
    Reset,
    /// CC.SHN requested a shutdown.
    Shutdown,
    /// The addresses of the Controller Memory Buffer may have changed.
    ControllerMemory,
}

/// The register file.
#[derive(Debug)]
pub(crate) struct Registers {
    cap: Cap,
    cc: u32,
    csts: u32,
    interrupt_mask: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    /// The device is removed.
    removed: bool,
    version: Version,
    /// Reads that return all ones after each reset by CC.EN.
    ones: u32,
    /// Reads left that return all ones.
    ones_left: AtomicU32,
    /// The Controller Memory Buffer, with its registers.
    pub(crate) buffer: Option<ControllerMemory>,
}

impl Registers {
    pub(crate) fn new(config: &Config, buffer: Option<ControllerMemory>) -> Self {
        let announced = buffer.as_ref().is_some_and(ControllerMemory::is_announced);
        let pages = |bytes: u32| u64::from(bytes.trailing_zeros() - 12);
        let cap = u64::from(config.max_queue_entries - 1)
            // CQR: I/O queues are physically contiguous.
            | 1 << 16
            | if config.has_quirk(Quirk::ShortTimeout) { 0 } else { TIMEOUT << 24 }
            | u64::from(config.doorbell_stride.trailing_zeros() - 2) << 32
            // CSS: the NVM command set.
            | 1 << 37
            | pages(config.min_page_size) << 48
            | pages(config.max_page_size) << 52
            // CMBS.
            | u64::from(announced) << 57;
        let is_old = config.has_quirk(Quirk::Version10);
        let version = if is_old { Version::new(1, 0, 0) } else { VERSION };
        let ones = if config.has_quirk(Quirk::OnesAfterReset) { ONES } else { 0 };
        Self::power_on((Cap(cap), version, ones), buffer)
    }

    fn power_on(
        (cap, version, ones): (Cap, Version, u32),
        buffer: Option<ControllerMemory>,
    ) -> Self {
        let (cc, csts, interrupt_mask, aqa, asq, acq) = (0, 0, 0, 0, 0, 0);
        let (removed, ones_left) = (false, AtomicU32::new(0));
        Self {
            cap,
            cc,
            csts,
            interrupt_mask,
            aqa,
            asq,
            acq,
            removed,
            version,
            ones,
            ones_left,
            buffer,
        }
    }

    /// Reads the 32 bits at an offset. Reserved and unsupported registers read as 0.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        let low = |value: u64| (value & 0xffff_ffff) as u32;
        let high = |value: u64| (value >> 32) as u32;
        let less = |left: u32| left.checked_sub(1);
        let (order, left) = (Ordering::Relaxed, &self.ones_left);
        if self.removed || self.ones != 0 && left.fetch_update(order, order, less).is_ok() {
            return register::GONE;
        }
        match offset {
            register::CAP => low(self.cap.0),
            0x04 => high(self.cap.0),
            register::VS => self.version.0,
            register::INTMS | register::INTMC => self.interrupt_mask,
            register::CC => self.cc,
            register::CSTS => self.csts,
            register::AQA => self.aqa,
            register::ASQ => low(self.asq),
            0x2c => high(self.asq),
            register::ACQ => low(self.acq),
            0x34 => high(self.acq),
            _ => self.buffer.as_ref().map_or(0, |buffer| buffer.read(offset)),
        }
    }

    /// Writes 32 bits. Read-only, reserved and unsupported bits do not change.
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> Transition {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & QUEUE_BASE_LOW);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            _ if self.removed => {}
            register::INTMS => self.interrupt_mask |= value,
            register::INTMC => self.interrupt_mask &= !value,
            register::CC => return self.write_cc(value & CC_WRITABLE),
            register::CMBMSC..register::CMBSTS => {
                if let Some(buffer) = &mut self.buffer {
                    buffer.write(offset, value);
                    return Transition::ControllerMemory;
                }
            }
            // The admin queue registers change only while the controller is disabled. At other
            // times a write has no effect.
            _ if Cc(self.cc).en() => {}
            register::AQA => self.aqa = value & AQA_WRITABLE,
            register::ASQ => self.asq = low(self.asq),
            0x2c => self.asq = high(self.asq),
            register::ACQ => self.acq = low(self.acq),
            0x34 => self.acq = high(self.acq),
            _ => {}
        }
        Transition::None
    }

    fn write_cc(&mut self, value: u32) -> Transition {
        let old = Cc(self.cc);
        // These fields keep their value until the controller is disabled.
        let held = if old.en() && value & 1 != 0 { CC_HELD } else { 0 };
        self.cc = value & !held | self.cc & held;
        let new = Cc(self.cc);
        match (old.en(), new.en()) {
            (false, true) => Transition::Enable,
            (true, false) => Transition::Reset,
            _ if new.shn() != 0 && new.shn() != old.shn() => Transition::Shutdown,
            _ => Transition::None,
        }
    }

    /// Returns the reason why the controller cannot be enabled, if there is one (Base 3.5.1).
    pub(crate) fn refuse_enable(&self) -> Option<&'static str> {
        let cc = Cc(self.cc);
        let page_mask = (1u64 << cc.page_shift()) - 1;
        let pages = self.cap.min_page_shift()..=self.cap.max_page_shift();
        if cc.css() != 0 {
            Some("CC.CSS selects a command set that is not supported")
        } else if cc.0 >> 11 & 7 != 0 {
            Some("CC.AMS selects an arbitration that is not supported")
        } else if !pages.contains(&cc.page_shift()) {
            Some("CC.MPS is outside of CAP.MPSMIN and CAP.MPSMAX")
        } else if !matches!(cc.sqe_shift(), 0 | 6) || !matches!(cc.cqe_shift(), 0 | 4) {
            // Zero is for a host that first reads the sizes from Identify.
            Some("CC.IOSQES or CC.IOCQES is not the size of an entry")
        } else if self.admin_sq().1 < 2 || self.admin_cq().1 < 2 {
            Some("AQA gives an admin queue less than two entries")
        } else if (self.asq | self.acq) & page_mask != 0 {
            Some("ASQ or ACQ is not aligned to the host page")
        } else {
            None
        }
    }

    /// Returns base address and entries of the admin submission queue.
    pub(crate) fn admin_sq(&self) -> (u64, u32) {
        (self.asq, (self.aqa & 0xfff) + 1)
    }

    /// Returns base address and entries of the admin completion queue.
    pub(crate) fn admin_cq(&self) -> (u64, u32) {
        (self.acq, (self.aqa >> 16 & 0xfff) + 1)
    }

    pub(crate) fn cap(&self) -> Cap {
        self.cap
    }

    pub(crate) fn cc(&self) -> Cc {
        Cc(self.cc)
    }

    pub(crate) fn interrupt_mask(&self) -> u32 {
        self.interrupt_mask
    }

    /// Returns true if commands are processed: the controller is ready, not failed, not shut down.
    #[inline]
    pub(crate) fn running(&self) -> bool {
        self.csts == Csts::READY
    }

    /// Sets RDY and clears every other bit of CSTS.
    pub(crate) fn set_ready(&mut self) {
        self.csts = Csts::READY;
    }

    /// Sets CFS, which only a reset clears.
    pub(crate) fn set_fatal(&mut self) {
        self.csts |= Csts::FATAL;
    }

    /// Removes the device: no command is processed, and every register reads as all ones.
    pub(crate) fn remove(&mut self) {
        self.function_reset();
        self.removed = true;
    }

    pub(crate) fn reinsert(&mut self) {
        self.removed = false;
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(crate) fn set_shutdown_complete(&mut self) {
        self.csts |= Csts::SHUTDOWN_COMPLETE;
    }

    /// Resets the registers for a reset by CC.EN: the admin queue registers, CC and CMBMSC stay.
    pub(crate) fn controller_reset(&mut self) {
        self.csts = 0;
        self.interrupt_mask = 0;
        self.ones_left = AtomicU32::new(self.ones);
    }

    /// Resets the registers for a reset of the function, to the values of power on.
    pub(crate) fn function_reset(&mut self) {
        let mut buffer = self.buffer.take();
        if let Some(buffer) = &mut buffer {
            buffer.reset();
        }
        let constant = (self.cap, self.version, self.ones);
        *self = Self { removed: self.removed, ..Self::power_on(constant, buffer) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_say_what_was_configured() {
        let config = Config::new().max_queue_entries(1024).doorbell_stride(8);
        let registers = Registers::new(&config.page_sizes(8192, 32_768), None);
        let cap = registers.cap();
        assert_eq!(cap.max_queue_entries(), 1024);
        assert_eq!(cap.doorbell_stride(), 8);
        assert_eq!((cap.min_page_shift(), cap.max_page_shift()), (13, 15));
        assert!(cap.contiguous_queues_required() && cap.nvm_command_set());
        assert_eq!(cap.timeout().as_secs(), 10);
    }

    #[test]
    fn admin_queue_registers_hold_while_enabled() {
        let mut registers = Registers::new(&Config::new(), None);
        registers.write(register::AQA, 0xffff_ffff);
        assert_eq!(registers.read(register::AQA), 0x0fff_0fff);
        registers.write(register::ASQ, 0x1234_5678);
        registers.write(register::ASQ + 4, 0x9);
        assert_eq!(registers.admin_sq(), (0x9_1234_5000, 4096));
        assert_eq!(registers.write(register::CC, Cc::enabled(12).0), Transition::Enable);
        registers.write(register::AQA, 0);
        registers.write(register::ACQ, 0x5000);
        assert_eq!((registers.read(register::AQA), registers.admin_cq().0), (0x0fff_0fff, 0));
        assert_eq!(registers.write(register::CC, Cc::enabled(12).0), Transition::None);
        // The page size cannot change while the controller is enabled.
        registers.write(register::CC, Cc::enabled(16).0);
        assert_eq!(registers.cc(), Cc::enabled(12));
        let stop = Cc::enabled(12).shutdown().0;
        assert_eq!(registers.write(register::CC, stop), Transition::Shutdown);
        assert_eq!(registers.write(register::CC, stop), Transition::None);
        assert_eq!(registers.write(register::CC, 0), Transition::Reset);
        registers.controller_reset();
        assert_eq!(registers.read(register::AQA), 0x0fff_0fff);
        registers.function_reset();
        assert_eq!(registers.read(register::AQA), 0);
    }

    #[test]
    fn each_bad_configuration_is_refused() {
        let enabled = |cc: u32, aqa: u32, asq: u32| {
            let mut registers = Registers::new(&Config::new().page_sizes(4096, 16_384), None);
            registers.write(register::AQA, aqa);
            registers.write(register::ASQ, asq);
            registers.write(register::CC, cc);
            registers.refuse_enable()
        };
        let good = Cc::enabled(12).0;
        let aqa = 31 << 16 | 31;
        assert_eq!(enabled(good, aqa, 0x1000), None);
        assert_eq!(enabled(good & !0xff_0000, aqa, 0x1000), None);
        for (cc, aqa, asq) in [
            (good | 1 << 4, aqa, 0x1000),
            (good | 1 << 11, aqa, 0x1000),
            (Cc::enabled(15).0, aqa, 0x8000),
            (Cc::enabled(13).0, aqa, 0x1000),
            (good | 1 << 16, aqa, 0x1000),
            (good | 1 << 20, aqa, 0x1000),
            (good, 31 << 16, 0x1000),
            (good, 31, 0x1000),
        ] {
            assert!(enabled(cc, aqa, asq).is_some(), "{cc:#x} {aqa:#x} {asq:#x}");
        }
    }

    #[test]
    fn the_interrupt_mask_is_set_and_cleared_by_bits() {
        let mut registers = Registers::new(&Config::new(), None);
        registers.write(register::INTMS, 0b1010);
        assert_eq!(registers.write(register::INTMC, 0b0010), Transition::None);
        assert_eq!(registers.read(register::INTMS), 0b1000);
        assert_eq!(registers.read(register::INTMC), 0b1000);
    }
}
