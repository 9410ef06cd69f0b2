//! Identify data structures that are given as they are (Base 5.17).

use nvio_spec::{IdentifyNamespace, cns, status};

use super::Controller;
use crate::{Error, Result};

impl Controller {
    /// What the controller says of an active namespace (NVM 4.1.5.1), unchecked: also of one whose
    /// format this driver does not support, which [`namespace`](Self::namespace) refuses.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if it is not active; when the command fails.
    pub fn identify_namespace(&self, nsid: u32) -> Result<Box<IdentifyNamespace>> {
        match self.0.identify_as::<IdentifyNamespace>(cns::NAMESPACE, nsid) {
            Err(Error::Command { status, .. }) if status.bare() == status::INVALID_NAMESPACE => {
                Err(Error::NoNamespace { nsid })
            }
            // Zeroes are the answer for one that is not active.
            Ok(identify) if identify.nsze.get() == 0 => Err(Error::NoNamespace { nsid }),
            other => Ok(Box::new(other?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Address;
    use nvio_emulator::{Backing, Emulator, NamespaceConfig};

    #[test]
    fn active_namespaces_are_described_and_others_are_none() {
        let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
        let builder = Emulator::builder().namespace(namespace());
        let emulator = builder.namespace(namespace().nsid(3).block_size(4096)).start().unwrap();
        let address = Address::VfioUser(emulator.socket().to_owned());
        let controller = Controller::open(&address).unwrap();
        for (nsid, blocks) in [(1, 2048), (3, 256)] {
            assert_eq!(controller.identify_namespace(nsid).unwrap().nsze.get(), blocks);
        }
        for nsid in [0, 2, 4, u32::MAX] {
            let refused = controller.identify_namespace(nsid);
            assert!(matches!(refused, Err(Error::NoNamespace { .. })), "{nsid}: {refused:?}");
        }
    }
}
