//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use nvio::DeviceName;
use nvio_driver::pci::PciAddress;

use crate::args::{ControllerArgs, Format, Human, RawRange, VolumeArgs, lba_size};
use crate::name;
use crate::verb::du::DuArgs;
use crate::verb::emulate::args::EmulateArgs;
use crate::verb::find::FindArgs;
use crate::verb::log::LogName;

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Reads and overwrites the files of ext4 filesystems on NVMe devices from user space.
///
/// DEVICE is the PCI address of a device that is bound to vfio-pci (0000:01:00.0),
/// vfio-user:SOCKET, or the path of an image, which is served by an embedded NVMe controller.
#[derive(Debug, Parser)]
#[command(name = "nvio", version, max_term_width = 100)]
pub struct Cli {
    /// Log to standard error: -v info, -vv debug, -vvv trace. RUST_LOG works, too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// A verb with its options.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the NVMe controllers of this machine, their drivers and their users. Idle controllers
    /// bound to vfio-pci are reset to identify them.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Unbind a controller from the driver of the kernel and bind it to vfio-pci.
    Bind {
        /// PCI address, such as 0000:01:00.0.
        address: PciAddress,
    },
    /// Bind a controller to the driver it had before `nvio bind`.
    Unbind {
        /// PCI address, such as 0000:01:00.0.
        address: PciAddress,
    },
    /// Show the Identify data of a controller and its namespaces.
    Identify {
        #[command(flatten)]
        device: ControllerArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Show the health of a drive: temperature, wear, errors (SMART / Health Information).
    Smart {
        #[command(flatten)]
        device: ControllerArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Show a log page of the controller. Without PAGE, list the supported pages. With --namespace,
    /// smart and pages that are not decoded are read for that namespace.
    Log {
        #[command(flatten)]
        device: ControllerArgs,
        /// error, smart, firmware, changed-ns, effects, supported, or the number of any other page.
        page: Option<LogName>,
        #[command(flatten)]
        range: RawRange,
        #[command(flatten)]
        format: Format,
    },
    /// Show the namespaces of a controller: sizes, formats, identifiers.
    Ns {
        #[command(flatten)]
        device: ControllerArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Reset a controller, bring it up, and shut it down: a function level reset, CC.EN cleared
    /// and set, the first commands, CC.SHN. Commands of other users are lost. A PCI device must be
    /// bound to vfio-pci.
    Reset {
        /// PCI address or vfio-user:SOCKET.
        #[arg(value_name = "DEVICE", value_parser = OsStringValueParser::new().map(DeviceName::from))]
        device: DeviceName,
        #[command(flatten)]
        format: Format,
    },
    /// Show the superblock of a filesystem in the format of `dumpe2fs -h`. Works on a filesystem
    /// that needs recovery or is in use, and on an external journal.
    Fsinfo {
        #[command(flatten)]
        volume: VolumeArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Show used and free space of a filesystem as df does, without its own metadata.
    #[command(disable_help_flag = true)]
    Df {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Show inodes instead of blocks.
        #[arg(short, long)]
        inodes: bool,
        #[command(flatten)]
        human: Human,
        #[command(flatten)]
        format: Format,
    },
    /// Show the space that files and directories occupy on the device, as du does, in KiB. A file
    /// with several names counts once.
    #[command(disable_help_flag = true)]
    Du {
        #[command(flatten)]
        volume: VolumeArgs,
        #[command(flatten)]
        args: DuArgs,
        #[command(flatten)]
        human: Human,
        #[command(flatten)]
        format: Format,
    },
    /// Find entries of a directory and below it, as find does. All conditions must hold.
    ///
    /// N is a number: 5 is exactly 5, +5 is more, -5 is less.
    Find {
        #[command(flatten)]
        volume: VolumeArgs,
        #[command(flatten)]
        args: Box<FindArgs>,
        #[command(flatten)]
        format: Format,
    },
    /// Show a directory and the entries below it as a tree.
    Tree {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Path in the filesystem.
        #[arg(default_value = "/")]
        path: OsString,
        /// Descend at most this deep; 1 is the entries of the directory itself.
        #[arg(short = 'L', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        max_depth: Option<u32>,
        #[command(flatten)]
        format: Format,
    },
    /// List directories. All names except . and .. are shown; sizes are exact, times are UTC.
    Ls {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Paths in the filesystem.
        #[arg(default_value = "/")]
        paths: Vec<OsString>,
        /// Show mode, links, owner, size and time.
        #[arg(short, long)]
        long: bool,
        /// List the directories below, too.
        #[arg(short = 'R', long)]
        recursive: bool,
        /// With --long and --json, show extended attributes and access control lists, too.
        #[arg(long, requires_all = ["long", "json"])]
        xattrs: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Show the fields of an inode. Symbolic links are not followed.
    Stat {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Paths in the filesystem.
        #[arg(required = true)]
        paths: Vec<OsString>,
        #[command(flatten)]
        format: Format,
    },
    /// Show the extents of files as filefrag does. Physical positions are counted from the start of
    /// the filesystem, in blocks; in bytes with --json.
    Map {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Paths in the filesystem.
        #[arg(required = true)]
        paths: Vec<OsString>,
        #[command(flatten)]
        format: Format,
    },
    /// Write files to standard output, one after the other.
    Cat {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Paths in the filesystem.
        #[arg(required = true)]
        paths: Vec<OsString>,
        /// Skip this many bytes of each file.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        offset: u64,
        /// Write at most this many bytes of each file.
        #[arg(long, value_name = "BYTES")]
        length: Option<u64>,
    },
    /// Overwrite bytes of a file with standard input. The file keeps its size, its blocks and its
    /// times: only existing bytes are replaced. The filesystem must not be mounted.
    Write {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Path in the filesystem.
        path: OsString,
        /// Begin at this byte of the file.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        offset: u64,
        /// Make each MiB durable before reading the next. By default data is durable when the
        /// command exits.
        #[arg(long)]
        dsync: bool,
    },
    /// Copy files from the device to this machine as cp -a does: holes stay holes; links, modes and
    /// times are kept, and owners if run by root. No file is written through a symbolic link.
    Cp {
        #[command(flatten)]
        volume: VolumeArgs,
        /// Paths in the filesystem.
        #[arg(required = true)]
        paths: Vec<OsString>,
        /// The target on this machine: a directory to copy into, or a new name.
        #[arg(required = true)]
        target: PathBuf,
        /// Copy directories with all their entries.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Serve images as an NVMe controller over vfio-user, a namespace for each, until SIGINT or
    /// SIGTERM. It serves one client at a time: nvio itself as vfio-user:SOCKET, SPDK, or a virtual
    /// machine. A line on standard output announces that clients can connect.
    ///
    /// SIZE is a whole number of bytes, or one with K, M, G, T (powers of 1024), kB, MB, GB or TB
    /// (powers of 1000). TIME is a whole number with ns, us, ms or s.
    Emulate {
        // Before the other options, which have headings.
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        args: Box<EmulateArgs>,
    },
    /// Make an ext4 image of a folder, read every file back through the whole stack, and compare.
    Demo {
        /// The folder. Without it, one with files of many types is created.
        folder: Option<PathBuf>,
        /// Logical block of the embedded controller in bytes.
        #[arg(long, value_parser = lba_size, default_value = "512", value_name = "512|4096")]
        lba_size: u32,
        /// Keep the image and print its path.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        format: Format,
    },
}

/// Parses the command line. Wrong usage is reported on one line of standard error.
///
/// # Errors
/// The exit code, for help and version (0) and for wrong usage (2).
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is not a failure.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("nvio: {}", usage_line(&error));
            ExitCode::from(USAGE)
        }
    })
}

/// Formats the first paragraph of the message of clap as one line.
fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no verb given; `nvio --help` lists them".to_owned();
    }
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    name::one_line(&format!("{line}; `nvio --help` or `nvio VERB --help` shows the form"))
}

