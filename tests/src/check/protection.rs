//! Role `pi`: namespaces with metadata, most with protection information (NVM 5.2).
//!
//! The host has written blocks and metadata with its own checksums, some deliberately wrong. QEMU's
//! controller verifies the data that the driver sends, and the driver reads the data that the host
//! wrote.

use nvio_driver::spec::{Status, status};
use nvio_driver::{
    Address, CommandOptions, DmaBuf, Protection, QueuePair, ScatterList, WritableController,
    WritableNamespace,
};

use nvio_iomap::{Bio, BioOp, DiskQueue, Queue, WritableDisk};

use super::io::finish;
use super::runner::{Runner, Verdict, ensure, ensure_eq};
use super::writes::{NONE, known, open};
use crate::media::{self, Layout, Metadata};

/// Number of blocks that a check reads or writes, outside of the blocks with errors.
const BLOCKS: u32 = 5;

/// A namespace and its properties known to the host.
struct Rig {
    controller: WritableController,
    namespace: WritableNamespace,
    queue: QueuePair<u64>,
    layout: Layout,
    metadata: Metadata,
}

/// Blocks and their metadata in separate buffers.
struct Content {
    data: Vec<u8>,
    metadata: Vec<u8>,
}

/// Runs the checks of this role.
pub fn run(runner: &mut Runner, address: &Address) {
    for (nsid, layout) in (1..).zip(&media::PROTECTED) {
        let Some(metadata) = layout.metadata else { continue };
        let place = if metadata.extended { "extended" } else { "separate" };
        let kind = match metadata {
            Metadata { protection: 0, .. } => "plain".to_owned(),
            Metadata { guard64: true, protection, .. } => format!("type{protection}-64"),
            Metadata { first: true, protection, .. } => format!("type{protection}-first"),
            Metadata { protection, .. } => format!("type{protection}"),
        };
        let mut check = |name: &str, body: fn(&mut Rig) -> Verdict| {
            runner.check(&format!("{kind}-{place}/{name}"), || {
                body(&mut rig(address, nsid, *layout, metadata)?)
            });
        };
        check("identify", identify);
        check("read", read_what_the_host_wrote);
        check("write", write_and_read);
        check("bios", bios);
        if metadata.protection != 0 {
            check("wrong-guard-of-the-host", wrong_guard_of_the_host);
            check("wrong-tags-of-the-host", wrong_tags_of_the_host);
            check("write-with-a-wrong-guard", write_with_a_wrong_guard);
            check("verify", verify);
        }
        // The check knows protection information of 8 bytes.
        if metadata.protection != 0 && !metadata.guard64 {
            check("controller-makes-it", controller_makes_it);
        }
        if metadata.protection != 0 && metadata.bytes == 8 {
            check("plain-read-and-write", plain_read_and_write);
        }
    }
}

fn rig(
    address: &Address,
    nsid: u32,
    layout: Layout,
    metadata: Metadata,
) -> Result<Rig, super::runner::Problem> {
    let controller = open(address)?;
    let namespace = controller.writable_namespace(nsid)?;
    let queue = controller.queue_pair(16)?;
    Ok(Rig { controller, namespace, queue, layout, metadata })
}

/// Returns the blocks that the host wrote, and their metadata, with valid protection information.
fn host_content(nsid: u32, layout: &Layout, metadata: Metadata, lba: u64, count: u32) -> Content {
    content(layout, count, |index, block, tail| {
        let at = (lba + index) * block.len() as u64;
        media::fill(nsid, at, block);
        tail.extend(media::block_metadata(nsid, metadata, lba + index, block));
    })
}

/// Returns other blocks, from another seed, with valid protection information for `lba`.
fn new_content(layout: &Layout, metadata: Metadata, lba: u64, count: u32) -> Content {
    content(layout, count, |index, block, tail| {
        media::fill(77, (lba + index) * block.len() as u64, block);
        tail.extend(media::block_metadata(77, metadata, lba + index, block));
    })
}

fn content(
    layout: &Layout,
    count: u32,
    mut fill: impl FnMut(u64, &mut [u8], &mut Vec<u8>),
) -> Content {
    let size = layout.block_size as usize;
    let mut data = vec![0; count as usize * size];
    let mut metadata = Vec::new();
    for (index, block) in (0..).zip(data.chunks_exact_mut(size)) {
        fill(index, block, &mut metadata);
    }
    Content { data, metadata }
}

