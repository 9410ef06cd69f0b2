//! The machines of the guest: controllers, namespaces and their contents.

use std::fs::File;
use std::path::Path;

use crate::media::{self, Layout};

/// A machine, and the script in `tests/guest` that runs on it.
#[derive(Debug)]
pub struct Machine {
    /// Name in the logs.
    pub name: &'static str,
    /// Name of the script, without `.sh`.
    pub script: &'static str,
    /// The machine has a translating IOMMU.
    pub iommu: bool,
    /// Parameters of the kernel.
    pub parameters: &'static str,
    /// NVMe controllers of the machine.
    pub controllers: &'static [Controller],
    /// QEMU's events to trace.
    pub traced: &'static [&'static str],
}

/// An NVMe controller of QEMU.
#[derive(Debug)]
pub struct Controller {
    /// QEMU's name. The serial number is `nvio-` and this name.
    pub id: &'static str,
    /// Place of the controller.
    pub slot: Slot,
    /// Further properties of `-device nvme`.
    pub options: &'static str,
    /// Namespaces of the controller.
    pub namespaces: &'static [Namespace],
}

/// The place of a controller.
#[derive(Debug)]
pub enum Slot {
    /// A device number on bus 0: `0000:00:NN.0`.
    Bus0(u8),
    /// A hot-plug port of its own with this device number on bus 0. The firmware numbers the buses,
    /// so the first controller is `0000:01:00.0`.
    Port(u8),
}

/// A namespace and its image.
#[derive(Debug)]
pub struct Namespace {
    /// Namespace ID.
    pub nsid: u32,
    /// Size, block size and metadata.
    pub layout: Layout,
    /// Contents when the machine starts.
    pub content: Content,
    /// QEMU injects the errors of [`media::faults`].
    pub faulty: bool,
    /// Maximum number of commands per second; 0 for no limit.
    pub rate: u32,
}

/// The contents of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes.
    Empty,
    /// The pattern of [`media`], with protection information if the layout has it.
    Pattern,
}

const fn empty(nsid: u32, block_size: u32) -> Namespace {
    let layout = Layout::plain(640 << 20, block_size);
    Namespace { nsid, layout, content: Content::Empty, faulty: false, rate: 0 }
}

const fn pattern(nsid: u32, layout: Layout) -> Namespace {
    Namespace { nsid, layout, content: Content::Pattern, faulty: false, rate: 0 }
}

/// Parameters with which the kernel translates the addresses of all devices, and forgets a translation
/// as soon as it is not needed.
const TRANSLATED: &str = "intel_iommu=on iommu.strict=1";

/// Controllers for filesystems, which the guest's kernel creates.
const FILESYSTEMS: &[Controller] = &[
    Controller {
        id: "a",
        slot: Slot::Bus0(0x10),
        options: "",
        namespaces: &[empty(1, 512), empty(3, 4096)],
    },
    Controller {
        id: "b",
        slot: Slot::Bus0(0x11),
        options: ",mdts=3",
        namespaces: &[empty(1, 512)],
    },
];

/// A machine with a translating IOMMU and filesystems.
pub const IOMMU: Machine = Machine {
    name: "Iommu",
    script: "scenario",
    iommu: true,
    parameters: TRANSLATED,
    controllers: FILESYSTEMS,
    traced: &[],
};

/// A machine without an IOMMU.
pub const NO_IOMMU: Machine = Machine {
    name: "NoIommu",
    script: "no-iommu",
    iommu: false,
    parameters: "",
    controllers: FILESYSTEMS,
    traced: &[],
};

/// A machine with one controller, whose filesystem nvio and the kernel change by turns.
pub const TURNS: Machine = Machine {
    name: "Turns",
    script: "turns",
    iommu: true,
    parameters: TRANSLATED,
    controllers: &[Controller {
        id: "a",
        slot: Slot::Bus0(0x10),
        options: "",
        namespaces: &[empty(1, 512)],
    }],
    traced: &[],
};

/// A machine with one controller, for the comparison of nvio with the kernel's own driver.
///
/// The kernel has its fastest settings: it does not translate the addresses of its own drivers'
/// devices, and does not mitigate faults of processors.
pub const COMPARE: Machine = Machine {
    name: "Compare",
    script: "compare",
    iommu: true,
    parameters: "intel_iommu=on iommu=pt mitigations=off",
    controllers: &[Controller {
        id: "a",
        slot: Slot::Bus0(0x10),
        options: "",
        namespaces: &[empty(1, 512)],
    }],
    traced: &[],
};

