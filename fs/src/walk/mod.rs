//! Tree walks, which visit every directory once, in a defined order, and read metadata ahead.

pub(crate) mod readahead;
pub(crate) mod sorted_entries;

use std::collections::HashSet;
use std::{fmt, vec};

use crate::blocks::inode_table::Near;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::number::InodeNumber;
use crate::walk::readahead::{Ahead, LOOKED_THROUGH};
use crate::walk::sorted_entries::{Failed, Item, Listing};

/// Maximum depth of nested directories.
const DEPTH_MAX: usize = 4096;

/// The order of a [`Walk`]. The entries of a directory are always sorted by the bytes of their
/// names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalkOrder {
    /// The contents of a directory follow directly after its entry, as in `find`.
    #[default]
    DepthFirst,
    /// The contents of the subdirectories follow after all entries of a directory, as in `ls -R`.
    ByDirectory,
}

/// The event of a step in a [`Walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEvent {
    /// The walk enters a directory, whose entries follow. Its own [`Entry`](Self::Entry), in the
    /// parent, came before.
    Enter,
    /// An entry of the current directory, or the start of the walk, if that is not a directory.
    Entry,
    /// The walk leaves the current directory. Each directory that was entered is left.
    Leave,
}

/// A step of a [`Walk`].
#[derive(Clone, Copy, Debug)]
pub struct Visit<'w> {
    /// The event.
    pub event: WalkEvent,
    /// The path: the start of the walk, and the names below it, each after one slash.
    pub path: &'w [u8],
    /// The last name of the path; empty at the start of the walk.
    pub name: &'w [u8],
    /// The inode.
    pub inode: &'w Inode,
    /// Number of directories between the start of the walk and this inode; 0 for the start.
    pub depth: usize,
}

/// A tree walk, created by [`Filesystem::walk`].
///
/// The walk keeps in memory the names of the directories on the current path, and about 4 bytes for
/// each directory of the tree. Inodes and directories are read ahead within
/// [`Options::read_ahead`](crate::Options::read_ahead), so that many reads are in flight.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use nvio_ext4::{WalkEvent, WalkOrder};
///
/// let mut walk = fs.walk("/", &fs.root()?).order(WalkOrder::DepthFirst).max_depth(10);
/// let mut paths = Vec::new();
/// while let Some(visit) = walk.step() {
///     match visit {
///         Ok(visit) => {
///             let (event, is_lost) = (visit.event, visit.name == b"lost+found");
///             if event != WalkEvent::Leave {
///                 paths.push(visit.path.to_vec());
///             }
///             if event == WalkEvent::Enter && is_lost {
///                 walk.skip();
///             }
///         }
///         // The walk continues after an error.
///         Err(error) => {
///             let lost = if walk.failed_at_entry() { "skipped" } else { "not listed in full" };
///             eprintln!("{}: {lost}: {error}", walk.path().escape_ascii());
///         }
///     }
///     let _branch = if walk.is_last() { "└" } else { "├" };
/// }
/// assert!(paths.contains(&b"/etc/hostname".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Walk {
    fs: Filesystem,
    order: WalkOrder,
    max_depth: usize,
    todo: Todo,
    path: Vec<u8>,
    /// Byte offset of the last name in `path`.
    name: usize,
    /// The inode of `path`.
    inode: Inode,
    stack: Vec<Frame>,
    seen: HashSet<InodeNumber>,
    /// Directories that were entered a second time, at their own place.
    again: HashSet<InodeNumber>,
    /// The last error concerns an entry that was not visited.
    at_entry: bool,
    /// The location of the last inode that was read.
    near: Near,
    ahead: Ahead,
    /// An unused list, kept to reuse its memory.
    spare: Listing,
}

/// The action of the next step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Todo {
    Begin,
    /// Enter the directory at `path`.
    Enter,
    /// Visit the next entry.
    GoOn,
}

/// A directory on the current path.
struct Frame {
    inode: Inode,
    /// Length of the directory's path, and byte offset of its last name.
    path: usize,
    name: usize,
    listing: Listing,
    /// Index of the next entry.
    next: usize,
    /// Index of the first entry whose inode was not read ahead.
    ahead: usize,
    /// The errors of the directory that are still to be returned.
    errors: vec::IntoIter<Failed>,
    /// All entries were visited, and `listing` now contains only the directories to enter.
    given: bool,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = format_args!("\"{}\"", self.path.escape_ascii());
        f.debug_struct("Walk").field("path", &path).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Starts a walk through `inode` and everything below it, in the order
    /// [`WalkOrder::DepthFirst`]. Paths in the walk begin with `path`. If `inode` is not a
    /// directory, the walk yields one [`WalkEvent::Entry`].
    ///
    /// See the [example](Self#examples).
    pub fn walk(&self, path: impl AsRef<[u8]>, inode: &Inode) -> Walk {
        let path = path.as_ref();
        Walk {
            fs: self.clone(),
            order: WalkOrder::default(),
            max_depth: usize::MAX,
            todo: Todo::Begin,
            path: path.to_vec(),
            name: path.len(),
            inode: inode.clone(),
            stack: Vec::new(),
            seen: HashSet::new(),
            again: HashSet::new(),
            at_entry: false,
            near: Near::default(),
            ahead: Ahead::default(),
            spare: Listing::default(),
        }
    }
}

