//! The command line.

mod groups;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use nvio::DeviceName;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::interrupt;
use crate::name;
use crate::verb::batch::Line;
use crate::verb::change::{chmod, chown, fallocate, recover, setfattr, touch, truncate};
use crate::verb::find::gnu;
use crate::verb::names::{ln, mkdir, mv, rm};
use crate::verb::{
    batch, bind, blocks, cat, completions, cp, demo, df, du, emulate, feature, find, format,
    fsinfo, identify, list, log, ls, man, manage, map, mount, ns, partitions, perf, put, reset,
    sha256, smart, stat, tar, tree, write,
};

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Reads and overwrites the files of ext4 filesystems on NVMe devices from user space.
///
/// DEVICE is the PCI address of a device that is bound to vfio-pci (0000:01:00.0),
/// vfio-user:SOCKET, or the path of an image, which is served by an embedded NVMe controller.
#[derive(Debug, Parser)]
#[command(name = "nvio", version, max_term_width = 100)]
#[command(subcommand_value_name = "VERB")]
pub struct Cli {
    /// Log to standard error: -v the steps of nvio, -vv debug, -vvv trace. RUST_LOG works, too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// A verb with its options, each in a file of `verb`. Its comment is the help.
#[derive(Debug, Subcommand)]
pub enum Verb {
    List(list::List),
    Bind(bind::Bind),
    Unbind(bind::Unbind),
    Identify(identify::Identify),
    Smart(smart::Smart),
    Log(log::Log),
    Ns(ns::Ns),
    Partitions(partitions::Partitions),
    Reset(reset::Reset),
    GetFeature(feature::get::GetFeature),
    SetFeature(feature::set::SetFeature),
    Format(format::FormatVerb),
    CreateNs(manage::create::CreateNs),
    DeleteNs(manage::delete::DeleteNs),
    AttachNs(manage::attach::AttachNs),
    DetachNs(manage::attach::DetachNs),
    ReadBlocks(blocks::read::ReadBlocks),
    WriteBlocks(blocks::write::WriteBlocks),
    Fsinfo(fsinfo::Fsinfo),
    Df(df::Df),
    Du(du::Du),
    Find(Box<find::Find>),
    Tree(tree::Tree),
    Ls(ls::Ls),
    Stat(stat::Stat),
    Map(map::Map),
    Cat(cat::Cat),
    Sha256(sha256::Sha256),
    Write(write::Write),
    Truncate(truncate::Truncate),
    Fallocate(fallocate::Fallocate),
    Chmod(chmod::Chmod),
    Chown(chown::Chown),
    Touch(touch::Touch),
    Setfattr(setfattr::Setfattr),
    Mkdir(mkdir::Mkdir),
    Rm(rm::Rm),
    Mv(mv::Mv),
    Ln(ln::Ln),
    Put(put::Put),
    Recover(recover::Recover),
    Cp(cp::Cp),
    Tar(tar::Tar),
    Batch(batch::Batch),
    Mount(Box<mount::Mount>),
    Umount(mount::Umount),
    Perf(Box<perf::Perf>),
    Emulate(Box<emulate::Emulate>),
    Demo(demo::Demo),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Verb {
    /// Runs the verb, and returns the exit code.
    ///
    /// # Errors
    /// The error that ended it.
    pub fn run(&self) -> Result<ExitCode, Error> {
        // The emulator waits for signals itself.
        if !matches!(self, Self::Emulate(_)) {
            interrupt::watch().map_err(Error::Signals)?;
        }
        match self {
            Self::List(verb) => verb.run(),
            Self::Bind(verb) => verb.run(),
            Self::Unbind(verb) => verb.run(),
            Self::Identify(verb) => verb.run(),
            Self::Smart(verb) => verb.run(),
            Self::Log(verb) => verb.run(),
            Self::Ns(verb) => verb.run(),
            Self::Partitions(verb) => verb.run(),
            Self::Reset(verb) => verb.run(),
            Self::GetFeature(verb) => verb.run(),
            Self::SetFeature(verb) => verb.run(),
            Self::Format(verb) => verb.run(),
            Self::CreateNs(verb) => verb.run(),
            Self::DeleteNs(verb) => verb.run(),
            Self::AttachNs(verb) => verb.run(),
            Self::DetachNs(verb) => verb.run(),
            Self::ReadBlocks(verb) => verb.run(),
            Self::WriteBlocks(verb) => verb.run(),
            Self::Fsinfo(verb) => verb.run(),
            Self::Df(verb) => verb.run(),
            Self::Du(verb) => verb.run(),
            Self::Find(verb) => verb.run(),
            Self::Tree(verb) => verb.run(),
            Self::Ls(verb) => verb.run(),
            Self::Stat(verb) => verb.run(),
            Self::Map(verb) => verb.run(),
            Self::Cat(verb) => verb.run(),
            Self::Sha256(verb) => verb.run(),
            Self::Write(verb) => verb.run(),
            Self::Truncate(verb) => verb.run(),
            Self::Fallocate(verb) => verb.run(),
            Self::Chmod(verb) => verb.run(),
            Self::Chown(verb) => verb.run(),
            Self::Touch(verb) => verb.run(),
            Self::Setfattr(verb) => verb.run(),
            Self::Mkdir(verb) => verb.run(),
            Self::Rm(verb) => verb.run(),
            Self::Mv(verb) => verb.run(),
            Self::Ln(verb) => verb.run(),
            Self::Put(verb) => verb.run(),
            Self::Recover(verb) => verb.run(),
            Self::Cp(verb) => verb.run(),
            Self::Tar(verb) => verb.run(),
            Self::Batch(verb) => verb.run(plain(verb.device())?, run_line),
            Self::Mount(verb) => verb.run(),
            Self::Umount(verb) => verb.run(),
            Self::Perf(verb) => verb.run(),
            Self::Emulate(verb) => verb.run(),
            Self::Demo(verb) => verb.run(),
            Self::Completions(verb) => verb.run(definition()),
            Self::Man(verb) => verb.run(definition()),
        }
    }
}

/// Parses the command line. Wrong usage is reported on one line of standard error.
///
/// # Errors
/// The exit code, for help and version (0) and for wrong usage (2).
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    try_parse(arguments.into_iter().collect()).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is not a failure.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            interrupt::say(&usage_line(&error));
            ExitCode::from(USAGE)
        }
    })
}

