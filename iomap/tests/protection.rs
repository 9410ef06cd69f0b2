//! Protection information made and checked by the host, beside that of the embedded controller.

use nvio_driver::spec::protection::{CheckError, ProtectionType};
use nvio_driver::spec::{Status, status};
use nvio_driver::{
    CommandOptions, Completion, DmaBuf, Options, QueuePair, ScatterList, WritableNamespace,
};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_iomap::{BadProtection, NamespaceProtection};
use nvio_testkit::controller::{self, Served, Watched};

/// Blocks of a command, of a namespace of 64.
const BLOCKS: u32 = 9;

struct Rig {
    _emulator: Emulator,
    controller: Watched,
    namespace: WritableNamespace,
    queue: QueuePair<()>,
    protection: NamespaceProtection,
    what: String,
}

fn rigs() -> impl Iterator<Item = Rig> {
    let formats = [(512, 8), (512, 64), (4096, 8), (4096, 16)].into_iter();
    formats.flat_map(|(block, metadata)| {
        [false, true].into_iter().flat_map(move |extended| {
            (1..=3).flat_map(move |kind| {
                [false, true].map(|first| rig(block, metadata, extended, kind, first))
            })
        })
    })
}

fn rig(block: u32, metadata: u16, extended: bool, kind: u8, first: bool) -> Rig {
    let config = NamespaceConfig::new(Backing::memory(64 * u64::from(block))).block_size(block);
    let config = config.metadata(metadata, extended);
    let config = config.protection(ProtectionType::new(kind).unwrap(), first);
    let options = Options { arena_bytes: 4 << 20, ..controller::writable() };
    let served = Served::start(Emulator::builder().namespace(config), options);
    let namespace = served.writable_namespace();
    let Served { controller, emulator } = served;
    let protection = NamespaceProtection::of(&namespace).unwrap();
    assert_eq!(protection.is_extended(), extended);
    let queue = controller.queue_pair(4).unwrap();
    let what = format!("{block} + {metadata}, extended {extended}, type {kind}, first {first}");
    Rig { _emulator: emulator, controller, namespace, queue, protection, what }
}

impl Rig {
    fn data(&self, salt: u64) -> Vec<u8> {
        let bytes = (BLOCKS << self.namespace.block_shift()) as usize;
        (0..bytes).map(|i| (i as u64 * 5 / 3 + salt * 97) as u8).collect()
    }

    fn done(&mut self) -> Completion<()> {
        let mut ended = None;
        while ended.is_none() {
            self.queue.wait(|done| ended = Some(done)).unwrap();
        }
        ended.unwrap()
    }

    /// `data` in a buffer, sealed for `lba`.
    fn sealed(&self, data: &[u8], lba: u64) -> DmaBuf {
        let mut buf = self.controller.alloc(self.protection.buf_len(data.len())).unwrap();
        assert_eq!(self.protection.copy_in(&mut buf, data.len(), 0, data), data.len());
        self.protection.seal(&mut buf, data.len(), lba);
        buf
    }

    fn write(&mut self, buf: DmaBuf, lba: u64, how: CommandOptions) -> Status {
        let bytes = (BLOCKS << self.namespace.block_shift()) as usize;
        let list = self.protection.scatter_list(buf, bytes);
        self.queue.write_with(&self.namespace, (lba, BLOCKS), list, how, ()).unwrap();
        self.done().status.bare()
    }

    fn read(&mut self, lba: u64, how: CommandOptions) -> (DmaBuf, Status) {
        let bytes = (BLOCKS << self.namespace.block_shift()) as usize;
        let buf = self.controller.alloc(self.protection.buf_len(bytes)).unwrap();
        let list = self.protection.scatter_list(buf, bytes);
        self.queue.read_with(&self.namespace, (lba, BLOCKS), list, how, ()).unwrap();
        let done = self.done();
        let list = ScatterList::from_completed(done.buf).unwrap();
        (list.into_joined().unwrap(), done.status.bare())
    }

    /// Everything that a controller can check of what was sealed, the application tag too.
    fn all_checks(&self, lba: u64) -> CommandOptions {
        let mut how = self.protection.transfer(lba);
        how.protection.check_application = true;
        how.protection.application_mask = u16::MAX;
        how
    }

