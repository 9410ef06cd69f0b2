//! Public items whose documentation has no example and no link to one.
//!
//! An item has an example if its documentation has a code block that rustdoc compiles. A link
//! counts if the documentation that it leads to has an example. If the item is a function, that
//! example must call it: an example of something else helps nobody. Constants of a type or of a
//! module are values like the variants of an enum: the example of the type or module is theirs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Attribute, ImplItem, Item, TraitItem};

use crate::files::crates;
use crate::module::{Module, attributes, name, read_crate};
use crate::public::{Public, impls, is_public, items};

/// Documentation of a public item.
struct Entry {
    file: PathBuf,
    /// The segments of the path, such as `Queue`, `poll`; empty for the crate.
    path: Vec<String>,
    /// The type or trait that `Self` stands for.
    owner: Vec<String>,
    docs: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A function or method, which an example calls by name.
    Function,
    Constant,
    Other,
}

/// A library: its name in paths, and its items.
struct Library {
    folder: PathBuf,
    entries: Vec<Entry>,
}

/// Prints the items without an example, counts them for each of the libraries in `chosen`, and
/// returns true if there are none.
pub fn check(chosen: &[&str]) -> bool {
    // Links lead to other crates, too.
    let libraries: Vec<Library> = crates(&[])
        .into_iter()
        .filter(|folder| !folder.starts_with("tests"))
        .filter_map(read)
        .collect();
    let mut total = 0;
    for library in &libraries {
        let is_chosen = chosen.iter().any(|folder| Path::new(folder) == library.folder);
        if !chosen.is_empty() && !is_chosen {
            continue;
        }
        let mut count = 0;
        for entry in &library.entries {
            if let Some(reason) = reason(entry, library, &libraries) {
                println!("{}: {}: {reason}", entry.file.display(), entry.path.join("::"));
                count += 1;
            }
        }
        let of = library.entries.len();
        println!("{}: {count} of {of} public items without an example", library.folder.display());
        total += count;
    }
    total == 0
}

/// Returns the reason why an item has no example, or `None` if it has one.
fn reason(entry: &Entry, library: &Library, libraries: &[Library]) -> Option<&'static str> {
    let parent = match (entry.kind, entry.path.split_last()) {
        (Kind::Constant, Some((_, parent))) if !parent.is_empty() => {
            library.entries.iter().find(|found| found.path == parent)
        }
        _ => None,
    };
    let reason = own_reason(entry, library, libraries)?;
    match parent {
        Some(parent) => own_reason(parent, library, libraries),
        None => Some(reason),
    }
}

/// Returns the reason why the documentation of an item has no example.
fn own_reason(entry: &Entry, library: &Library, libraries: &[Library]) -> Option<&'static str> {
    if example(&entry.docs).is_some() {
        return None;
    }
    let mut reason = "no example, and no link to one";
    for link in links(&entry.docs) {
        for target in targets(&link, entry, library, libraries) {
            let Some(example) = example(&target.docs) else { continue };
            let name = entry.path.last().map_or("", String::as_str);
            if entry.kind != Kind::Function || has_word(&example, name) {
                return None;
            }
            reason = "the example that it links to does not call it";
        }
    }
    Some(reason)
}

/// Returns the visible code of the examples in `docs`, or `None` if there is none.
fn example(docs: &str) -> Option<String> {
    let (mut code, mut inside, mut is_rust, mut found) = (String::new(), false, false, false);
    for line in docs.lines() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            let tags: Vec<&str> = language.split(',').map(str::trim).collect();
            let known = ["", "rust", "no_run", "should_panic", "compile_fail"];
            is_rust = tags.iter().all(|tag| known.contains(tag) || tag.starts_with("edition"));
            found |= inside && is_rust;
        } else if inside && is_rust && line != "#" && !line.starts_with("# ") {
            code.push_str(line);
            code.push('\n');
        }
    }
    found.then_some(code)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|next: char| !next.is_alphanumeric() && next != '_').any(|found| found == word)
}

/// Returns the targets of the links in `docs`, code blocks excluded.
fn links(docs: &str) -> Vec<String> {
    let mut is_code = false;
    let mut links = Vec::new();
    for line in docs.lines() {
        if line.trim().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            links_of_line(line, &mut links);
        }
    }
    links
}

fn links_of_line(line: &str, links: &mut Vec<String>) {
    let mut rest = line;
    while let Some((_, inside)) = rest.split_once('[') {
        let Some((text, after)) = inside.split_once(']') else { return };
        let target = |open, close| {
            let after: &str = after;
            Some(after.strip_prefix(open)?.split_once(close)?.0)
        };
        let definition = after.strip_prefix(": ");
        let target = target('(', ')').or_else(|| target('[', ']')).or(definition);
        links.push(target.unwrap_or(text).to_owned());
        rest = after;
    }
}