/// A machine with a controller for each special case, for the test program `nvme-check`.
pub const CHECK: Machine = Machine {
    name: "Check",
    script: "check",
    iommu: true,
    parameters: TRANSLATED,
    // Facts that only the controller knows: reads of shadow doorbells, and the addresses of queues.
    traced: &["pci_nvme_dbbuf_config", "pci_nvme_shadow_doorbell_sq", "pci_nvme_create_sq"],
    controllers: &[
        // Fewer queues than requested, and 32 KiB per command.
        Controller {
            id: "plain",
            slot: Slot::Bus0(0x10),
            options: ",mdts=3,max_ioqpairs=3",
            namespaces: &[pattern(1, media::PLAIN_512), pattern(2, media::PLAIN_4096)],
        },
        Controller {
            id: "cmb",
            slot: Slot::Bus0(0x11),
            options: ",cmb_size_mb=2",
            // The second namespace is slow, so that the driver sleeps.
            namespaces: &[
                pattern(1, media::PLAIN_512),
                Namespace { rate: 50, ..pattern(2, media::PLAIN_512) },
            ],
        },
        Controller {
            id: "pi",
            slot: Slot::Bus0(0x12),
            options: "",
            namespaces: &[
                pattern(1, media::PROTECTED[0]),
                pattern(2, media::PROTECTED[1]),
                pattern(3, media::PROTECTED[2]),
                pattern(4, media::PROTECTED[3]),
                pattern(5, media::PROTECTED[4]),
                pattern(6, media::PROTECTED[5]),
            ],
        },
        Controller {
            id: "faulty",
            slot: Slot::Bus0(0x13),
            options: "",
            namespaces: &[Namespace {
                nsid: 1,
                layout: media::PLAIN_512,
                content: Content::Pattern,
                faulty: true,
                rate: 0,
            }],
        },
        Controller {
            id: "asked-back",
            slot: Slot::Port(0x14),
            options: "",
            namespaces: &[pattern(1, media::PLAIN_512)],
        },
        Controller {
            id: "pulled",
            slot: Slot::Port(0x15),
            options: "",
            namespaces: &[pattern(1, media::PLAIN_512)],
        },
    ],
};

impl Machine {
    /// Creates the images in `folder`, and returns QEMU's arguments for the controllers.
    pub(super) fn devices(&self, folder: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        for Controller { id, slot, options, namespaces } in self.controllers {
            let place = match slot {
                Slot::Bus0(number) => format!("addr={number:#x}"),
                Slot::Port(number) => {
                    let port = format!("port-{id}");
                    let place = format!("id={port},addr={number:#x},chassis={number}");
                    add("-device", format!("pcie-root-port,{place},slot={number}"));
                    format!("bus={port}")
                }
            };
            add("-device", format!("nvme,id={id},serial=nvio-{id},{place}{options}"));
            for namespace in *namespaces {
                let drive = format!("{id}-{}", namespace.nsid);
                add("-drive", namespace.drive(&drive, folder));
                add("-device", namespace.device(id, &drive));
            }
        }
        arguments
    }
}

impl Namespace {
    /// Creates the image, and returns the argument for QEMU's block device.
    fn drive(&self, name: &str, folder: &Path) -> String {
        let image = folder.join(name);
        match self.content {
            Content::Empty => File::create(&image)
                .and_then(|file| file.set_len(self.layout.image_bytes()))
                .expect("a disk image"),
            Content::Pattern => {
                let bytes = media::image(self.nsid, &self.layout);
                std::fs::write(&image, bytes).expect("a disk image");
            }
        }
        let image = image.to_str().expect("a path of UTF-8");
        let file = match self.faulty {
            false => format!("file={image}"),
            true => {
                format!("file.driver=blkdebug,file.image.filename={image}{}", media::faults())
            }
        };
        let rate = match self.rate {
            0 => String::new(),
            rate => format!(",throttling.iops-total={rate}"),
        };
        // The host need not flush, because the image is deleted after the test.
        format!("if=none,id={name},format=raw,cache=unsafe,{file}{rate}")
    }

    fn device(&self, controller: &str, drive: &str) -> String {
        let Layout { block_size, metadata, .. } = self.layout;
        let blocks = format!("logical_block_size={block_size},physical_block_size={block_size}");
        let metadata = metadata.map_or(String::new(), |metadata| metadata.properties());
        format!("nvme-ns,bus={controller},drive={drive},nsid={},{blocks}{metadata}", self.nsid)
    }
}
