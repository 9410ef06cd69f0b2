//! Management of namespaces: Format NVM (Base 5.14), Namespace Management (Base 5.23) and Namespace
//! Attachment (Base 5.22).
//!
//! See the [example](FormatSettings#examples).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::opcode::admin;
use crate::protection::{ProtectionType, dps};
use crate::{IDENTIFY_SIZE, Sqe};

/// Optional Admin Command Support: bits of OACS in Identify Controller (Base 5.17.2.1).
///
/// See the [example](crate::namespace::FormatSettings#examples).
pub mod oacs {
    /// Format NVM.
    pub const FORMAT_NVM: u16 = 1 << 1;
    /// Namespace Management and Namespace Attachment.
    pub const NAMESPACE_MANAGEMENT: u16 = 1 << 3;
    /// Doorbell Buffer Config.
    pub const DOORBELL_BUFFER_CONFIG: u16 = 1 << 8;
}

/// Namespace Attribute Notices: the bit of OAES in Identify Controller, and of Asynchronous Event
/// Configuration (Base 5.17.2.1, 5.27.1.9).
///
/// See the [example](crate::Sqe#examples).
pub const NAMESPACE_ATTRIBUTE_NOTICES: u32 = 1 << 8;

/// Asynchronous event information of type Notice: bits 15:8 of DW0 (Base 5.2.1, figure 148).
///
/// See the [example](crate::EventType#examples).
pub mod notice_event {
    /// Namespaces were attached, detached or changed; the Changed Namespace List has their
    /// identifiers.
    pub const NAMESPACE_ATTRIBUTE_CHANGED: u8 = 0x00;
}

/// Secure Erase Settings: SES (Base 5.14, figure 189).
///
/// See the [example](crate::namespace::FormatSettings#examples).
pub mod erase {
    /// No secure erase.
    pub const NONE: u8 = 0;
    /// All user data is erased.
    pub const USER_DATA: u8 = 1;
    /// All user data is erased cryptographically: the key is deleted.
    pub const CRYPTOGRAPHIC: u8 = 2;
}

/// Format of a namespace: CDW10 of Format NVM (Base 5.14, NVM 4.1.2), and FLBAS and DPS of a
/// namespace to be created.
///
/// # Examples
/// ```
/// use nvio_spec::namespace::{FormatSettings, erase};
///
/// let erase = erase::USER_DATA;
/// let settings = FormatSettings { index: 1, erase, ..FormatSettings::default() };
/// assert_eq!(settings.to_dword(), 0x201);
/// assert_eq!(FormatSettings::from_dword(0x201), settings);
/// assert_eq!(settings.protection_type(), None);
/// // The format of an existing namespace.
/// assert_eq!(FormatSettings::from_namespace(1, 0).index, 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatSettings {
    /// Index of the LBA format, 0 to 63 (LBAFL, LBAFU).
    pub index: u8,
    /// Metadata is transferred at the end of each block (MSET).
    pub extended: bool,
    /// Type of protection, 0 (none) to 3; others are reserved (PI).
    pub protection: u8,
    /// Protection information is the first bytes of the metadata (PIL).
    pub first: bool,
    /// One of [`erase`] (SES).
    pub erase: u8,
}

impl FormatSettings {
    /// Encodes the settings to CDW10.
    ///
    /// See the [example](Self#examples).
    pub fn to_dword(self) -> u32 {
        let Self { index, extended, protection, first, erase } = self;
        u32::from(index & 0xf)
            | u32::from(extended) << 4
            | u32::from(protection & 7) << 5
            | u32::from(first) << 8
            | u32::from(erase & 7) << 9
            | u32::from(index >> 4 & 3) << 12
    }

    /// Decodes CDW10.
    ///
    /// See the [example](Self#examples).
    pub fn from_dword(dword: u32) -> Self {
        let [low, high, ..] = dword.to_le_bytes();
        Self {
            index: low & 0xf | (high >> 4 & 3) << 4,
            extended: low >> 4 & 1 != 0,
            protection: low >> 5,
            first: high & 1 != 0,
            erase: high >> 1 & 7,
        }
    }

    /// Decodes FLBAS and DPS, the fields of Namespace Management.
    ///
    /// See the [example](Self#examples).
    pub fn from_namespace(flbas: u8, dps: u8) -> Self {
        Self {
            index: flbas & 0xf | (flbas >> 5 & 3) << 4,
            extended: flbas >> 4 & 1 != 0,
            protection: dps & dps::TYPE,
            first: dps & dps::FIRST != 0,
            erase: erase::NONE,
        }
    }

    /// Returns the type of protection; `None` for no protection and for reserved values.
    ///
    /// See the [example](Self#examples).
    pub fn protection_type(self) -> Option<ProtectionType> {
        ProtectionType::new(self.protection)
    }
}

/// Selection of Namespace Management: CDW10 bits 3:0 (Base 5.23, figure 244).
///
/// See the [example](crate::Sqe#examples).
pub mod manage {
    /// Create a namespace.
    pub const CREATE: u32 = 0;
    /// Delete a namespace, or all.
    pub const DELETE: u32 = 1;
}

/// Selection of Namespace Attachment: CDW10 bits 3:0 (Base 5.22, figure 241).
///
/// See the [example](crate::Sqe#examples).
pub mod attach {
    /// Attach controllers.
    pub const ATTACH: u32 = 0;
    /// Detach controllers.
    pub const DETACH: u32 = 1;
}

