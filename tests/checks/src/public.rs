//! The public items of a crate, by the paths that users write: re-exports are followed to the
//! definition.

use std::collections::BTreeSet;

use proc_macro2::TokenStream;
use syn::{Item, ItemImpl, Type, Visibility};

use crate::module::{Import, Module, definer, flatten, name, resolve};

/// A public item, or a re-export of another crate.
pub enum Public<'m> {
    /// An item that module `at` defines.
    Item { at: usize, item: &'m Item },
    /// The tokens of a macro such as `bitflags!` in module `at`. `only` is the type that is
    /// re-exported; without it each type of the macro is public.
    Macro { at: usize, tokens: &'m TokenStream, only: Option<String> },
    /// A module, by its index.
    Module(usize),
    /// An item of another crate.
    External { path: String, name: String },
}

/// Lists the public items of a crate, each with the path of the module in which users find it.
pub fn items(modules: &[Module]) -> Vec<(String, Public<'_>)> {
    let mut list = List { modules, found: Vec::new(), seen: BTreeSet::new() };
    list.module(0, "crate");
    list.found
}

struct List<'m> {
    modules: &'m [Module],
    found: Vec<(String, Public<'m>)>,
    /// Modules that were listed, with their paths.
    seen: BTreeSet<(usize, String)>,
}

impl<'m> List<'m> {
    fn add(&mut self, path: &str, public: Public<'m>) {
        self.found.push((path.to_owned(), public));
    }

    fn module(&mut self, index: usize, path: &str) {
        if !self.seen.insert((index, path.to_owned())) {
            return;
        }
        let module = &self.modules[index];
        for item in &module.items {
            match item {
                Item::Mod(item) if is_public(&item.vis) => {
                    let name = item.ident.to_string();
                    let child = module.children.iter().find(|(child, _)| *child == name);
                    if let Some(&(_, child)) = child {
                        let path = format!("{path}::{name}");
                        self.add(&path, Public::Module(child));
                        self.module(child, &path);
                    }
                }
                Item::Use(item) if is_public(&item.vis) => {
                    let mut imports = Vec::new();
                    flatten(&item.tree, &mut Vec::new(), true, &mut imports);
                    imports.iter().for_each(|import| self.import(index, import, path));
                }
                item if is_public(visibility(item)) => {
                    self.add(path, Public::Item { at: index, item });
                }
                Item::Macro(item) => {
                    let tokens = &item.mac.tokens;
                    self.add(path, Public::Macro { at: index, tokens, only: None });
                }
                _ => {}
            }
        }
    }

    /// Lists a re-export by its definition.
    fn import(&mut self, at: usize, import: &Import, path: &str) {
        let modules = self.modules;
        let first = import.path.first().map_or("", String::as_str);
        let local = ["crate", "self", "super"].contains(&first)
            || modules[at].children.iter().any(|(child, _)| child == first);
        let target = if local { resolve(modules, at, &import.path, 0) } else { None };
        let Some(target) = target else {
            let external =
                Public::External { path: import.path.join("::"), name: import.name.clone() };
            return self.add(path, external);
        };
        if import.name == "*" {
            return self.module(target, path);
        }
        let original = import.path.last().expect("a path has a name");
        let found = modules[target].items.iter().find(|item| name(item).as_ref() == Some(original));
        match found {
            Some(item) => self.add(path, Public::Item { at: target, item }),
            None if self.is_module(at, &import.path, target) => {
                let path = format!("{path}::{}", import.name);
                self.add(&path, Public::Module(target));
                self.module(target, &path);
            }
            None => {
                for item in &modules[target].items {
                    if let Item::Macro(item) = item {
                        let (tokens, only) = (&item.mac.tokens, Some(original.clone()));
                        self.add(path, Public::Macro { at: target, tokens, only });
                    }
                }
            }
        }
    }

    /// True if `path` leads to a module and not to an item inside of it.
    fn is_module(&self, at: usize, path: &[String], target: usize) -> bool {
        let (last, parents) = path.split_last().expect("a path has a name");
        let parent =
            if parents.is_empty() { Some(at) } else { resolve(self.modules, at, parents, 0) };
        parent.is_some_and(|parent| self.modules[parent].children.contains(&(last.clone(), target)))
    }
}

/// Lists the `impl` blocks of the type `of` that module `at` defines, with their modules.
pub fn impls<'m>(modules: &'m [Module], at: usize, of: &str) -> Vec<(usize, &'m ItemImpl)> {
    let mut blocks = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        for item in &module.items {
            let Item::Impl(item) = item else { continue };
            let Type::Path(kind) = &*item.self_ty else { continue };
            let segments: Vec<String> =
                kind.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            if segments.last().is_none_or(|last| last != of) {
                continue;
            }
            let defined = match &segments[..] {
                [only] => definer(modules, index, only, 0),
                _ => resolve(modules, index, &segments, 0),
            };
            if defined == Some(at) {
                blocks.push((index, item));
            }
        }
    }
    blocks
}

/// True for `pub`, but not for `pub(crate)`.
pub fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn visibility(item: &Item) -> &Visibility {
    match item {
        Item::Const(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Fn(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        Item::Type(item) => &item.vis,
        Item::Union(item) => &item.vis,
        _ => &Visibility::Inherited,
    }
}
