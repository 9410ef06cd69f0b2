//! The operations, and the sequences of them.

use nvio_ext4::FileType;
use nvio_testkit::random::Rng;

use super::model::{Tree, last, parent};

/// The names of files.
pub const NAMES: [&str; 6] = ["foo", "bar", "A/foo", "A/bar", "B/foo", "B/bar"];

/// Index of one of the [`NAMES`].
pub type At = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Create(At),
    Mkdir(At),
    Symlink(At),
    /// Allocates blocks after the end.
    Allocate(At, KeepSize),
    /// Appends.
    Write(At),
    /// Overwrites the end and appends, through the cache.
    Buffered(At),
    /// As `Buffered`, past the cache.
    Direct(At),
    Truncate(At),
    Link(At, At),
    Unlink(At),
    /// Renames to a name that may be in use.
    Rename(At, At),
    /// Renames to a name that is in use.
    Replace(At, At),
    /// Renames "A" (0) or "B" (1) to "C", to "C" in the other one, or over the other one.
    RenameDir(usize, Target),
    SetXattr(At),
    RemoveXattr(At),
    /// Opens the file, and keeps it open.
    Open(At),
    /// Creates an open file without a name in "A" or "B".
    Unnamed(usize),
    /// Appends to all open files.
    WriteOpen,
    /// Closes all files.
    Close,
}

pub type KeepSize = bool;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    New,
    Inside,
    Over,
}

/// Durability that is asked for after an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    None,
    File,
    Data,
    Directory,
    All,
}

pub const SYNCS: [Sync; 5] = [Sync::None, Sync::File, Sync::Data, Sync::Directory, Sync::All];

const DIRECTORIES: [&str; 2] = ["A", "B"];

/// The paths of a rename of a directory.
pub fn paths_of(directory: usize, target: Target) -> (String, String) {
    let other = DIRECTORIES[1 - directory];
    let to = match target {
        Target::New => "C".into(),
        Target::Inside => format!("{other}/C"),
        Target::Over => other.into(),
    };
    (DIRECTORIES[directory].into(), to)
}

/// Returns every operation on names.
pub fn all() -> Vec<Op> {
    let mut all = Vec::new();
    for at in 0..NAMES.len() {
        all.extend([Op::Create(at), Op::Mkdir(at), Op::Symlink(at), Op::Unlink(at)]);
        all.extend([Op::Allocate(at, false), Op::Allocate(at, true), Op::Truncate(at)]);
        all.extend([Op::Write(at), Op::Buffered(at), Op::Direct(at)]);
        all.extend([Op::SetXattr(at), Op::RemoveXattr(at)]);
        for to in (0..NAMES.len()).filter(|&to| to != at) {
            all.extend([Op::Link(at, to), Op::Rename(at, to), Op::Replace(at, to)]);
        }
    }
    for directory in 0..2 {
        let targets = [Target::New, Target::Inside, Target::Over];
        all.extend(targets.map(|target| Op::RenameDir(directory, target)));
    }
    all
}

impl Op {
    /// Returns the operation with other names: "foo" for "bar" (1), "A" for "B" (2), or both (3).
    fn mirrored(self, how: usize) -> Self {
        let name = |at: At| {
            let at = if how & 1 != 0 { at ^ 1 } else { at };
            if how & 2 != 0 && at > 1 { at ^ 6 } else { at }
        };
        match self {
            Self::Create(at) => Self::Create(name(at)),
            Self::Mkdir(at) => Self::Mkdir(name(at)),
            Self::Symlink(at) => Self::Symlink(name(at)),
            Self::Allocate(at, keep) => Self::Allocate(name(at), keep),
            Self::Write(at) => Self::Write(name(at)),
            Self::Buffered(at) => Self::Buffered(name(at)),
            Self::Direct(at) => Self::Direct(name(at)),
            Self::Truncate(at) => Self::Truncate(name(at)),
            Self::Link(at, to) => Self::Link(name(at), name(to)),
            Self::Unlink(at) => Self::Unlink(name(at)),
            Self::Rename(at, to) => Self::Rename(name(at), name(to)),
            Self::Replace(at, to) => Self::Replace(name(at), name(to)),
            Self::RenameDir(at, target) => Self::RenameDir(at ^ (how >> 1), target),
            Self::SetXattr(at) => Self::SetXattr(name(at)),
            Self::RemoveXattr(at) => Self::RemoveXattr(name(at)),
            Self::Open(at) => Self::Open(name(at)),
            other => other,
        }
    }

