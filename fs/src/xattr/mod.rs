//! Extended attributes: inside the inode, in a block of attributes, and, for large values, in
//! inodes of their own.

pub(crate) mod acl;
pub(crate) mod acl_mode;
pub(crate) mod area;
pub(crate) mod block;
mod hash;
pub(crate) mod name;
mod value_inode;

use std::{fmt, vec};

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::format::xattr_body;
use crate::format::xattr_entry::{self, Entry, Value};
use crate::number::{InodeNumber, PhysicalBlock};
use crate::xattr::acl::Acl;
use crate::xattr::value_inode::Reference;

/// An extended attribute.
///
/// See the [example](crate::Filesystem#examples).
#[derive(Clone, PartialEq, Eq)]
pub struct Xattr {
    /// The whole name, such as `user.mime_type`, in any encoding, without zero bytes.
    pub name: Vec<u8>,
    /// The value in the form that `getxattr` returns, at most 64 KiB.
    pub value: Vec<u8>,
}

impl fmt::Debug for Xattr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xattr")
            .field("name", &format_args!("\"{}\"", self.name.escape_ascii()))
            .field("value", &format_args!("\"{}\"", self.value.escape_ascii()))
            .finish()
    }
}

/// An attribute whose value may not have been read yet.
struct Found {
    index: u8,
    /// The name without its prefix.
    rest: Vec<u8>,
    value: FoundValue,
}

enum FoundValue {
    Here(Vec<u8>),
    Inode { number: InodeNumber, size: u32, hash: u32 },
}

impl From<Entry<'_>> for Found {
    fn from(entry: Entry<'_>) -> Self {
        let value = match entry.value {
            Value::Here(value) => FoundValue::Here(value.to_vec()),
            Value::Inode { number, size, hash } => FoundValue::Inode { number, size, hash },
        };
        Self { index: entry.index, rest: entry.name.to_vec(), value }
    }
}

/// An iterator over the extended attributes of an inode: those inside the inode first, then those
/// in the block, each in stored order. A value in another inode is read when the iterator reaches
/// it.
///
/// An error concerns one value; more items may follow.
///
/// See the [example](crate::Filesystem#examples).
pub struct Xattrs {
    fs: Filesystem,
    owner: (InodeNumber, u32),
    found: vec::IntoIter<Found>,
    /// The error of the attributes that could not be listed, which is the last item.
    failed: Option<Error>,
}

impl fmt::Debug for Xattrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xattrs").field("inode", &self.owner.0).finish_non_exhaustive()
    }
}

impl Iterator for Xattrs {
    type Item = Result<Xattr, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.found.find_map(|found| {
            let name = name::whole(found.index, &found.rest)?;
            let value = value(&self.fs, self.owner, found).transpose()?;
            Some(value.map(|value| Xattr { name, value }))
        });
        next.or_else(|| self.failed.take().map(Err))
    }
}

impl std::iter::FusedIterator for Xattrs {}

/// Returns a value in the form that `getxattr` returns; `None` for an access control list without
/// entries, which is the same as no list.
fn value(
    fs: &Filesystem,
    owner: (InodeNumber, u32),
    found: Found,
) -> Result<Option<Vec<u8>>, Error> {
    let Found { index, rest, value } = found;
    let value = match value {
        FoundValue::Here(value) => value,
        FoundValue::Inode { number, size, hash } => {
            Reference { owner, name: &rest, number, size, hash }.read(fs)?
        }
    };
    if !matches!(index, name::ACL_ACCESS | name::ACL_DEFAULT) {
        return Ok(Some(value));
    }
    let acl = Acl::from_disk(&value).map_err(|problem| Structure::Acl(owner.0).corrupt(problem))?;
    Ok((!acl.entries().is_empty()).then(|| acl.to_xattr()))
}

