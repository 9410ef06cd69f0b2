//! Manual pages, completions and the files of the Debian package.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{must, nvio};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The verbs that the help lists.
fn verbs() -> Vec<String> {
    let help = nvio(["--help"]).text();
    let lines = help.lines().take_while(|line| *line != "Options:");
    let verbs = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let verbs: Vec<String> = verbs.map(str::to_owned).filter(|verb| verb != "help").collect();
    assert!(verbs.len() > 20, "{verbs:?}");
    verbs
}

/// Makes the files of the package as `packaging/build-deb` does.
fn prepare(folder: &Path) {
    let script = repository().join("packaging/prepare");
    let nvio = Path::new(env!("CARGO_BIN_EXE_nvio"));
    must(script.to_str().unwrap(), &[nvio.as_ref(), folder.as_ref()]);
}

#[test]
fn each_verb_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let page = |name: &str| fs::read_to_string(dir.path().join("man").join(name)).unwrap();
    assert!(page("nvio.1").contains("nvio\\-ls(1)"));
    for verb in verbs() {
        let text = page(&format!("nvio-{verb}.1"));
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(text.contains(part), "nvio-{verb}.1: no {part}");
        }
    }
    assert!(page("nvio-find.1").contains("\\-\\-iname"));
    // groff reports mistakes in a page.
    let mut groff = Command::new("groff");
    let page = dir.path().join("man/nvio-ls.1");
    if let Ok(output) = groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output() {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn completions_know_each_verb_and_its_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = nvio(["completions", shell]).text();
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell}: no {verb}");
        }
        assert!(script.contains("recursive") && script.contains("iname"), "{shell}");
    }
    let outcome = nvio(["completions", "tcsh"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (2, 1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("bash"), "{}", outcome.stderr);
}

/// bash completes a verb and an option with the script.
#[test]
fn bash_completes() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let script = dir.path().join("nvio.bash");
    let complete = |words: &str, last: usize| {
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={last}; COMPREPLY=(); \
             _nvio nvio \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            last - 1
        );
        must("bash", &["-c".as_ref(), line.as_ref()])
    };
    assert_eq!(complete("nvio ident", 1), "identify\n");
    assert_eq!(complete("nvio ls --recu", 2), "--recursive\n");
}

/// The files of the package that are in the repository are there, and `packaging/prepare` makes the
/// others.
#[test]
fn the_files_of_the_debian_package_exist() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let manifest = fs::read_to_string(repository().join("tools/Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let (assets, _) = assets.split_once("\n]\n").unwrap();
    let mut made = 0;
    let mut targets = Vec::new();
    for line in assets.lines() {
        let parts: Vec<&str> = line.split('"').collect();
        let (source, target, mode) = (parts[1], parts[3], parts[5]);
        targets.push(target);
        if source == "target/release/nvio" {
            assert_eq!((target, mode), ("usr/bin/", "755"));
            continue;
        }
        assert_eq!(mode, "644", "{source}");
        let path = match source.strip_prefix("../target/package/") {
            Some(name) => {
                made += 1;
                dir.path().join(name.replace("*.1", "nvio.1"))
            }
            None => repository().join("tools").join(source),
        };
        assert!(fs::metadata(&path).unwrap().len() > 0, "{source}");
    }
    assert_eq!(made, 4);
    for folder in ["man/man1", "bash-completion", "zsh", "fish", "udev/rules.d"] {
        assert!(targets.iter().any(|target| target.contains(folder)), "no {folder}");
    }
}

/// The program of the udev rule accepts groups of NVMe controllers and bridges only.
#[test]
fn the_udev_rule_admits_nvme_controllers() {
    let rules = fs::read_to_string(repository().join("packaging/60-nvio.rules")).unwrap();
    let program = rules.split("PROGRAM==\"").nth(1).unwrap().split("\", ").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let devices = dir.path().join("7/devices");
    let admits = |classes: &[&str]| {
        let _ = fs::remove_dir_all(&devices);
        for (index, class) in classes.iter().enumerate() {
            let device = devices.join(index.to_string());
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
        }
        let program = program.replace("%k", "7");
        let program = program.replace("/sys/kernel/iommu_groups", dir.path().to_str().unwrap());
        // udev splits a program at spaces outside of quotes, as a shell does.
        Command::new("sh").args(["-c", &program]).status().unwrap().success()
    };
    assert!(admits(&["0x010802"]) && admits(&["0x060400", "0x010802"]));
    assert!(!admits(&["0x030000"]) && !admits(&["0x010802", "0x030000"]));
    assert!(!admits(&["0x010601"]));
}

/// The crates are not on a registry, and nothing says that they are.
#[test]
fn no_text_claims_a_registry() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let dependencies = readme.split("[dependencies]\n").nth(1).unwrap();
    let line = dependencies.lines().next().unwrap();
    assert!(line.contains("path = ") || line.contains("git = "), "{line}");
    for words in ["crates.io", "docs.rs", "cargo install nvio"] {
        assert!(!readme.contains(words), "{words}");
    }
    let workspace = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("\npublish = false\n"));
    let (_, members) = workspace.split_once("members = [").unwrap();
    for member in members.split(']').next().unwrap().split(", ") {
        let manifest = repository().join(member.trim_matches('"')).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        assert!(manifest.contains("\npublish.workspace = true\n"), "{member}");
    }
}