impl Rig {
    /// Returns options that enable all checks.
    fn all_checks(&self, lba: u64) -> CommandOptions {
        if self.metadata.protection == 0 {
            return CommandOptions::default();
        }
        let protection = Protection {
            check_guard: true,
            check_application: true,
            // For type 3 there is no rule (NVM 5.2.1.4.3).
            check_reference: self.metadata.protection < 3,
            reference: lba,
            application: media::APPLICATION_TAG,
            application_mask: u16::MAX,
            ..NONE
        };
        CommandOptions { protection, ..CommandOptions::default() }
    }

    fn buf(&self, bytes: &[u8]) -> Result<DmaBuf, super::runner::Problem> {
        let mut buf = self.controller.alloc(bytes.len())?;
        buf.copy_from_slice(bytes);
        Ok(buf)
    }

    /// Returns the memory of a command: blocks and metadata in the layout of the namespace.
    fn parts(&self, content: &Content) -> Result<ScatterList, super::runner::Problem> {
        if !self.metadata.extended {
            let metadata = Some(self.buf(&content.metadata)?);
            return Ok(ScatterList::new(vec![self.buf(&content.data)?], metadata));
        }
        let blocks = content.data.chunks_exact(self.layout.block_size as usize);
        let pairs = blocks.zip(content.metadata.chunks_exact(self.metadata.bytes));
        let together: Vec<u8> = pairs.flat_map(|(data, tail)| [data, tail].concat()).collect();
        Ok(ScatterList::from(self.buf(&together)?))
    }

    /// Splits the memory of a command into blocks and metadata.
    fn taken(&self, parts: &ScatterList) -> Content {
        let data: Vec<u8> = parts.data().iter().flat_map(|buf| buf.to_vec()).collect();
        if let Some(metadata) = parts.metadata() {
            return Content { data, metadata: metadata.to_vec() };
        }
        let block = self.layout.block_size as usize;
        let mut content = Content { data: Vec::new(), metadata: Vec::new() };
        for pair in data.chunks_exact(block + self.metadata.bytes) {
            content.data.extend(&pair[..block]);
            content.metadata.extend(&pair[block..]);
        }
        content
    }

    fn read(
        &mut self,
        lba: u64,
        count: u32,
        how: CommandOptions,
    ) -> Result<(Status, Content), super::runner::Problem> {
        let size = self.layout.block_size as usize;
        let zeroes = Content {
            data: vec![0; count as usize * size],
            metadata: vec![0; count as usize * self.metadata.bytes],
        };
        let parts = self.parts(&zeroes)?;
        self.queue.read_with(&self.namespace, (lba, count), parts, how, lba)?;
        let done = finish(&mut self.queue)?;
        let parts = ScatterList::from_completed(done.buf).unwrap_or_else(ScatterList::from);
        Ok((done.status, self.taken(&parts)))
    }

    fn write(
        &mut self,
        lba: u64,
        content: &Content,
        how: CommandOptions,
    ) -> Result<Status, super::runner::Problem> {
        let count = u32::try_from(content.data.len() >> self.namespace.block_shift())?;
        let parts = self.parts(content)?;
        self.queue.write_with(&self.namespace, (lba, count), parts, how, lba)?;
        Ok(finish(&mut self.queue)?.status)
    }

    fn host(&self, lba: u64, count: u32) -> Content {
        host_content(self.namespace.id(), &self.layout, self.metadata, lba, count)
    }

    /// Reads with all checks, and compares.
    fn expect(&mut self, lba: u64, wanted: &Content) -> Verdict {
        let count = u32::try_from(wanted.data.len() >> self.namespace.block_shift())?;
        let (status, found) = self.read(lba, count, self.all_checks(lba))?;
        ensure!(status.is_success(), "read of {count} blocks at {lba}: {status}");
        ensure!(found.data == wanted.data, "the data of {count} blocks at {lba} is wrong");
        ensure!(found.metadata == wanted.metadata, "the metadata of {count} at {lba} is wrong");
        Ok(())
    }
}

fn identify(rig: &mut Rig) -> Verdict {
    let Rig { namespace, layout, metadata, .. } = rig;
    ensure_eq!(namespace.block_size(), layout.block_size, "block size");
    ensure_eq!(namespace.blocks(), layout.blocks(), "blocks");
    ensure_eq!(namespace.metadata_size() as usize, metadata.bytes, "metadata");
    ensure_eq!(namespace.extended_metadata(), metadata.extended, "whether it is extended");
    ensure_eq!(namespace.protection_type(), metadata.protection, "protection");
    ensure_eq!(namespace.protection_first(), metadata.first, "whether protection comes first");
    let bits = if metadata.guard64 { 64 } else { 16 };
    ensure_eq!(namespace.guard().bits(), bits, "bits of a guard");
    let protection = nvio_iomap::NamespaceProtection::of(namespace);
    ensure_eq!(protection.is_some(), metadata.protection != 0, "whether files are protected");
    Ok(())
}