impl Filesystem {
    /// Returns the extended attributes of `inode` that `listxattr` lists for root, with their
    /// values in the form that `getxattr` returns.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Damage to the inode. The iterator fails with damage to attributes, after those that can be
    /// read, to a value in another inode, or to an access control list, and with a failure of the
    /// source.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, Error> {
        let mut found = Vec::new();
        let listed = self.each_attribute(inode, |entry| found.push(Found::from(entry)))?;
        let owner = (inode.number(), inode.generation());
        let found = found.into_iter();
        Ok(Xattrs { fs: self.clone(), owner, found, failed: listed.err() })
    }

    /// Returns the value of the extended attribute `name` (such as `user.mime_type`) of `inode`;
    /// `None` if the attribute does not exist.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::xattrs`] and its iterator.
    pub fn xattr(&self, inode: &Inode, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let name = name.as_ref();
        let mut found = None;
        let listed = self.each_attribute(inode, |entry| {
            if found.is_none() && name::whole(entry.index, entry.name).as_deref() == Some(name) {
                found = Some(Found::from(entry));
            }
        })?;
        let owner = (inode.number(), inode.generation());
        match found {
            Some(found) => value(self, owner, found),
            // The attribute may be one of those that could not be listed.
            None => listed.map(|()| None),
        }
    }

    /// Returns the access control list of `inode`, if there is one.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::xattr`].
    pub fn acl(&self, inode: &Inode) -> Result<Option<Acl>, Error> {
        self.acl_of(inode, b"system.posix_acl_access")
    }

    /// Returns the default access control list of the directory `inode`, which new files in it
    /// inherit, if there is one.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::xattr`].
    pub fn default_acl(&self, inode: &Inode) -> Result<Option<Acl>, Error> {
        self.acl_of(inode, b"system.posix_acl_default")
    }

    /// Returns true if `inode` has an access control list of either kind, without reading its
    /// value.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::xattrs`].
    pub fn has_acl(&self, inode: &Inode) -> Result<bool, Error> {
        let mut has = false;
        let listed = self.each_attribute(inode, |entry| {
            has |= matches!(entry.index, name::ACL_ACCESS | name::ACL_DEFAULT);
        })?;
        if has { Ok(true) } else { listed.map(|()| false) }
    }

    fn acl_of(&self, inode: &Inode, name: &[u8]) -> Result<Option<Acl>, Error> {
        let Some(value) = self.xattr(inode, name)? else { return Ok(None) };
        let acl = Acl::from_xattr(&value);
        acl.map(Some).map_err(|problem| Structure::Acl(inode.number()).corrupt(problem))
    }

    /// Calls `with` for each attribute that can be listed, including those that programs cannot
    /// see. The inner result is the first error of the others.
    fn each_attribute(
        &self,
        inode: &Inode,
        mut with: impl FnMut(Entry<'_>),
    ) -> Result<Result<(), Error>, Error> {
        if !inode.may_have_attributes() {
            return Ok(Ok(()));
        }
        let (superblock, number) = (self.superblock(), inode.number());
        let bytes = self.inode_bytes(number)?;
        // Parse the inode again, because its block may have been read again since.
        let inode = Inode::parse(superblock, number, &bytes)?;
        let corrupt = |problem| Structure::Attributes { inode: number }.corrupt(problem);
        let inside = xattr_body::attributes(superblock, inode.attribute_space(&bytes));
        let inside = inside.map_err(corrupt).map(|entries| entries.into_iter().for_each(&mut with));
        let block = inode.attribute_block;
        if block == 0 {
            return Ok(inside);
        }
        let mut read = || {
            superblock.data_blocks(block, 1u32).map_err(corrupt)?;
            let bytes = self.block(block)?;
            let entries = block_entries(superblock, block, &bytes).map_err(|problem| {
                Structure::AttributeBlock { block, inode: number }.corrupt(problem)
            })?;
            entries.into_iter().for_each(&mut with);
            Ok(())
        };
        let outside = read();
        Ok(inside.and(outside))
    }
}

/// Parses the entries of a block, which is checked.
pub(crate) fn block_entries<'a>(
    superblock: &Superblock,
    number: PhysicalBlock,
    block: &'a [u8],
) -> Result<Vec<Entry<'a>>, Problem> {
    block::check(superblock, number, block)?;
    xattr_entry::entries(superblock, block, block::HEADER)
}
