//! Who may depend on whom, read from the manifests: the direction of the arrows is a test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each crate with the crates of ours it may name, in any kind of dependency.
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

/// Crates from elsewhere that only some of ours may name.
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
fn our_crates_depend_one_way() {
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
        assert!(manifests.contains_key(name), "{name} is in the list but not in the tree");
    }
}

#[test]
fn reserved_crates_stay_where_they_belong() {
    for (name, manifest) in manifests() {
        for dependency in dependencies(&manifest) {
            if let Some((_, may)) = RESERVED.iter().find(|(reserved, _)| *reserved == dependency) {
                assert!(may.contains(&name.as_str()), "{name} must not depend on {dependency}");
            }
        }
    }
}

/// `no_std` below the session, and no unsafe code but where it is named here.
#[test]
fn crate_roots_declare_what_they_promise() {
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

/// In the crate that applications link, unsafe code is the memory map's alone.
#[test]
fn only_the_memory_map_is_unsafe_in_the_session() {
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
