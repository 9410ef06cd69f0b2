//! Opening and querying a device that returns arbitrary data.
//!
//! Whatever the data: the driver does not panic, wait without a bound, or allocate without a bound.
//! Accepted data is within the documented bounds, so that commands made from it are within the
//! bounds of the specification, and point at allocated memory.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::spec::{Status, status};
use nvio_driver::{Controller, Error, LogPage, Namespace, Options};

use super::bytes::Bytes;
use super::content::make_up;
use super::device::{Answers, Device, Link, lock};
use super::honest::Honest;
use super::memory::Memory;
use super::{structures, wire};

const MOST_STEPS: usize = 64;
/// Most bytes requested of a log page.
const MOST_LOG: usize = 100_000;

/// The part of the script of the device that was not used yet.
type Script = Arc<Mutex<Vec<u8>>>;

/// Runs the driver as the bytes determine: the first part is the script of the device, the rest are
/// the requests.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    if bytes.flag() {
        return wire::run(&mut bytes);
    }
    let (cap, options, honest) = choose(&mut bytes);
    let device = Device::new(cap, Box::new(|_, _| (status::INVALID_OPCODE, 0)));
    let script = Script::default();
    lock(&device).answers = answers(honest, Arc::clone(&script));
    tell(&script, &mut bytes);
    if let Ok(controller) = Controller::open_on(Box::new(Link::new(&device)), options.clone()) {
        structures::controller(&controller, &options);
        for _ in 0..MOST_STEPS {
            if bytes.is_empty() {
                break;
            }
            tell(&script, &mut bytes);
            lock(&device).begin();
            ask(&controller, &device, &mut bytes);
        }
        lock(&device).begin();
    }
    let device = lock(&device);
    let is_free = device.memory.as_ref().is_none_or(Memory::is_free);
    assert!(is_free || device.dishonest, "memory is still allocated in the end");
}

/// Passes the next bytes to the device. The first byte is their number.
fn tell(script: &Script, bytes: &mut Bytes<'_>) {
    let count = usize::from(bytes.u8());
    let mut script = script.lock().unwrap();
    script.clear();
    script.extend((0..count).map(|_| bytes.u8()));
}

fn choose(bytes: &mut Bytes<'_>) -> (u64, Options, Honest) {
    let (how, more) = (bytes.u8(), bytes.u8());
    let entries = [1023, 1, 0, u64::from(more)][usize::from(how & 3)];
    let sane = entries | 1 << 16 | 1 << 24 | 1 << 37;
    let cap = match how >> 2 & 3 {
        0 | 1 => sane,
        // MPSMIN and MPSMAX, and DSTRD.
        2 => sane | u64::from(more & 15) << 48 | u64::from(more >> 4) << 52 | u64::from(more) << 32,
        _ => bytes.u64(),
    };
    let options = Options {
        arena_bytes: 4 << 20,
        queues: [2, 1, 64, u16::from(more)][usize::from(how >> 4 & 3)],
        admin_timeout: Duration::from_millis(100),
        max_transfer: [512 << 10, 1, 70_000, usize::MAX][usize::from(how >> 6)],
        ..Options::default()
    };
    let honest = Honest {
        mdts: if more & 2 != 0 { 8 } else { 4 },
        sgl: false,
        shadow: more & 1 != 0,
        queues: 2,
        blocks: 1 << 20,
        lbads: 9,
        metadata: 0,
        extended: false,
        protection: 0,
    };
    (cap, options, honest)
}

/// Executes a command as an honest device, with the changes of the script.
fn answers(honest: Honest, script: Script) -> Box<Answers> {
    Box::new(move |sqe, data| {
        let (status, dw0) = honest.answer(sqe, data);
        let mut script = script.lock().unwrap();
        let bytes = &mut Bytes::new(&script);
        let how = bytes.u8();
        let status = match how {
            0xf8.. => Status(bytes.u16() & 0x7fff),
            _ if how & 1 != 0 => Status::SUCCESS,
            _ => status,
        };
        let dw0 = if how & 2 != 0 { bytes.u32() } else { dw0 };
        if how & 4 != 0 {
            make_up(data, bytes);
        }
        // Repeated while the script requests it, for lists without an end.
        if how & 8 == 0 {
            let left = bytes.rest().to_vec();
            *script = left;
        }
        (status, dw0)
    })
}

