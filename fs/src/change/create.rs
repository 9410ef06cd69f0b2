//! Files and directories that are created.

use crate::alloc::{self, Request};
use crate::change::JournaledFilesystem;
use crate::change::directory::{Directory, check_name};
use crate::change::extents::Tree;
use crate::change::fast_commit;
use crate::change::file::JournaledFile;
use crate::change::names::add_subdirectory;
use crate::change::new_inode::{Creation, NewFile};
use crate::change::orphans;
use crate::change::space::goal;
use crate::change::time::now;
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::journal::changes::NewName;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, as_u64, as_usize};

/// A file without contents that is neither a regular one nor a directory.
///
/// See the [example](JournaledFilesystem#names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFile {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, with its major and minor number: at most 12 and 20 bits.
    CharDevice(u32, u32),
    /// A block device, with its major and minor number: at most 12 and 20 bits.
    BlockDevice(u32, u32),
}

impl JournaledFilesystem {
    /// Creates an empty regular file with the name `name` in the directory `parent`, and returns its
    /// inode.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::InvalidName`], [`Error::NameTooLong`];
    /// [`Error::NotADirectory`]; [`Error::InodeNotInUse`] if the directory was removed;
    /// [`Error::Protected`], [`Error::UnsupportedInode`] if its entries cannot be changed;
    /// [`Error::NoInodes`], [`Error::NoSpace`], [`Error::DirectoryFull`]; damage, also of the directory's
    /// hash tree; a failure of the device. Nothing was changed then.
    pub fn create_file(
        &self,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        self.create(parent.into(), name.as_ref(), FileType::Regular, new, |_, _, _| Ok(()))
    }

    /// Creates an empty directory, as [`create_file`](Self::create_file) does.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file); [`Error::TooManyLinks`] if the parent has too many
    /// subdirectories.
    pub fn create_dir(
        &self,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let parent = parent.into();
        let time = now();
        self.create(parent, name.as_ref(), FileType::Directory, new, |handle, zone, inode| {
            Directory::create(handle, zone, inode, parent, time).map(drop)
        })
    }

    /// Creates a symbolic link to `target`, as [`create_file`](Self::create_file) does. The target need not
    /// exist.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file); [`Error::InvalidName`] if the target is empty or has a zero
    /// byte, [`Error::NameTooLong`] if it does not fit into a block.
    pub fn create_symlink(
        &self,
        target: impl AsRef<[u8]>,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let target = target.as_ref();
        if target.is_empty() || target.contains(&0) {
            return Err(Error::InvalidName { name: target.into() });
        }
        let new = NewFile { permissions: 0o777, ..new };
        let fill = |handle: &mut Handle<'_>, zone: &SystemZone, inode: &mut Inode| match inode
            .set_short_target(target)
        {
            true => Ok(()),
            false => write_target(handle, zone, inode, target),
        };
        self.create(parent.into(), name.as_ref(), FileType::Symlink, new, fill)
    }

    /// Creates a device, a named pipe or a socket, as [`create_file`](Self::create_file) does.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file).
    pub fn create_special(
        &self,
        special: SpecialFile,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        new: NewFile,
    ) -> Result<Inode, Error> {
        let (kind, device) = match special {
            SpecialFile::Fifo => (FileType::Fifo, None),
            SpecialFile::Socket => (FileType::Socket, None),
            SpecialFile::CharDevice(major, minor) => (FileType::CharDevice, Some((major, minor))),
            SpecialFile::BlockDevice(major, minor) => (FileType::BlockDevice, Some((major, minor))),
        };
        self.create(parent.into(), name.as_ref(), kind, new, |_, _, inode| {
            if let Some((major, minor)) = device {
                inode.set_device(major, minor);
            }
            Ok(())
        })
    }