/// Starts logging to standard error, at the level of -v or of RUST_LOG.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        // The command prints each error once. The driver logs some of them, too.
        0 => "off,nvio=error,nvio_driver=off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let environment = env_logger::Env::default();
    let environment = match verbose {
        0 => environment.default_filter_or(level),
        _ => environment.filter_or("NVIO_LOG_IS_SET_BY_OPTION", level),
    };
    env_logger::Builder::from_env(environment).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap()
    }

    fn refused(line: &str) -> String {
        usage_line(&Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn forms_of_the_verbs() {
        let Verb::Ls { volume, paths, long, recursive, xattrs, format } =
            parsed("nvio ls -lR --json disk.img --partition 2 --namespace 3").verb
        else {
            panic!("not ls")
        };
        assert_eq!(paths, ["/"]);
        assert!(long && recursive && format.json && !xattrs);
        assert_eq!((volume.partition, volume.controller.namespace), (Some(2), Some(3)));
        assert_eq!(volume.controller.lba_size, 512);
        let default = nvio::ext4::Options::default();
        assert_eq!(volume.memory.cache_bytes(), default.cache_bytes);
        assert_eq!(volume.memory.read_ahead_bytes(), default.read_ahead);
        let Verb::Cat { volume, .. } =
            parsed("nvio cat disk.img /a --cache 1G --no-read-ahead").verb
        else {
            panic!("not cat")
        };
        assert_eq!(volume.memory.cache_bytes(), 1 << 30);
        assert_eq!(volume.memory.read_ahead_bytes(), 0);

        let Verb::Cat { paths, offset, length, .. } =
            parsed("nvio -v cat 0000:01:00.0 --offset 5 /a /b").verb
        else {
            panic!("not cat")
        };
        assert_eq!((paths.len(), offset, length), (2, 5, None));

        let Verb::Stat { volume, .. } =
            parsed("nvio stat disk.img /a --journal journal.img --journal-partition 2").verb
        else {
            panic!("not stat")
        };
        assert_eq!(volume.journal, Some(DeviceName::Image("journal.img".into())));
        assert_eq!((volume.journal_namespace, volume.journal_partition), (None, Some(2)));

        let Verb::Write { path, offset, dsync, .. } =
            parsed("nvio write disk.img /a --offset 7 --dsync").verb
        else {
            panic!("not write")
        };
        assert_eq!((path, offset, dsync), ("/a".into(), 7, true));

        let Verb::Emulate { args, .. } = parsed(
            "nvio emulate --socket s disk.img memory:64M ./null:1 --lba-size 512,4096,512 \
             --fault lost,op=read,nth=2 --fault-rate lost=1,late=2 --jitter 5us",
        )
        .verb
        else {
            panic!("not emulate")
        };
        assert_eq!((args.images.len(), &args.namespaces.lba_size[..]), (3, &[512, 4096, 512][..]));
        assert_eq!((args.faults.fault.len(), args.faults.fault_rate.len()), (1, 2));
        assert_eq!(args.speed.jitter, std::time::Duration::from_micros(5));

        let Verb::Cp { paths, target, recursive, .. } =
            parsed("nvio cp -r disk.img /a /b out").verb
        else {
            panic!("not cp")
        };
        assert_eq!((paths.len(), recursive), (2, true));
        assert_eq!(target, PathBuf::from("out"));
    }

    #[test]
    fn wrong_usage_is_reported_on_one_line() {
        for (line, part) in [
            ("nvio", "no verb given"),
            ("nvio frob", "'frob'"),
            ("nvio cat", "<DEVICE>"),
            ("nvio cat disk.img", "<PATHS>"),
            ("nvio write disk.img", "<PATH>"),
            ("nvio write disk.img /a /b", "'/b'"),
            ("nvio write disk.img /a --offset 1K", "1K"),
            ("nvio cp disk.img /a", "required arguments were not provided: <PATHS>"),
            ("nvio bind disk.img", "\"disk.img\" is not a PCI address"),
            ("nvio ls disk.img --partition 0", "0 is not in 1..=1024"),
            ("nvio ls disk.img --journal-namespace 2", "--journal <DEVICE>"),
            ("nvio ls disk.img --lba-size 520", "a block is 512 or 4096 bytes"),
            ("nvio ls disk.img --cache 1Q", "a size is bytes"),
            ("nvio ls disk.img --read-ahead 1M --no-read-ahead", "cannot be used with"),
            ("nvio log disk.img frob", "error, smart, firmware"),
            ("nvio log disk.img 256", "0 to 255"),
            ("nvio log disk.img 2 --length 16777217", "is not in 1..=16777216"),
            ("nvio emulate disk.img", "--socket <PATH>"),
            ("nvio emulate --socket s", "<IMAGE>"),
            ("nvio emulate disk.img --socket s --mdts 16", "16 is not in 0..=15"),
            ("nvio emulate disk.img --socket s --queues 0", "0 is not in 1..=65534"),
            ("nvio emulate disk.img --socket s --queue-entries 1", "1 is not in 2..=65536"),
            ("nvio emulate disk.img --socket s --serial 123456789012345678901", "up to 20"),
            ("nvio emulate disk.img --socket s --model a\tb", "up to 40"),
            ("nvio emulate memory:1Q --socket s", "a size is bytes"),
            ("nvio emulate a b --socket s --lba-size 512,520", "a block is 512 or 4096 bytes"),
            ("nvio emulate a --socket s --nsid 1025", "1025 is not in 1..=1024"),
            ("nvio emulate a --socket s --legacy-cmb", "--cmb <SIZE>"),
            ("nvio emulate a --socket s --latency 5", "ns, us, ms or s"),
            ("nvio emulate a --socket s --iops 0", "0 is not in 1..=1000000000000"),
            ("nvio emulate a --socket s --fault frob", "is no fault"),
            ("nvio emulate a --socket s --fault-rate lost=2000000", "parts per million"),
            ("nvio cat disk.img / --offset -1", "-1"),
            ("nvio cat disk.img / --offset \u{1b}[2J", "offset"),
        ] {
            let told = refused(line);
            assert!(told.contains(part), "{line}: {told}");
            assert!(!told.contains(['\n', '\u{1b}']), "{line}: {told}");
        }
    }
}