/// Returns the items that a link of `entry` may lead to.
fn targets<'l>(
    link: &str,
    entry: &Entry,
    library: &'l Library,
    libraries: &'l [Library],
) -> Vec<&'l Entry> {
    let (link, heading) = link.split_once('#').unwrap_or((link, ""));
    let link = link.trim_matches('`').trim_end_matches("()").trim_end_matches('!');
    let link = link.rsplit_once('@').map_or(link, |(_, link)| link);
    let mut path: Vec<String> = link.split("::").map(str::to_owned).collect();
    if path[0] == "Self" {
        path.splice(..1, entry.owner.iter().cloned());
    }
    let is_root = path == ["crate"];
    while path.first().is_some_and(|first| {
        ["", "crate", "self", "super"].contains(&first.as_str()) || first.starts_with("nvio")
    }) {
        path.remove(0);
    }
    if path.is_empty() && !is_root {
        return Vec::new();
    }
    let in_library = |library: &'l Library| -> Vec<&'l Entry> {
        let fits = |found: &&Entry| {
            let ends = if is_root { found.path.is_empty() } else { found.path.ends_with(&path) };
            ends && has_heading(&found.docs, heading)
        };
        library.entries.iter().filter(fits).collect()
    };
    let near = in_library(library);
    if near.is_empty() { libraries.iter().flat_map(in_library).collect() } else { near }
}

/// True if `docs` has the heading that a link names, as in `Queue#examples`.
fn has_heading(docs: &str, heading: &str) -> bool {
    heading.is_empty()
        || docs.lines().any(|line| {
            let text = line.trim().trim_start_matches('#').trim();
            line.trim().starts_with('#') && text.to_lowercase().replace(' ', "-") == heading
        })
}

/// Reads the public items of the library in `folder`, if it has one.
fn read(folder: PathBuf) -> Option<Library> {
    let root = folder.join("src/lib.rs");
    if !root.exists() {
        return None;
    }
    let modules = read_crate(&root);
    let file = syn::parse_file(&fs::read_to_string(&root).expect("a source file"))
        .expect("a file that was read before");
    let mut reader = Reader { modules: &modules, entries: Vec::new(), seen: BTreeSet::new() };
    reader.add(&root, "crate", None, &file.attrs, Kind::Other);
    for (path, public) in items(&modules) {
        match public {
            Public::Item { at, item } => reader.item(at, item, &path),
            Public::Macro { at, tokens, only } => reader.macro_type(at, tokens, &path, only),
            Public::Module(index) => reader.module(index, &path),
            Public::External { .. } => {}
        }
    }
    Some(Library { folder, entries: reader.entries })
}

struct Reader<'m> {
    modules: &'m [Module],
    entries: Vec<Entry>,
    /// Items that were read: file and name. A re-export shows the same documentation.
    seen: BTreeSet<(PathBuf, Vec<String>)>,
}

impl Reader<'_> {
    fn add(
        &mut self,
        file: &Path,
        path: &str,
        owner: Option<&str>,
        attributes: &[Attribute],
        kind: Kind,
    ) {
        self.add_docs(file, path, owner, docs(attributes), kind);
    }

    fn add_docs(&mut self, file: &Path, path: &str, owner: Option<&str>, docs: String, kind: Kind) {
        let split = |path: &str| path.split("::").skip(1).map(str::to_owned).collect();
        let path: Vec<String> = split(path);
        let owner = owner.map_or_else(|| path.clone(), split);
        let own = path[path.len().saturating_sub(2)..].to_vec();
        if self.seen.insert((file.to_owned(), own)) {
            self.entries.push(Entry { file: file.to_owned(), path, owner, docs, kind });
        }
    }

    /// Adds a module, whose documentation is in its file or beside its declaration.
    fn module(&mut self, index: usize, path: &str) {
        let module = &self.modules[index];
        let parent = &self.modules[module.parent];
        let declared = parent.items.iter().find_map(|item| match item {
            Item::Mod(item) if path.ends_with(&format!("::{}", item.ident)) => Some(&item.attrs),
            _ => None,
        });
        let mut text = declared.map(|attributes| docs(attributes)).unwrap_or_default();
        if module.file != parent.file {
            let file = fs::read_to_string(&module.file).expect("a source file");
            let lines = file.lines().filter_map(|line| line.strip_prefix("//!"));
            lines.for_each(|line| text.push_str(&format!("{line}\n")));
        }
        self.add_docs(&module.file, path, None, text, Kind::Other);
    }

    /// Adds the type that a macro such as `bitflags!` defines.
    fn macro_type(&mut self, at: usize, tokens: &TokenStream, path: &str, only: Option<String>) {
        let Some((name, docs)) = struct_of_macro(tokens.clone()) else { return };
        if only.is_none_or(|only| only == name) {
            let file = &self.modules[at].file;
            self.add_docs(file, &format!("{path}::{name}"), None, docs, Kind::Other);
        }
    }

    fn item(&mut self, at: usize, item: &Item, path: &str) {
        let Some(name) = name(item) else { return };
        let file = &self.modules[at].file;
        let own = format!("{path}::{name}");
        let kind = match item {
            Item::Fn(_) => Kind::Function,
            Item::Const(_) => Kind::Constant,
            _ => Kind::Other,
        };
        self.add(file, &own, None, attributes(item), kind);
        if let Item::Trait(item) = item {
            for item in &item.items {
                let (name, attributes, kind) = match item {
                    TraitItem::Fn(item) => (&item.sig.ident, &item.attrs, Kind::Function),
                    TraitItem::Const(item) => (&item.ident, &item.attrs, Kind::Constant),
                    TraitItem::Type(item) => (&item.ident, &item.attrs, Kind::Other),
                    _ => continue,
                };
                self.add(file, &format!("{own}::{name}"), Some(&own), attributes, kind);
            }
        }
        if matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Union(_)) {
            self.methods(at, &name, &own);
        }
    }

    fn methods(&mut self, at: usize, of: &str, own: &str) {
        for (at, block) in impls(self.modules, at, of) {
            if block.trait_.is_some() {
                continue;
            }
            for item in &block.items {
                let (name, attributes, kind) = match item {
                    ImplItem::Fn(item) if is_public(&item.vis) => {
                        (&item.sig.ident, &item.attrs, Kind::Function)
                    }
                    ImplItem::Const(item) if is_public(&item.vis) => {
                        (&item.ident, &item.attrs, Kind::Constant)
                    }
                    _ => continue,
                };
                let file = &self.modules[at].file;
                self.add(file, &format!("{own}::{name}"), Some(own), attributes, kind);
            }
        }
    }
}

