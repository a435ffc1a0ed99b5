//! Runs the shell blocks in the docs pages for embedded, mobile and CI use, in the order of the
//! page. A block after a note that begins with `*Needs` is skipped.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

/// Returns the shell blocks of a page, each with whether a `*Needs` note precedes it.
fn blocks(page: &str) -> Vec<(String, bool)> {
    let mut blocks = Vec::new();
    let (mut note, mut block): (String, Option<String>) = (String::new(), None);
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (Some(_), "```") => {
                let needs = note.trim_start().starts_with("*Needs ");
                blocks.extend(block.take().map(|block| (block, needs)));
                note.clear();
            }
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, "") => {}
            (None, line) => {
                // A note is a separate paragraph.
                if line.starts_with('*') || !note.starts_with('*') {
                    note.clear();
                }
                note += line;
            }
        }
    }
    assert!(block.is_none(), "a block is not closed");
    blocks
}

/// Runs the blocks of a page, which must be at least `least`.
fn run(page: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let text = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
    // A copy of the repository's root, so that outputs go to a temporary folder.
    let scratch = tempfile::tempdir().unwrap();
    for name in ["examples", "runtime", "tests"] {
        std::os::unix::fs::symlink(root.join(name), scratch.path().join(name)).unwrap();
    }
    let tools = Path::new(env!("CARGO_BIN_EXE_hardtack")).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut ran = 0;
    for (block, needs) in blocks(&text) {
        if needs {
            continue;
        }
        let output = Command::new("sh")
            .args(["-e", "-c", &block])
            .current_dir(scratch.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}:\n{block}\n{told}");
        ran += 1;
    }
    assert!(ran >= least, "{page}: only {ran} blocks were run");
}

#[test]
fn embedded() {
    run("embedded.md", 5);
}

#[test]
fn mobile() {
    run("mobile.md", 1);
}

#[test]
fn continuous_integration() {
    run("ci.md", 2);
}

#[test]
fn notes_are_found() {
    let page = "text\n\n```sh\na\n```\n\n*Needs a board,\nor two:*\n\n```sh\nb\n```\n\ntext\n```sh\nc\n```\n";
    let found = blocks(page);
    let found: Vec<_> = found.iter().map(|(block, needs)| (block.as_str(), *needs)).collect();
    assert_eq!(found, [("a\n", false), ("b\n", true), ("c\n", false)]);
}
