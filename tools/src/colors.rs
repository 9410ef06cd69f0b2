//! Colours of names, as ls chooses them from LS_COLORS.

use std::env;

use clap::ColorChoice;
use lscolors::{Indicator, LsColors};
use nvio::Inode;
use nvio_ext4::FileType;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const STICKY: u16 = 0o1000;
const ANY_EXECUTE: u16 = 0o111;
const OTHER_WRITE: u16 = 0o002;

/// Colours of names, if there are any.
#[derive(Default)]
pub struct Colors {
    colors: Option<LsColors>,
    /// True if a symbolic link has the colour of its target (`ln=target`).
    as_target: bool,
}

impl Colors {
    /// Reads LS_COLORS. NO_COLOR and a terminal without colours turn them off, unless `choice` is
    /// `always`.
    pub fn new(choice: ColorChoice, terminal: bool) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let used = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
                terminal && !is_set("NO_COLOR") && !is_dumb
            }
        };
        let keys = env::var("LS_COLORS").unwrap_or_default();
        Self {
            colors: used.then(|| LsColors::from_env().unwrap_or_default()),
            as_target: keys.split(':').any(|key| key == "ln=target"),
        }
    }

    /// Returns true if names are coloured.
    pub fn are_used(&self) -> bool {
        self.colors.is_some()
    }

    /// Returns the sequences before and after a name. `target` is the inode that a symbolic link
    /// leads to, or `Some(None)` if it leads to none.
    pub fn of_name(
        &self,
        name: &[u8],
        inode: &Inode,
        target: Option<Option<&Inode>>,
    ) -> (String, String) {
        let Some(colors) = &self.colors else { return Default::default() };
        let has_orphans = colors.has_explicit_style_for(Indicator::OrphanedSymbolicLink);
        match target {
            Some(Some(target)) if self.as_target => of_inode(colors, name, target),
            Some(None) if self.as_target || has_orphans => {
                sequences(colors, Indicator::OrphanedSymbolicLink)
            }
            _ => of_inode(colors, name, inode),
        }
    }

    /// Returns the sequences before and after the target of a symbolic link. As in ls, targets have
    /// colours only if links without a target have one.
    pub fn of_target(&self, name: &[u8], inode: Option<&Inode>) -> (String, String) {
        let Some(colors) = &self.colors else { return Default::default() };
        let are_checked = self.as_target
            || [Indicator::OrphanedSymbolicLink, Indicator::MissingFile]
                .iter()
                .any(|indicator| colors.has_explicit_style_for(*indicator));
        match inode {
            _ if !are_checked => Default::default(),
            Some(inode) => of_inode(colors, name, inode),
            None => sequences(colors, Indicator::MissingFile),
        }
    }
}

/// Returns the sequences for a name by its type and mode, or by its suffix if it is a plain file.
fn of_inode(colors: &LsColors, name: &[u8], inode: &Inode) -> (String, String) {
    let indicator = indicator(colors, inode);
    let suffix = std::str::from_utf8(name).ok().filter(|_| indicator == Indicator::RegularFile);
    match suffix.and_then(|name| colors.style_for_str(name)) {
        Some(style) => around(style),
        None => sequences(colors, indicator),
    }
}

/// Chooses the key of LS_COLORS. A key without a colour is passed over, as in ls.
fn indicator(colors: &LsColors, inode: &Inode) -> Indicator {
    let mode = inode.permissions();
    let has = |bits: u16| mode & bits == bits;
    let candidates: &[(bool, Indicator)] = match inode.kind() {
        FileType::Regular => &[
            (has(SETUID), Indicator::Setuid),
            (has(SETGID), Indicator::Setgid),
            (mode & ANY_EXECUTE != 0, Indicator::ExecutableFile),
            (inode.links() > 1, Indicator::MultipleHardLinks),
            (true, Indicator::RegularFile),
        ],
        FileType::Directory => &[
            (has(STICKY | OTHER_WRITE), Indicator::StickyAndOtherWritable),
            (has(OTHER_WRITE), Indicator::OtherWritable),
            (has(STICKY), Indicator::Sticky),
            (true, Indicator::Directory),
        ],
        FileType::Symlink => &[(true, Indicator::SymbolicLink)],
        FileType::CharDevice => &[(true, Indicator::CharacterDevice)],
        FileType::BlockDevice => &[(true, Indicator::BlockDevice)],
        FileType::Fifo => &[(true, Indicator::FIFO)],
        FileType::Socket => &[(true, Indicator::Socket)],
    };
    let last = candidates.len().saturating_sub(1);
    let mut chosen = candidates.iter().enumerate().filter(|(index, (applies, indicator))| {
        *applies && (*index == last || colors.has_explicit_style_for(*indicator))
    });
    chosen.next().map_or(Indicator::Normal, |(_, (_, indicator))| *indicator)
}

fn sequences(colors: &LsColors, indicator: Indicator) -> (String, String) {
    colors.style_for_indicator(indicator).map(around).unwrap_or_default()
}

fn around(style: &lscolors::Style) -> (String, String) {
    let style = style.to_nu_ansi_term_style();
    (style.prefix().to_string(), style.suffix().to_string())
}
