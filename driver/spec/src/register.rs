//! Controller properties, the registers of BAR0 (Base 3.1.3), and doorbells (PCIe 3.1.2).
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use nvio_spec::register::{
//!     Cap, Cc, Cmbloc, Cmbmsc, Cmbsz, Csts, Version, cq_head_doorbell, sq_tail_doorbell,
//! };
//!
//! // Capabilities of an emulated drive.
//! let cap = Cap(0x0040_0020_0f01_07ff | 1 << 37);
//! assert_eq!(cap.max_queue_entries(), 2048);
//! assert!(cap.contiguous_queues_required() && cap.nvm_command_set());
//! assert_eq!((cap.timeout(), cap.doorbell_stride()), (Duration::from_millis(7500), 4));
//! assert_eq!((cap.min_page_shift(), cap.max_page_shift()), (12, 16));
//! assert_eq!(sq_tail_doorbell(0, cap.doorbell_stride()), 0x1000);
//! assert_eq!(cq_head_doorbell(3, cap.doorbell_stride()), 0x101c);
//! assert_eq!(Version::new(1, 4, 0), Version(0x0001_0400));
//!
//! // Enable, shut down, disable.
//! let cc = Cc::enabled(cap.min_page_shift());
//! assert_eq!((cc.en(), cc.css(), cc.page_shift(), cc.shn()), (true, 0, 12, 0));
//! assert_eq!((cc.sqe_shift(), cc.cqe_shift()), (6, 4));
//! assert_eq!((cc.shutdown().shn(), cc.disabled().en()), (1, false));
//! let csts = Csts(Csts::READY);
//! assert!(csts.ready() && !csts.fatal() && !csts.shutdown_complete() && !csts.gone());
//!
//! // A Controller Memory Buffer of 64 KiB, in BAR 2, at address 123 4000h of the controller.
//! let size = Cmbsz::new(16, Cmbsz::SUBMISSION_QUEUES);
//! assert!(cap.controller_memory() || size.submission_queues());
//! assert_eq!((size.unit(), size.bytes()), (Some(4096), Some(64 << 10)));
//! assert_eq!((Cmbloc(2).bar(), Cmbloc(2).offset(size)), (2, Some(0)));
//! let space = Cmbmsc::enabled(0x123_4000);
//! assert_eq!(space.base(), 0x123_4000);
//! ```

use std::time::Duration;

/// Controller Capabilities, 64 bits (Base 3.1.3.1).
pub const CAP: u64 = 0x00;
/// Version (Base 3.1.3.2).
pub const VS: u64 = 0x08;
/// Interrupt Mask Set (Base 3.1.3.3).
pub const INTMS: u64 = 0x0c;
/// Interrupt Mask Clear (Base 3.1.3.4).
pub const INTMC: u64 = 0x10;
/// Controller Configuration (Base 3.1.3.5).
pub const CC: u64 = 0x14;
/// Controller Status (Base 3.1.3.6).
pub const CSTS: u64 = 0x1c;
/// NVM Subsystem Reset (Base 3.1.3.7).
pub const NSSR: u64 = 0x20;
/// Admin Queue Attributes (Base 3.1.3.8).
pub const AQA: u64 = 0x24;
/// Admin Submission Queue Base Address, 64 bits (Base 3.1.3.9).
pub const ASQ: u64 = 0x28;
/// Admin Completion Queue Base Address, 64 bits (Base 3.1.3.10).
pub const ACQ: u64 = 0x30;
/// Controller Memory Buffer Location (Base 3.1.3.11).
pub const CMBLOC: u64 = 0x38;
/// Controller Memory Buffer Size (Base 3.1.3.12).
pub const CMBSZ: u64 = 0x3c;
/// Controller Memory Buffer Memory Space Control, 64 bits (Base 3.1.3.16).
pub const CMBMSC: u64 = 0x50;
/// Controller Memory Buffer Status (Base 3.1.3.17).
pub const CMBSTS: u64 = 0x58;
/// First doorbell: SQ0TDBL (PCIe 3.1.2.1).
pub const DOORBELLS: u64 = 0x1000;

/// Returns the offset in BAR0 of Submission Queue `qid`'s Tail Doorbell (PCIe 3.1.2.1).
///
/// See the [example](crate::register#examples).
pub const fn sq_tail_doorbell(qid: u16, stride: u32) -> u64 {
    DOORBELLS + 2 * qid as u64 * stride as u64
}

/// Returns the offset in BAR0 of Completion Queue `qid`'s Head Doorbell (PCIe 3.1.2.2).
///
/// See the [example](crate::register#examples).
pub const fn cq_head_doorbell(qid: u16, stride: u32) -> u64 {
    DOORBELLS + (2 * qid as u64 + 1) * stride as u64
}

/// Value of every register of a removed device: PCIe completes the read with all ones.
pub const GONE: u32 = 0xffff_ffff;

/// The value of CAP (Base 3.1.3.1, figure 36).
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap(pub u64);

impl Cap {
    /// Returns the largest number of entries of an I/O queue, 2 to 65,536 (MQES). The value of a
    /// device that reports fewer, which is broken, is returned as it is.
    ///
    /// See the [example](crate::register#examples).
    pub const fn max_queue_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// Returns true if I/O queues must be physically contiguous (CQR).
    ///
    /// See the [example](crate::register#examples).
    pub const fn contiguous_queues_required(self) -> bool {
        self.0 >> 16 & 1 != 0
    }

    /// Returns the longest time from a change of CC.EN to the change of CSTS.RDY (TO, in units of
    /// 500 ms).
    ///
    /// See the [example](crate::register#examples).
    pub const fn timeout(self) -> Duration {
        Duration::from_millis((self.0 >> 24 & 0xff) * 500)
    }

    /// Returns the bytes from one doorbell to the next (DSTRD).
    ///
    /// See the [example](crate::register#examples).
    pub const fn doorbell_stride(self) -> u32 {
        4 << (self.0 >> 32 & 0xf)
    }

    /// Returns true if the NVM command set is supported (CSS bit 0).
    ///
    /// See the [example](crate::register#examples).
    pub const fn nvm_command_set(self) -> bool {
        self.0 >> 37 & 1 != 0
    }

    /// Returns the smallest host page size, as a power of two, 12 to 27 (MPSMIN).
    ///
    /// See the [example](crate::register#examples).
    pub const fn min_page_shift(self) -> u32 {
        12 + (self.0 >> 48 & 0xf) as u32
    }

    /// Returns the largest host page size, as a power of two, 12 to 27 (MPSMAX).
    ///
    /// See the [example](crate::register#examples).
    pub const fn max_page_shift(self) -> u32 {
        12 + (self.0 >> 52 & 0xf) as u32
    }

    /// Returns true if CMBMSC can enable a Controller Memory Buffer (CMBS). A controller of NVMe
    /// 1.3 may have a buffer without this bit: then CMBSZ is not 0.
    ///
    /// See the [example](crate::register#examples).
    pub const fn controller_memory(self) -> bool {
        self.0 >> 57 & 1 != 0
    }
}

/// The value of VS (Base 3.1.3.2).
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, derive_more::Display)]
#[display("{}.{}.{}", _0 >> 16, _0 >> 8 & 0xff, _0 & 0xff)]
pub struct Version(pub u32);

