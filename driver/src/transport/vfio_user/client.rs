//! The commands of a vfio-user client.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::channel::{Channel, FDS_MAX, Fault, Reply, invalid};
use crate::transport::info_chain;

/// Numbers of the commands.
mod command {
    pub(super) const VERSION: u16 = 1;
    pub(super) const DMA_MAP: u16 = 2;
    pub(super) const DMA_UNMAP: u16 = 3;
    pub(super) const DEVICE_GET_INFO: u16 = 4;
    pub(super) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(super) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(super) const DEVICE_SET_IRQS: u16 = 8;
    pub(super) const REGION_READ: u16 = 9;
    pub(super) const REGION_WRITE: u16 = 10;
    pub(super) const DEVICE_RESET: u16 = 13;
}

/// The version of the protocol, 0.1, and the client's capabilities, which end with a NUL.
const VERSION: &[u8] = b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8}}\0";
const _: () = assert!(FDS_MAX == 8);
/// Largest description of a region asked for, bytes.
const REGION_INFO_BYTES_MAX: u32 = 4096;
/// The device may read and write the memory.
const DMA_READ_WRITE: u32 = 0b11;

/// The limits of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// File descriptors in a message.
    pub(super) fds: usize,
    /// Ranges of memory mapped at once.
    pub(super) mappings: usize,
}

/// DEVICE_GET_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct DeviceInfo {
    argsz: u32,
    flags: u32,
    regions: u32,
    irqs: u32,
}

/// DEVICE_GET_REGION_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

/// DEVICE_GET_IRQ_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IrqInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
}

/// DEVICE_SET_IRQS.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

/// DMA_MAP.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// DMA_UNMAP.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    address: u64,
    size: u64,
}

/// REGION_READ and REGION_WRITE, before the data.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Access {
    offset: u64,
    region: u32,
    count: u32,
}

/// Returns the size of a structure for its field `argsz`, bytes.
fn argsz<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// A region of the device: a BAR, or configuration space.
#[derive(Debug)]
pub(super) struct Region {
    /// Bytes.
    pub(super) size: u64,
    /// Offset of the region in its file, bytes.
    pub(super) offset: u64,
    /// The file, if the region can be mapped.
    pub(super) file: Option<File>,
    /// Offset and length of the parts that can be mapped; the whole region if empty.
    pub(super) areas: Vec<(u64, u64)>,
}

/// A vfio-user client that has agreed on a version with its server.
#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    /// Longest wait for a reply.
    reply_timeout: Duration,
    pub(super) limits: Limits,
    regions: u32,
    irqs: u32,
    pub(super) can_reset: bool,
}