/// Returns the text of the doc comments.
fn docs(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let syn::Meta::NameValue(meta) = &attribute.meta else { continue };
        let syn::Expr::Lit(literal) = &meta.value else { continue };
        let syn::Lit::Str(line) = &literal.lit else { continue };
        text.push_str(&line.value());
        text.push('\n');
    }
    text
}

/// Returns the name and the documentation of the public struct in the tokens of a macro.
fn struct_of_macro(tokens: TokenStream) -> Option<(String, String)> {
    let mut text = String::new();
    let mut words = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                let stream = group.stream();
                if let Ok(attribute) = syn::parse2::<syn::MetaNameValue>(stream)
                    && attribute.path.is_ident("doc")
                    && let syn::Expr::Lit(literal) = attribute.value
                    && let syn::Lit::Str(line) = literal.lit
                {
                    text.push_str(&line.value());
                    text.push('\n');
                }
            }
            TokenTree::Ident(ident) => {
                words.push(ident.to_string());
                if let [.., first, second, name] = &words[..]
                    && first == "pub"
                    && second == "struct"
                {
                    return Some((name.clone(), text));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_compiled_code_blocks_are_examples() {
        assert_eq!(example("Text.\n\n```\n# hidden();\nshown();\n```\n").unwrap(), "shown();\n");
        assert!(example("```no_run\nshown();\n```").is_some());
        for none in ["", "`code`", "```text\nshown();\n```", "```ignore\nshown();\n```"] {
            assert!(example(none).is_none(), "{none}");
        }
    }

    #[test]
    fn links_of_each_form_are_found() {
        let docs = "See [`A::b`], the [example](B#examples) and [c][d].\n\n[d]: E\n```\n[f]\n```";
        assert_eq!(links(docs), ["`A::b`", "B#examples", "d", "d", "E"]);
    }

    #[test]
    fn an_example_must_call_the_function_that_links_to_it() {
        let entry = |path: &[&str], docs: &str| Entry {
            file: PathBuf::new(),
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            owner: vec![path[0].to_owned()],
            docs: docs.to_owned(),
            kind: if path.len() > 1 { Kind::Function } else { Kind::Other },
        };
        let library = Library {
            folder: PathBuf::new(),
            entries: vec![
                entry(&["Queue"], "A queue.\n\n# Examples\n```\nqueue.poll();\n```"),
                entry(&["Queue", "poll"], "Polls. See the [example](Self#examples)."),
                entry(&["Queue", "wait"], "Waits. See the [example](Self#examples)."),
                entry(&["Queue", "ring"], "Rings."),
                entry(&["Done"], "A result of [`Queue`]."),
                entry(&["Token"], "A token. See the [example](Queue#other)."),
            ],
        };
        let libraries = [library];
        let missing: Vec<String> = libraries[0]
            .entries
            .iter()
            .filter(|entry| reason(entry, &libraries[0], &libraries).is_some())
            .map(|entry| entry.path.join("::"))
            .collect();
        assert_eq!(missing, ["Queue::wait", "Queue::ring", "Token"]);
    }
}
