//! Files of the filesystem, from members of an archive.
//!
//! Names of members and targets of hard links are not trusted. They are resolved below the directory of
//! the extraction, name by name, and never through a symbolic link, so that none leads outside.

use std::collections::BTreeMap;
use std::process::ExitCode;

use indicatif::ProgressBar;
use nvio::ext4::{InodeNumber, JournaledFilesystem, NewFile, SpecialFile};
use nvio::{Inode, JournaledVolume};

use super::input::Input;
use super::read::Reader;
use super::read::damage::Failure;
use super::read::member::{Kind, Member};
use crate::acl_text;
use crate::create::attributes::{ACCESS_LIST, Attributes, DEFAULT_LIST};
use crate::create::data::named;
use crate::create::{Creator, To, in_the_way};
use crate::error::Error;
use crate::name::{escaped, join};

/// Permissions of a directory that no member describes.
const NEW_DIRECTORY: u16 = 0o755;
/// Maximum length of the name of a member in bytes.
const NAME_BYTES_MAX: usize = 1 << 16;
/// Number of bytes of a long name that a message has.
const SHOWN_BYTES: usize = 4096;
/// Largest numbers of a device that an inode has room for.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// An extraction in progress.
pub struct Extractor<'v> {
    creator: Creator<'v>,
    archive: Source,
    /// The directory of the extraction, and its path.
    root: (InodeNumber, Vec<u8>),
    /// Names and inodes of the directories that the last member is in.
    trail: Vec<(Vec<u8>, InodeNumber)>,
    /// Attributes with the times of the directories, which are set at the end, because each new entry changes
    /// them.
    times: BTreeMap<InodeNumber, (Vec<u8>, Attributes)>,
    members: u64,
}

/// The archive, and the member that is being extracted.
struct Source {
    reader: Reader<Input>,
    /// The name for messages.
    input: (std::path::PathBuf, String),
    member: Vec<u8>,
}

impl<'v> Extractor<'v> {
    /// Creates an extraction into a directory, which is given by its inode and its path.
    pub fn new(
        volume: &'v JournaledVolume,
        input: Input,
        bar: ProgressBar,
        root: (InodeNumber, Vec<u8>),
    ) -> Self {
        let name = (input.name(), input.shown());
        let reader = Reader::new(input);
        let archive = Source { reader, input: name, member: Vec::new() };
        let creator = Creator::new(volume, bar);
        Self { creator, archive, root, trail: Vec::new(), times: BTreeMap::new(), members: 0 }
    }

    /// Extracts the members up to the end of the archive, or to its damage. Failures are printed.
    pub fn run(&mut self) {
        loop {
            let next = self.archive.next(self.members);
            self.creator.bar.set_position(self.archive.reader.position());
            let member = match next {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(error) => {
                    self.creator.report(Err(error));
                    break;
                }
            };
            let name = shown(&member.path);
            log::info!("{name}");
            self.creator.bar.set_message(name);
            let extracted = self.member(&member);
            self.members += u64::from(extracted.is_ok());
            let is_end = matches!(extracted, Err(Error::BadArchive { .. } | Error::Host { .. }));
            self.creator.report(extracted);
            if is_end {
                break;
            }
        }
        for (inode, (path, attributes)) in std::mem::take(&mut self.times) {
            self.creator.set_times(inode, &path, &attributes);
        }
    }

    /// Returns the number of members that were extracted, the size of the archive, and the exit code.
    pub fn end(self) -> (u64, u64, ExitCode) {
        (self.members, self.archive.reader.position(), self.creator.code())
    }

