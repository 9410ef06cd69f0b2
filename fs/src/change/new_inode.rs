//! New inodes, with what they inherit from their directory.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use crate::alloc::inodes::{self, Allocated, Wanted};
use crate::change::JournaledFilesystem;
use crate::change::acl::{inherit_acl, set_inherited};
use crate::error::{Error, Subject, Unsupported};
use crate::file::system_zone::SystemZone;
use crate::format::features::IncompatFeatures;
use crate::format::file_type::FileType;
use crate::format::inode;
use crate::format::inode::Inode;
use crate::format::inode::new::Fields;
use crate::format::inode_flags::InodeFlags;
use crate::format::time::Timestamp;
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;
use crate::xattr::area::Attribute;

/// `S_ISGID` of a directory: what is created there belongs to its group.
const SET_GROUP: u16 = 0o2000;

/// Flags of a directory that directories in it inherit.
const INHERITED: InodeFlags = INHERITED_BY_FILES
    .union(InodeFlags::DIRSYNC)
    .union(InodeFlags::PROJINHERIT)
    .union(InodeFlags::CASEFOLD);

/// Flags of a directory that regular files and symbolic links in it inherit.
const INHERITED_BY_FILES: InodeFlags = INHERITED_BY_OTHERS
    .union(InodeFlags::SECRM)
    .union(InodeFlags::UNRM)
    .union(InodeFlags::COMPR)
    .union(InodeFlags::SYNC)
    .union(InodeFlags::JOURNAL_DATA)
    .union(InodeFlags::NOTAIL)
    .union(InodeFlags::DAX);

/// Flags of a directory that devices, pipes and sockets in it inherit.
const INHERITED_BY_OTHERS: InodeFlags = InodeFlags::NODUMP.union(InodeFlags::NOATIME);

/// The owner and the permissions of a file that is created.
///
/// # Examples
/// ```
/// use nvio_ext4::NewFile;
///
/// let new = NewFile { uid: 1000, gid: 1000, ..NewFile::with_permissions(0o644) };
/// assert_eq!((new.permissions, new.uid), (0o644, 1000));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewFile {
    /// Lower twelve bits of the mode.
    pub permissions: u16,
    /// Permissions that the file does not get, unless its directory has a default access control list,
    /// which decides then.
    pub umask: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id, if the directory does not have the set-group-id bit, with which files in it get its
    /// group.
    pub gid: u32,
}

impl NewFile {
    /// Returns the attributes of a file of root, with these permissions.
    ///
    /// See the [example](Self#examples).
    pub fn with_permissions(permissions: u16) -> Self {
        Self { permissions, ..Self::default() }
    }
}

/// An inode that is to be created.
#[derive(Clone, Copy)]
pub(super) struct Creation {
    pub kind: FileType,
    pub new: NewFile,
    pub generation: u32,
    pub time: Timestamp,
}

/// An inode that was allocated.
pub(super) struct New {
    pub inode: Inode,
    /// A fast commit can have the inode.
    pub is_fast: bool,
    bytes: Vec<u8>,
    inherited: Vec<Attribute>,
}

impl New {
    /// Stores the inode, with the attributes that it inherits, and returns it.
    pub(super) fn store(self, handle: &mut Handle<'_>, zone: &SystemZone) -> Result<Inode, Stop> {
        let Self { mut inode, bytes, inherited, .. } = self;
        handle.create_inode(inode.clone(), &bytes)?;
        set_inherited(handle, zone, &mut inode, &inherited)?;
        Ok(inode)
    }
}

impl Creation {
    pub(super) fn new(kind: FileType, new: NewFile, time: Timestamp) -> Self {
        // The standard library has random keys for its hash maps.
        let bytes = RandomState::new().build_hasher().finish().to_le_bytes();
        let generation = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Self { kind, new, generation, time }
    }

    /// Allocates the inode in a change, with `links` names. The caller stores it, with
    /// [`New::store`].
    pub(super) fn allocate(
        &self,
        handle: &mut Handle<'_>,
        zone: &SystemZone,
        directory: &Inode,
        links: u16,
    ) -> Result<New, Stop> {
        let superblock = handle.superblock();
        let wanted = match self.kind {
            FileType::Directory if is_top(directory) => Wanted::TopDirectory,
            FileType::Directory => Wanted::Directory,
            _ => Wanted::File,
        };
        let Allocated { number, is_initialised } =
            inodes::allocate(handle, directory.number(), wanted)?;
        let of_parent = directory.permissions() & SET_GROUP;
        let is_dir = self.kind == FileType::Directory;
        let NewFile { permissions, umask, .. } = self.new;
        let asked = self.kind.mode() | permissions & 0o7777;
        let inherited = inherit_acl(handle, zone, directory, asked)?;
        let (mode, inherited) = inherited.unwrap_or((asked & !(umask & 0o777), Vec::new()));
        let fields = Fields {
            number,
            mode: if is_dir { mode | of_parent } else { mode },
            uid: self.new.uid,
            gid: if of_parent != 0 { directory.gid() } else { self.new.gid },
            links,
            flags: self.flags(directory),
            generation: self.generation,
            time: self.time,
            project: project(directory),
        };
        handle.changes.is_fast = false;
        let (inode, bytes) = fields.build(superblock)?;
        // The tag of an inode has neither its map nor its attributes: a replay keeps those on the device.
        let is_fast = self.kind == FileType::Regular
            && inherited.is_empty()
            && is_initialised
            && inode::is_blank(&handle.inode_bytes(number)?, &bytes);
        Ok(New { inode, is_fast, bytes, inherited })
    }

    /// Returns the flags of the new inode.
    fn flags(&self, directory: &Inode) -> InodeFlags {
        let (inherited, has_map) = match self.kind {
            FileType::Directory => (INHERITED, true),
            FileType::Regular | FileType::Symlink => (INHERITED_BY_FILES, true),
            _ => (INHERITED_BY_OTHERS, false),
        };
        let flags = directory.flags().intersection(inherited);
        if has_map { flags.union(InodeFlags::EXTENTS) } else { flags }
    }
}

/// Returns true for a directory whose subdirectories are the tops of hierarchies.
fn is_top(directory: &Inode) -> bool {
    directory.number() == InodeNumber::ROOT || directory.flags().contains(InodeFlags::TOPDIR)
}

/// Returns the project id that inodes in a directory inherit.
fn project(directory: &Inode) -> u32 {
    let inherits = directory.flags().contains(InodeFlags::PROJINHERIT);
    directory.project().filter(|_| inherits).unwrap_or(0)
}

impl JournaledFilesystem {
    /// Rejects a directory in which nothing can be created.
    pub(super) fn check_directory(&self, directory: &Inode) -> Result<(), Error> {
        let inode = directory.number();
        if !directory.is_dir() {
            return Err(Error::NotADirectory { subject: Subject::Inode(inode) });
        }
        if !self.superblock().has(IncompatFeatures::EXTENTS) {
            // New files would have block pointers.
            return Err(Error::UnsupportedInode { inode, what: Unsupported::IndirectBlocks });
        }
        self.check_adding(directory)
    }
}
