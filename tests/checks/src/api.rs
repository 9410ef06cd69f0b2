//! The public API of a library as text, one line for each item, so that reviews show changes.
//!
//! Items are listed by the path that users write: re-exports are followed to the definition. The
//! text comes from the source alone and does not depend on the version of the compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Fields, ImplItem, Item, TraitItem};

use crate::files::crates;
use crate::module::{Module, name, read_crate};
use crate::public::{Public, impls, is_public, items};

/// Folder of the committed texts.
const FOLDER: &str = "tests/api";

/// Compares the API of each library with the committed text, or writes the text if `update` is
/// true. Returns true if all texts are up to date.
pub fn check(chosen: &[&str], update: bool) -> bool {
    let mut sound = true;
    for folder in crates(chosen) {
        let root = folder.join("src/lib.rs");
        if !root.exists() || is_internal(&folder) {
            continue;
        }
        let (text, file) = (describe(&root), file(&folder));
        if update {
            fs::create_dir_all(FOLDER).expect("a folder for the texts");
            fs::write(&file, text).expect("a text to be written");
            continue;
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if committed != text {
            sound = false;
            report(&file, &committed, &text);
        }
    }
    sound
}

/// True for a package that only the tests or the command use.
fn is_internal(folder: &Path) -> bool {
    folder.starts_with("tests") || folder.starts_with("tools")
}

fn file(folder: &Path) -> PathBuf {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a Cargo.toml");
    let name = manifest.split('"').nth(1).expect("the name of the package").to_owned();
    Path::new(FOLDER).join(name + ".txt")
}

/// Prints the lines that differ.
fn report(file: &Path, committed: &str, now: &str) {
    println!(
        "{} differs from the source; if that is intended: tests/check-api --update",
        file.display()
    );
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (committed.lines().collect(), now.lines().collect());
    old.difference(&new).for_each(|line| println!("-{line}"));
    new.difference(&old).for_each(|line| println!("+{line}"));
}

/// Returns the API of the library whose root file is `root`.
fn describe(root: &Path) -> String {
    let modules = read_crate(root);
    let mut api = Api { modules: &modules, lines: BTreeSet::new() };
    for (path, public) in items(&modules) {
        match public {
            Public::Item { at, item } => api.item(at, item, &path),
            Public::Macro { tokens, only: Some(only), .. } => api.macro_type(tokens, &path, &only),
            Public::Macro { only: None, .. } | Public::Module(_) => {}
            Public::External { path: external, name } => {
                api.add(&path, &format!("pub use {external} as {name}"));
            }
        }
    }
    let mut text: Vec<String> = api.lines.into_iter().collect();
    text.push(String::new());
    text.join("\n")
}

struct Api<'m> {
    modules: &'m [Module],
    lines: BTreeSet<String>,
}