fn read_what_the_host_wrote(rig: &mut Rig) -> Verdict {
    for (lba, count) in [(0, 1), (1, BLOCKS), (100, 7), (rig.namespace.blocks() - 3, 3)] {
        let wanted = rig.host(lba, count);
        rig.expect(lba, &wanted)?;
    }
    Ok(())
}

fn write_and_read(rig: &mut Rig) -> Verdict {
    for (lba, count) in [(300, 1), (310, BLOCKS)] {
        let content = new_content(&rig.layout, rig.metadata, lba, count);
        let status = rig.write(lba, &content, rig.all_checks(lba))?;
        ensure!(status.is_success(), "write of {count} blocks at {lba}: {status}");
        rig.expect(lba, &content)?;
        // The adjacent blocks are unchanged.
        for lba in [lba - 1, lba + u64::from(count)] {
            let wanted = rig.host(lba, 1);
            rig.expect(lba, &wanted)?;
        }
    }
    Ok(())
}

/// Bios of the file layer: their guards of blocks that the host wrote agree with the host's, and QEMU
/// checks those of blocks that they write.
fn bios(rig: &mut Rig) -> Verdict {
    let disk = WritableDisk::whole(&rig.namespace);
    let mut queue: DiskQueue<(), _> = DiskQueue::new(&rig.controller, &disk, 4)?;
    let addr = |lba: u64| lba << rig.namespace.block_shift();
    let wanted = rig.host(100, BLOCKS).data;
    let written = new_content(&rig.layout, rig.metadata, 360, BLOCKS).data;
    let mut buf = queue.alloc(written.len())?;
    buf.copy_from_slice(&written);
    for (bio, wanted) in [
        (Bio::read(addr(100), queue.alloc(wanted.len())?, ()), &wanted),
        (Bio { op: BioOp::Write, ..Bio::read(addr(360), buf, ()) }, &written),
        (Bio::read(addr(360), queue.alloc(written.len())?, ()), &written),
    ] {
        let mut done = None;
        queue.submit(bio).map_err(|rejected| rejected.error)?;
        while done.is_none() {
            queue.wait(|bio| done = Some(bio))?;
        }
        let Some(done) = done else { continue };
        ensure!(done.result.is_ok(), "a bio of {BLOCKS} blocks: {:?}", done.result);
        ensure!(done.buf[..] == wanted[..], "the data of a bio is wrong");
    }
    Ok(())
}

/// A wrong guard that the host stored: the controller finds it only if the check is enabled.
fn wrong_guard_of_the_host(rig: &mut Rig) -> Verdict {
    let bad = media::WRONG_GUARD;
    let (found, _) = rig.read(bad - 2, 3, rig.all_checks(bad - 2))?;
    ensure!(found.bare() == status::GUARD_CHECK_ERROR, "three blocks, the last wrong: {found}");
    let unchecked = CommandOptions::default();
    let (found, content) = rig.read(bad, 1, unchecked)?;
    ensure!(found.is_success(), "unchecked: {found}");
    ensure!(content.data == rig.host(bad, 1).data, "the data behind the wrong guard");
    ensure!(content.metadata != rig.host(bad, 1).metadata, "the guard is not wrong at all");
    // The queue still works.
    let wanted = rig.host(bad - 2, 2);
    rig.expect(bad - 2, &wanted)
}

fn wrong_tags_of_the_host(rig: &mut Rig) -> Verdict {
    let (bad, wanted) = (media::WRONG_APPLICATION_TAG, status::APPLICATION_TAG_CHECK_ERROR);
    let (found, _) = rig.read(bad, 1, rig.all_checks(bad))?;
    ensure!(found.bare() == wanted, "the application tag: {found}");
    let bad = media::WRONG_REFERENCE_TAG;
    let (found, _) = rig.read(bad, 1, rig.all_checks(bad))?;
    match rig.metadata.protection {
        3 => ensure!(found.is_success(), "a reference tag of type 3: {found}"),
        _ => {
            let wanted = status::REFERENCE_TAG_CHECK_ERROR;
            ensure!(found.bare() == wanted, "the reference tag: {found}");
        }
    }
    Ok(())
}