/// Returns the definition of the command line.
pub fn definition() -> Command {
    groups::with_groups(Cli::command())
}

fn try_parse(mut arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let command = definition();
    let find = gnu::position(&arguments, "find").zip(command.find_subcommand("find"));
    if let Some((position, find)) = find {
        let rest = arguments.split_off(position + 1);
        arguments.extend(gnu::rewrite(rest, find));
    }
    if let Some(position) = gnu::position(&arguments, "setfattr") {
        setfattr::rewrite(arguments.get_mut(position..).unwrap_or_default());
    }
    let mut command = command;
    let verb = arguments.iter().skip(1).find_map(|argument| command.find_subcommand(argument));
    let verb = verb.map(|verb| verb.get_name().to_owned());
    parse_with(&mut command, arguments).map_err(|error| with_usage(error, &mut command, verb))
}

fn parse_with(command: &mut Command, arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    match &cli.verb {
        Verb::Tar(tar) if tar.has_several_targets() => {
            let line = "an archive is extracted into one directory";
            let mut form = command.find_subcommand("tar").unwrap_or(command).clone();
            Err(form.error(ErrorKind::TooManyValues, line))
        }
        _ => Ok(cli),
    }
}

/// Verbs that can be lines of a batch: they open a device for reading, and do not read standard input.
const IN_BATCH: [&str; 17] = [
    "ls",
    "find",
    "tree",
    "stat",
    "map",
    "cat",
    "sha256",
    "cp",
    "tar",
    "df",
    "du",
    "identify",
    "ns",
    "smart",
    "log",
    "read-blocks",
    "get-feature",
];