    /// Creates an inode with a name. `fill` gives it its contents.
    fn create(
        &self,
        parent: InodeNumber,
        name: &[u8],
        kind: FileType,
        new: NewFile,
        fill: impl Fn(&mut Handle<'_>, &SystemZone, &mut Inode) -> Result<(), Stop>,
    ) -> Result<Inode, Error> {
        check_name(name)?;
        self.free_unnamed(None);
        self.read_ahead_of_change(parent, name)?;
        let creation = Creation::new(kind, new, now());
        self.journal().change(self, |handle| {
            let mut directory = handle.inode(parent)?;
            self.check_directory(&directory)?;
            let time = creation.time;
            let mut entries = Directory::new(handle, self.zone(), &mut directory, time)?;
            let vacancy = entries.vacancy(name)?;
            let links = if kind == FileType::Directory { 2 } else { 1 };
            let mut new = creation.allocate(handle, self.zone(), &directory, links)?;
            fill(handle, self.zone(), &mut new.inode)?;
            let is_fast = new.is_fast;
            let inode = new.store(handle, self.zone())?;
            let mut entries = Directory::new(handle, self.zone(), &mut directory, time)?;
            entries.add_at(vacancy, name, inode.number(), kind)?;
            if inode.is_dir() {
                add_subdirectory(handle, &mut directory)?;
            }
            handle.set_inode(directory)?;
            handle.changes.has_new_map = true;
            if is_fast {
                let (directory, inode) = (parent, inode.number());
                let name = NewName { directory, name: name.into(), inode, is_new: true };
                fast_commit::add_name(handle, name);
            }
            Ok(inode)
        })
    }

    /// Creates a regular file without a name near `directory`, as open(2) does with `O_TMPFILE`, and opens
    /// it. It is freed when its last handle is closed, or by the next open after a loss of power, unless
    /// [`hard_link`](Self::hard_link) gave it a name.
    ///
    /// # Errors
    /// [`Error::NotADirectory`]; [`Error::NoInodes`]; damage; a failure of the device.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use std::fs::File;
    ///
    /// use nvio_ext4::{InodeNumber, JournaledFilesystem, NewFile, Options};
    /// use nvio_iomap::{FileQueue, ImageQueue};
    ///
    /// let device = File::options().read(true).write(true).open(sample.path())?;
    /// let mut queue = FileQueue::new(ImageQueue::new(device.try_clone()?, 32)?);
    /// let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let mut file = fs.create_unnamed(InodeNumber::ROOT, NewFile::with_permissions(0o600))?;
    /// file.write_at(&mut queue, 0, &[7; 4096])?;
    /// assert_eq!(fs.inode(file.inode().number())?.size(), 4096);
    ///
    /// // The whole file gets its name in one step.
    /// fs.hard_link(file.inode().number(), InodeNumber::ROOT, "complete")?;
    /// assert_eq!(fs.lookup("/complete")?.size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_unnamed(
        &self,
        directory: impl Into<InodeNumber>,
        new: NewFile,
    ) -> Result<JournaledFile, Error> {
        let directory = directory.into();
        self.free_unnamed(None);
        let creation = Creation::new(FileType::Regular, new, now());
        let (inode, _open) = self.journal().change(self, |handle| {
            let parent = handle.inode(directory)?;
            self.check_directory(&parent)?;
            let new = creation.allocate(handle, self.zone(), &parent, 0)?;
            let inode = new.store(handle, self.zone())?;
            orphans::add(handle, inode.number())?;
            // Another thread would free the inode before it is open.
            let open = self.open_inodes().open(inode.number());
            self.open_inodes().set_unlinked(inode.number());
            open.state().set_may_get_name(true);
            Ok((inode, open))
        })?;
        self.open_file(&inode)
    }
}

/// Writes the target of a symbolic link to a block of its own, which the journal has, too.
fn write_target(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &mut Inode,
    target: &[u8],
) -> Result<(), Stop> {
    let superblock = handle.superblock();
    // A zero byte follows.
    if as_u64(target.len()) >= superblock.bytes(1) {
        return Err(Error::NameTooLong { length: target.len() }.into());
    }
    let mut tree = Tree { handle, zone, inode, is_changed: false };
    let request = Request { goal: goal(&tree, 0)?, count: 1, window: 0, owner: None };
    let run = alloc::allocate(tree.handle, tree.zone, request)?;
    tree.replace(0..1, Some((run, false)))?;
    inode.add_blocks(superblock, 1);
    inode.set_size(as_u64(target.len()));
    let mut block = vec![0; as_usize(superblock.block_size())];
    block.iter_mut().zip(target).for_each(|(to, from)| *to = *from);
    handle.set_block(run.start(), block);
    Ok(())
}
