//! Licenses, bans and sources of all dependencies, by the rules in `deny.toml`. The rules and their
//! meaning are those of cargo-deny, which takes minutes to compile.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

/// The rules. A key that is not listed here is an error, so that no rule is passed over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    all_features: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Level,
    wildcards: Level,
    allow_wildcard_paths: bool,
    deny: Vec<Named>,
    skip: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Level {
    Allow,
    Deny,
}

/// A crate, as `name` or `name@version`, and the reason of the rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

impl Named {
    fn matches(&self, name: &str, version: &Version) -> bool {
        match self.name.split_once('@') {
            Some((own, wanted)) => {
                own == name && VersionReq::parse(wanted).is_ok_and(|wanted| wanted.matches(version))
            }
            None => self.name == name,
        }
    }
}

/// Checks the dependencies of the workspace, and prints each that breaks a rule. Returns true if
/// there is none.
pub fn check() -> bool {
    let rules = std::fs::read_to_string("deny.toml").expect("deny.toml");
    let rules: Rules = toml::from_str(&rules).expect("deny.toml has the form of cargo-deny");
    let mut command = MetadataCommand::new();
    if rules.graph.all_features {
        command.features(CargoOpt::AllFeatures);
    }
    let metadata = command.other_options(["--locked".to_owned()]).exec().expect("cargo metadata");
    let wrong = broken_rules(&rules, &metadata);
    for line in &wrong {
        println!("{line}");
    }
    println!("{} packages, {} of them break a rule", metadata.packages.len(), wrong.len());
    wrong.is_empty()
}

fn broken_rules(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let allowed: Vec<Licensee> = rules
        .licenses
        .allow
        .iter()
        .map(|name| Licensee::parse(name).expect("an SPDX identifier"))
        .collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        let broken = [
            license(&allowed, package.license.as_deref()),
            banned(&rules.bans, package),
            source(&rules.sources, package),
            wildcard(&rules.bans, package),
        ];
        wrong.extend(broken.into_iter().flatten().map(|reason| format!("{name}: {reason}")));
        let skipped = |skip: &&Named| skip.matches(&package.name, &package.version);
        used.extend(rules.bans.skip.iter().find(skipped).map(|skip| skip.name.as_str()));
    }
    if rules.bans.multiple_versions == Level::Deny {
        wrong.extend(several_versions(&rules.bans.skip, &metadata.packages));
    }
    let unused = rules.bans.skip.iter().filter(|skip| !used.contains(skip.name.as_str()));
    wrong.extend(unused.map(|skip| format!("{}: skipped, but not used", skip.name)));
    wrong
}

/// Returns the reason if a license expression cannot be met with the allowed licenses.
fn license(allowed: &[Licensee], expression: Option<&str>) -> Option<String> {
    let Some(text) = expression else { return Some("no license expression".to_owned()) };
    // Older manifests write a slash instead of OR.
    let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
        return Some(format!("the license {text:?} is not an SPDX expression"));
    };
    let met = expression.evaluate(|wanted| allowed.iter().any(|license| license.satisfies(wanted)));
    (!met).then(|| format!("the license {text:?} is not allowed"))
}

fn banned(bans: &Bans, package: &Package) -> Option<String> {
    let ban = bans.deny.iter().find(|ban| ban.matches(&package.name, &package.version))?;
    Some(format!("banned: {}", ban.reason))
}

fn source(sources: &Sources, package: &Package) -> Option<String> {
    let source = &package.source.as_ref()?.repr;
    let (level, allowed, address) = match source.strip_prefix("registry+") {
        Some(address) => (sources.unknown_registry, &sources.allow_registry, address),
        None => (sources.unknown_git, &sources.allow_git, source.trim_start_matches("git+")),
    };
    let address = address.split(['?', '#']).next().unwrap_or(address);
    let known = allowed.iter().any(|known| known == address);
    (level == Level::Deny && !known).then(|| format!("the source {source} is not allowed"))
}

