//! The data structures of an honest controller.

use nvio_driver::spec::opcode::admin;
use nvio_driver::spec::{
    IdentifyController, IdentifyNamespace, LbaFormat, NamespaceList, QueueCount, Sqe, Status, cns,
    feature_id, status,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// The choices for a controller.
#[derive(Clone, Copy, Debug)]
pub struct Honest {
    pub mdts: u8,
    pub sgl: bool,
    pub shadow: bool,
    pub queues: u16,
    pub blocks: u64,
    pub lbads: u8,
    pub metadata: u16,
    pub extended: bool,
    pub protection: u8,
}

impl Honest {
    pub fn controller(&self) -> IdentifyController {
        let mut identify = IdentifyController::new_zeroed();
        identify.sn = *b"1234                ";
        identify.mn[..4].copy_from_slice(b"nvio");
        identify.mdts = self.mdts;
        identify.oacs = U16::new(if self.shadow { 1 << 8 } else { 0 });
        identify.oaes = U32::new(0x300);
        (identify.aerl, identify.lpa, identify.elpe) = (3, 0x27, 63);
        (identify.sqes, identify.cqes) = (0x66, 0x44);
        identify.nn = U32::new(1);
        identify.oncs = U16::new(0x1ff);
        identify.sgls = U32::new(u32::from(self.sgl));
        identify
    }

    pub fn namespace(&self) -> IdentifyNamespace {
        let mut identify = IdentifyNamespace::new_zeroed();
        (identify.nsze, identify.ncap) = (U64::new(self.blocks), U64::new(self.blocks));
        identify.flbas = u8::from(self.extended) << 4;
        identify.dps = self.protection;
        identify.lbaf[0] = LbaFormat { ms: U16::new(self.metadata), lbads: self.lbads, rp: 0 };
        identify
    }

    /// Executes a command that reads data or features.
    pub fn answer(&self, sqe: &Sqe, data: &mut [u8]) -> (Status, u32) {
        let nsid = sqe.nsid.get();
        match (sqe.opcode, sqe.cdw10.get() as u8) {
            (admin::IDENTIFY, cns::CONTROLLER) => {
                data.copy_from_slice(self.controller().as_bytes());
            }
            (admin::IDENTIFY, cns::NAMESPACE) if nsid == 1 => {
                data.copy_from_slice(self.namespace().as_bytes());
            }
            (admin::IDENTIFY, cns::ACTIVE_NAMESPACES) => {
                let mut list = NamespaceList::new_zeroed();
                list.nsid[0] = U32::new(u32::from(nsid == 0));
                data.copy_from_slice(list.as_bytes());
            }
            (admin::IDENTIFY, _) => return (status::INVALID_NAMESPACE, 0),
            (admin::GET_LOG_PAGE, _) => {}
            (admin::SET_FEATURES, feature_id::NUMBER_OF_QUEUES) => {
                let count = QueueCount { submission: self.queues, completion: self.queues };
                return (Status::SUCCESS, count.to_dword());
            }
            (admin::SET_FEATURES, _) => {}
            _ => return (status::INVALID_OPCODE, 0),
        }
        (Status::SUCCESS, 0)
    }
}
