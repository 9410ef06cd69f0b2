//! Supported features and the scope of commands and features: the log pages that LPA bit 5
//! announces (Base 5.16.1.18, 5.16.1.19).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Scope: bits 31:20 of an entry of [`CommandEffects`](crate::CommandEffects) and of
/// [`FeatureEffects`] (Base figures 211 and 255).
///
/// # Examples
/// ```
/// use nvio_spec::scope;
///
/// assert_eq!(scope::NAMESPACE & scope::MASK, scope::NAMESPACE);
/// ```
pub mod scope {
    /// A namespace.
    pub const NAMESPACE: u32 = 1 << 20;
    /// The controller.
    pub const CONTROLLER: u32 = 1 << 21;
    /// The NVM subsystem.
    pub const SUBSYSTEM: u32 = 1 << 25;
    /// The bits of an entry that hold its scope.
    pub const MASK: u32 = 0xfff << 20;
}

/// Feature Identifiers Supported and Effects, 1024 bytes (Base 5.16.1.18).
///
/// # Examples
/// ```
/// use nvio_spec::{FeatureEffects, feature_id};
/// use zerocopy::FromZeros;
///
/// let mut page = FeatureEffects::new_zeroed();
/// page.feature[usize::from(feature_id::ARBITRATION)].set(FeatureEffects::SUPPORTED);
/// assert_eq!(page.ids().collect::<Vec<_>>(), [feature_id::ARBITRATION]);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FeatureEffects {
    /// By feature identifier: bit 0 supported, bit 1 may change user data, then as in
    /// [`CommandEffects`](crate::CommandEffects).
    pub feature: [U32; 256],
}

const _: () = assert!(size_of::<FeatureEffects>() == 1024);

impl FeatureEffects {
    /// The feature is supported (FSUPP).
    pub const SUPPORTED: u32 = 1;

    /// Returns the identifiers of the supported features, ascending.
    ///
    /// See the [example](Self#examples).
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        let supported = |id: &u8| self.feature[usize::from(*id)].get() & Self::SUPPORTED != 0;
        (0..=u8::MAX).filter(supported)
    }
}

/// NVMe-MI Commands Supported and Effects, 4096 bytes (Base 5.16.1.19).
///
/// See the [example](crate::FeatureEffects#examples).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ManagementEffects {
    /// By opcode of the management interface: bit 0 supported.
    pub command: [U32; 256],
    /// Reserved.
    pub reserved_1024: [u8; 3072],
}

const _: () = assert!(size_of::<ManagementEffects>() == 4096);