/// Returns the reason if a package of the workspace accepts any version of a dependency.
fn wildcard(bans: &Bans, package: &Package) -> Option<String> {
    if package.source.is_some() || bans.wildcards == Level::Allow {
        return None;
    }
    let private = package.publish.as_ref().is_some_and(Vec::is_empty);
    let mut any = package.dependencies.iter().filter(|dependency| {
        let is_path = dependency.path.is_some() && private && bans.allow_wildcard_paths;
        dependency.req == VersionReq::STAR && !is_path
    });
    any.next().map(|dependency| format!("accepts any version of {}", dependency.name))
}

fn several_versions(skip: &[Named], packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for package in packages {
        if !skip.iter().any(|skip| skip.matches(&package.name, &package.version)) {
            versions.entry(&package.name).or_default().push(&package.version);
        }
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    let text = |versions: Vec<&Version>| {
        versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    several
        .map(|(name, versions)| format!("{name}: several versions: {}", text(versions)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [graph]
            all-features = true
            [licenses]
            allow = ["MIT", "Apache-2.0"]
            [bans]
            multiple-versions = "deny"
            wildcards = "deny"
            allow-wildcard-paths = true
            deny = [{ crate = "bad", reason = "old" }, { crate = "half@1", reason = "older" }]
            skip = [{ crate = "twice@1", reason = "both" }]
            [sources]
            unknown-registry = "deny"
            unknown-git = "deny"
            allow-registry = ["https://github.com/rust-lang/crates.io-index"]
            allow-git = []
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, license: &str, source: Option<&str>) -> Package {
        let json = serde_json::json!({
            "name": name, "version": version, "id": format!("{name} {version}"),
            "license": license, "source": source, "dependencies": [], "targets": [],
            "features": {}, "manifest_path": "/x/Cargo.toml", "edition": "2024",
        });
        serde_json::from_value(json).unwrap()
    }

    const REGISTRY: Option<&str> = Some("registry+https://github.com/rust-lang/crates.io-index");

    #[test]
    fn license_expressions_need_an_allowed_license() {
        let allowed = ["MIT", "Apache-2.0"].map(|name| Licensee::parse(name).unwrap());
        for good in ["MIT", "MIT/Apache-2.0", "GPL-2.0-only OR MIT", "(MIT OR Zlib) AND Apache-2.0"]
        {
            assert_eq!(license(&allowed, Some(good)), None, "{good}");
        }
        for bad in ["GPL-2.0-only", "MIT AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception", "Own"]
        {
            assert!(license(&allowed, Some(bad)).is_some(), "{bad}");
        }
        assert!(license(&allowed, None).is_some());
    }

    #[test]
    fn banned_crates_and_unknown_sources_are_reported() {
        let rules = rules();
        let ban = |name, version| banned(&rules.bans, &package(name, version, "MIT", REGISTRY));
        assert_eq!(ban("bad", "3.0.0"), Some("banned: old".to_owned()));
        assert_eq!(ban("half", "1.2.0"), Some("banned: older".to_owned()));
        assert_eq!((ban("half", "2.0.0"), ban("good", "1.0.0")), (None, None));
        let origin = |text| source(&rules.sources, &package("x", "1.0.0", "MIT", text));
        assert_eq!((origin(REGISTRY), origin(None)), (None, None));
        for unknown in ["registry+https://example.com/index", "git+https://example.com/x#abc"] {
            assert!(origin(Some(unknown)).is_some(), "{unknown}");
        }
    }

    #[test]
    fn a_second_version_is_reported_unless_it_is_skipped() {
        let rules = rules();
        let twice = ["1.0.0", "2.0.0"].map(|version| package("twice", version, "MIT", REGISTRY));
        assert!(several_versions(&rules.bans.skip, &twice).is_empty());
        let lines = several_versions(&[], &twice);
        assert_eq!(lines, ["twice: several versions: 1.0.0, 2.0.0"]);
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error() {
        assert!(toml::from_str::<Licenses>("allow = []\nexceptions = []").is_err());
    }
}