    fn member(&mut self, member: &Member) -> Result<(), Error> {
        let names = components(&member.path).map_err(refused(member))?;
        let Some((&name, above)) = names.split_last() else {
            return match member.kind {
                Kind::Directory => {
                    let (inode, path) = self.root.clone();
                    self.directory_attributes(inode, path, member);
                    Ok(())
                }
                _ => Err(refused(member)("it has no name, as only a directory may".to_owned())),
            };
        };
        let (parent, path) = self.parent(member, above)?;
        let path = join(&path, name);
        let to = To { parent, name, path: &path };
        let existing = self.creator.existing(to)?;
        if member.kind == Kind::Directory {
            return self.directory(member, to, existing);
        }
        check_kind(member)?;
        if existing.is_some_and(|existing| existing.is_dir()) {
            self.remove_dir(to)?;
        }
        match member.kind {
            Kind::Link => self.link(member, to),
            _ => self.file(member, to),
        }
    }

    /// Returns the directory of a member and its path. Directories that are missing are created.
    fn parent(
        &mut self,
        member: &Member,
        names: &[&[u8]],
    ) -> Result<(InodeNumber, Vec<u8>), Error> {
        let shared = self.trail.iter().zip(names).take_while(|((known, _), name)| known == *name);
        let shared = shared.count();
        self.trail.truncate(shared);
        let mut path = self.root.1.clone();
        self.trail.iter().for_each(|(name, _)| enter(&mut path, name));
        let mut parent = self.trail.last().map_or(self.root.0, |(_, inode)| *inode);
        for name in names.get(shared..).unwrap_or_default() {
            enter(&mut path, name);
            let to = To { parent, name, path: &path };
            let inode = match self.creator.existing(to)? {
                Some(inode) if inode.is_dir() => inode,
                Some(inode) if inode.is_symlink() => return Err(below_symlink(member, &path)),
                Some(_) => return Err(in_the_way(to, "not a directory")),
                None => self.creator.directory(to, NewFile::with_permissions(NEW_DIRECTORY))?,
            };
            parent = inode.number();
            self.trail.push((name.to_vec(), parent));
        }
        Ok((parent, path))
    }

    fn directory(
        &mut self,
        member: &Member,
        to: To<'_>,
        existing: Option<Inode>,
    ) -> Result<(), Error> {
        if existing.is_some_and(|existing| !existing.is_dir()) {
            self.creator.fs().remove_file(to.parent, to.name).map_err(Error::path(to.path))?;
        }
        let inode = self.creator.directory(to, new_file(member))?;
        self.directory_attributes(inode.number(), to.path.to_vec(), member);
        Ok(())
    }

    fn directory_attributes(&mut self, inode: InodeNumber, path: Vec<u8>, member: &Member) {
        let mut attributes = attributes(&mut self.creator, member, &path);
        self.creator.set_attributes(inode, &path, &attributes);
        attributes.xattrs = Vec::new();
        self.times.insert(inode, (path, attributes));
    }

    /// Removes an empty directory that is in the way of a member.
    fn remove_dir(&mut self, to: To<'_>) -> Result<(), Error> {
        let inode = self.creator.existing(to)?.map(|inode| inode.number());
        let removed = self.creator.fs().remove_dir(to.parent, to.name);
        removed.map_err(|error| match error {
            nvio::ext4::Error::DirectoryNotEmpty { .. } => {
                in_the_way(to, "a directory with entries")
            }
            error => Error::path(to.path)(error),
        })?;
        // Another file may get the inode.
        self.trail.clear();
        if let Some(inode) = inode {
            self.times.remove(&inode);
        }
        Ok(())
    }

