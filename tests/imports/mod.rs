//! Which modules of a crate import which, read textually from the paths in its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A path relative to the crate root, such as `["graph", "shape", "strides"]`.
type Segments = Vec<String>;

/// The imports between the modules of a crate. Test code does not count.
pub struct Imports {
    /// For each module, by its path such as `graph::shape`, the modules that it imports.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    /// Reads the imports of the crate in a folder.
    pub fn of(folder: &Path) -> Imports {
        let mut files = BTreeMap::new();
        read(&folder.join("src"), &[], &mut files);
        let (mut uses, mut exports) = (Vec::new(), BTreeMap::new());
        for (module, text) in &files {
            let (statements, rest) = statements(text);
            for (public, tree) in statements {
                let mut paths = Vec::new();
                expand(&tree, &[], &mut paths);
                for (path, name) in paths {
                    let Some(path) = absolute(&path, module, &files) else { continue };
                    match public {
                        true => drop(exports.insert([&module[..], &[name]].concat(), path)),
                        false => uses.push((module.clone(), path)),
                    }
                }
            }
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            for word in rest.split(|c| !is_part(c)).filter(|word| word.contains("::")) {
                let path: Segments = word.split("::").map(str::to_owned).collect();
                if ["crate", "self", "super"].contains(&&*path[0])
                    && let Some(path) = absolute(&path, module, &files)
                {
                    uses.push((module.clone(), path));
                }
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, path) in uses {
            let path = original(path, &exports);
            let target = (0..=path.len()).rev().find(|len| files.contains_key(&path[..*len]));
            let target = path[..target.unwrap_or(0)].to_vec();
            // A module and the modules inside it are parts of one thing.
            if !target.starts_with(&module) && !module.starts_with(&target) {
                edges.entry(module.join("::")).or_default().insert(target.join("::"));
            }
        }
        Imports { edges }
    }

    /// Returns each import as the importing and the imported module.
    pub fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (&**from, &**to)))
    }

    /// Returns the sets of modules that import each other in a cycle.
    pub fn cycles(&self) -> BTreeSet<BTreeSet<String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            self.edges.keys().map(|module| (module, self.reached(module))).collect();
        let cycle = |(module, from_module): (&&String, &BTreeSet<&String>)| {
            let returns =
                |other: &&&String| reached.get(*other).is_some_and(|r| r.contains(module));
            let cycle: BTreeSet<String> =
                from_module.iter().filter(returns).map(|other| (*other).clone()).collect();
            (cycle.len() > 1).then_some(cycle)
        };
        reached.iter().filter_map(cycle).collect()
    }

    /// Returns the modules that a module imports, directly or through others.
    fn reached(&self, module: &String) -> BTreeSet<&String> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![module]);
        while let Some(module) = waiting.pop() {
            for next in self.edges.get(module).into_iter().flatten() {
                if reached.insert(next) {
                    waiting.push(next);
                }
            }
        }
        reached
    }
}

/// Reads the files below a folder, without comments and tests, by module path.
fn read(folder: &Path, module: &[String], files: &mut BTreeMap<Segments, String>) {
    for entry in std::fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        if path.is_dir() {
            read(&path, &[module, &[name]].concat(), files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["tests", "testing"].contains(&&*name)
        {
            let text = std::fs::read_to_string(&path).expect("source file");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let text = text.replace("#[cfg(doc)]\nuse ", "// ");
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let module = match &*name {
                "mod" | "lib" | "main" => module.to_vec(),
                _ => [module, &[name]].concat(),
            };
            files.insert(module, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Returns the trees of the `use` statements, each with whether it is public, and the other text.
fn statements(text: &str) -> (Vec<(bool, String)>, String) {
    let (mut found, mut rest, mut statement) = (Vec::new(), String::new(), None::<(bool, String)>);
    for line in text.lines() {
        let code = line.trim_start();
        let public = code.starts_with("pub");
        // A line of a string may start with the word, too.
        let start = match public {
            true => code.split_once(" use ").filter(|(before, _)| before.starts_with("pub")),
            false => code.strip_prefix("use ").map(|tree| ("", tree)),
        };
        let start = start.filter(|_| !code.contains('"'));
        match (&mut statement, start) {
            (Some((_, tree)), _) => tree.push_str(code),
            (None, Some((_, tree))) => statement = Some((public, tree.into())),
            (None, None) => rest.extend([line, "\n"]),
        }
        if let Some((public, tree)) = statement.take_if(|(_, tree)| tree.contains(';')) {
            let (tree, _) = tree.split_once(';').expect("found above");
            found.push((public, tree.into()));
        }
    }
    (found, rest)
}

/// Expands a `use` tree to its paths, each with the name it introduces.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(Segments, String)>) {
    let tree = tree.trim();
    if let Some((before, inner)) = tree.split_once('{') {
        let before = before.split("::").filter(|part| !part.is_empty()).map(str::to_owned);
        let prefix = [prefix, &before.collect::<Vec<_>>()].concat();
        let inner = inner
            .trim_end()
            .strip_suffix('}')
            .unwrap_or_else(|| panic!("{tree}: no closing brace"));
        let mut depth = 0;
        let parts = inner.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        parts.filter(|part| !part.trim().is_empty()).for_each(|part| expand(part, &prefix, found));
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(a, b)| (a, Some(b)));
    let mut path = [prefix, &path.split("::").map(str::to_owned).collect::<Vec<_>>()].concat();
    path.pop_if(|last| last == "self");
    let name = alias.map(str::to_owned).or(path.last().cloned()).unwrap_or_default();
    found.push((path, name));
}

/// Returns a path of a module relative to the crate root, or `None` if it is of another crate.
fn absolute(
    path: &[String],
    module: &[String],
    files: &BTreeMap<Segments, String>,
) -> Option<Segments> {
    let up = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([module.get(..module.len().checked_sub(up)?)?, &path[up..]].concat()),
        child if files.contains_key(&[module, &[child.to_owned()]].concat()) => {
            Some([module, path].concat())
        }
        _ => None,
    }
}

/// Follows re-exports to the path of the original.
fn original(mut path: Segments, exports: &BTreeMap<Segments, Segments>) -> Segments {
    for _ in 0..8 {
        let found = (1..=path.len()).rev().find_map(|len| Some((len, exports.get(&path[..len])?)));
        match found {
            Some((len, to)) if !to.starts_with(&path[..len]) => {
                path = [&to[..], &path[len..]].concat();
            }
            _ => break,
        }
    }
    path
}