    /// Returns the paths of files that must be there, and those that must not.
    fn needs(self) -> (Vec<At>, Vec<At>) {
        match self {
            Self::Create(at) | Self::Mkdir(at) | Self::Symlink(at) => (vec![], vec![at]),
            Self::Link(at, to) => (vec![at], vec![to]),
            Self::Replace(at, to) => (vec![at, to], vec![]),
            Self::Allocate(at, _) | Self::Write(at) | Self::Buffered(at) | Self::Direct(at) => {
                (vec![at], vec![])
            }
            Self::Truncate(at) | Self::Unlink(at) | Self::Rename(at, _) | Self::Open(at) => {
                (vec![at], vec![])
            }
            Self::SetXattr(at) | Self::RemoveXattr(at) => (vec![at], vec![]),
            Self::RenameDir(..) | Self::Unnamed(_) | Self::WriteOpen | Self::Close => {
                (vec![], vec![])
            }
        }
    }

    /// Returns the path that a sync after the operation is for.
    pub fn path(self) -> Option<String> {
        let at = match self {
            Self::Create(at) | Self::Mkdir(at) | Self::Symlink(at) | Self::Allocate(at, _) => at,
            Self::Write(at) | Self::Buffered(at) | Self::Direct(at) | Self::Truncate(at) => at,
            Self::Unlink(at) | Self::SetXattr(at) | Self::RemoveXattr(at) | Self::Open(at) => at,
            Self::Link(_, to) | Self::Rename(_, to) | Self::Replace(_, to) => to,
            Self::RenameDir(at, target) => return Some(paths_of(at, target).1),
            Self::Unnamed(_) | Self::WriteOpen | Self::Close => return None,
        };
        Some(NAMES[at].into())
    }

    /// Returns true if the operation can be made, and changes something.
    pub fn is_possible(self, tree: &Tree) -> bool {
        let has_parent = |path: &str| tree.kind(parent(path)) == Some(FileType::Directory);
        match self {
            Self::Create(at) | Self::Mkdir(at) | Self::Symlink(at) => {
                has_parent(NAMES[at]) && tree.get(NAMES[at]).is_none()
            }
            Self::Link(at, to) => {
                let is_linkable =
                    tree.kind(NAMES[at]).is_some_and(|kind| kind != FileType::Directory);
                is_linkable && has_parent(NAMES[to]) && tree.get(NAMES[to]).is_none()
            }
            Self::Rename(at, to) => can_rename(tree, NAMES[at], NAMES[to]),
            Self::Replace(at, to) => {
                tree.get(NAMES[to]).is_some() && can_rename(tree, NAMES[at], NAMES[to])
            }
            Self::RenameDir(at, target) => {
                let (from, to) = paths_of(at, target);
                can_rename(tree, &from, &to)
            }
            Self::Unlink(at) => {
                let path = NAMES[at];
                tree.get(path).is_some()
                    && (tree.kind(path) != Some(FileType::Directory) || tree.is_empty_dir(path))
            }
            Self::SetXattr(at) => tree.is_file(NAMES[at]),
            Self::RemoveXattr(at) => {
                let number = tree.get(NAMES[at]);
                number.is_some_and(|number| !tree.nodes[&number].attributes.is_empty())
            }
            Self::Unnamed(at) => tree.kind(DIRECTORIES[at]) == Some(FileType::Directory),
            Self::WriteOpen | Self::Close => true,
            _ => self.path().is_some_and(|path| tree.is_file(&path)),
        }
    }
}

fn can_rename(tree: &Tree, from: &str, to: &str) -> bool {
    let is_dir = |path: &str| tree.kind(path) == Some(FileType::Directory);
    let (source, target) = (tree.get(from), tree.get(to));
    source.is_some()
        && source != target
        && is_dir(parent(to))
        && !to.starts_with(&format!("{from}/"))
        && (target.is_none()
            || is_dir(from) == is_dir(to) && (!is_dir(to) || tree.is_empty_dir(to)))
}

/// Operations, each with the sync that follows it.
pub type Sequence = Vec<(Op, Sync)>;