/// Returns the arguments of a line that has no options of a device.
fn plain(device: &DeviceName) -> Result<VolumeArgs, Error> {
    let words = ["nvio".into(), "df".into(), batch::name_of(device)].to_vec();
    match try_parse(words).map_err(|error| Error::Usage(usage_line(&error)))?.verb {
        Verb::Df(df) => Ok(df.volume),
        _ => Err(Error::Usage("df is not a verb".to_owned())),
    }
}

/// Runs a line of a batch.
fn run_line(line: Line) -> Result<ExitCode, Error> {
    let Line { words, device, json } = line;
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_default().to_string_lossy().into_owned();
    if !IN_BATCH.contains(&name.as_str()) {
        return Err(Error::NotInBatch { verb: name::one_line(&name) });
    }
    let mut arguments = vec![OsString::from("nvio"), name.clone().into(), device];
    arguments.extend(words);
    if json {
        let definition = definition();
        let verb = definition.find_subcommand(&name);
        let has_json = verb
            .is_some_and(|verb| verb.get_arguments().any(|argument| argument.get_id() == "json"));
        match (has_json, name.as_str()) {
            (true, _) if !arguments.iter().any(|argument| argument == "--json") => {
                arguments.push("--json".into());
            }
            (true, _) | (false, "cp") => {}
            (false, _) => return Err(Error::NoJson { verb: name }),
        }
    }
    let cli = try_parse(arguments).map_err(|error| Error::Usage(usage_line(&error)))?;
    if matches!(&cli.verb, Verb::Tar(tar) if tar.extract) {
        return Err(Error::NotInBatch { verb: "tar --extract".to_owned() });
    }
    cli.verb.run()
}

/// Adds the form of the verb to an error that does not have it, such as that of a wrong value.
fn with_usage(mut error: clap::Error, command: &mut Command, verb: Option<String>) -> clap::Error {
    let Some(verb) = verb.and_then(|name| command.find_subcommand_mut(name)) else {
        return error;
    };
    if error.get(ContextKind::Usage).is_none() {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(verb.render_usage()));
    }
    error.format(verb)
}

/// Formats the message of clap as one line: the mistake, a similar word that would be right, the
/// form of the verb, and the option that shows more.
fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no verb given; `nvio --help` lists them".to_owned();
    }
    let text = error.render().to_string();
    let squeezed = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let paragraphs: Vec<String> = text.split("\n\n").map(squeezed).collect();
    let line = paragraphs.join("; ");
    name::one_line(line.strip_prefix("error: ").unwrap_or(&line))
}