    /// The memory of a command, with data and metadata in buffers of their own.
    fn parts(&self, with_metadata: bool) -> ScatterList {
        let data = (BLOCKS << self.namespace.block_shift()) as usize;
        let metadata = (BLOCKS * self.namespace.metadata_size()) as usize;
        let alloc = |bytes| self.controller.alloc(bytes).unwrap();
        match (with_metadata, self.protection.is_extended()) {
            (false, _) => ScatterList::from(alloc(data)),
            (true, true) => ScatterList::from(alloc(data + metadata)),
            (true, false) => ScatterList::new(vec![alloc(data)], Some(alloc(metadata))),
        }
    }

    /// Returns the options with which the controller inserts and strips protection information,
    /// and the memory of such a command.
    fn by_controller(&self, lba: u64) -> (CommandOptions, ScatterList) {
        let protection = nvio_driver::Protection::by_controller(&self.namespace, lba);
        let how = CommandOptions { protection, ..CommandOptions::default() };
        (how, self.parts(self.namespace.metadata_size() != 8))
    }

    /// The data in `parts`, without the metadata in between.
    fn data_of(&self, parts: &ScatterList) -> Vec<u8> {
        let (block, size) = (self.namespace.block_size() as usize, self.namespace.metadata_size());
        let buf = &parts.data()[0];
        let each = buf.len() / BLOCKS as usize;
        assert!(each == block || each == block + size as usize);
        buf.chunks(each).flat_map(|block_and_more| &block_and_more[..block]).copied().collect()
    }
}

#[test]
fn guards_made_by_the_host_pass_the_controllers_checks() {
    for mut it in rigs() {
        let (lba, data) = (7, it.data(1));
        let (buf, how) = (it.sealed(&data, lba), it.all_checks(lba));
        assert_eq!(it.write(buf, lba, how), Status::SUCCESS, "{}", it.what);
        it.queue.verify(&it.namespace, (lba, BLOCKS), how, ()).unwrap();
        assert_eq!(it.done().status.bare(), Status::SUCCESS, "{}", it.what);
        // Checked, and taken away where it is all there is.
        let (how, parts) = it.by_controller(lba);
        it.queue.read_with(&it.namespace, (lba, BLOCKS), parts, how, ()).unwrap();
        let done = it.done();
        assert!(done.status.is_success(), "{}: {}", it.what, done.status);
        let parts = ScatterList::from_completed(done.buf).unwrap();
        assert!(it.data_of(&parts) == data, "{}", it.what);
    }
}

#[test]
fn guards_made_by_the_controller_pass_the_hosts_checks() {
    for mut it in rigs() {
        let (lba, data) = (31, it.data(2));
        let (how, mut parts) = it.by_controller(lba);
        let block = it.namespace.block_size() as usize;
        let each = parts.data_len() / BLOCKS as usize;
        for (to, from) in parts.data_mut()[0].chunks_mut(each).zip(data.chunks(block)) {
            to[..block].copy_from_slice(from);
        }
        it.queue.write_with(&it.namespace, (lba, BLOCKS), parts, how, ()).unwrap();
        assert_eq!(it.done().status.bare(), Status::SUCCESS, "{}", it.what);
        let (buf, status) = it.read(lba, it.protection.transfer(lba));
        assert_eq!(status, Status::SUCCESS, "{}", it.what);
        assert_eq!(it.protection.verify(&buf, data.len(), lba), Ok(()), "{}", it.what);
        let mut out = vec![0; data.len()];
        assert_eq!(it.protection.copy_out(&buf, data.len(), 0, &mut out), data.len());
        assert!(out == data, "{}", it.what);
        // At another place these blocks do not verify.
        let moved = it.protection.verify(&buf, data.len(), lba + 1);
        match it.namespace.protection_type() {
            3 => assert_eq!(moved, Ok(())),
            _ => {
                let error = CheckError::RefTag { expected: 32, found: 31 };
                assert_eq!(moved, Err(BadProtection::Block { lba: 32, error }), "{}", it.what);
            }
        }
    }
}