/// Returns the files that must be there before a sequence; `None` if some of its operations cannot be made.
pub fn setup(ops: impl Iterator<Item = Op>) -> Option<Vec<At>> {
    // For each name that an operation before has changed: true if it is in use.
    let (mut known, mut files) = ([None; NAMES.len()], Vec::new());
    for op in ops {
        let (present, absent) = op.needs();
        for at in present {
            if known[at].is_none() {
                files.push(at);
            }
            if !*known[at].get_or_insert(true) {
                return None;
            }
        }
        for at in absent {
            if *known[at].get_or_insert(false) {
                return None;
            }
        }
        match op {
            Op::Create(at) | Op::Mkdir(at) | Op::Symlink(at) | Op::Link(_, at) => {
                known[at] = Some(true);
            }
            Op::Unlink(at) => known[at] = Some(false),
            Op::Rename(at, to) | Op::Replace(at, to) => {
                known[at] = Some(false);
                known[to] = Some(true);
            }
            // Later operations find no file in it.
            Op::RenameDir(at, target) => {
                for (name, known) in NAMES.iter().zip(&mut known) {
                    if name.starts_with(DIRECTORIES[at])
                        || target == Target::Over && name.starts_with(DIRECTORIES[1 - at])
                    {
                        known.get_or_insert(false);
                    }
                }
            }
            _ => (),
        }
    }
    Some(files)
}

/// Returns the first of the operations that are the same with other names.
pub fn is_first(ops: &[Op]) -> bool {
    (1..4).all(|how| {
        let mirrored = ops.iter().map(|op| op.mirrored(how));
        ops.iter().copied().le(mirrored)
    })
}

/// Returns all sequences of one and two operations, with each sync after each of them. A last sync changes
/// nothing before it, so that there is none only after the first of two operations.
pub fn pairs() -> Vec<Sequence> {
    let all = all();
    let (mut pairs, ends) = (Vec::new(), &SYNCS[1..]);
    for &first in &all {
        if is_first(&[first]) && setup([first].into_iter()).is_some() {
            pairs.extend(ends.iter().map(|&end| vec![(first, end)]));
        }
        for &second in &all {
            let ops = [first, second];
            if !is_first(&ops) || setup(ops.into_iter()).is_none() {
                continue;
            }
            for between in SYNCS {
                pairs.extend(ends.iter().map(|&end| vec![(first, between), (second, end)]));
            }
        }
    }
    pairs
}

/// Returns a sequence of `count` operations.
pub fn random(random: &mut Rng, count: usize) -> Sequence {
    let all = all();
    loop {
        let ops: Vec<Op> = (0..count).map(|_| *random.pick(&all)).collect();
        if setup(ops.iter().copied()).is_some() {
            return ops.into_iter().map(|op| (op, *random.pick(&SYNCS))).collect();
        }
    }
}

/// Returns a sequence with open files that lose their names.
pub fn random_without_names(random: &mut Rng, count: usize) -> Sequence {
    let mut sequence = Vec::new();
    let mut at = 0;
    while sequence.len() < count {
        let other = (at + 1 + random.below(5) as usize) % NAMES.len();
        let op = match random.below(10) {
            0 | 1 => Op::Open(at),
            2 => Op::Unnamed(random.below(2) as usize),
            3 => Op::Unlink(at),
            4 => Op::Rename(other, at),
            5 | 6 => Op::WriteOpen,
            7 => Op::Close,
            8 => Op::Create(at),
            _ => Op::Write(other),
        };
        sequence.push((op, *random.pick(&SYNCS)));
        if random.below(3) == 0 {
            at = other;
        }
    }
    sequence
}

/// Returns a sequence of which most operations are in fast commits: new files, links, and changes of files.
pub fn random_new_names(random: &mut Rng, count: usize) -> Sequence {
    let mut sequence = Vec::new();
    while sequence.len() < count {
        let at = random.below(NAMES.len() as u64) as usize;
        let other = (at + 1 + random.below(5) as usize) % NAMES.len();
        let op = match random.below(24) {
            0..8 => Op::Create(at),
            8..14 => Op::Link(at, other),
            14 | 15 => Op::Write(at),
            16 => Op::Buffered(at),
            17 => Op::Direct(at),
            18 => Op::Truncate(at),
            19 => Op::Allocate(at, true),
            20 => Op::Unlink(at),
            21 => Op::Rename(at, other),
            22 => Op::Mkdir(at),
            _ => Op::SetXattr(at),
        };
        let sync = match random.below(8) {
            0..5 => Sync::File,
            _ => *random.pick(&SYNCS),
        };
        sequence.push((op, sync));
    }
    sequence
}

/// Returns a name as it is written in its directory.
pub fn split(path: &str) -> (&str, &str) {
    (parent(path), last(path))
}
