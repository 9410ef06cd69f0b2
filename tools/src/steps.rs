//! Messages of `-v`: the steps of nvio, one line each.

use log::{Level, info, log_enabled};
use nvio::{Device, Volume};
use uuid::Uuid;

use crate::args::{ControllerArgs, VolumeArgs};
use crate::name::escaped;
use crate::output::exact_size;

/// Logs which controller was opened.
pub fn controller_opened(args: &ControllerArgs, device: &Device) {
    if !log_enabled!(Level::Info) {
        return;
    }
    let controller = device.controller();
    let identify = controller.identify();
    info!(
        "{}: opened the controller: {} {}, NVMe {}, {} I/O queues",
        args.device,
        identify.model(),
        identify.serial(),
        controller.version(),
        controller.granted_queues()
    );
}

/// Logs which filesystem was opened, and whether its journal was replayed.
pub fn volume_opened(args: &VolumeArgs, volume: &Volume) {
    if !log_enabled!(Level::Info) {
        return;
    }
    let device = &args.controller.device;
    if let Some(open) = volume.device() {
        controller_opened(&args.controller, open);
        match open.namespace(args.controller.namespace) {
            Ok(namespace) => info!(
                "{device}: namespace {}: {}, blocks of {} bytes",
                namespace.id(),
                exact_size(namespace.bytes().into()),
                namespace.block_size()
            ),
            Err(error) => info!("{device}: {error}"),
        }
    }
    let part = args.partition.map(|number| format!("partition {number}: ")).unwrap_or_default();
    let superblock = volume.filesystem().superblock();
    info!(
        "{device}: {part}ext4 {:?} {}, {}, blocks of {} bytes",
        escaped(&superblock.label),
        Uuid::from_bytes(superblock.uuid),
        exact_size(superblock.size().into()),
        superblock.block_size()
    );
    if let Some(replay) = volume.filesystem().recovered() {
        info!(
            "{device}: replayed the journal in memory: {} transactions, {} blocks, {} fast commits",
            replay.transactions, replay.blocks, replay.fast_commits
        );
    }
}
