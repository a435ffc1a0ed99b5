//! `hardtack diff`.

use std::collections::BTreeMap;
use std::path::Path;

use hardtack::Bundle;
use serde_json::{Value, json};

use crate::arguments::Diff;
use crate::output::Answer;
use crate::output::{self, print, table};
use crate::support::bundles::{self, Refusal};
use crate::verbs::inspect::{manifest_json, operators_of};

/// A property that differs between the two bundles.
struct Difference {
    what: String,
    a: String,
    b: String,
}

pub fn diff(arguments: &Diff, as_json: bool) -> anyhow::Result<Answer> {
    let mut found = Vec::new();
    for path in [&arguments.a, &arguments.b] {
        match whole(path) {
            Ok(bundle) => found.push(bundle),
            Err(Refusal::File(error)) => return Err(error),
            Err(Refusal::Bundle(error)) => {
                if as_json {
                    let problem = output::sentence(&error);
                    output::json(&json!({ "equal": false, "refused": path, "problem": problem }));
                }
                output::error(&error);
                return Ok(Answer::No);
            }
        }
    }
    let [a, b] = [&found[0], &found[1]];
    let mut differences = Vec::new();
    compare(&mut differences, "", &manifest(a)?, &manifest(b)?);
    compare(&mut differences, "section ", &sections(a)?, &sections(b)?);
    compare(&mut differences, "operator ", &operators(a)?, &operators(b)?);
    let equal = a.bytes() == b.bytes();
    if !equal && differences.is_empty() {
        let [a, b] = [a, b].map(|bundle| format!("root digest {}", bundle.root()));
        differences.push(Difference { what: "file layout".into(), a, b });
    }
    if as_json {
        let list: Vec<Value> =
            differences.iter().map(|d| json!({ "what": d.what, "a": d.a, "b": d.b })).collect();
        output::json(&json!({ "equal": equal, "differences": list }));
    } else if equal {
        print(&format!("equal: both have the root digest {}\n", a.root()));
    } else {
        let rows = differences.into_iter().map(|d| [d.what, d.a, d.b]);
        print(&table(["", "A", "B"], rows));
    }
    Ok(if equal { Answer::Yes } else { Answer::No })
}

/// Opens a bundle and verifies all digests, so that a damaged bundle never compares as equal.
fn whole(path: &Path) -> Result<Bundle, Refusal> {
    let bundle = bundles::open_or_refuse(path)?;
    match bundle.verify() {
        Ok(()) => Ok(bundle),
        Err(error) => {
            let error = anyhow::Error::new(error).context(path.display().to_string());
            Err(Refusal::Bundle(error))
        }
    }
}

/// Adds the entries that differ between two maps; their names start with `what`.
fn compare(
    differences: &mut Vec<Difference>,
    what: &str,
    a: &BTreeMap<String, String>,
    b: &BTreeMap<String, String>,
) {
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        if a.get(key) != b.get(key) {
            let text = |map: &BTreeMap<String, String>| map.get(key).cloned().unwrap_or("–".into());
            differences.push(Difference { what: format!("{what}{key}"), a: text(a), b: text(b) });
        }
    }
}

/// Returns each leaf of the manifest by its path, such as `provenance.opset`.
fn manifest(bundle: &Bundle) -> anyhow::Result<BTreeMap<String, String>> {
    fn leaves(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        let join =
            |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| leaves(&join(key), value, into));
            }
            // Lists of unnamed items, such as shapes, are compared as a whole.
            Value::Array(list) if list.iter().any(|item| item.get("name").is_some()) => {
                for (index, item) in list.iter().enumerate() {
                    leaves(&join(&index.to_string()), item, into);
                }
            }
            Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
            other => drop(into.insert(path.to_owned(), other.to_string())),
        }
    }
    let mut all = BTreeMap::new();
    leaves("", &manifest_json(&bundle.manifest()?)?, &mut all);
    Ok(all)
}

/// Returns the size and the digest of each section.
fn sections(bundle: &Bundle) -> anyhow::Result<BTreeMap<String, String>> {
    let container = bundle.container()?;
    Ok(container
        .sections()
        .map(|section| {
            let digest: String = section.digest.to_string().chars().take(16).collect();
            (section.kind.to_string(), format!("{} bytes, {digest}", section.bytes.len()))
        })
        .collect())
}

/// Returns the count of each operator.
fn operators(bundle: &Bundle) -> anyhow::Result<BTreeMap<String, String>> {
    let counts = operators_of(bundle)?;
    Ok(counts.into_iter().map(|(name, count)| (name, count.to_string())).collect())
}
