//! Walking a tree: every directory once, in order, with what comes next read ahead.

pub(crate) mod readahead;
pub(crate) mod sorted_entries;

use std::collections::HashSet;
use std::fmt;

use crate::blocks::inode_table::Near;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::walk::readahead::{Ahead, LOOKED_THROUGH};
use crate::walk::sorted_entries::{Item, Listing};

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 4096;

/// In which order a [`Walk`] goes. Entries of a directory are always in the order of their names,
/// by bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalkOrder {
    /// What is in a directory comes right after its own entry, as `find` does.
    #[default]
    DepthFirst,
    /// All entries of a directory come before what is in the directories among them, as `ls -R`
    /// does.
    ByDirectory,
}

/// What a [`Walk`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEvent {
    /// A directory, whose entries come next. That it is the entry of another was told before.
    Enter,
    /// An entry of the directory that was entered last and not left; or what the walk began with,
    /// if that is no directory.
    Entry,
    /// The end of a directory's entries. Each that was entered is left.
    Leave,
}

/// A step of a [`Walk`].
#[derive(Clone, Copy, Debug)]
pub struct Visit<'w> {
    /// What this is.
    pub event: WalkEvent,
    /// The path that the walk began with, and the names from there, with one slash before each.
    pub path: &'w [u8],
    /// The last name of the path; empty for what the walk began with.
    pub name: &'w [u8],
    /// The inode.
    pub inode: &'w Inode,
    /// Directories above, as far as the walk has come through them: 0 for what it began with.
    pub depth: usize,
}

/// A walk through a tree, made by [`Filesystem::walk`].
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open("disk.img")?)?;
/// use nvio_ext4::WalkEvent;
///
/// let mut walk = fs.walk(b"/usr", &fs.lookup(b"/usr")?);
/// while let Some(visit) = walk.step() {
///     match visit {
///         Ok(visit) if visit.event == WalkEvent::Entry => {
///             println!("{:>12} {}", visit.inode.size(), visit.path.escape_ascii());
///         }
///         Ok(_) => {}
///         // It goes on with what comes next.
///         Err(error) => eprintln!("{}: {error}", walk.path().escape_ascii()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Memory is that of the names of the directories that are entered at a time, and 4 bytes or so for
/// each directory of the tree. Inodes and directories that come next are read ahead, as far as
/// [`Options::read_ahead`](crate::Options::read_ahead) allows, so that many reads are in flight.
pub struct Walk {
    fs: Filesystem,
    order: WalkOrder,
    max_depth: usize,
    todo: Todo,
    path: Vec<u8>,
    /// Where the last name of the path starts.
    name: usize,
    /// What the path leads to.
    inode: Inode,
    stack: Vec<Frame>,
    seen: HashSet<u32>,
    /// Where the last inode was.
    near: Near,
    ahead: Ahead,
    /// One that was used, for its memory.
    spare: Listing,
}

/// What the next step begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Todo {
    Begin,
    /// The directory at the path.
    Enter,
    /// The next entry.
    GoOn,
}

/// A directory that was entered.
struct Frame {
    inode: Inode,
    /// Its path, and the last name of that.
    path: usize,
    name: usize,
    listing: Listing,
    /// The entry that comes next.
    next: usize,
    /// Inodes of entries before this one have been read ahead.
    ahead: usize,
    /// All entries were given; those that are left are the directories among them.
    given: bool,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = format_args!("\"{}\"", self.path.escape_ascii());
        f.debug_struct("Walk").field("path", &path).finish_non_exhaustive()
    }
}

impl Filesystem {
    /// A walk through all that is in and below the directory `inode`, in the order
    /// [`WalkOrder::DepthFirst`]. `path` is what the paths of the walk begin with. Of what is no
    /// directory there is one [`WalkEvent::Entry`].
    pub fn walk(&self, path: &[u8], inode: &Inode) -> Walk {
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
            near: Near::default(),
            ahead: Ahead::default(),
            spare: Listing::default(),
        }
    }
}

impl Walk {
    /// Sets the order.
    #[must_use]
    pub fn order(mut self, order: WalkOrder) -> Self {
        self.order = order;
        self
    }