impl Version {
    /// Creates version `major.minor.tertiary`.
    ///
    /// See the [example](crate::register#examples).
    pub const fn new(major: u16, minor: u8, tertiary: u8) -> Self {
        Self((major as u32) << 16 | (minor as u32) << 8 | tertiary as u32)
    }
}

/// The value of CC (Base 3.1.3.5, figure 46).
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cc(pub u32);

impl Cc {
    /// Creates the value of an enabled controller: NVM command set, round robin, entry sizes 64 and
    /// 16, host pages of `1 << page_shift` bytes.
    ///
    /// See the [example](crate::register#examples).
    pub const fn enabled(page_shift: u32) -> Self {
        Self(4 << 20 | 6 << 16 | (page_shift - 12) << 7 | 1)
    }

    /// Returns true if the controller is enabled (EN).
    ///
    /// See the [example](crate::register#examples).
    pub const fn en(self) -> bool {
        self.0 & 1 != 0
    }

    /// Clears EN.
    ///
    /// See the [example](crate::register#examples).
    pub const fn disabled(self) -> Self {
        Self(self.0 & !1)
    }

    /// Returns the selected command set (CSS); 0 is NVM.
    ///
    /// See the [example](crate::register#examples).
    pub const fn css(self) -> u32 {
        self.0 >> 4 & 7
    }

    /// Returns the host page size, as a power of two (MPS).
    ///
    /// See the [example](crate::register#examples).
    pub const fn page_shift(self) -> u32 {
        12 + (self.0 >> 7 & 0xf)
    }

    /// Returns the shutdown notification (SHN): 0 none, 1 normal, 2 abrupt.
    ///
    /// See the [example](crate::register#examples).
    pub const fn shn(self) -> u32 {
        self.0 >> 14 & 3
    }

