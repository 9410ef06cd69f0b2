//! Members of an archive, from files and trees of the filesystem.

use std::collections::HashMap;

use indicatif::ProgressBar;
use nvio::{Inode, Volume};
use nvio_ext4::{Acl, FileType, InodeNumber, WalkEvent};

use super::archive::{Archive, Member};
use super::segments::segments;
use crate::contents::Contents;
use crate::error::{Error, Failures};
use crate::name::escaped;
use crate::open;
use crate::operand::Operand;
use crate::progress;
use crate::target::Target;

/// An archive in progress.
pub struct Archiver<'a> {
    volume: &'a Volume,
    contents: Contents<'a>,
    pub archive: Archive,
    /// The first name of each file that has several.
    links: HashMap<InodeNumber, Vec<u8>>,
    pub failures: Failures,
    pub progress: ProgressBar,
}

impl<'a> Archiver<'a> {
    /// Begins an archive.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(volume: &'a Volume, target: Target) -> Result<Self, Error> {
        Ok(Self {
            volume,
            contents: Contents::new(volume)?,
            archive: Archive::new(target),
            links: HashMap::new(),
            failures: Failures::default(),
            progress: progress::spinner(),
        })
    }

    /// Adds a file, or a directory with the entries below it.
    ///
    /// # Errors
    /// If the file cannot be found, or the output fails. Other failures are printed.
    pub fn operand(&mut self, operand: &Operand) -> Result<(), Error> {
        let inode = operand.symlink_metadata(self.volume)?;
        let mut walk = self.volume.filesystem().walk(&operand.path, &inode);
        while let Some(step) = walk.step() {
            let added = match step {
                Ok(visit) if visit.event == WalkEvent::Leave => continue,
                // A directory below the path was visited as an entry before it is entered.
                Ok(visit) if visit.event == WalkEvent::Enter && visit.depth > 0 => continue,
                Ok(visit) => self.entry(visit.path, visit.inode),
                Err(error) => Err(Error::path(walk.path())(error)),
            };
            self.absorb(added)?;
        }
        Ok(())
    }

    /// Prints a failure, unless it is one of the output.
    ///
    /// # Errors
    /// If the output fails.
    pub fn absorb(&mut self, added: Result<(), Error>) -> Result<(), Error> {
        let Self { failures, progress, .. } = self;
        match added {
            Err(error @ Error::Host { .. }) => Err(error),
            added => progress.suspend(|| failures.absorb(added)).map(drop),
        }
    }

    fn entry(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        self.progress.set_message(escaped(path));
        if inode.kind() == FileType::Socket {
            let (path, reason) = (escaped(path), "archives have no sockets");
            return Err(Error::NotArchived { path, reason });
        }
        let name = member_name(path, inode.is_dir());
        let has_links = inode.links() > 1 && !inode.is_dir();
        if has_links && let Some(first) = self.links.get(&inode.number()) {
            return self.archive.hard_link(&Member::new(&name, inode), first);
        }
        let member = self.described(&name, path, inode);
        let added = match inode.kind() {
            FileType::Regular => self.file(member, path),
            FileType::Symlink => {
                let target = open::target(self.volume, path, inode)?.unwrap_or_default();
                self.archive.symlink(member, &target)
            }
            _ => self.archive.bare(member),
        };
        if has_links && matches!(added, Ok(()) | Err(Error::Zeroed { .. })) {
            self.links.insert(inode.number(), name);
        }
        added
    }

    /// Collects the attributes of a member. Attributes that cannot be read are printed and left out.
    fn described<'m>(&mut self, name: &'m [u8], path: &[u8], inode: &'m Inode) -> Member<'m> {
        let mut member = Member::new(name, inode);
        let filesystem = self.volume.filesystem();
        let mut failed = |error| self.failures.report(&Error::path(path)(error));
        match filesystem.xattrs(inode) {
            Ok(xattrs) => xattrs.for_each(|xattr| match xattr {
                Ok(xattr) => member.attribute(&xattr),
                Err(error) => failed(error),
            }),
            Err(error) => failed(error),
        }
        let mut list = |list: Result<Option<Acl>, _>| {
            list.unwrap_or_else(|error| {
                failed(error);
                None
            })
        };
        if let Some(acl) = list(filesystem.acl(inode)) {
            member.record("SCHILY.acl.access", acl.to_string());
        }
        if let Some(acl) = list(filesystem.default_acl(inode)) {
            member.record("SCHILY.acl.default", acl.to_string());
        }
        member
    }

    fn file(&mut self, member: Member<'_>, path: &[u8]) -> Result<(), Error> {
        let mut file = self.contents.open(path, member.inode)?;
        let segments = segments(&file).map_err(Error::path(path))?;
        let Self { archive, contents, progress, .. } = self;
        let data = archive.begin_file(member, &segments)?;
        let mut read = 0;
        let mut result = Ok(());
        for segment in segments.ranges {
            result = contents.read(path, &mut file, segment, |piece| {
                archive.data(piece)?;
                read += piece.len() as u64;
                progress.inc(piece.len() as u64);
                Ok(())
            });
            if result.is_err() {
                break;
            }
        }
        match result {
            Err(error @ (Error::Output(_) | Error::Host { .. })) => Err(error),
            result => {
                archive.zeroes(data.saturating_sub(read))?;
                archive.end_file(data)?;
                result.map_err(|source| Error::Zeroed { at: read, source: Box::new(source) })
            }
        }
    }
}

/// Returns the name of a member as tar stores it: without a leading slash, and without a part before
/// `..`, with which it would be extracted outside of the directory. A directory ends with a slash.
fn member_name(path: &[u8], is_dir: bool) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let after = parts.iter().rposition(|part| *part == b"..").map_or(0, |at| at + 1);
    let inside = parts.get(after..).unwrap_or_default();
    let kept: Vec<&[u8]> =
        inside.iter().copied().filter(|part| !part.is_empty() && *part != b".").collect();
    let mut name = kept.join(&b'/');
    if name.is_empty() {
        name.push(b'.');
    }
    if is_dir {
        name.push(b'/');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_inside_of_the_target() {
        for (path, name) in [
            ("/", "./"),
            ("//a//b/", "a/b/"),
            ("/a/../b", "b/"),
            ("/a/b/..", "./"),
            ("/./a/.", "a/"),
            ("<12>/a", "<12>/a/"),
            ("/..a/...", "..a/.../"),
        ] {
            assert_eq!(member_name(path.as_bytes(), true), name.as_bytes(), "{path}");
        }
        assert_eq!(member_name(b"/a", false), b"a");
    }
}