impl Api<'_> {
    fn add(&mut self, path: &str, text: &str) {
        self.lines.insert(format!("{path}: {text}"));
    }

    /// Lists the type `only` if it is the one that a macro such as `bitflags!` defines.
    fn macro_type(&mut self, tokens: &TokenStream, path: &str, only: &str) {
        let text = spaced(&without_docs(tokens.clone()).to_string());
        let Some(at) = text.find("pub struct ") else { return };
        let name: String = text[at + 11..]
            .chars()
            .take_while(|next| next.is_alphanumeric() || *next == '_')
            .collect();
        if only == name {
            self.add(path, &text);
        }
    }

    fn item(&mut self, at: usize, item: &Item, path: &str) {
        let mut item = item.clone();
        let derived = strip(&mut item);
        let text = match &item {
            Item::Fn(item) => format!("pub {}", item.sig.to_token_stream()),
            Item::Const(item) => {
                let (ident, kind) = (&item.ident, &item.ty);
                format!("pub {}", quote!(const #ident: #kind))
            }
            Item::Static(item) => {
                let (ident, kind) = (&item.ident, &item.ty);
                format!("pub {}", quote!(static #ident: #kind))
            }
            Item::Trait(item) => {
                let mut head = item.clone();
                head.items.clear();
                for item in &item.items {
                    self.trait_item(&format!("{path}::{}", head.ident), item);
                }
                head.to_token_stream().to_string()
            }
            Item::Struct(item) => {
                let mut item = item.clone();
                public_fields(&mut item.fields);
                item.to_token_stream().to_string()
            }
            other => other.to_token_stream().to_string(),
        };
        self.add(path, &spaced(&text));
        let Some(name) = name(&item) else { return };
        let path = format!("{path}::{name}");
        if !derived.is_empty() {
            self.add(&path, &format!("derive({})", derived.join(", ")));
        }
        if matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Union(_)) {
            self.impls(at, &name, &path);
        }
    }

    fn trait_item(&mut self, path: &str, item: &TraitItem) {
        let text = match item {
            TraitItem::Fn(item) => {
                let provided = if item.default.is_some() { " { .. }" } else { "" };
                format!("{}{provided}", item.sig.to_token_stream())
            }
            TraitItem::Const(item) => {
                let (ident, kind) = (&item.ident, &item.ty);
                quote!(const #ident: #kind).to_string()
            }
            TraitItem::Type(item) => {
                let (ident, bounds) = (&item.ident, &item.bounds);
                quote!(type #ident: #bounds).to_string()
            }
            _ => return,
        };
        self.add(path, &spaced(&text));
    }

    /// Lists the methods and traits of the type that module `at` defines.
    fn impls(&mut self, at: usize, of: &str, path: &str) {
        for (_, item) in impls(self.modules, at, of) {
            let mut head = item.clone();
            head.items.clear();
            head.attrs.clear();
            let head = spaced(&head.to_token_stream().to_string());
            let head = head.trim_end_matches(['{', '}', ' ']).to_owned();
            if item.trait_.is_some() {
                self.add(path, &head);
                continue;
            }
            for item in &item.items {
                let text = match item {
                    ImplItem::Fn(item) if is_public(&item.vis) => {
                        format!("pub {}", item.sig.to_token_stream())
                    }
                    ImplItem::Const(item) if is_public(&item.vis) => {
                        let (ident, kind) = (&item.ident, &item.ty);
                        format!("pub {}", quote!(const #ident: #kind))
                    }
                    _ => continue,
                };
                let text = spaced(&text);
                // The parameters of the block matter only if there are bounds.
                let plain = !head.contains('<');
                self.add(path, &if plain { text } else { format!("{head} {{ {text} }}") });
            }
        }
    }
}

/// Removes the attributes of an item, except those that belong to its API, and returns the traits
/// that it derives.
fn strip(item: &mut Item) -> Vec<String> {
    let mut derived = Vec::new();
    let mut clean = |attributes: &mut Vec<Attribute>| {
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let list = attribute.meta.require_list().expect("a list of traits");
            derived.extend(list.tokens.to_string().split(',').map(|name| name.trim().to_owned()));
        }
        attributes.retain(|attribute| {
            ["non_exhaustive", "must_use", "repr"]
                .iter()
                .any(|kept| attribute.path().is_ident(kept))
        });
    };
    match item {
        Item::Const(item) => clean(&mut item.attrs),
        Item::Fn(item) => clean(&mut item.attrs),
        Item::Static(item) => clean(&mut item.attrs),
        Item::Trait(item) => clean(&mut item.attrs),
        Item::Type(item) => clean(&mut item.attrs),
        Item::Struct(item) => {
            clean(&mut item.attrs);
            item.fields.iter_mut().for_each(|field| clean(&mut field.attrs));
        }
        Item::Union(item) => {
            clean(&mut item.attrs);
            item.fields.named.iter_mut().for_each(|field| clean(&mut field.attrs));
        }
        Item::Enum(item) => {
            clean(&mut item.attrs);
            for variant in &mut item.variants {
                clean(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| clean(&mut field.attrs));
            }
        }
        _ => {}
    }
    derived.sort();
    derived.dedup();
    derived
}

/// Keeps the public fields of a struct.
fn public_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(fields) => {
            let all = std::mem::take(&mut fields.named);
            fields.named = all.into_iter().filter(|field| is_public(&field.vis)).collect();
        }
        Fields::Unnamed(fields) => {
            let all = std::mem::take(&mut fields.unnamed);
            fields.unnamed = all.into_iter().filter(|field| is_public(&field.vis)).collect();
        }
        Fields::Unit => {}
    }
}

/// Removes `#[doc = ...]` and other attributes from tokens.
fn without_docs(tokens: TokenStream) -> TokenStream {
    use proc_macro2::{Delimiter, Group, TokenTree};
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                let next = tokens.next_if(|next| {
                    matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
                });
                if next.is_none() {
                    kept.push(TokenTree::Punct(mark));
                }
            }
            TokenTree::Group(group) => {
                let inner = without_docs(group.stream());
                kept.push(TokenTree::Group(Group::new(group.delimiter(), inner)));
            }
            other => kept.push(other),
        }
    }
    kept.into_iter().collect()
}

/// Removes the spaces that rustfmt would not print.
fn spaced(text: &str) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (from, to) in [
        (" :: ", "::"),
        ("::<", "<"),
        (":: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" ;", ";"),
        (" :", ":"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("& ", "&"),
        ("[ ", "["),
        (" ]", "]"),
        ("' ", "'"),
        ("# [", "#["),
        ("->(", "-> ("),
        (" ?", "?"),
        ("? ", "?"),
    ] {
        text = text.replace(from, to);
    }
    // rustfmt puts spaces around an arrow.
    text.replace("->", " -> ").replace("  ", " ").replace(" -> >", " -> ").trim().to_owned()
}