/// The controller rejects the write and does not store the data.
fn write_with_a_wrong_guard(rig: &mut Rig) -> Verdict {
    let lba = 320;
    let mut content = new_content(&rig.layout, rig.metadata, lba, BLOCKS);
    content.data[rig.layout.block_size as usize] ^= 1;
    let found = rig.write(lba, &content, rig.all_checks(lba))?;
    ensure!(found.bare() == status::GUARD_CHECK_ERROR, "{found}");
    let wanted = rig.host(lba, BLOCKS);
    rig.expect(lba, &wanted)
}

/// PRACT: the controller generates and removes the protection information.
fn controller_makes_it(rig: &mut Rig) -> Verdict {
    let lba = 340;
    let mut content = new_content(&rig.layout, rig.metadata, lba, BLOCKS);
    if rig.metadata.protection == 3 {
        // Type 3 has the same reference tag in each block.
        let tag = &content.metadata[4..8].to_vec();
        content.metadata.chunks_exact_mut(8).for_each(|tail| tail[4..].copy_from_slice(tag));
    }
    let checked = rig.all_checks(lba);
    let protection = Protection { action: true, ..checked.protection };
    let how = CommandOptions { protection, ..checked };
    // With metadata of 8 bytes, only protection information, no metadata is transferred.
    let stripped = rig.metadata.bytes == 8;
    let bare = Content { data: content.data.clone(), metadata: Vec::new() };
    if stripped {
        let parts = ScatterList::from(rig.buf(&bare.data)?);
        rig.queue.write_with(&rig.namespace, (lba, BLOCKS), parts, how, lba)?;
        let status = finish(&mut rig.queue)?.status;
        ensure!(status.is_success(), "write: {status}");
    } else {
        // The controller replaces the protection information that the host sends.
        let mut spoilt = Content { data: content.data.clone(), metadata: content.metadata.clone() };
        for tail in spoilt.metadata.chunks_exact_mut(rig.metadata.bytes) {
            let at = rig.metadata.offset();
            tail[at..at + 8].fill(0xee);
        }
        let status = rig.write(lba, &spoilt, how)?;
        ensure!(status.is_success(), "write: {status}");
    }
    rig.expect(lba, &content)?;
    if stripped {
        let parts = ScatterList::from(rig.controller.alloc(bare.data.len())?);
        rig.queue.read_with(&rig.namespace, (lba, BLOCKS), parts, how, lba)?;
        let done = finish(&mut rig.queue)?;
        ensure!(done.status.is_success(), "read: {}", done.status);
        let parts = ScatterList::from_completed(done.buf).unwrap_or_else(ScatterList::from);
        ensure!(parts.data()[0][..] == bare.data[..], "data without its protection information");
    }
    Ok(())
}

fn verify(rig: &mut Rig) -> Verdict {
    for (lba, wanted) in [(100, None), (media::WRONG_GUARD, Some(status::GUARD_CHECK_ERROR))] {
        let how = rig.all_checks(lba);
        rig.queue.verify(&rig.namespace, (lba, 1), how, 0)?;
        let found = known("Verify", finish(&mut rig.queue)?.status)?;
        match wanted {
            None => ensure!(found.is_success(), "block {lba}: {found}"),
            Some(wanted) => ensure!(found.bare() == wanted, "block {lba}: {found}"),
        }
    }
    Ok(())
}

/// Calls without metadata: the controller generates and checks the protection information.
fn plain_read_and_write(rig: &mut Rig) -> Verdict {
    let lba = 360;
    let wanted = rig.host(0, BLOCKS).data;
    rig.queue.read(&rig.namespace, 0, rig.controller.alloc(wanted.len())?, 0)?;
    let done = finish(&mut rig.queue)?;
    ensure!(done.status.is_success(), "read: {}", done.status);
    ensure!(done.buf[..] == wanted[..], "what the host wrote");
    let new = new_content(&rig.layout, rig.metadata, lba, BLOCKS).data;
    rig.queue.write(&rig.namespace, lba, rig.buf(&new)?, 0)?;
    let status = finish(&mut rig.queue)?.status;
    ensure!(status.is_success(), "write: {status}");
    rig.queue.read(&rig.namespace, lba, rig.controller.alloc(new.len())?, 0)?;
    let done = finish(&mut rig.queue)?;
    ensure!(done.status.is_success(), "read back: {}", done.status);
    ensure!(done.buf[..] == new[..], "what was written");
    rig.queue.read(&rig.namespace, media::WRONG_GUARD, rig.controller.alloc(4096)?, 0)?;
    let found = finish(&mut rig.queue)?.status;
    ensure!(found.bare() == status::GUARD_CHECK_ERROR, "a wrong guard: {found}");
    Ok(())
}