impl Client {
    /// Agrees on a version with the server, whose replies are waited for at most `reply_timeout`.
    pub(super) fn new(mut channel: Channel, reply_timeout: Duration) -> Result<Self, Fault> {
        let version = channel.call(command::VERSION, VERSION, &[], reply_timeout)?;
        let limits = limits(&version.body)?;
        let mut client =
            Self { channel, reply_timeout, limits, regions: 0, irqs: 0, can_reset: false };
        let ask = DeviceInfo { argsz: argsz::<DeviceInfo>(), flags: 0, regions: 0, irqs: 0 };
        let (info, _) = client.ask(command::DEVICE_GET_INFO, ask, "device information")?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(invalid("a device that is not a PCI device"));
        }
        client.can_reset = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        (client.regions, client.irqs) = (info.regions, info.irqs);
        Ok(client)
    }

    fn call(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Reply, Fault> {
        self.channel.call(command, body, fds, self.reply_timeout)
    }

    /// Sends a structure, and returns it as the server has filled it in, with the whole reply. `what`
    /// is for errors.
    fn ask<T: FromBytes + IntoBytes + KnownLayout + Immutable>(
        &mut self,
        command: u16,
        ask: T,
        what: &'static str,
    ) -> Result<(T, Reply), Fault> {
        let reply = self.call(command, ask.as_bytes(), &[])?;
        // The reply may be longer.
        let (filled, _) = T::read_from_prefix(&reply.body).map_err(|_| invalid(what))?;
        Ok((filled, reply))
    }

    /// Resets the device.
    pub(super) fn reset(&mut self) -> Result<(), Fault> {
        self.call(command::DEVICE_RESET, &[], &[]).map(drop)
    }

    /// Makes `size` bytes of a file visible to the device at `address`.
    pub(super) fn dma_map(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        address: u64,
        size: u64,
    ) -> Result<(), Fault> {
        let flags = DMA_READ_WRITE;
        let map = DmaMap { argsz: argsz::<DmaMap>(), flags, offset, address, size };
        self.call(command::DMA_MAP, map.as_bytes(), &[file]).map(drop)
    }

    /// Ends what [`dma_map`](Self::dma_map) began.
    pub(super) fn dma_unmap(&mut self, address: u64, size: u64) -> Result<(), Fault> {
        let unmap = DmaUnmap { argsz: argsz::<DmaUnmap>(), flags: 0, address, size };
        self.call(command::DMA_UNMAP, unmap.as_bytes(), &[]).map(drop)
    }

    /// Reads `N` bytes of a region, and waits at most `within` for them.
    pub(super) fn read_within<const N: usize>(
        &mut self,
        region: u32,
        offset: u64,
        within: Duration,
    ) -> Result<[u8; N], Fault> {
        let access = Access { offset, region, count: argsz::<[u8; N]>() };
        let within = within.min(self.reply_timeout);
        let reply = self.channel.call(command::REGION_READ, access.as_bytes(), &[], within)?;
        let data = reply.body.get(size_of::<Access>()..).and_then(|data| data.try_into().ok());
        data.ok_or_else(|| invalid("the length of a region's data"))
    }

    /// Reads `N` bytes of a region.
    pub(super) fn read<const N: usize>(
        &mut self,
        region: u32,
        offset: u64,
    ) -> Result<[u8; N], Fault> {
        self.read_within(region, offset, self.reply_timeout)
    }

    /// Writes bytes of a region.
    pub(super) fn write<const N: usize>(
        &mut self,
        region: u32,
        offset: u64,
        data: [u8; N],
    ) -> Result<(), Fault> {
        let access = Access { offset, region, count: argsz::<[u8; N]>() };
        let body = [access.as_bytes(), &data].concat();
        self.call(command::REGION_WRITE, &body, &[]).map(drop)
    }

    /// Describes a region; `None` if the device has no such region.
    pub(super) fn region(&mut self, index: u32) -> Result<Option<Region>, Fault> {
        if index >= self.regions {
            return Ok(None);
        }
        let fixed = argsz::<RegionInfo>();
        let (mut info, mut reply) = self.region_info(index, fixed)?;
        let mut fds = std::mem::take(&mut reply.fds);
        if info.argsz > REGION_INFO_BYTES_MAX {
            return Err(invalid("the size of a region's description"));
        }
        // Capabilities are sent only if the request has room for them.
        if info.argsz > fixed {
            (info, reply) = self.region_info(index, info.argsz)?;
            fds.append(&mut reply.fds);
        }
        let areas = sparse_areas(&reply.body, info.cap_offset)?;
        let file = fds.pop().map(File::from);
        Ok(Some(Region { size: info.size, offset: info.offset, file, areas }))
    }

    fn region_info(&mut self, index: u32, argsz: u32) -> Result<(RegionInfo, Reply), Fault> {
        let ask = RegionInfo { argsz, flags: 0, index, cap_offset: 0, size: 0, offset: 0 };
        self.ask(command::DEVICE_GET_REGION_INFO, ask, "region information")
    }

    /// Returns flags and number of the interrupts of a VFIO index; `None` if there is no such
    /// index, or the server does not describe it.
    pub(super) fn irq_info(&mut self, index: u32) -> Option<(u32, u32)> {
        if index >= self.irqs {
            return None;
        }
        let ask = IrqInfo { argsz: argsz::<IrqInfo>(), flags: 0, index, count: 0 };
        let asked = self.ask(command::DEVICE_GET_IRQ_INFO, ask, "interrupt information");
        asked.ok().map(|(info, _)| (info.flags, info.count))
    }

    /// Sets up `count` interrupts of a VFIO index, from `start` on.
    pub(super) fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Fault> {
        let set = IrqSet { argsz: argsz::<IrqSet>(), flags, index, start, count };
        self.call(command::DEVICE_SET_IRQS, set.as_bytes(), fds).map(drop)
    }
}

/// The limits in a version reply. The server may leave out each, or all of the JSON.
fn limits(body: &[u8]) -> Result<Limits, Fault> {
    let (major, rest) = body.split_first_chunk::<2>().ok_or_else(|| invalid("version"))?;
    let json = rest.get(2..).ok_or_else(|| invalid("version"))?;
    if u16::from_ne_bytes(*major) != 0 {
        return Err(invalid("a major version other than 0"));
    }
    let json = json.strip_suffix(&[0]).unwrap_or(json);
    let json: serde_json::Value = match json {
        [] => serde_json::Value::Null,
        json => serde_json::from_slice(json).map_err(|_| invalid("capabilities"))?,
    };
    let limit = |name, default: usize| {
        let value = json.get("capabilities").and_then(|it| it.get(name)?.as_u64());
        value.map_or(default, |value| usize::try_from(value).unwrap_or(usize::MAX))
    };
    Ok(Limits {
        fds: limit("max_msg_fds", 1).min(FDS_MAX),
        mappings: limit("max_dma_maps", 65_535),
    })
}

/// Returns the sparse areas in the chain of capabilities of a region, whose offsets count from the
/// front of the reply's body.
fn sparse_areas(body: &[u8], first: u32) -> Result<Vec<(u64, u64)>, Fault> {
    let mut areas = Vec::new();
    info_chain::collect_pairs(body, first, VFIO_REGION_INFO_CAP_SPARSE_MMAP, &mut areas)
        .ok_or_else(|| invalid("capabilities of a region"))?;
    Ok(areas)
}

#[cfg(test)]
mod tests;