/// Starts logging to standard error, at the level of -v or of RUST_LOG.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        // The command prints each error once. The driver logs some of them, too.
        0 => "off,nvio=error,nvio_driver=off",
        1 => "warn,nvio=info",
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
    use nvio::DeviceName;
    use std::path::PathBuf;

    fn parsed(line: &str) -> Cli {
        try_parse(line.split(' ').map(OsString::from).collect()).unwrap()
    }

    fn refused(line: &str) -> String {
        usage_line(&try_parse(line.split(' ').map(OsString::from).collect()).unwrap_err())
    }

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }

    #[test]
    fn forms_of_the_verbs() {
        let Verb::Ls(ls) = parsed("nvio ls -lR --json disk.img --partition 2 --namespace 3").verb
        else {
            panic!("not ls")
        };
        assert_eq!(ls.paths, ["/"]);
        assert!(ls.long && ls.recursive && ls.format.json && !ls.xattrs);
        let volume = ls.volume;
        assert_eq!((volume.partition, volume.controller.namespace), (Some(2), Some(3)));
        assert_eq!(volume.controller.lba_size, 512);
        let default = nvio::ext4::Options::default();
        assert_eq!(volume.memory.cache, default.cache_bytes);
        assert_eq!(volume.memory.read_ahead_bytes(), default.read_ahead);
        let Verb::Cat(cat) =
            parsed("nvio cat disk.img /a --cache 1G --no-read-ahead --lba-size 4K").verb
        else {
            panic!("not cat")
        };
        assert_eq!(cat.volume.memory.cache, 1 << 30);
        assert_eq!(cat.volume.memory.read_ahead_bytes(), 0);
        assert_eq!(cat.volume.controller.lba_size, 4096);

        let Verb::Cat(cat) = parsed("nvio -v cat 0000:01:00.0 --offset 5 /a /b --length 3K").verb
        else {
            panic!("not cat")
        };
        assert_eq!((cat.paths.len(), cat.offset, cat.length), (2, 5, Some(3 << 10)));

        let Verb::Stat(stat) =
            parsed("nvio stat disk.img /a --journal journal.img --journal-partition 2").verb
        else {
            panic!("not stat")
        };
        let volume = stat.volume;
        assert_eq!(volume.journal, Some(DeviceName::Image("journal.img".into())));
        assert_eq!((volume.journal_namespace, volume.journal_partition), (None, Some(2)));

        let Verb::Write(write) = parsed("nvio write disk.img /a --offset 7 --dsync").verb else {
            panic!("not write")
        };
        assert_eq!((write.path, write.offset, write.dsync), ("/a".into(), 7, true));

        let Verb::Emulate(emulate) = parsed(
            "nvio emulate --socket s disk.img memory:64M ./null:1 --lba-size 512,4096,512 \
             --fault lost,op=read,nth=2 --fault-rate lost=1,late=2 --jitter 5us",
        )
        .verb
        else {
            panic!("not emulate")
        };
        let args = emulate.args;
        assert_eq!((args.images.len(), &args.namespaces.lba_size[..]), (3, &[512, 4096, 512][..]));
        assert_eq!((args.faults.fault.len(), args.faults.fault_rate.len()), (1, 2));
        assert_eq!(args.speed.jitter, std::time::Duration::from_micros(5));

        let Verb::Cp(cp) = parsed("nvio cp -r disk.img /a /b out").verb else { panic!("not cp") };
        assert_eq!((cp.paths.len(), cp.recursive), (2, true));
        assert_eq!(cp.target, PathBuf::from("out"));
    }

    #[test]
    fn wrong_usage_is_reported_on_one_line() {
        for (line, part) in [
            ("nvio", "no verb given"),
            ("nvio frob", "'frob'"),
            ("nvio identfy", "a similar subcommand exists: 'identify'"),
            ("nvio find disk.img --maxdeth 1", "a similar argument exists: '--maxdepth'"),
            ("nvio find disk.img -nmae x", "a similar argument exists: '--name'"),
            ("nvio find disk.img -nmae x", "Usage: nvio find"),
            ("nvio find disk.img -size 5x", "for '--size <N[SUFFIX]>'"),
            ("nvio find disk.img -size 5x", "Usage: nvio find"),
            ("nvio ls disk.img --cache 1Q", "Usage: nvio ls"),
            ("nvio find disk.img -name x -o", "Usage: nvio find"),
            ("nvio find disk.img ( -name x", "a ( without a )"),
            ("nvio find disk.img -name x -o", "an operator has no test"),
            ("nvio find disk.img -name", "a value is required for '--name <PATTERN>'"),
            ("nvio ls disk.img --recursiv", "a similar argument exists: '--recursive'"),
            ("nvio ls disk.img --xattrs", "--long"),
            ("nvio cat disk.img --offse 1", "Usage: nvio cat"),
            ("nvio cat", "<DEVICE>"),
            ("nvio cat disk.img", "<PATHS>"),
            ("nvio write disk.img", "<PATH>"),
            ("nvio write disk.img /a /b", "'/b'"),
            ("nvio write disk.img /a --offset 1Q", "a size is bytes"),
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
            ("nvio emulate a --socket s --fault frob", "is not a fault"),
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