/// A list of controller identifiers, ascending, 4096 bytes (Base 4.4.1, figure 137).
///
/// # Examples
/// ```
/// use nvio_spec::namespace::ControllerList;
///
/// let list = ControllerList::new(&[1, 4]);
/// assert_eq!(list.ids().map(Iterator::collect), Some(vec![1, 4]));
/// ```
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControllerList {
    /// Number of identifiers.
    pub count: U16,
    /// The identifiers.
    pub ids: [U16; 2047],
}

const _: () = assert!(size_of::<ControllerList>() == IDENTIFY_SIZE);

impl ControllerList {
    /// Creates a list of these identifiers. Identifiers beyond 2047 are dropped.
    ///
    /// See the [example](Self#examples).
    pub fn new(ids: &[u16]) -> Self {
        let mut list = Self::new_zeroed();
        for (to, &from) in list.ids.iter_mut().zip(ids) {
            *to = U16::new(from);
            list.count = U16::new(list.count.get() + 1);
        }
        list
    }

    /// Returns the identifiers; `None` if the count exceeds the list.
    ///
    /// See the [example](Self#examples).
    pub fn ids(&self) -> Option<impl Iterator<Item = u16> + '_> {
        let ids = self.ids.get(..usize::from(self.count.get()))?;
        Some(ids.iter().map(|id| id.get()))
    }
}

impl Sqe {
    /// Creates a Format NVM command (Base 5.14) for one namespace, or for all with
    /// [`crate::NSID_ALL`]. It destroys their data.
    ///
    /// See the [example](Self#examples).
    pub fn format_nvm(nsid: u32, settings: FormatSettings) -> Self {
        Self { cdw10: U32::new(settings.to_dword()), ..Self::new(admin::FORMAT_NVM, nsid) }
    }

    /// Creates a Namespace Management command that creates a namespace (Base 5.23). Its data is
    /// NSZE, NCAP, FLBAS, DPS and NMIC of an [`crate::IdentifyNamespace`]. DW0 of the completion is
    /// the identifier.
    ///
    /// See the [example](Self#examples).
    pub fn create_namespace() -> Self {
        Self { cdw10: U32::new(manage::CREATE), ..Self::new(admin::NAMESPACE_MANAGEMENT, 0) }
    }

    /// Creates a Namespace Management command that deletes one namespace, or all with
    /// [`crate::NSID_ALL`] (Base 5.23).
    ///
    /// See the [example](Self#examples).
    pub fn delete_namespace(nsid: u32) -> Self {
        Self { cdw10: U32::new(manage::DELETE), ..Self::new(admin::NAMESPACE_MANAGEMENT, nsid) }
    }

    /// Creates a Namespace Attachment command that attaches the controllers of a
    /// [`ControllerList`] (Base 5.22).
    ///
    /// See the [example](Self#examples).
    pub fn attach_namespace(nsid: u32) -> Self {
        Self { cdw10: U32::new(attach::ATTACH), ..Self::new(admin::NAMESPACE_ATTACHMENT, nsid) }
    }

    /// Creates a Namespace Attachment command that detaches the controllers of a
    /// [`ControllerList`] (Base 5.22).
    ///
    /// See the [example](Self#examples).
    pub fn detach_namespace(nsid: u32) -> Self {
        Self { cdw10: U32::new(attach::DETACH), ..Self::new(admin::NAMESPACE_ATTACHMENT, nsid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_settings_are_where_the_specification_has_them() {
        let settings =
            FormatSettings { index: 0x25, extended: true, protection: 3, first: true, erase: 1 };
        assert_eq!(settings.to_dword(), 5 | 1 << 4 | 3 << 5 | 1 << 8 | 1 << 9 | 2 << 12);
        assert_eq!(FormatSettings::from_dword(settings.to_dword()), settings);
        let all = FormatSettings::from_dword(u32::MAX);
        assert_eq!((all.index, all.protection, all.erase), (63, 7, 7));
        assert_eq!(all.protection_type(), None);
        let of_namespace = FormatSettings::from_namespace(0b0101_0101, 0b1011);
        assert_eq!(of_namespace, FormatSettings { erase: 0, ..settings });
        assert_eq!(of_namespace.protection_type(), Some(ProtectionType::THREE));
    }

    #[test]
    fn controller_lists_hold_no_more_than_fits() {
        let list = ControllerList::new(&[1, 5]);
        assert_eq!(list.as_bytes()[..6], [2, 0, 1, 0, 5, 0]);
        assert_eq!(list.ids().map(Iterator::collect), Some(vec![1, 5]));
        let mut long = ControllerList::new(&[7; 3000]);
        assert_eq!(long.count.get(), 2047);
        long.count = U16::new(2048);
        assert!(long.ids().is_none());
    }

    #[test]
    fn commands_select_what_they_do() {
        assert_eq!(Sqe::create_namespace().cdw10.get(), 0);
        assert_eq!(
            (Sqe::delete_namespace(3).cdw10.get(), Sqe::delete_namespace(3).opcode),
            (1, 0x0d)
        );
        assert_eq!(
            (Sqe::attach_namespace(3).cdw10.get(), Sqe::attach_namespace(3).opcode),
            (0, 0x15)
        );
        assert_eq!(Sqe::detach_namespace(3).cdw10.get(), 1);
        let format = FormatSettings { index: 2, ..FormatSettings::default() };
        assert_eq!(
            (Sqe::format_nvm(9, format).opcode, Sqe::format_nvm(9, format).cdw10.get()),
            (0x80, 2)
        );
    }
}