fn ask(controller: &Controller, device: &Arc<Mutex<Device>>, bytes: &mut Bytes<'_>) {
    match bytes.below(12) {
        0 | 1 => {
            let nsid = bytes.u8().into();
            if let Ok(namespace) = controller.namespace(nsid) {
                structures::namespace(&namespace, controller);
                read(controller, &namespace, device, bytes);
            }
        }
        2 => {
            let Ok(ids) = controller.namespace_ids() else { return };
            assert!(ids.len() <= 1 << 16 && ids.first() != Some(&0));
            assert!(ids.is_sorted_by(|a, b| a < b));
        }
        3 => {
            let nsid = bytes.u8().into();
            match controller.identify_namespace(nsid) {
                Ok(identify) => structures::identify_namespace(&identify),
                Err(Error::NoNamespace { nsid: of }) => assert_eq!(of, nsid),
                Err(_) => {}
            }
        }
        4 => {
            let nsid = bytes.flag().then_some(1);
            let Ok(health) = controller.health(nsid) else { return };
            structures::health(&health);
        }
        5 => {
            let Ok(log) = controller.error_log() else { return };
            assert!(log.len() <= usize::from(controller.identify().elpe) + 1);
            let counts: BTreeSet<u64> = log.iter().map(|entry| entry.error_count.get()).collect();
            assert!(counts.len() == log.len() && !counts.contains(&0));
            log.iter().for_each(structures::error_entry);
        }
        6 => drop(controller.firmware_slots().map(|log| structures::firmware(&log))),
        7 => drop(controller.changed_namespaces().map(|log| structures::changed(&log))),
        8 => drop(controller.command_effects().map(|log| structures::effects(&log))),
        9 => drop(controller.supported_log_pages().map(|log| structures::supported(&log))),
        10 => {
            let page = LogPage { id: bytes.u8(), nsid: bytes.u32(), clear_event: bytes.flag() };
            let (offset, len) = (bytes.u64(), usize::from(bytes.u16()) * 2);
            let mut out = vec![0xa5; len.min(MOST_LOG)];
            drop(controller.read_log_page(page, offset, &mut out));
        }
        _ => drop(controller.allocated_namespace_ids()),
    }
}

/// Reads at both ends of a namespace, and checks the commands.
fn read(
    controller: &Controller,
    namespace: &Namespace,
    device: &Arc<Mutex<Device>>,
    bytes: &mut Bytes<'_>,
) {
    let Ok(mut queue) = controller.queue_pair::<u64>(3) else { return };
    let most = namespace.max_transfer();
    let one = namespace.block_size() as usize;
    let last = namespace.blocks() - 1;
    let lba = namespace.blocks() / 256 * u64::from(bytes.u8());
    for (lba, len) in [(0, one), (last, one), (last, 2 * one), (lba, most), (0, most + one)] {
        let Ok(mut buf) = controller.alloc(len + 512) else { continue };
        let lead = if bytes.flag() { 512 } else { 0 };
        drop(buf.split_to(lead));
        drop(buf.split_to(0));
        let Some(buf) = buf.split_to(len) else { continue };
        let count = (len >> namespace.block_shift()) as u64;
        let range = (buf.iova(), buf.len());
        let inside = lba.checked_add(count).is_some_and(|end| end <= namespace.blocks());
        let accepted = queue.read(namespace, lba, buf, 0).is_ok();
        let plain = namespace.metadata_size() == 0 || namespace.protection_type() != 0;
        if accepted {
            assert!(inside && len <= most, "{len} bytes at {lba} of {namespace:?}");
            queue.ring();
            let mut device = lock(device);
            for sqe in device.fetch(queue.id()) {
                assert_eq!((sqe.slba(), u64::from(sqe.nlb())), (lba, count));
                let data = device.memory().data(&sqe, len, device.page_shift());
                assert_eq!(data, [range]);
            }
        } else {
            let few = queue.in_flight() < queue.capacity();
            assert!(!inside || len > most || !plain || !few, "{len} at {lba} of {namespace:?}");
        }
    }
}
