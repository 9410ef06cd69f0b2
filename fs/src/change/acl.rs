//! Access control lists that change with the permissions of a file, and that new files inherit.

use crate::change::xattr_store::Attributes;
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::Structure;
use crate::format::inode::Inode;
use crate::journal::handle::{Handle, Stop};
use crate::xattr::acl::Acl;
use crate::xattr::area::Attribute;
use crate::xattr::name;

/// Sets or removes a list. The permissions of the inode become those of its access control list.
///
/// # Errors
/// [`Error::BadAttribute`] if there is no room for it.
pub(super) fn set(
    attributes: &mut Attributes,
    inode: &mut Inode,
    index: u8,
    list: Option<&Acl>,
) -> Result<(), Error> {
    let (mode, is_mode) = match (index, list) {
        (name::ACL_ACCESS, Some(list)) => list.mode(),
        _ => (inode.permissions(), false),
    };
    inode.set_permissions(inode.permissions() & !0o777 | mode & 0o777);
    match list.filter(|_| !is_mode) {
        Some(list) => attributes.set(&attribute(index, list)),
        None => {
            attributes.remove(index, b"");
            Ok(())
        }
    }
}

/// Sets the permissions of an inode, and those that its access control list has. Returns its attributes
/// if the list was changed.
pub(super) fn set_permissions(
    handle: &Handle<'_>,
    zone: &SystemZone,
    inode: &mut Inode,
    permissions: u16,
) -> Result<Option<Attributes>, Stop> {
    inode.set_permissions(permissions);
    if !inode.may_have_attributes() {
        return Ok(None);
    }
    let mut attributes = Attributes::load(handle, zone, inode)?;
    let Some(mut list) = stored(&attributes, inode, name::ACL_ACCESS)? else { return Ok(None) };
    list.set_mode(permissions);
    set(&mut attributes, inode, name::ACL_ACCESS, Some(&list))?;
    Ok(attributes.is_changed().then_some(attributes))
}

/// Returns the mode of a new file or directory in `parent` that is created with `mode`, and the
/// attributes that it inherits; `None` without a default list in `parent`, with which the umask applies.
pub(crate) fn inherit_acl(
    handle: &Handle<'_>,
    zone: &SystemZone,
    parent: &Inode,
    mode: u16,
) -> Result<Option<(u16, Vec<Attribute>)>, Stop> {
    const KIND: u16 = 0o170_000;
    const DIRECTORY: u16 = 0o040_000;
    const SYMLINK: u16 = 0o120_000;
    if !parent.may_have_attributes() || mode & KIND == SYMLINK {
        return Ok(None);
    }
    let attributes = Attributes::load(handle, zone, parent)?;
    let Some(default) = stored(&attributes, parent, name::ACL_DEFAULT)? else {
        return Ok(None);
    };
    let mut inherited = Vec::new();
    if mode & KIND == DIRECTORY {
        inherited.push(attribute(name::ACL_DEFAULT, &default));
    }
    let mut list = default;
    let mode = list.inherit(mode);
    if !list.mode().1 {
        inherited.push(attribute(name::ACL_ACCESS, &list));
    }
    Ok(Some((mode, inherited)))
}

/// Stores the attributes of a new inode, which has none yet and is in its place.
///
/// # Errors
/// [`Error::NoSpace`], [`Error::BadAttribute`] if there is no room for them.
pub(crate) fn set_inherited(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &mut Inode,
    inherited: &[Attribute],
) -> Result<(), Stop> {
    if inherited.is_empty() {
        return Ok(());
    }
    let mut attributes = Attributes::load(handle, zone, inode)?;
    for attribute in inherited {
        attributes.set(attribute)?;
    }
    attributes.store(handle, zone, inode)
}

/// Returns the stored list of an inode.
fn stored(attributes: &Attributes, inode: &Inode, index: u8) -> Result<Option<Acl>, Error> {
    let Some(value) = attributes.get(index, b"") else { return Ok(None) };
    let list = Acl::from_disk(value);
    let list = list.map_err(|problem| Structure::Acl(inode.number()).corrupt(problem))?;
    // A list without entries is the same as no list.
    Ok(Some(list).filter(|list| !list.entries().is_empty()))
}