    /// Requests a normal shutdown (SHN is 1).
    ///
    /// See the [example](crate::register#examples).
    pub const fn shutdown(self) -> Self {
        Self(self.0 & !(3 << 14) | 1 << 14)
    }

    /// Returns the size of a submission queue entry, as a power of two (IOSQES).
    ///
    /// See the [example](crate::register#examples).
    pub const fn sqe_shift(self) -> u32 {
        self.0 >> 16 & 0xf
    }

    /// Returns the size of a completion queue entry, as a power of two (IOCQES).
    ///
    /// See the [example](crate::register#examples).
    pub const fn cqe_shift(self) -> u32 {
        self.0 >> 20 & 0xf
    }
}

/// The value of CSTS (Base 3.1.3.6, figure 47).
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csts(pub u32);

impl Csts {
    /// RDY.
    ///
    /// See the [example](crate::register#examples).
    pub const READY: u32 = 1;
    /// CFS.
    ///
    /// See the [example](crate::register#examples).
    pub const FATAL: u32 = 1 << 1;
    /// SHST: shutdown processing complete.
    ///
    /// See the [example](crate::register#examples).
    pub const SHUTDOWN_COMPLETE: u32 = 2 << 2;

    /// Returns true if the controller is ready (RDY).
    ///
    /// See the [example](crate::register#examples).
    pub const fn ready(self) -> bool {
        self.0 & Self::READY != 0
    }

    /// Returns true if the controller has failed (CFS).
    ///
    /// See the [example](crate::register#examples).
    pub const fn fatal(self) -> bool {
        self.0 & Self::FATAL != 0
    }

    /// Returns true if shutdown processing is complete (SHST is 2).
    ///
    /// See the [example](crate::register#examples).
    pub const fn shutdown_complete(self) -> bool {
        self.0 >> 2 & 3 == 2
    }

    /// Returns true if the device was removed: the register reads as all ones.
    ///
    /// See the [example](crate::register#examples).
    pub const fn gone(self) -> bool {
        self.0 == GONE
    }
}

/// The value of CMBLOC: place of the Controller Memory Buffer (Base 3.1.3.11, figure 52).
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cmbloc(pub u32);

impl Cmbloc {
    /// Returns the BAR of the buffer (BIR): 0, or 2 to 5; the lower half of a 64-bit BAR.
    ///
    /// See the [example](crate::register#examples).
    pub const fn bar(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Returns the offset of the buffer in its BAR in bytes (OFST, in units of SZU of `size`).
    /// `None` if the unit is a reserved value.
    ///
    /// See the [example](crate::register#examples).
    pub const fn offset(self, size: Cmbsz) -> Option<u64> {
        match size.unit() {
            // 20 bits times at most 64 GiB.
            Some(unit) => Some((self.0 >> 12) as u64 * unit),
            None => None,
        }
    }
}

/// The value of CMBSZ: size and uses of the Controller Memory Buffer (Base 3.1.3.12, figure 53). 0
/// is no buffer.
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cmbsz(pub u32);

impl Cmbsz {
    /// Submission queues (SQS).
    ///
    /// See the [example](crate::register#examples).
    pub const SUBMISSION_QUEUES: u32 = 1;
    /// Completion queues (CQS).
    ///
    /// See the [example](crate::register#examples).
    pub const COMPLETION_QUEUES: u32 = 1 << 1;
    /// PRP lists and SGLs (LISTS).
    ///
    /// See the [example](crate::register#examples).
    pub const LISTS: u32 = 1 << 2;
    /// Data that the controller sends (RDS).
    ///
    /// See the [example](crate::register#examples).
    pub const READ_DATA: u32 = 1 << 3;
    /// Data that the controller receives (WDS).
    ///
    /// See the [example](crate::register#examples).
    pub const WRITE_DATA: u32 = 1 << 4;

    /// Creates the value of a buffer of `pages` pages of 4 KiB, up to 1,048,575. `uses` is a sum of
    /// the constants above.
    ///
    /// See the [example](crate::register#examples).
    pub const fn new(pages: u32, uses: u32) -> Self {
        Self(pages << 12 | uses & 0x1f)
    }

    /// Returns true if the buffer can hold submission queues (SQS).
    ///
    /// See the [example](crate::register#examples).
    pub const fn submission_queues(self) -> bool {
        self.0 & Self::SUBMISSION_QUEUES != 0
    }