    /// Gives a file of the tree another name.
    fn link(&mut self, member: &Member, to: To<'_>) -> Result<(), Error> {
        let refused = refused(member);
        let target = shown(&member.link);
        let names = components(&member.link).map_err(|reason| {
            refused(format!("its target {target} is not inside of the archive: {reason}"))
        })?;
        let missing = || refused(format!("no file has the name of its target {target}"));
        let (mut inode, mut path) = (self.root.0, self.root.1.clone());
        for (index, name) in names.iter().enumerate() {
            enter(&mut path, name);
            let at = To { parent: inode, name, path: &path };
            let found = self.creator.existing(at)?.ok_or_else(missing)?;
            let is_last = index + 1 == names.len();
            match found.is_dir() {
                true if is_last => {
                    return Err(refused(format!("its target {target} is a directory")));
                }
                false if !is_last && found.is_symlink() => {
                    return Err(below_symlink(member, &path));
                }
                false if !is_last => return Err(missing()),
                _ => inode = found.number(),
            }
        }
        if names.is_empty() {
            return Err(missing());
        }
        match self.creator.link(inode, to)? {
            true => Ok(()),
            false => Err(refused(format!("its target {target} has too many names"))),
        }
    }

    /// Creates a file that is not a directory.
    fn file(&mut self, member: &Member, to: To<'_>) -> Result<(), Error> {
        let (new, members) = (new_file(member), self.members);
        let Self { creator, archive, .. } = self;
        let make = |fs: &JournaledFilesystem, name: &[u8]| match member.kind {
            Kind::Symlink => fs.create_symlink(&member.link, to.parent, name, new),
            Kind::Fifo => fs.create_special(SpecialFile::Fifo, to.parent, name, new),
            Kind::CharDevice(major, minor) => {
                fs.create_special(SpecialFile::CharDevice(major, minor), to.parent, name, new)
            }
            Kind::BlockDevice(major, minor) => {
                fs.create_special(SpecialFile::BlockDevice(major, minor), to.parent, name, new)
            }
            _ => fs.create_file(to.parent, name, new),
        };
        creator.place(to, make, |creator, inode| {
            if member.kind == Kind::File {
                contents(creator, archive, (member, members), inode, to.path)?;
            }
            let attributes = attributes(creator, member, to.path);
            creator.set_attributes(inode.number(), to.path, &attributes);
            creator.set_times(inode.number(), to.path, &attributes);
            Ok(())
        })?;
        Ok(())
    }
}

impl Source {
    /// Reads the next member. `members` have been extracted.
    fn next(&mut self, members: u64) -> Result<Option<Member>, Error> {
        let next = self.reader.next_member().map_err(|failure| self.failed(failure, members))?;
        if let Some(member) = &next {
            member.path.clone_into(&mut self.member);
        }
        Ok(next)
    }

    fn read(&mut self, buffer: &mut [u8], members: u64) -> Result<usize, Error> {
        self.reader.read(buffer).map_err(|failure| self.failed(failure, members))
    }

    fn failed(&self, failure: Failure, members: u64) -> Error {
        let damage = match failure {
            Failure::Input(error) => return Error::host("read", &self.input.0, error),
            Failure::Damage(damage) => damage,
        };
        let place = match (self.reader.is_in_member(), &self.member[..]) {
            (_, []) => "before the first member".to_owned(),
            (true, member) => format!("in {}", shown(member)),
            (false, member) => format!("after {}", shown(member)),
        };
        let (archive, at) = (self.input.1.clone(), self.reader.position_of(damage));
        let (advice, damage) = (damage.advice(), damage.to_string());
        Error::BadArchive { archive, at, place, damage, members, advice }
    }
}

/// Writes the data of a regular file, without its holes.
fn contents(
    creator: &mut Creator<'_>,
    archive: &mut Source,
    (member, members): (&Member, u64),
    inode: &Inode,
    path: &[u8],
) -> Result<(), Error> {
    let mut target = creator.volume.open_inode(inode).map_err(|error| named(path, error))?;
    let mut end = 0;
    for range in &member.segments.ranges {
        let read = |buffer: &mut [u8], _| archive.read(buffer, members);
        end = creator.copy(&mut target, path, (range.start, range.end), read)?;
    }
    if end < member.segments.size {
        target.set_len(member.segments.size).map_err(|error| named(path, error))?;
    }
    Ok(())
}