#[test]
fn data_that_changes_on_its_way_is_refused_and_not_stored() {
    for mut it in rigs() {
        let (lba, old, new) = (3, it.data(3), it.data(4));
        let (buf, how) = (it.sealed(&old, lba), it.protection.transfer(lba));
        assert_eq!(it.write(buf, lba, how), Status::SUCCESS);
        let mut late = it.sealed(&new, lba);
        // In the middle of the last block.
        let at = new.len() - 100;
        assert_eq!(it.protection.copy_in(&mut late, new.len(), at, &[!new[at]]), 1);
        assert_eq!(it.write(late, lba, how), status::GUARD_CHECK_ERROR, "{}", it.what);
        if it.namespace.protection_type() < 3 {
            let moved = it.sealed(&new, lba + 1);
            assert_eq!(it.write(moved, lba, how), status::REFERENCE_TAG_CHECK_ERROR);
        }
        let (buf, status) = it.read(lba, how);
        assert_eq!(status, Status::SUCCESS);
        assert_eq!(it.protection.verify(&buf, old.len(), lba), Ok(()));
        let mut out = vec![0; old.len()];
        it.protection.copy_out(&buf, old.len(), 0, &mut out);
        assert!(out == old, "{}", it.what);
    }
}

#[test]
fn stored_damage_is_found_by_the_controller_and_by_the_host() {
    for mut it in rigs() {
        let (lba, data) = (20, it.data(5));
        let mut buf = it.sealed(&data, lba);
        let at = (data.len() / BLOCKS as usize) * 4 + 17;
        it.protection.copy_in(&mut buf, data.len(), at, &[data[at] ^ 4]);
        // Without checks the controller stores the block as it is.
        assert_eq!(it.write(buf, lba, CommandOptions::default()), Status::SUCCESS);
        let (_, status) = it.read(lba, it.protection.transfer(lba));
        assert_eq!(status, status::GUARD_CHECK_ERROR, "{}", it.what);
        let (buf, status) = it.read(lba, CommandOptions::default());
        assert_eq!(status, Status::SUCCESS);
        match it.protection.verify(&buf, data.len(), lba) {
            Err(BadProtection::Block { lba: 24, error: CheckError::Guard { .. } }) => {}
            found => panic!("{}: {found:?}", it.what),
        }
    }
}

#[test]
fn blocks_that_were_never_written_pass() {
    for mut it in rigs() {
        let (buf, status) = it.read(40, it.protection.transfer(40));
        assert_eq!(status, Status::SUCCESS, "{}", it.what);
        let bytes = it.data(0).len();
        assert_eq!(it.protection.verify(&buf, bytes, 40), Ok(()), "{}", it.what);
    }
}

/// The caller's data stays where it is, and its metadata is elsewhere.
#[test]
fn data_and_metadata_may_lie_apart() {
    for mut it in rigs().filter(|it| !it.protection.is_extended()) {
        let (lba, data) = (11, it.data(6));
        let how = it.protection.transfer(lba);
        let (from, to) = it.parts(true).into_inner();
        let (mut from, mut to) = (from.into_iter().next().unwrap(), to.unwrap());
        from.copy_from_slice(&data);
        to.fill(0x99);
        it.protection.seal_apart(&from, &mut to, lba);
        let parts = ScatterList::new(vec![from], Some(to));
        it.queue.write_with(&it.namespace, (lba, BLOCKS), parts, how, ()).unwrap();
        assert_eq!(it.done().status.bare(), Status::SUCCESS, "{}", it.what);
        let parts = it.parts(true);
        it.queue.read_with(&it.namespace, (lba, BLOCKS), parts, how, ()).unwrap();
        let parts = ScatterList::from_completed(it.done().buf).unwrap();
        let (buf, metadata) = (&parts.data()[0], parts.metadata().unwrap());
        assert!(**buf == *data, "{}", it.what);
        assert_eq!(it.protection.verify_apart(buf, metadata, lba), Ok(()));
        let found = it.protection.verify_apart(&it.data(7), metadata, lba);
        assert!(matches!(found, Err(BadProtection::Block { lba: 11, .. })), "{}", it.what);
    }
}

#[test]
fn unprotected_namespace_has_no_protection() {
    let plain = NamespaceConfig::new(Backing::memory(1 << 20));
    let tagged = plain.clone().metadata(16, true);
    let builder = Emulator::builder().namespace(plain).namespace(tagged);
    let served = Served::start(builder, Options::default());
    for nsid in [1, 2] {
        assert_eq!(NamespaceProtection::of(&served.controller.namespace(nsid).unwrap()), None);
    }
}
