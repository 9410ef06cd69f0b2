//! Directories in an order other than by name, or with `.` and `..`. All entries of a directory
//! are read before the first is printed.

use std::collections::HashSet;

use nvio_ext4::{Inode, WalkEvent};

use super::Lister;
use crate::error::Error;

/// An entry of a directory.
struct Found {
    path: Vec<u8>,
    /// Length of the path before the name.
    name: usize,
    /// `None` if the inode cannot be read.
    inode: Option<Inode>,
}

impl Found {
    fn name(&self) -> &[u8] {
        self.path.get(self.name..).unwrap_or_default()
    }
}

impl Lister<'_> {
    /// Lists a directory and, with -R, the directories below it.
    pub(super) fn sorted(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut todo = vec![(path.to_vec(), inode.clone())];
        while let Some((path, inode)) = todo.pop() {
            if !seen.insert(inode.number()) {
                self.listing.failures.report(&Error::directory_twice(&path));
                continue;
            }
            let Some(entries) = self.entries(&path, &inode)? else { continue };
            self.heading(&path)?;
            for found in &entries {
                match &found.inode {
                    Some(inode) => {
                        let shown = self.entry(&found.path, found.name(), inode);
                        self.listing.failures.absorb(shown)?;
                    }
                    None => self.unreadable(&found.path)?,
                }
            }
            if self.args.recursive {
                let below = entries.into_iter().rev().filter_map(|found| {
                    let is_dot = [&b"."[..], b".."].contains(&found.name());
                    let inode = found.inode.filter(|inode| inode.is_dir() && !is_dot)?;
                    Some((found.path, inode))
                });
                todo.extend(below);
            }
        }
        Ok(())
    }

    /// Reads the entries of a directory. Returns `None` if the directory cannot be read.
    fn entries(&mut self, path: &[u8], inode: &Inode) -> Result<Option<Vec<Found>>, Error> {
        let mut entries = Vec::new();
        if self.args.all {
            self.dots(path, inode, &mut entries)?;
        }
        let prefix = path.len() + usize::from(!path.ends_with(b"/"));
        let mut entered = false;
        let mut walk = self.listing.volume.filesystem().walk(path, inode).max_depth(0);
        while let Some(step) = walk.step() {
            let inode = match step {
                Ok(visit) if visit.event == WalkEvent::Entry => Some(visit.inode.clone()),
                Ok(_) => {
                    entered = true;
                    continue;
                }
                Err(error) => {
                    self.listing.failures.report(&Error::path(walk.path())(error));
                    if !walk.failed_at_entry() {
                        continue;
                    }
                    None
                }
            };
            entries.push(Found { path: walk.path().to_vec(), name: prefix, inode });
        }
        let order = &self.args.order;
        entries.sort_by(|a, b| {
            order.compare((a.name(), a.inode.as_ref()), (b.name(), b.inode.as_ref()))
        });
        Ok(entered.then_some(entries))
    }

    /// Adds `.` and `..`.
    fn dots(&mut self, path: &[u8], inode: &Inode, entries: &mut Vec<Found>) -> Result<(), Error> {
        let name = path.len() + usize::from(!path.ends_with(b"/"));
        let dot = |dots: &[u8]| {
            let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
            [path, slash, dots].concat()
        };
        entries.push(Found { path: dot(b"."), name, inode: Some(inode.clone()) });
        let parent = self.listing.volume.symlink_metadata(dot(b".."));
        let inode = self.listing.failures.absorb(parent)?;
        entries.push(Found { path: dot(b".."), name, inode });
        Ok(())
    }
}
