//! Access control lists and the mode of a file: each is changed with the other.

use crate::xattr::acl::{Acl, AclEntry, AclTag};

/// The permission bits of a class: read, write, execute.
const CLASS: u16 = 0o7;

impl Acl {
    /// Returns true if the kernel accepts the list: the owner, users, the owning group, groups, a mask if
    /// there are users or groups, and the others, in this order.
    pub(crate) fn is_valid(&self) -> bool {
        let rank = |tag| match tag {
            AclTag::Owner => 0,
            AclTag::User(_) => 1,
            AclTag::OwningGroup => 2,
            AclTag::Group(_) => 3,
            AclTag::Mask => 4,
            AclTag::Other => 5,
        };
        let count = |wanted| self.entries.iter().filter(|entry| rank(entry.tag) == wanted).count();
        let has_names = count(1) > 0 || count(3) > 0;
        let is_good = |entry: &AclEntry| {
            let id = match entry.tag {
                AclTag::User(id) | AclTag::Group(id) => id,
                _ => 0,
            };
            entry.permissions <= CLASS && id != u32::MAX
        };
        self.entries.iter().all(is_good)
            && self.entries.is_sorted_by_key(|entry| rank(entry.tag))
            && [0, 2, 5].into_iter().all(|class| count(class) == 1)
            && count(4) <= 1
            && (count(4) == 1 || !has_names)
    }

    /// Returns the nine permission bits of a file with this list, and true if the bits are all that the
    /// list says.
    pub(crate) fn mode(&self) -> (u16, bool) {
        let (mut mode, mut is_mode) = (0, true);
        for entry in &self.entries {
            let bits = entry.permissions & CLASS;
            match entry.tag {
                AclTag::Owner => mode |= bits << 6,
                AclTag::OwningGroup => mode |= bits << 3,
                AclTag::Other => mode |= bits,
                AclTag::User(_) | AclTag::Group(_) | AclTag::Mask => is_mode = false,
            }
        }
        if let Some(mask) = self.find(AclTag::Mask) {
            mode = mode & !0o070 | (mask & CLASS) << 3;
        }
        (mode, is_mode)
    }

    /// Sets the entries that the mode of a file has, as chmod(2) does: the mask stands for the group.
    pub(crate) fn set_mode(&mut self, mode: u16) {
        self.edit_classes(|_, class| class & mode);
    }

    /// Turns a default list into the list of a new file that is created with `mode`, as the kernel does:
    /// neither gives more than the other. Returns the mode of the file.
    pub(crate) fn inherit(&mut self, mode: u16) -> u16 {
        self.edit_classes(|now, class| now & class & mode);
        mode & !0o777 | self.mode().0
    }

    /// Replaces the entries that a mode has. `with` gets the bits of an entry at their place in a mode, and
    /// all bits of this place.
    fn edit_classes(&mut self, with: impl Fn(u16, u16) -> u16) {
        let group = match self.find(AclTag::Mask) {
            Some(_) => AclTag::Mask,
            None => AclTag::OwningGroup,
        };
        for entry in &mut self.entries {
            let shift = match entry.tag {
                AclTag::Owner => 6,
                AclTag::Other => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            let now = entry.permissions.wrapping_shl(shift);
            entry.permissions = with(now, CLASS.wrapping_shl(shift)).wrapping_shr(shift);
        }
    }

    fn find(&self, tag: AclTag) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(AclTag, u16)]) -> Acl {
        let entry = |&(tag, permissions)| AclEntry { tag, permissions };
        Acl { entries: entries.iter().map(entry).collect() }
    }

    fn full() -> Acl {
        list(&[
            (AclTag::Owner, 7),
            (AclTag::User(5), 6),
            (AclTag::OwningGroup, 5),
            (AclTag::Group(7), 3),
            (AclTag::Mask, 7),
            (AclTag::Other, 4),
        ])
    }

    #[test]
    fn lists_that_the_kernel_accepts() {
        use AclTag::{Group, Mask, Other, Owner, OwningGroup, User};
        let good = [(Owner, 7), (OwningGroup, 5), (Other, 0)];
        assert!(list(&good).is_valid() && full().is_valid());
        assert!(list(&[good[0], good[1], (Mask, 1), good[2]]).is_valid());
        for bad in [
            &[][..],
            &good[..2],
            &[good[1], good[0], good[2]],
            &[good[0], good[0], good[1], good[2]],
            &[good[0], (User(1), 1), good[1], good[2]],
            &[good[0], good[1], (Group(1), 1), good[2]],
            &[good[0], good[1], (Mask, 1), (Mask, 1), good[2]],
            &[good[0], good[1], (User(1), 1), (Mask, 1), good[2]],
            &[good[0], (User(u32::MAX), 1), good[1], (Mask, 1), good[2]],
            &[(Owner, 8), good[1], good[2]],
        ] {
            assert!(!list(bad).is_valid(), "{bad:?}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(full().mode(), (0o774, false));
        let mut acl = full();
        acl.set_mode(0o6451);
        assert_eq!(acl.mode(), (0o451, false));
        assert_eq!(acl.find(AclTag::OwningGroup), Some(5), "the mask stands for the group");
        let mut small = list(&[(AclTag::Owner, 7), (AclTag::OwningGroup, 5), (AclTag::Other, 0)]);
        assert_eq!(small.mode(), (0o750, true));
        small.set_mode(0o123);
        assert_eq!(small.mode(), (0o123, true));
    }

    #[test]
    fn inherited() {
        let mut acl = full();
        assert_eq!(acl.inherit(0o102_666), 0o102_664);
        assert_eq!(
            acl.to_string(),
            "user::rw-\nuser:5:rw-\ngroup::r-x\ngroup:7:-wx\nmask::rw-\nother::r--"
        );
        let mut small = list(&[(AclTag::Owner, 7), (AclTag::OwningGroup, 5), (AclTag::Other, 0)]);
        assert_eq!(small.inherit(0o040_777), 0o040_750);
        assert_eq!(small.mode(), (0o750, true));
    }
}
