//! Extended attributes that are set and removed.

use crate::change::time::now;
use crate::change::xattr_store::Attributes;
use crate::change::{JournaledFilesystem, acl};
use crate::error::Error;
use crate::error::reasons::BadAttribute;
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::xattr_entry::VALUE_MAX;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, as_usize};
use crate::xattr::acl::Acl;
use crate::xattr::area::Attribute;
use crate::xattr::name;

/// Maximum length of the whole name of an attribute, bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// The existence that [`set_xattr`](JournaledFilesystem::set_xattr) requires of an attribute.
///
/// See the [example](JournaledFilesystem#attributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// The attribute is created or replaced.
    #[default]
    Either,
    /// The attribute must not exist (`XATTR_CREATE`).
    Create,
    /// The attribute must exist (`XATTR_REPLACE`).
    Replace,
}

/// An attribute by its stored name, with a value or, to remove it, without.
struct Change<'a> {
    index: u8,
    rest: &'a [u8],
    value: Option<&'a [u8]>,
    mode: XattrMode,
}

impl JournaledFilesystem {
    /// Sets the extended attribute `name` (such as `user.mime_type`) of an inode, and returns the inode.
    ///
    /// As with the kernel, attributes are stored in the inode as long as they fit there, and in one block
    /// otherwise. The value of an access control list has the form that `setxattr` expects. The list and
    /// the permissions change together: a list that says no more than permissions is not stored.
    ///
    /// See the [example](Self#attributes).
    ///
    /// # Errors
    /// [`Error::BadAttribute`] if the name or the value is not one that the inode can have, if the
    /// attribute's existence is not what `mode` requires, or if there is no room for it;
    /// [`Error::NoSpace`] if no block is free. Otherwise as
    /// [`set_permissions`](Self::set_permissions).
    pub fn set_xattr(
        &self,
        inode: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
    ) -> Result<Inode, Error> {
        self.change_xattr(inode.into(), name.as_ref(), Some(value.as_ref()), mode)
    }

    /// Removes the extended attribute `name` of an inode, and returns the inode. The permissions stay as
    /// they are if it is an access control list.
    ///
    /// See the [example](Self#attributes).
    ///
    /// # Errors
    /// [`Error::BadAttribute`] if there is no such attribute. Otherwise as
    /// [`set_xattr`](Self::set_xattr).
    pub fn remove_xattr(
        &self,
        inode: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        self.change_xattr(inode.into(), name.as_ref(), None, XattrMode::Replace)
    }

    fn change_xattr(
        &self,
        number: InodeNumber,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
    ) -> Result<Inode, Error> {
        let bad = |why| Error::BadAttribute { inode: number, why };
        if name.len() > NAME_MAX {
            return Err(bad(BadAttribute::NameTooLong { length: name.len() }));
        }
        let length = value.map_or(0, <[u8]>::len);
        if length > as_usize(VALUE_MAX) {
            return Err(bad(BadAttribute::ValueTooLong { length }));
        }
        let (index, rest) = name::split(name).ok_or_else(|| bad(BadAttribute::Name))?;
        let change = Change { index, rest, value, mode };
        let now = now();
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check(&inode)?;
            check_kind(&inode, &change)?;
            let before = inode.permissions();
            let attributes = self.changed(handle, &mut inode, &change)?;
            if attributes.is_changed() || inode.permissions() != before {
                inode.set_ctime(now);
                attributes.store(handle, self.zone(), &mut inode)?;
            }
            Ok(inode)
        })
    }

    /// Returns the attributes of an inode with a change, which may change its permissions, too.
    fn changed(
        &self,
        handle: &Handle<'_>,
        inode: &mut Inode,
        change: &Change<'_>,
    ) -> Result<Attributes, Stop> {
        let bad = |why| Error::BadAttribute { inode: inode.number(), why };
        let &Change { index, rest, value, mode } = change;
        let mut attributes = Attributes::load(handle, self.zone(), inode)?;
        match (attributes.get(index, rest).is_some(), mode) {
            (false, XattrMode::Replace) => return Err(bad(BadAttribute::Missing).into()),
            (true, XattrMode::Create) => return Err(bad(BadAttribute::Exists).into()),
            _ => {}
        }
        if matches!(index, name::ACL_ACCESS | name::ACL_DEFAULT) {
            let list = value.map_or(Ok(None), parse_list).map_err(bad)?;
            acl::set(&mut attributes, inode, index, list.as_ref())?;
            return Ok(attributes);
        }
        match value {
            Some(value) => {
                let (name, value) = (rest.to_vec(), value.to_vec());
                attributes.set(&Attribute { index, name, value })?;
            }
            None => drop(attributes.remove(index, rest)),
        }
        Ok(attributes)
    }
}

/// Rejects attributes that a file of this type cannot have.
fn check_kind(inode: &Inode, change: &Change<'_>) -> Result<(), Error> {
    let is_file_or_directory = matches!(inode.kind(), FileType::Regular | FileType::Directory);
    let is_list = matches!(change.index, name::ACL_ACCESS | name::ACL_DEFAULT);
    let is_set = change.value.is_some();
    let why = match () {
        () if change.index == name::USER && !is_file_or_directory => BadAttribute::UserOfOther,
        () if is_list && inode.is_symlink() => BadAttribute::ListOfLink,
        () if change.index == name::ACL_DEFAULT && !inode.is_dir() && is_set => {
            BadAttribute::DefaultOfOther
        }
        () => return Ok(()),
    };
    Err(Error::BadAttribute { inode: inode.number(), why })
}

/// Parses the value of a list. A list without entries is none.
fn parse_list(value: &[u8]) -> Result<Option<Acl>, BadAttribute> {
    if value.is_empty() {
        return Ok(None);
    }
    let acl = Acl::from_xattr(value).map_err(|_| BadAttribute::List)?;
    match acl.entries().is_empty() {
        true => Ok(None),
        false if acl.is_valid() => Ok(Some(acl)),
        false => Err(BadAttribute::List),
    }
}
