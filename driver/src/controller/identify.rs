//! The Identify command (Base 5.17).

use nvio_spec::register::Version;
use nvio_spec::{IdentifyNamespace, IdentifyNvmNamespace, NamespaceList, cns, status};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Controller;
use super::inner::Inner;
use crate::admin::Command;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::quirks::Quirk;

/// Most identifiers that are looked at one by one, because a controller may report any number.
const SCANNED_MAX: u32 = 1024;
/// Length of the part of Identify Controller that tells controllers apart: PCI vendor, serial number,
/// model and firmware revision (Base figure 275).
const IDENTITY_BYTES: usize = 72;
/// Most namespaces accepted of a controller.
const NAMESPACES_MAX: usize = 1 << 16;

impl Controller {
    /// Returns the Identify Namespace data structure of an active namespace (NVM 4.1.5.1), also if
    /// [`namespace`](Self::namespace) does not support its format.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if the namespace is not active; if the command fails.
    pub fn identify_namespace(&self, nsid: u32) -> Result<Box<IdentifyNamespace>> {
        self.0.identify_namespace(nsid).map(Box::new)
    }
}

impl Inner {
    /// Reads an Identify data structure other than that of the controller.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the controller answers with Identify Controller, as some do for each
    /// CNS that they do not know.
    fn identify_as<D: FromBytes + KnownLayout + Immutable>(&self, cns: u8, nsid: u32) -> Result<D> {
        let answer = self.execute(Command::identify(&self.arena, cns, nsid)?)?;
        let identity = &self.identify.as_bytes()[..IDENTITY_BYTES];
        if answer.buf.starts_with(identity) && identity.iter().any(|&byte| byte != 0) {
            let detail = format!("the controller answers CNS {cns:#04x} with Identify Controller");
            return Err(Error::unsupported("a data structure of Identify", detail));
        }
        answer.decode()
    }

    /// Reads the data structure of an active namespace.
    fn identify_namespace(&self, nsid: u32) -> Result<IdentifyNamespace> {
        match self.identify_as::<IdentifyNamespace>(cns::NAMESPACE, nsid) {
            Err(Error::Command { status, .. }) if status.bare() == status::INVALID_NAMESPACE => {
                Err(Error::NoNamespace { nsid })
            }
            // The structure of an inactive namespace is zeroes.
            Ok(identify) if identify.nsze.get() == 0 => Err(Error::NoNamespace { nsid }),
            other => other,
        }
    }

    /// Returns an active namespace.
    pub(super) fn identify_active(&self, nsid: u32) -> Result<Namespace> {
        let namespace = Namespace::new(nsid, self.identify_namespace(nsid)?, self.max_transfer)?;
        // Only protection information needs the extended formats.
        if namespace.protection_type() == 0 || !self.identify.has_extended_formats() {
            return Ok(namespace);
        }
        let formats: IdentifyNvmNamespace = self.identify_as(cns::COMMAND_SET_NAMESPACE, nsid)?;
        namespace.extended(&formats)
    }

    /// Returns the identifiers of the active namespaces: from the list of them, or by looking at each
    /// identifier, if the controller has no list. NVMe 1.0 has none, and some controllers answer
    /// with other data.
    pub(super) fn active_namespaces(&self) -> Result<Vec<u32>> {
        let has_lists = self.version >= Version::new(1, 1, 0);
        if has_lists && !self.quirks.has(Quirk::IdentifyCns) {
            match self.list_namespaces(cns::ACTIVE_NAMESPACES) {
                Err(error @ (Error::Command { .. } | Error::Unsupported { .. })) => {
                    log::debug!("namespaces are looked for one by one: {error}");
                }
                listed => return listed,
            }
        }
        let number = self.identify.nn.get();
        if number > SCANNED_MAX {
            log::warn!("only {SCANNED_MAX} of {number} possible namespaces are looked for");
        }
        let mut active = Vec::new();
        for nsid in 1..=number.min(SCANNED_MAX) {
            match self.identify_namespace(nsid) {
                Ok(_) => active.push(nsid),
                Err(Error::NoNamespace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(active)
    }

    /// Returns a list of namespace IDs, ascending, read by as many commands as needed.
    pub(super) fn list_namespaces(&self, cns: u8) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let list: NamespaceList = self.identify_as(cns, after)?;
            let before = ids.len();
            for id in list.ids() {
                if id <= ids.last().copied().unwrap_or(0) || ids.len() >= NAMESPACES_MAX {
                    let field = "an ID out of order, or above the limit of IDs,";
                    return Err(Error::invalid("Namespace ID list", field, id));
                }
                ids.push(id);
            }
            // The command accepts no IDs from fffffffeh on (Base 5.17.2.2).
            let is_full = ids.len() - before == list.nsid.len();
            if !is_full || ids.last().is_some_and(|&id| id >= 0xffff_fffe) {
                return Ok(ids);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::served::Served;
    use nvio_emulator::{Backing, Emulator, NamespaceConfig};

    #[test]
    fn only_active_namespaces_are_identified() {
        let namespace = || NamespaceConfig::new(Backing::memory(1 << 20));
        let builder = Emulator::builder().namespace(namespace());
        let builder = builder.namespace(namespace().nsid(3).block_size(4096));
        let Served { controller, emulator: _emulator } = Served::start(builder, Options::default());
        for (nsid, blocks) in [(1, 2048), (3, 256)] {
            assert_eq!(controller.identify_namespace(nsid).unwrap().nsze.get(), blocks);
        }
        for nsid in [0, 2, 4, u32::MAX] {
            let refused = controller.identify_namespace(nsid);
            assert!(matches!(refused, Err(Error::NoNamespace { .. })), "{nsid}: {refused:?}");
        }
    }
}