    /// Has directories at most `depth` deep be entered: with 0 only the first.
    #[must_use]
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.max_depth = depth;
        self
    }

    /// The path of the last step, or of what has failed.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether the last [`WalkEvent::Entry`], or the entry that failed, is the last of its directory.
    pub fn is_last(&self) -> bool {
        self.stack.last().is_none_or(|frame| frame.listing.get(frame.next).is_none())
    }

    /// Does not enter the directory whose [`WalkEvent::Entry`] was the last step.
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

    /// The next step, or `None` at the end.
    ///
    /// # Errors
    /// Damage to a directory, or to the inode of an entry; that it is of a kind that cannot be read;
    /// a directory that was found before, or is nested too deep ([`Error::TooDeep`]: 4,096); a
    /// failure of the source. [`path`](Self::path) tells where. The walk goes on behind it: a
    /// directory that cannot be read is not entered, and nothing of it is told.
    pub fn step(&mut self) -> Option<Result<Visit<'_>, Error>> {
        match std::mem::replace(&mut self.todo, Todo::GoOn) {
            Todo::Begin if self.inode.is_dir() => return Some(self.enter()),
            Todo::Begin => return Some(Ok(self.visit(WalkEvent::Entry, 0))),
            Todo::Enter => return Some(self.enter()),
            Todo::GoOn => {}
        }
        loop {
            let frame = self.stack.last_mut()?;
            let index = frame.next;
            let Some(item) = frame.listing.get(index).copied() else {
                match self.leave() {
                    Some(depth) => return Some(Ok(self.visit(WalkEvent::Leave, depth))),
                    None => continue,
                }
            };
            frame.next = index.saturating_add(1);
            self.path.truncate(frame.path);
            if self.path.last() != Some(&b'/') {
                self.path.push(b'/');
            }
            self.name = self.path.len();
            self.path.extend_from_slice(frame.listing.name(&item));
            if !frame.given {
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

    /// That an inode which is named is not in use is damage.
    fn named(&self, error: Error) -> Error {
        match (error, self.stack.last()) {
            (Error::InodeNotInUse { inode }, Some(frame)) => {
                let structure = Structure::Directory(frame.inode.number());
                structure.corrupt(Problem::NameOfFreeInode { inode })
            }
            (error, _) => error,
        }
    }

    /// Begins the directory that the path leads to.
    fn enter(&mut self) -> Result<Visit<'_>, Error> {
        let (number, depth) = (self.inode.number(), self.stack.len());
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep { inode: number, limit: DEPTH_MAX });
        }
        if !self.seen.insert(number) {
            let above = self.stack.last().map_or(number, |frame| frame.inode.number());
            let problem = Problem::DirectoryTwice { inode: number };
            return Err(Structure::Directory(above).corrupt(problem));
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
        if let Err(error) = listing.read(&self.fs, &self.inode) {
            self.spare = listing;
            return Err(error);
        }
        self.stack.push(Frame {
            inode: self.inode.clone(),
            path: self.path.len(),
            name: self.name,
            listing,
            next: 0,
            ahead: 0,
            given: false,
        });
        Ok(self.visit(WalkEvent::Enter, depth))
    }

    /// Ends what is left of the last directory; its depth, if that is the end of its entries.
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

    /// Reads the inodes of the entries from `index` on.
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
        // Directories that are to be read ahead must be known as such.
        for index in index..index.saturating_add(window) {
            let item = self.stack.last().and_then(|frame| frame.listing.get(index)).copied();
            let Some(item) = item else { break };
            let kind = self.read(item.inode).ok().map(|inode| inode.kind());
            if let Some(frame) = self.stack.last_mut() {
                frame.listing.set_kind(index, kind);
            }
        }
    }

    /// An inode that is not far from the one before, as a rule.
    fn read(&mut self, number: u32) -> Result<Inode, Error> {
        let bytes = self.fs.inode_bytes_near(number, &mut self.near)?;
        self.fs.parse_inode(number, &bytes)
    }

    /// The entry that the path leads to.
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
