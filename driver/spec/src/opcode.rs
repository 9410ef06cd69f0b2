//! Command opcodes.
//!
//! # Examples
//! ```
//! use nvio_spec::{Sqe, opcode};
//!
//! assert_eq!(Sqe::flush(1).opcode, opcode::nvm::FLUSH);
//! assert_eq!(Sqe::abort(1, 2).opcode, opcode::admin::ABORT);
//! ```

/// Admin commands (Base 5, figure 138).
///
/// See the [example](crate::opcode#examples).
pub mod admin {
    /// Delete I/O Submission Queue (Base 5.7).
    pub const DELETE_IO_SQ: u8 = 0x00;
    /// Create I/O Submission Queue (Base 5.5).
    pub const CREATE_IO_SQ: u8 = 0x01;
    /// Get Log Page (Base 5.16).
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Delete I/O Completion Queue (Base 5.6).
    pub const DELETE_IO_CQ: u8 = 0x04;
    /// Create I/O Completion Queue (Base 5.4).
    pub const CREATE_IO_CQ: u8 = 0x05;
    /// Identify (Base 5.17).
    pub const IDENTIFY: u8 = 0x06;
    /// Abort (Base 5.1).
    pub const ABORT: u8 = 0x08;
    /// Set Features (Base 5.27).
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features (Base 5.15).
    pub const GET_FEATURES: u8 = 0x0a;
    /// Asynchronous Event Request (Base 5.2).
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    /// Namespace Management (Base 5.23).
    pub const NAMESPACE_MANAGEMENT: u8 = 0x0d;
    /// Namespace Attachment (Base 5.22).
    pub const NAMESPACE_ATTACHMENT: u8 = 0x15;
    /// Keep Alive (Base 5.18).
    pub const KEEP_ALIVE: u8 = 0x18;
    /// Doorbell Buffer Config (Base 5.8).
    pub const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;
    /// Format NVM (Base 5.14).
    pub const FORMAT_NVM: u8 = 0x80;
}

/// Commands of the NVM command set (NVM 3.2, figure 16; Flush is Base 7.1).
///
/// See the [example](crate::opcode#examples).
pub mod nvm {
    /// Flush (Base 7.1).
    pub const FLUSH: u8 = 0x00;
    /// Write (NVM 3.2.6).
    pub const WRITE: u8 = 0x01;
    /// Read (NVM 3.2.4).
    pub const READ: u8 = 0x02;
    /// Write Uncorrectable (NVM 3.2.7).
    pub const WRITE_UNCORRECTABLE: u8 = 0x04;
    /// Compare (NVM 3.2.1).
    pub const COMPARE: u8 = 0x05;
    /// Write Zeroes (NVM 3.2.8).
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management (NVM 3.2.3).
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    /// Verify (NVM 3.2.5).
    pub const VERIFY: u8 = 0x0c;
    /// Copy (NVM 3.2.2).
    pub const COPY: u8 = 0x19;
}
