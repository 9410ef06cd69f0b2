//! Features: Get Features and Set Features (Base 5.15, 5.27).

use nvio_spec::{Sqe, feature_id};
use zerocopy::little_endian::U32;

use super::Controller;
use super::writable::WritableController;
use crate::admin::Command;
use crate::error::{Error, Result};

/// Most bytes of the data of a feature: LBA Range Type (Base figure 317).
const DATA_BYTES_MAX: usize = 4096;
/// ONCS: the controller accepts SEL in Get Features and SV in Set Features (Base figure 275).
const ONCS_SAVE_SELECT: u16 = 1 << 4;
/// SV in CDW10 of Set Features: the value is saved across resets.
const SAVE: u32 = 1 << 31;

/// Features that [`WritableController::set_feature`] rejects, and why.
const NOT_SET: [(&str, &[u8]); 2] = [
    (
        "the driver depends on its value",
        &[
            feature_id::NUMBER_OF_QUEUES,
            feature_id::ASYNC_EVENT_CONFIGURATION,
            feature_id::KEEP_ALIVE_TIMER,
        ],
    ),
    // LBA Range Type, Autonomous Power State Transition, Host Memory Buffer, Timestamp, Predictable
    // Latency Mode, Host Behavior Support, metadata of controller and namespace, Host Identifier.
    (
        "its value is a data structure",
        &[0x03, 0x0c, 0x0d, 0x0e, 0x13, feature_id::HOST_BEHAVIOR_SUPPORT, 0x7d, 0x7e, 0x7f, 0x81],
    ),
];

/// The value of a feature to be read (Base 5.15, SEL).
///
/// # Examples
/// ```
/// # let disk = nvio_emulator::NamespaceConfig::new(nvio_emulator::Backing::memory(1 << 20));
/// # let emulator = nvio_emulator::Emulator::builder().namespace(disk);
/// # let served =
/// #     nvio_testkit::controller::Served::start(emulator, nvio_testkit::controller::writable());
/// # let controller = &served.controller;
/// use nvio_driver::FeatureValue;
/// use nvio_driver::spec::feature_id::TEMPERATURE_THRESHOLD;
///
/// // The threshold of the composite temperature in kelvins, changed until the next reset.
/// let controller = controller.writable()?;
/// controller.set_feature(TEMPERATURE_THRESHOLD, 0, 350, false)?;
/// let (value, _) = controller.feature(TEMPERATURE_THRESHOLD, 0, FeatureValue::Current, 0)?;
/// assert_eq!(value, 350);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureValue {
    /// The current value.
    Current,
    /// The value that the manufacturer has set.
    Default,
    /// The value that is restored by a reset.
    Saved,
    /// Capabilities: bit 0 saveable, bit 1 specific to namespaces, bit 2 changeable.
    Supported,
}

impl Controller {
    /// Reads a feature (Base 5.15), and returns DW0 of the completion, and 4096 bytes of data: zeroes
    /// after the data structure of the feature, or for one without. `nsid` is 0 for a feature of the
    /// controller; `cdw11` selects a part of some features, such as an interrupt vector.
    ///
    /// See the [example](FeatureValue#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other values than the current one, if the controller has no others;
    /// [`Error::Command`] if the controller does not have the feature.
    pub fn feature(
        &self,
        id: u8,
        nsid: u32,
        value: FeatureValue,
        cdw11: u32,
    ) -> Result<(u32, Box<[u8]>)> {
        let select = match value {
            FeatureValue::Current => 0,
            FeatureValue::Default => 1,
            FeatureValue::Saved => 2,
            FeatureValue::Supported => 3,
        };
        if select != 0 {
            self.require_save_select()?;
        }
        let sqe = Sqe {
            nsid: U32::new(nsid),
            cdw10: U32::new(u32::from(id) | select << 8),
            cdw11: U32::new(cdw11),
            ..Sqe::get_features(id)
        };
        // A feature with data is written to the buffer. Others leave it as it is.
        let mut buf = self.alloc(DATA_BYTES_MAX)?;
        buf.fill(0);
        let answer = self.0.execute(Command::new("Get Features", sqe).with(buf))?;
        Ok((answer.dw0, answer.buf.to_vec().into()))
    }

    fn require_save_select(&self) -> Result<()> {
        match self.identify().oncs.get() {
            oncs if oncs & ONCS_SAVE_SELECT != 0 => Ok(()),
            oncs => {
                let detail = format!("the controller's ONCS is {oncs:#06x}");
                Err(Error::unsupported("default and saved values of features", detail))
            }
        }
    }
}

impl WritableController {
    /// Sets a feature whose value is CDW11 (Base 5.27), and returns DW0 of the completion. `nsid` is 0
    /// for a feature of the controller. With `save`, the value is kept across resets.
    ///
    /// See the [example](FeatureValue#examples).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a feature that the driver depends on or whose value is a data
    /// structure, and for `save` if the controller saves no feature; [`Error::Command`] if the
    /// controller rejects the value.
    pub fn set_feature(&self, id: u8, nsid: u32, cdw11: u32, save: bool) -> Result<u32> {
        if let Some((reason, _)) = NOT_SET.iter().find(|(_, ids)| ids.contains(&id)) {
            let detail = format!("{reason}: feature {id:#04x}");
            return Err(Error::unsupported("setting the feature", detail));
        }
        if save {
            self.require_save_select()?;
        }
        let mut sqe = Sqe { nsid: U32::new(nsid), ..Sqe::set_features(id, cdw11) };
        if save {
            sqe.cdw10 = U32::new(sqe.cdw10.get() | SAVE);
        }
        Ok(self.0.0.execute(Command::new("Set Features", sqe))?.dw0)
    }
}