fn attribute(index: u8, list: &Acl) -> Attribute {
    Attribute { index, name: Vec::new(), value: list.to_disk() }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    use std::path::Path;

    use super::*;
    use crate::change::JournaledFilesystem;
    use crate::mount::options::Options;

    const DEFAULTS: [&str; 5] = [
        "u::rwx,g::r-x,o::---",
        "u::rw,u:1000:rwx,g::r,m::rx,o::r",
        "u::r,g::rwx,g:5:w,g:6:r,o::x",
        "u::rwx,u:1:r,u:2:w,g::rwx,g:3:x,o::rwx",
        "u::---,g::---,o::---",
    ];
    const MODES: [u32; 6] = [0o777, 0o666, 0o640, 0o4751, 0, 0o27];

    fn run(program: &str, arguments: &[&str]) {
        let output = nvio_testkit::image::command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }

    /// Lets the kernel create files and directories in directories with default lists.
    fn populate(top: &Path) {
        fs::create_dir(top.join("plain")).unwrap();
        for (at, list) in DEFAULTS.iter().enumerate() {
            let parent = top.join(format!("parent-{at}"));
            fs::create_dir(&parent).unwrap();
            run("setfacl", &["-d", "-m", list, parent.to_str().unwrap()]);
            for mode in MODES {
                let path = parent.join(format!("file-{mode:o}"));
                File::options().write(true).create_new(true).mode(mode).open(path).unwrap();
                let path = parent.join(format!("directory-{mode:o}"));
                fs::DirBuilder::new().mode(mode).create(path).unwrap();
            }
            fs::write(parent.join("empty"), "").unwrap();
            run("setfacl", &["-b", parent.join("empty").to_str().unwrap()]);
        }
    }

    #[test]
    fn new_files_inherit_as_with_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        let [image, mount] = [&image, &mount].map(|path| path.to_str().unwrap());
        fs::create_dir(mount).unwrap();
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", image, "8M"]);
        let mut command = nvio_testkit::image::command("mount");
        if !command.args(["-o", "loop", image, mount]).status().unwrap().success() {
            println!("SKIPPED: no loop mounts");
            return;
        }
        populate(mount.as_ref());
        nvio_testkit::image::unmount(mount.as_ref()).unwrap();
        let device = File::options().read(true).write(true).open(image).unwrap();
        let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
        let mut lists = 0;
        for parent in 0..DEFAULTS.len() {
            for (kind, bits) in [("file", 0o100_000), ("directory", 0o040_000)] {
                for mode in MODES {
                    let name = format!("/parent-{parent}/{kind}-{mode:o}");
                    lists += check(&fs, &format!("/parent-{parent}"), &name, bits | mode as u16);
                }
            }
        }
        assert!(lists > 20, "{lists}");
        let plain = fs.lookup("/plain").unwrap();
        let journal = fs.journal();
        let inherit = |mode| {
            journal.change(&fs, |handle| inherit_acl(handle, fs.zone(), &plain, mode)).unwrap()
        };
        assert_eq!(inherit(0o100_666), None);
        fs.close().unwrap();
        run("e2fsck", &["-fn", image]);
    }

    /// Compares an inode that the kernel created with what it inherits here, and stores that in a file
    /// without attributes. Returns the number of lists.
    fn check(fs: &JournaledFilesystem, parent: &str, name: &str, mode: u16) -> usize {
        let (parent, theirs) = (fs.lookup(parent).unwrap(), fs.lookup(name).unwrap());
        let empty = fs.lookup([name.rsplit_once('/').unwrap().0, "/empty"].concat()).unwrap();
        let change = |handle: &mut Handle<'_>| {
            let inherited = inherit_acl(handle, fs.zone(), &parent, mode)?;
            let (mode, inherited) = inherited.unwrap_or_default();
            let mut inode = handle.inode(empty.number())?;
            set_inherited(handle, fs.zone(), &mut inode, &inherited)?;
            Ok((mode, inherited.len()))
        };
        let (mode, count) = fs.journal().change(fs, change).unwrap();
        // The kernel keeps the upper bits of a directory from mkdir(2).
        assert_eq!(mode & 0o777, theirs.mode() & 0o777, "{name}");
        let ours = fs.inode(empty.number()).unwrap();
        assert_eq!(fs.acl(&ours).unwrap(), fs.acl(&theirs).unwrap(), "{name}");
        assert_eq!(fs.default_acl(&ours).unwrap(), fs.default_acl(&theirs).unwrap(), "{name}");
        for list in ["system.posix_acl_access", "system.posix_acl_default"] {
            let journal = fs.journal();
            let remove = |handle: &mut Handle<'_>| {
                let mut inode = handle.inode(empty.number())?;
                let mut attributes = Attributes::load(handle, fs.zone(), &inode)?;
                attributes.remove(name::split(list.as_bytes()).unwrap().0, b"");
                attributes.store(handle, fs.zone(), &mut inode)
            };
            journal.change(fs, remove).unwrap();
        }
        count
    }
}
