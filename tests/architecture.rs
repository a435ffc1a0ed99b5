//! Checks the allowed dependencies between crates, from their manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each crate of the workspace, with the workspace crates that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("hardtack-bundle", &[]),
    ("hardtack-transport", &["hardtack-bundle"]),
    ("hardtack-kernels", &[]),
    ("hardtack-engine", &["hardtack-kernels"]),
    ("hardtack", &["hardtack-bundle", "hardtack-engine", "hardtack-kernels"]),
    ("hardtack-runner", &["hardtack"]),
    ("hardtack-capi", &["hardtack", "hardtack-bundle"]),
    ("hardtack-targets", &["hardtack-kernels"]),
    (
        "hardtack-converter",
        &[
            "hardtack",
            "hardtack-bundle",
            "hardtack-engine",
            "hardtack-kernels",
            "hardtack-transport",
        ],
    ),
    (
        "hardtack-cli",
        &[
            "hardtack",
            "hardtack-bundle",
            "hardtack-converter",
            "hardtack-engine",
            "hardtack-kernels",
            "hardtack-targets",
            "hardtack-transport",
        ],
    ),
];

/// External crates that only some workspace crates may depend on.
const RESERVED: &[(&str, &[&str])] = &[
    ("tract-core", &["hardtack", "hardtack-converter"]),
    ("tract-hir", &["hardtack-converter"]),
    ("tract-onnx", &["hardtack-converter"]),
    ("prost", &["hardtack-converter"]),
    ("memmap2", &["hardtack"]),
    ("anyhow", &["hardtack-cli"]),
    ("clap", &["hardtack-cli"]),
];

fn manifests() -> BTreeMap<String, toml::Table> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let shelves = ["runtime", "converter"].map(|shelf| std::fs::read_dir(root.join(shelf)));
    let folders = shelves.into_iter().flat_map(|entries| entries.expect("readable shelf"));
    let folders = folders.map(|entry| entry.expect("readable shelf").path());
    for folder in folders.chain([root.join("targets")]) {
        let Ok(text) = std::fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().expect("well-formed manifest");
        let name = manifest["package"]["name"].as_str().expect("named package").to_owned();
        found.insert(name, manifest);
    }
    found
}

fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

#[test]
fn workspace_crates_have_only_allowed_dependencies() {
    let manifests = manifests();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let known: BTreeSet<&str> = allowed.keys().copied().collect();
    for (name, manifest) in &manifests {
        let may = allowed.get(name.as_str());
        let may = may.unwrap_or_else(|| panic!("{name} is not in the list of crates"));
        for dependency in dependencies(manifest) {
            assert!(
                !known.contains(dependency.as_str()) || may.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    for name in known {
        assert!(manifests.contains_key(name), "{name} is in the list but does not exist");
    }
}

#[test]
fn reserved_crates_are_used_only_where_allowed() {
    for (name, manifest) in manifests() {
        for dependency in dependencies(&manifest) {
            if let Some((_, may)) = RESERVED.iter().find(|(reserved, _)| *reserved == dependency) {
                assert!(may.contains(&name.as_str()), "{name} must not depend on {dependency}");
            }
        }
    }
}

/// Crates below the session are `no_std`, and most crates forbid unsafe code.
#[test]
fn crate_roots_have_the_required_attributes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, promises) in [
        ("runtime/bundle/src/lib.rs", &["#![no_std]", "#![forbid(unsafe_code)]"][..]),
        ("runtime/transport/src/lib.rs", &["#![no_std]", "#![forbid(unsafe_code)]"]),
        ("runtime/kernels/src/lib.rs", &["#![no_std]"]),
        ("runtime/engine/src/lib.rs", &["#![no_std]", "#![forbid(unsafe_code)]"]),
        ("converter/pipeline/src/lib.rs", &["#![forbid(unsafe_code)]"]),
        ("converter/cli/src/main.rs", &["#![forbid(unsafe_code)]"]),
    ] {
        let text = std::fs::read_to_string(root.join(path)).expect("crate root");
        for promise in promises {
            assert!(text.contains(promise), "{path} lacks {promise}");
        }
    }
}

/// In the crate that applications link, only the memory map uses unsafe code.
#[test]
fn only_the_memory_map_of_the_session_is_unsafe() {
    fn visit(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("source folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                visit(&path, found);
            } else if std::fs::read_to_string(&path).expect("source file").lines().any(|line| {
                line.trim_start().starts_with("unsafe {") || line.contains("= unsafe {")
            }) {
                found.push(path.file_name().expect("name").to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/session/src"), &mut found);
    assert_eq!(found, ["map.rs"]);
}
