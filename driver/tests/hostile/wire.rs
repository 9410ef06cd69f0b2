//! The wire types, parsed from arbitrary bytes.

use nvio_driver::AsyncEvent;
use nvio_driver::spec::namespace::{ControllerList, FormatSettings};
use nvio_driver::spec::protection::{Expected, ProtectionInfo, ProtectionType, guard, guard_after};
use nvio_driver::spec::register::{Cap, Cc, Cmbloc, Cmbsz, Csts, Version};
use nvio_driver::spec::sgl::Descriptor;
use nvio_driver::spec::{Cqe, QueueCount, Sqe, Status};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::bytes::Bytes;
use super::content::make_up;

fn read<T: FromBytes + IntoBytes + zerocopy::Immutable>(bytes: &mut Bytes<'_>) -> T {
    let mut value = T::new_zeroed();
    value.as_mut_bytes().iter_mut().for_each(|byte| *byte = bytes.u8());
    value
}

pub fn run(bytes: &mut Bytes<'_>) {
    match bytes.below(6) {
        0 => registers(bytes),
        1 => entries(bytes),
        2 => numbers(bytes),
        3 => protection(bytes),
        4 => {
            let mut list = ControllerList::new_zeroed();
            make_up(list.as_mut_bytes(), bytes);
            let count = usize::from(list.count.get());
            assert_eq!(list.ids().map(Iterator::count), (count <= 2047).then_some(count));
        }
        _ => {
            let event = AsyncEvent::from_dword(bytes.u32());
            assert!(event.kind.0 < 8 && event.to_string().contains(" of type "));
        }
    }
}

fn registers(bytes: &mut Bytes<'_>) {
    let cap = Cap(bytes.u64());
    assert!((1..=1 << 16).contains(&cap.max_queue_entries()));
    assert!((12..=27).contains(&cap.min_page_shift()) && (12..=27).contains(&cap.max_page_shift()));
    assert!(cap.doorbell_stride().is_power_of_two() && cap.timeout().as_secs() < 128);
    let cc = Cc(bytes.u32());
    assert!((12..=27).contains(&cc.page_shift()) && cc.shn() < 4 && cc.css() < 8);
    assert_eq!(Cc::enabled(cap.min_page_shift()).page_shift(), cap.min_page_shift());
    assert!(!cc.disabled().en() && cc.shutdown().shn() == 1);
    let csts = Csts(bytes.u32());
    assert!(!csts.gone() || (csts.ready() && csts.fatal()));
    let (size, at) = (Cmbsz(bytes.u32()), Cmbloc(bytes.u32()));
    assert_eq!(size.bytes().is_some(), at.offset(size).is_some());
    assert!(size.bytes().is_none_or(|bytes| bytes < 1 << 56) && at.bar() < 8);
    assert_eq!(Version(bytes.u32()).to_string().split('.').count(), 3);
}

fn entries(bytes: &mut Bytes<'_>) {
    let cqe: Cqe = read(bytes);
    assert_eq!(Cqe::pack_status(cqe.status(), cqe.phase()), cqe.status_phase);
    let status: Status = cqe.status();
    assert_eq!(Status::new(status.kind(), status.code()), status.bare());
    assert_eq!(status.is_success(), status.bare() == Status::SUCCESS);
    assert!(status.do_not_retry().dnr() && !status.to_string().is_empty());
    let sqe: Sqe = read(bytes);
    assert!((1..=1 << 16).contains(&sqe.nlb()));
    let mut other = sqe;
    other.set_sgl(sqe.sgl());
    assert_eq!(other.sgl(), sqe.sgl());
    let descriptor: Descriptor = read(bytes);
    assert!(!descriptor.is_segment() || descriptor.identifier >> 4 != 0);
}

fn numbers(bytes: &mut Bytes<'_>) {
    let dword = bytes.u32();
    let format = FormatSettings::from_dword(dword);
    assert_eq!(FormatSettings::from_dword(format.to_dword()), format);
    assert!(format.index < 64 && format.protection < 8 && format.erase < 8);
    let known = format.protection_type().map(ProtectionType::number);
    assert_eq!(known, (1..=3).contains(&format.protection).then_some(format.protection));
    let other = FormatSettings::from_namespace(bytes.u8(), bytes.u8());
    assert!(other.index < 64 && other.protection < 8);
    match QueueCount::from_dword(dword) {
        Some(count) => assert_eq!(count.to_dword(), dword),
        None => assert!(dword & 0xffff == 0xffff || dword >> 16 == 0xffff),
    }
}

fn protection(bytes: &mut Bytes<'_>) {
    let info: ProtectionInfo = read(bytes);
    let Some(kind) = ProtectionType::new(bytes.u8() & 3) else { return };
    let data: Vec<u8> = (0..bytes.u8()).map(|_| bytes.u8()).collect();
    let checks = bytes.u32();
    let expected = Expected {
        guard: guard(&data),
        app_tag: bytes.u16(),
        app_mask: bytes.u16(),
        ref_tag: bytes.u32(),
    };
    let (front, back) = data.split_at(data.len() / 2);
    assert_eq!(guard_after(guard(front), back), expected.guard);
    if let Err(error) = info.check(kind, checks, &expected) {
        assert!(!info.is_unchecked(kind) && !error.to_string().is_empty());
        assert_eq!(error.status().kind(), 2);
    }
    let right = ProtectionInfo::new(expected.guard, expected.app_tag, expected.ref_tag);
    assert!(right.check(kind, checks, &expected).is_ok());
}
