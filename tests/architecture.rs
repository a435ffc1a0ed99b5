//! Checks the allowed dependencies between crates, from their manifests, and between modules, from
//! the paths in their sources.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::Imports;

/// Each crate of the workspace, with the workspace crates that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("hardtack-bundle", &[]),
    ("hardtack-transport", &["hardtack-bundle"]),
    ("hardtack-kernels", &[]),
    ("hardtack-engine", &["hardtack-kernels"]),
    ("hardtack-operators", &[]),
    ("hardtack-float", &["hardtack-bundle", "hardtack-kernels"]),
    (
        "hardtack",
        &[
            "hardtack-bundle",
            "hardtack-engine",
            "hardtack-float",
            "hardtack-kernels",
            "hardtack-operators",
        ],
    ),
    ("hardtack-runner", &["hardtack"]),
    ("hardtack-capi", &["hardtack", "hardtack-bundle"]),
    ("hardtack-targets", &["hardtack-kernels"]),
    ("hardtack-onnx", &["hardtack-operators"]),
    (
        "hardtack-converter",
        &[
            "hardtack",
            "hardtack-bundle",
            "hardtack-engine",
            "hardtack-kernels",
            "hardtack-onnx",
            "hardtack-operators",
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
    ("prost", &["hardtack-converter", "hardtack-onnx"]),
    ("memmap2", &["hardtack"]),
    ("anyhow", &["hardtack-cli"]),
    ("clap", &["hardtack-cli"]),
];

/// The top-level modules of the converter. Each may import only modules before it.
const CONVERTER: &[&str] = &[
    "contained_path",
    "spec",
    "progress",
    "process",
    "atomic_file",
    "arrays",
    "import",
    "guard",
    "error",
    "options",
    "report",
    "graph",
    "model_limits",
    "samples",
    "offloaded_model",
    "activations",
    "float_run",
    "fold",
    "quantize",
    "storage",
    "parity",
    "prune",
    "emit",
    "convert",
];

/// The modules of `quantize` in the converter, in the same order.
const QUANTIZE: &[&str] = &[
    "float_reason",
    "scale",
    "weights",
    "work",
    "statistics",
    "rounding",
    "function",
    "fuse",
    "prelu",
    "equalize",
    "operators",
    "partition",
    "calibrate",
    "lower",
    "output_error",
    "mixed_precision",
    "named_nodes",
    "calibrated",
    "layer_error",
    "arena",
    "integer_io",
    "tests",
];

/// The files of each crate that may import each other in a cycle: tables that refer to the
/// functions in them, and types with functions that need each other.
const CYCLES: &[(&str, &[&[&str]])] = &[
    ("runtime/bundle", &[&["error", "header", "section"]]),
    (
        "runtime/kernels",
        &[
            &["arch::arm::dsp", "table"],
            // The kernel tables, and the kernels of each instruction set.
            &["arch", "strided"],
            &[
                "float::arch",
                "float::conv",
                "float::depthwise",
                "float::map",
                "float::pool",
                "float::product",
                "float::reduce",
            ],
            &["dynamic", "operation", "rounding"],
            &["scalar::conv", "scalar::depthwise"],
        ],
    ),
    (
        "runtime/engine",
        &[
            &["check", "code", "packed"],
            &["reference::run", "reference::steps"],
            &["prepared::lower::layout", "prepared::lower::remap"],
        ],
    ),
    // Operators with subgraphs call the evaluator, which calls operators.
    (
        "runtime/operators",
        &[
            &["call", "evaluate", "operators"],
            // Limits measure values, and bound the shapes of tensors.
            &["meter", "model", "shape", "tensor", "value"],
        ],
    ),
    (
        "runtime/session",
        &[
            &["bundle", "model"],
            // The table of operators, and how each is loaded and saved.
            &["float::load", "float::translate", "float::save"],
            &["float::custom_ops::branch", "float::custom_ops::nested"],
        ],
    ),
    ("runtime/transport", &[&["prior", "weights"]]),
    ("runtime/capi", &[&["pointer", "status"], &["classify", "session"]]),
    ("converter/cli", &[&["arguments", "support::gates"], &["verbs::bench", "support::profile"]]),
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
        ("runtime/operators/src/lib.rs", &["#![forbid(unsafe_code)]"]),
        ("runtime/float/src/lib.rs", &["#![forbid(unsafe_code)]"]),
        ("converter/onnx/src/lib.rs", &["#![forbid(unsafe_code)]"]),
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

/// Checks that each module in `order`, a child of `parent`, imports only modules before it.
fn check_order(imports: &Imports, parent: &str, order: &[&str]) {
    let place = |module: &str| {
        let path = module.strip_prefix(parent)?.trim_start_matches("::");
        let child = path.split("::").next().filter(|child| !child.is_empty())?;
        let place = order.iter().position(|known| *known == child);
        Some(place.unwrap_or_else(|| panic!("{module} is not in the order of modules")))
    };
    for (from, to) in imports.edges() {
        if let (Some(a), Some(b)) = (place(from), place(to)) {
            assert!(b <= a, "{from} must not import {to}: {} comes after {}", order[b], order[a]);
        }
    }
}

#[test]
fn converter_modules_import_only_earlier_modules() {
    let imports = Imports::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("converter/pipeline"));
    check_order(&imports, "", CONVERTER);
    check_order(&imports, "quantize", QUANTIZE);
}

#[test]
fn modules_import_each_other_in_no_unlisted_cycle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [
        "bundle",
        "transport",
        "kernels",
        "engine",
        "float",
        "operators",
        "session",
        "runner",
        "capi",
    ]
    .map(|name| format!("runtime/{name}"))
    .into_iter()
    .chain(["targets", "converter/onnx", "converter/pipeline", "converter/cli"].map(str::to_owned))
    {
        let listed = CYCLES.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, c)| c);
        for cycle in Imports::of(&root.join(&folder)).cycles() {
            let within = |group: &&[&str]| {
                let member = |module: &&String| {
                    group.iter().any(|name| {
                        module
                            .strip_prefix(name)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                    })
                };
                cycle.iter().all(|module| member(&module))
            };
            assert!(listed.iter().any(within), "cycle in {folder}: {cycle:?}");
        }
    }
}
