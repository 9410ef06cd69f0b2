//! Peers that use vfio-user as SPDK does, on both ends.
//!
//! [`SpdkClient`] sends messages as SPDK's client does. [`target`] is a controller that treats
//! interrupts as SPDK's target does. Both are written from the behaviour of SPDK 26.05 on the wire.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nvio_emulator::{Config, Emulator};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::host::{Bar0, HostClient};

/// Bytes of a message's header.
const HEADER: usize = 16;
/// Bytes of SPDK's buffer for a region's description. The request is that long without the
/// description's structure of 32 bytes, and argsz says so.
const REGION_INFO_BUFFER: usize = 4096;
/// Descriptors in one message at most.
const MAX_FDS: usize = 16;
/// Bytes that SPDK registers as one region: a huge page.
const MEMORY_REGION: u64 = 2 << 20;

/// Commands of the protocol, by number.
mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const DEVICE_GET_INFO: u16 = 4;
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
}

/// Starts a controller that treats interrupts as SPDK's target does: while INTx is not disabled in
/// the PCI Command register, the first completion without an eventfd sets CSTS.CFS.
///
/// It serves one client after another on its socket. A test starts its own.
pub fn target(builder: Config) -> Emulator {
    builder.intx(true).start().expect("the target starts")
}

/// A vfio-user client that sends messages as SPDK's does.
///
/// Its version has no JSON. It describes every region with a request of 4064 bytes, sends the
/// region's descriptor with `DMA_UNMAP` too, and registers memory in regions of 2 MiB. It unmaps
/// its memory before it closes the connection. A refusal is a panic.
#[derive(Debug)]
pub struct SpdkClient {
    stream: UnixStream,
    regions: Vec<Region>,
    mapped: Vec<Mapped>,
}

/// A region of the device.
#[derive(Debug)]
struct Region {
    size: u64,
    /// Offset and size of the part that can be mapped, and its file.
    area: Option<(u64, u64, File)>,
}

/// Memory that the device was given.
#[derive(Debug)]
struct Mapped {
    iova: u64,
    size: u64,
    file: File,
}

impl SpdkClient {
    /// Connects, agrees on the version and reads the description of the device and its regions.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        let mut client = Self { stream, regions: Vec::new(), mapped: Vec::new() };
        // Major and minor version, and no JSON.
        client.request(command::VERSION, &[0, 0, 1, 0], &[]);
        let (info, _) = client.request(command::DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &[]);
        let regions = word(&info, 8);
        assert!((1..=16).contains(&regions), "{regions} regions");
        client.regions = (0..regions).map(|index| client.describe(index)).collect();
        client
    }

    fn describe(&self, index: u32) -> Region {
        let argsz = REGION_INFO_BUFFER - 32;
        let mut request = words(&[u32::try_from(argsz).unwrap(), 0, index, 0]);
        request.resize(argsz, 0);
        let (info, fds) = self.request(command::DEVICE_GET_REGION_INFO, &request, &[]);
        assert!(info.len() <= REGION_INFO_BUFFER, "a reply of {} bytes", info.len());
        let (flags, capability) = (word(&info, 4), word(&info, 12) as usize);
        let size = long(&info, 16);
        let can_be_mapped = size != 0 && flags & 1 << 2 != 0;
        let area = can_be_mapped.then(|| {
            let file = File::from(fds.into_iter().next().expect("a descriptor of the region"));
            // A list of capabilities, of which this is the only one: areas that can be mapped.
            assert!(flags & 1 << 3 != 0 && capability != 0, "region {index} has no areas");
            assert_eq!(word(&info, capability) & 0xffff, 1, "VFIO_REGION_INFO_CAP_SPARSE_MMAP");
            assert_eq!(word(&info, capability + 8), 1, "areas");
            (long(&info, capability + 16), long(&info, capability + 24), file)
        });
        Region { size, area }
    }

    /// Sends a request and returns the body of its reply and the descriptors beside it.
    fn request(
        &self,
        command: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut message = [[0, 0], command.to_ne_bytes()].concat();
        message.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let parts = [IoSlice::new(&message)];
        let sent =
            rustix::net::sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, message.len());
        self.reply(command)
    }

    fn reply(&self, command: u16) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut header)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.stream, parts, &mut control, flags).unwrap();
        assert_eq!(received.bytes, HEADER, "the server closed the connection");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        let (flags, errno) = (word(&header, 8), word(&header, 12));
        assert_eq!((flags, errno), (1, 0), "command {command} is refused");
        let mut body = vec![0; word(&header, 4) as usize - HEADER];
        // SPDK reads the body in one piece; a server that sends it in several breaks it.
        if !body.is_empty() {
            assert_eq!((&self.stream).read(&mut body).unwrap(), body.len());
        }
        (body, fds)
    }

    fn access(&self, index: u32, offset: u64, count: usize) -> Vec<u8> {
        let size = self.regions[index as usize].size;
        assert!(offset + count as u64 <= size, "access beyond region {index}");
        let mut request = offset.to_ne_bytes().to_vec();
        request.extend_from_slice(&words(&[index, u32::try_from(count).unwrap()]));
        request
    }
}

impl HostClient for SpdkClient {
    fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]) {
        let request = self.access(index, offset, data.len());
        let (reply, _) = self.request(command::REGION_READ, &request, &[]);
        data.copy_from_slice(&reply[16..]);
    }

    fn region_write(&mut self, index: u32, offset: u64, data: &[u8]) {
        let mut request = self.access(index, offset, data.len());
        request.extend_from_slice(data);
        self.request(command::REGION_WRITE, &request, &[]);
    }

    fn dma_map(&mut self, file: &File, iova: u64, size: u64) {
        for at in (0..size).step_by(usize::try_from(MEMORY_REGION).unwrap()) {
            let size = MEMORY_REGION.min(size - at);
            // argsz, readable and writable.
            let mut request = words(&[32, 3]);
            [at, iova + at, size].iter().for_each(|value| request.extend(value.to_ne_bytes()));
            self.request(command::DMA_MAP, &request, &[file.as_fd()]);
            self.mapped.push(Mapped { iova: iova + at, size, file: file.try_clone().unwrap() });
        }
    }

    fn bar0(&self) -> Bar0 {
        let (offset, size, file) = self.regions[0].area.as_ref().expect("doorbells to map");
        Bar0 { file: file.try_clone().unwrap(), start: *offset, offset: *offset, size: *size }
    }
}

impl Drop for SpdkClient {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for Mapped { iova, size, file } in std::mem::take(&mut self.mapped) {
            let mut request = words(&[24, 0]);
            [iova, size].iter().for_each(|value| request.extend(value.to_ne_bytes()));
            self.request(command::DMA_UNMAP, &request, &[file.as_fd()]);
        }
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