/// Appends a name to the path of a directory. Returns the offset of the name.
fn push_name(path: &mut Vec<u8>, name: &[u8]) -> usize {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    let at = path.len();
    path.extend_from_slice(name);
    at
}

impl Walk {
    /// Sets the order.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn order(mut self, order: WalkOrder) -> Self {
        self.order = order;
        self
    }

    /// Sets the maximum depth of directories to enter. With 0, only the start is entered.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.max_depth = depth;
        self
    }

    /// Returns the path of the last step, or of the last error.
    ///
    /// See the [example](Self#examples).
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns true if the last [`WalkEvent::Entry`], or the entry that failed, is the last of its
    /// directory.
    ///
    /// See the [example](Self#examples).
    pub fn is_last(&self) -> bool {
        self.stack.last().is_none_or(|frame| frame.listing.get(frame.next).is_none())
    }

    /// Returns true if the last error concerns the entry at [`path`](Self::path), which therefore was
    /// not visited. Other errors concern the directory at `path`, which cannot be entered or not be
    /// read in full, or a second entry of the name at `path`.
    ///
    /// See the [example](Self#examples).
    pub fn failed_at_entry(&self) -> bool {
        self.at_entry
    }

    /// Does not enter the directory whose [`WalkEvent::Entry`] was the last step.
    ///
    /// See the [example](Self#examples).
    pub fn skip(&mut self) {
        match self.order {
            WalkOrder::DepthFirst => self.todo = Todo::GoOn,
            WalkOrder::ByDirectory => {
                if let Some(frame) = self.stack.last_mut().filter(|frame| !frame.given) {
                    frame.listing.set_kind(frame.next.saturating_sub(1), None);
                }
            }
        }
    }

    /// Returns the next step, or `None` at the end.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Damage to a directory or to the inode of an entry; an unsupported inode; a directory that
    /// was visited before, or is nested too deep ([`Error::TooDeep`]: 4,096); a failure of the
    /// source. [`path`](Self::path) returns the path of the error. The walk then continues after
    /// it. The errors of a directory's blocks and names follow its [`WalkEvent::Enter`]; the
    /// entries that can be read come after them.
    pub fn step(&mut self) -> Option<Result<Visit<'_>, Error>> {
        self.at_entry = false;
        match std::mem::replace(&mut self.todo, Todo::GoOn) {
            Todo::Begin if self.inode.is_dir() => return Some(self.enter()),
            Todo::Begin => return Some(Ok(self.visit(WalkEvent::Entry, 0))),
            Todo::Enter => return Some(self.enter()),
            Todo::GoOn => {}
        }
        loop {
            let frame = self.stack.last_mut()?;
            if let Some(Failed { name, error }) = frame.errors.next() {
                self.path.truncate(frame.path);
                if !name.is_empty() {
                    push_name(&mut self.path, &name);
                }
                return Some(Err(error));
            }
            let index = frame.next;
            let Some(item) = frame.listing.get(index).copied() else {
                match self.leave() {
                    Some(depth) => return Some(Ok(self.visit(WalkEvent::Leave, depth))),
                    None => continue,
                }
            };
            frame.next = index.saturating_add(1);
            self.path.truncate(frame.path);
            self.name = push_name(&mut self.path, frame.listing.name(&item));
            if !frame.given {
                self.at_entry = true;
                return Some(self.entry(index, item));
            }
            return Some(match self.fs.inode(item.inode) {
                Ok(inode) => {
                    self.inode = inode;
                    self.enter()
                }
                Err(error) => Err(self.named(error)),
            });
        }
    }

    fn visit(&self, event: WalkEvent, depth: usize) -> Visit<'_> {
        let name = self.path.get(self.name..).unwrap_or_default();
        Visit { event, path: &self.path, name, inode: &self.inode, depth }
    }

    /// An entry that refers to a free inode is damage.
    fn named(&self, error: Error) -> Error {
        match (error, self.stack.last()) {
            (Error::InodeNotInUse { inode }, Some(frame)) => {
                let structure = Structure::Directory(frame.inode.number());
                structure.corrupt(Problem::NameOfFreeInode { inode })
            }
            (error, _) => error,
        }
    }

    /// Enters the directory at `path`.
    fn enter(&mut self) -> Result<Visit<'_>, Error> {
        let (number, depth) = (self.inode.number(), self.stack.len());
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep { inode: number, limit: DEPTH_MAX });
        }
        let mut twice = None;
        if !self.seen.insert(number) {
            let above = self.stack.last().map_or(number, |frame| frame.inode.number());
            let problem = Problem::DirectoryTwice { inode: number };
            let error = Structure::Directory(above).corrupt(problem);
            if !self.is_at_home(above) {
                return Err(error);
            }
            twice = Some(error);
        }
        if !self.ahead.has(number) {
            let coming = self.stack.iter().rev();
            let coming = coming.flat_map(|frame| frame.listing.rest(frame.next));
            let directories = coming
                .take(LOOKED_THROUGH)
                .filter(|item| item.kind == Some(FileType::Directory))
                .map(|item| item.inode);
            self.ahead.directories(&self.fs, std::iter::once(number).chain(directories));
        }
        let mut listing = std::mem::take(&mut self.spare);
        let errors = match listing.read(&self.fs, &self.inode) {
            Ok(errors) => errors,
            Err(error) => {
                self.spare = listing;
                return Err(error);
            }
        };
        let twice = twice.map(|error| Failed { name: Box::default(), error });
        let errors: Vec<Failed> = twice.into_iter().chain(errors).collect();
        self.stack.push(Frame {
            inode: self.inode.clone(),
            path: self.path.len(),
            name: self.name,
            listing,
            next: 0,
            ahead: 0,
            errors: errors.into_iter(),
            given: false,
        });
        Ok(self.visit(WalkEvent::Enter, depth))
    }

    /// Returns true if the directory at `path` may be entered a second time: it was entered through
    /// another directory, but its ".." is `above`, and it is not on the current path. This holds
    /// once for each directory, so that a walk ends.
    fn is_at_home(&mut self, above: InodeNumber) -> bool {
        let number = self.inode.number();
        let is_open = self.stack.iter().any(|frame| frame.inode.number() == number);
        !is_open && self.fs.parent(&self.inode) == Some(above) && self.again.insert(number)
    }

    /// Leaves the current directory. Returns its depth after its last entry, or `None` after its
    /// last subdirectory.
    fn leave(&mut self) -> Option<usize> {
        let mut frame = self.stack.pop()?;
        if frame.given {
            return None;
        }
        self.path.truncate(frame.path);
        self.name = frame.name;
        self.inode = frame.inode.clone();
        let depth = self.stack.len();
        let directories = match self.order {
            WalkOrder::ByDirectory => frame.listing.directories(),
            WalkOrder::DepthFirst => Listing::default(),
        };
        self.spare = std::mem::replace(&mut frame.listing, directories);
        if frame.listing.len() > 0 {
            self.stack.push(Frame { next: 0, given: true, ..frame });
        }
        Some(depth)
    }

    /// Reads ahead the inodes of the entries from `index` on.
    fn read_ahead(&mut self, index: usize) {
        let window = self.ahead.window(&self.fs);
        let Some(frame) = self.stack.last_mut() else { return };
        frame.ahead = index.saturating_add(window);
        let coming = frame.listing.rest(index).iter().take(window);
        let mut has_kinds = true;
        let numbers = coming.map(|item| {
            has_kinds &= item.kind.is_some();
            item.inode
        });
        self.ahead.inodes(&self.fs, numbers);
        if has_kinds || self.fs.read_ahead() == 0 {
            return;
        }
        // If entries do not store their type, read the inodes to find the directories to read
        // ahead.
        for index in index..index.saturating_add(window) {
            let item = self.stack.last().and_then(|frame| frame.listing.get(index)).copied();
            let Some(item) = item else { break };
            let kind = self.read(item.inode).ok().map(|inode| inode.kind());
            if let Some(frame) = self.stack.last_mut() {
                frame.listing.set_kind(index, kind);
            }
        }
    }

    /// Reads an inode, which is usually near the one before.
    fn read(&mut self, number: InodeNumber) -> Result<Inode, Error> {
        let bytes = self.fs.inode_bytes_near(number, &mut self.near)?;
        self.fs.parse_inode(number, &bytes)
    }

    /// Visits the entry at `path`.
    fn entry(&mut self, index: usize, item: Item) -> Result<Visit<'_>, Error> {
        let depth = self.stack.len();
        if self.stack.last().is_some_and(|frame| index >= frame.ahead) {
            self.read_ahead(index);
        }
        match self.read(item.inode) {
            Ok(inode) => self.inode = inode,
            Err(error) => {
                if let Some(frame) = self.stack.last_mut() {
                    frame.listing.set_kind(index, None);
                }
                return Err(self.named(error));
            }
        }
        let enters = self.inode.is_dir() && depth <= self.max_depth;
        match self.order {
            WalkOrder::DepthFirst if enters => self.todo = Todo::Enter,
            WalkOrder::DepthFirst => {}
            WalkOrder::ByDirectory => {
                let kind = enters.then_some(FileType::Directory);
                if let Some(frame) = self.stack.last_mut() {
                    frame.listing.set_kind(index, kind);
                }
            }
        }
        Ok(self.visit(WalkEvent::Entry, depth))
    }
}