    /// Returns the unit of size and offset in bytes (SZU), 4 KiB to 64 GiB; `None` for reserved
    /// values.
    ///
    /// See the [example](crate::register#examples).
    pub const fn unit(self) -> Option<u64> {
        match self.0 >> 8 & 0xf {
            unit @ 0..=6 => Some(4096 << (4 * unit)),
            _ => None,
        }
    }

    /// Returns the size in bytes (SZ in units of SZU); `None` if the unit is a reserved value.
    ///
    /// See the [example](crate::register#examples).
    pub const fn bytes(self) -> Option<u64> {
        match self.unit() {
            Some(unit) => Some((self.0 >> 12) as u64 * unit),
            None => None,
        }
    }
}

/// The value of CMBMSC: the addresses with which the host refers to the Controller Memory Buffer
/// (Base 3.1.3.16, figure 57). A Controller Reset does not change it.
///
/// See the [example](crate::register#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cmbmsc(pub u64);

impl Cmbmsc {
    /// CMBLOC and CMBSZ can be read (CRE).
    ///
    /// See the [example](crate::register#examples).
    pub const CAPABILITIES: u64 = 1;
    /// Commands may refer to the buffer (CMSE).
    ///
    /// See the [example](crate::register#examples).
    pub const ENABLE: u64 = 1 << 1;

    /// Creates the value with both bits set and the buffer at `base`, a multiple of 4096 (CBA).
    ///
    /// See the [example](crate::register#examples).
    pub const fn enabled(base: u64) -> Self {
        Self(base & !0xfff | Self::ENABLE | Self::CAPABILITIES)
    }

    /// Returns the address of the buffer's first byte (CBA).
    ///
    /// See the [example](crate::register#examples).
    pub const fn base(self) -> u64 {
        self.0 & !0xfff
    }
}

/// CMBSTS bit 0: the base address in CMBMSC cannot be used (CBAI, Base 3.1.3.17).
pub const CMB_ADDRESS_INVALID: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_decode() {
        // The value of QEMU 7.2: MQES 2047, CQR, TO 15, CSS NVM, MPSMAX 4.
        let cap = Cap(0x0040_0020_0f01_07ff | 1 << 37);
        assert_eq!(cap.max_queue_entries(), 2048);
        assert!(cap.contiguous_queues_required() && cap.nvm_command_set());
        assert_eq!(cap.timeout(), Duration::from_millis(7500));
        assert_eq!(cap.doorbell_stride(), 4);
        assert_eq!((cap.min_page_shift(), cap.max_page_shift()), (12, 16));
    }

    #[test]
    fn controller_memory_is_sized_in_units() {
        // The value of QEMU for 8 MiB in BAR 2: units of 1 MiB.
        let size = Cmbsz(8 << 12 | 2 << 8 | 0x1d);
        assert_eq!((size.bytes(), size.submission_queues()), (Some(8 << 20), true));
        assert_eq!(
            (Cmbloc(3 << 12 | 2).bar(), Cmbloc(3 << 12 | 2).offset(size)),
            (2, Some(3 << 20))
        );
        let largest = Cmbsz(0xffff_f600);
        assert_eq!(largest.bytes(), Some(0xf_ffff << 36));
        assert_eq!((Cmbsz(0x1700).bytes(), Cmbloc(0).offset(Cmbsz(0x1700))), (None, None));
        assert_eq!(Cmbsz::new(16, Cmbsz::SUBMISSION_QUEUES).bytes(), Some(64 << 10));
        assert_eq!(Cmbmsc::enabled(0x1234_5000), Cmbmsc(0x1234_5003));
        assert_eq!(Cmbmsc(0x1234_5003).base(), 0x1234_5000);
        assert!(Cap(1 << 57).controller_memory());
    }

    #[test]
    fn doorbells_follow_the_stride() {
        assert_eq!(sq_tail_doorbell(0, 4), 0x1000);
        assert_eq!(cq_head_doorbell(3, 4), 0x101c);
        assert_eq!(sq_tail_doorbell(65_535, 4 << 15), 0x1000 + 2 * 65_535 * (4 << 15));
    }

    #[test]
    fn configuration_fields_do_not_overlap() {
        let cc = Cc::enabled(16);
        assert_eq!((cc.en(), cc.css(), cc.page_shift(), cc.shn()), (true, 0, 16, 0));
        assert_eq!((cc.sqe_shift(), cc.cqe_shift()), (6, 4));
        assert_eq!(cc.shutdown().shn(), 1);
        assert!(!cc.disabled().en());
    }
}