fn new_file(member: &Member) -> NewFile {
    let (uid, gid) = (member.uid, member.gid);
    NewFile { uid, gid, ..NewFile::with_permissions(member.permissions) }
}

/// Returns the attributes of a member. Access control lists that cannot be decoded are printed.
fn attributes(creator: &mut Creator<'_>, member: &Member, path: &[u8]) -> Attributes {
    let records = &member.records;
    let mut attributes = Attributes {
        uid: member.uid,
        gid: member.gid,
        permissions: member.permissions,
        xattrs: records.xattrs.clone(),
        atime: records.atime,
        mtime: Some(member.mtime),
    };
    for (name, text) in [(ACCESS_LIST, &records.access_list), (DEFAULT_LIST, &records.default_list)]
    {
        // GNU tar archives a list as an attribute, too, which needs no names of users.
        let is_known = attributes.xattrs.iter().any(|(known, _)| known == name);
        let Some(text) = text.as_ref().filter(|_| !is_known) else { continue };
        match acl_text::encode_archived(text) {
            Some(list) => attributes.xattrs.push((name.to_vec(), list)),
            None => {
                let (path, text) = (escaped(path), escaped(text));
                let line = format!(
                    "{path}: the access control list {text} is not set: it is malformed, or has a user \
                     without a number on this machine"
                );
                creator.report(Err(Error::Usage(line)));
            }
        }
    }
    attributes
}

/// Rejects a member that no filesystem can have.
fn check_kind(member: &Member) -> Result<(), Error> {
    let reason = match member.kind {
        Kind::Other(kind) => {
            format!("members of the type {} are not files", char::from(kind).escape_default())
        }
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor)
            if major > MAJOR_MAX || minor > MINOR_MAX =>
        {
            format!("the device {major}:{minor} is above {MAJOR_MAX}:{MINOR_MAX}")
        }
        _ => return Ok(()),
    };
    Err(refused(member)(reason))
}

/// Appends a name to a path.
fn enter(path: &mut Vec<u8>, name: &[u8]) {
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Returns a name, safe for a terminal. A long one is cut off.
fn shown(name: &[u8]) -> String {
    match name.get(..SHOWN_BYTES) {
        Some(begin) if name.len() > SHOWN_BYTES => escaped(begin) + "...",
        _ => escaped(name),
    }
}

/// Splits the name of a member. A slash at its begin is left out.
///
/// # Errors
/// A name that leads out of the tree.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.len() > NAME_BYTES_MAX {
        return Err(format!("its name has more than {NAME_BYTES_MAX} bytes"));
    }
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names: Vec<&[u8]> = names.collect();
    match names.iter().any(|name| *name == b"..") {
        true => Err("its name has the part `..`".to_owned()),
        false => Ok(names),
    }
}

fn refused(member: &Member) -> impl Fn(String) -> Error + '_ {
    |reason| Error::NotExtracted { member: shown(&member.path), reason }
}

fn below_symlink(member: &Member, link: &[u8]) -> Error {
    let link = escaped(link);
    refused(member)(format!("{link} is a symbolic link, which is not followed; remove it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory() {
        for (path, names) in [
            ("a/b", &["a", "b"][..]),
            ("/a//b/", &["a", "b"]),
            ("./a/./b", &["a", "b"]),
            ("...", &["..."]),
            ("..a/b..", &["..a", "b.."]),
            ("./", &[]),
            ("/", &[]),
            ("", &[]),
        ] {
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(components(path.as_bytes()), Ok(names), "{path}");
        }
        for path in ["..", "../a", "a/../b", "/..", "a/.."] {
            components(path.as_bytes()).unwrap_err();
        }
        components(&b"a/".repeat(NAME_BYTES_MAX / 2)).unwrap();
        components(&b"a/".repeat(NAME_BYTES_MAX / 2 + 1)).unwrap_err();
        assert!(shown(&[b'a'; 1 << 20]).len() < 5000);
    }
}
