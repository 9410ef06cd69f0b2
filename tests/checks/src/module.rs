//! The module tree of a crate: definitions, imports and paths of each module, without test code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, UseTree, Visibility};

/// An import, or a path in the code.
pub struct Import {
    /// The segments, such as `crate`, `map`, `Run`.
    pub path: Vec<String>,
    /// The name in this module; `*` for a glob import, and empty for a path in the code.
    pub name: String,
    /// True if other modules can import the name from here.
    pub is_public: bool,
}

/// A module of a crate.
pub struct Module {
    /// The file that contains it.
    pub file: PathBuf,
    /// Index of the parent module; the root is its own parent.
    pub parent: usize,
    /// Names and indexes of the modules inside.
    pub children: Vec<(String, usize)>,
    /// The items, without code for tests.
    pub items: Vec<Item>,
    /// Names that the module defines, apart from modules.
    pub definitions: BTreeSet<String>,
    /// Imports, and paths in the code.
    pub imports: Vec<Import>,
    /// All identifiers of the code, imports excluded.
    pub identifiers: BTreeSet<String>,
}

/// Reads the crate whose root file is `root`. The root module has index 0.
pub fn read_crate(root: &Path) -> Vec<Module> {
    let mut modules = Vec::new();
    let folder = root.parent().expect("a file in a folder").to_owned();
    read_file(root, &folder, 0, &mut modules);
    modules
}

/// Reads a file, whose modules are files in `folder`, and returns the index of its module.
fn read_file(file: &Path, folder: &Path, parent: usize, modules: &mut Vec<Module>) -> usize {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed =
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read_items(parsed.items, file, folder, parent, modules)
}

fn read_items(
    items: Vec<Item>,
    file: &Path,
    folder: &Path,
    parent: usize,
    modules: &mut Vec<Module>,
) -> usize {
    let index = modules.len();
    modules.push(Module {
        file: file.to_owned(),
        parent,
        children: Vec::new(),
        items: Vec::new(),
        definitions: BTreeSet::new(),
        imports: Vec::new(),
        identifiers: BTreeSet::new(),
    });
    for item in items {
        if !is_test(attributes(&item)) {
            let mut kept = item.clone();
            if let Item::Mod(kept) = &mut kept {
                kept.content = None;
            }
            modules[index].items.push(kept);
        }
        match item {
            // A file elsewhere belongs to another crate.
            Item::Mod(item) if !is_test(&item.attrs) && !has_path(&item.attrs) => {
                let name = item.ident.to_string();
                let inner = folder.join(&name);
                let child = match item.content {
                    Some((_, items)) => read_items(items, file, &inner, index, modules),
                    None => {
                        let flat = folder.join(format!("{name}.rs"));
                        let nested = inner.join("mod.rs");
                        let path = if flat.exists() { flat } else { nested };
                        read_file(&path, &inner, index, modules)
                    }
                };
                modules[index].children.push((name, child));
            }
            Item::Use(item) if !is_test(&item.attrs) => {
                let is_public = !matches!(item.vis, Visibility::Inherited);
                flatten(&item.tree, &mut Vec::new(), is_public, &mut modules[index].imports);
            }
            item if !is_test(attributes(&item)) => read_code(item, &mut modules[index]),
            _ => {}
        }
    }
    let children: Vec<String> =
        modules[index].children.iter().map(|(name, _)| name.clone()).collect();
    modules[index].imports.retain(|import| {
        let first = import.path.first().map_or("", String::as_str);
        ["crate", "super", "self"].contains(&first) || children.iter().any(|name| name == first)
    });
    index
}

/// Adds a definition, with the identifiers and the paths of its code.
fn read_code(mut item: Item, module: &mut Module) {
    if let Some(name) = name(&item) {
        module.definitions.insert(name);
    }
    if let Item::Impl(item) = &mut item {
        item.items.retain(|item| match item {
            ImplItem::Fn(item) => !is_test(&item.attrs),
            ImplItem::Const(item) => !is_test(&item.attrs),
            _ => true,
        });
    }
    read_tokens(item.to_token_stream(), module);
}

/// Collects identifiers and paths; paths in macros count, too.
fn read_tokens(tokens: TokenStream, module: &mut Module) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match &token {
            TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => {
                colons += 1;
                continue;
            }
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                module.identifiers.insert(name.clone());
                if colons != 2 {
                    end_path(&mut path, module);
                }
                path.push(name);
            }
            TokenTree::Group(group) => {
                end_path(&mut path, module);
                read_tokens(group.stream(), module);
            }
            _ => end_path(&mut path, module),
        }
        colons = 0;
    }
    end_path(&mut path, module);
}

fn end_path(path: &mut Vec<String>, module: &mut Module) {
    let path = std::mem::take(path);
    if path.len() > 1 {
        module.imports.push(Import { path, name: String::new(), is_public: false });
    }
}

/// Lists the imports of a `use` item: one for each name.
pub fn flatten(tree: &UseTree, path: &mut Vec<String>, is_public: bool, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, is_public, imports);
            path.pop();
        }
        UseTree::Group(tree) => {
            for tree in &tree.items {
                flatten(tree, path, is_public, imports);
            }
        }
        UseTree::Glob(_) => {
            imports.push(Import { path: path.clone(), name: "*".to_owned(), is_public });
        }
        UseTree::Name(tree) => named(&tree.ident, &tree.ident, path, is_public, imports),
        UseTree::Rename(tree) => named(&tree.ident, &tree.rename, path, is_public, imports),
    }
}

fn named(
    item: &syn::Ident,
    name: &syn::Ident,
    path: &[String],
    is_public: bool,
    imports: &mut Vec<Import>,
) {
    let (item, mut name, mut path) = (item.to_string(), name.to_string(), path.to_vec());
    if item == "self" {
        // `use a::b::{self}` imports `b`.
        if name == "self" {
            name = path.last().cloned().unwrap_or_default();
        }
    } else {
        path.push(item);
    }
    imports.push(Import { path, name, is_public });
}

/// True for an item with `#[cfg(test)]`.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)"
    })
}

fn has_path(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("path"))
}

/// Returns the attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the name of an item that has one.
pub fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Returns the module that defines the item at `path`, as seen from module `from`.
pub fn resolve(modules: &[Module], from: usize, path: &[String], depth: usize) -> Option<usize> {
    // Globs may import each other.
    if depth > 20 {
        return None;
    }
    let mut at = from;
    for (index, segment) in path.iter().enumerate() {
        let module = &modules[at];
        at = match segment.as_str() {
            "crate" => 0,
            "self" => at,
            "super" => module.parent,
            name => match module.children.iter().find(|(child, _)| child == name) {
                Some((_, child)) => *child,
                None if index == 0 => return None,
                None => return Some(definer(modules, at, name, depth).unwrap_or(at)),
            },
        };
    }
    Some(at)
}

/// Returns the module that defines `name`, which module `at` defines or imports.
pub fn definer(modules: &[Module], at: usize, name: &str, depth: usize) -> Option<usize> {
    let module = &modules[at];
    if module.definitions.contains(name) {
        return Some(at);
    }
    let mut imports = module.imports.iter();
    if let Some(import) = imports.find(|import| import.name == name) {
        return resolve(modules, at, &import.path, depth + 1);
    }
    let globs = module.imports.iter().filter(|import| import.name == "*");
    globs.into_iter().find_map(|import| {
        let target = resolve(modules, at, &import.path, depth + 1)?;
        if target == at || depth > 20 { None } else { definer(modules, target, name, depth + 1) }
    })
}
