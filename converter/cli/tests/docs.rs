//! Runs the commands in README.md and in `docs`: every block of shell, in the order of the page,
//! except those whose note says what they need, and those of cargo, which `.ci/run` runs.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

/// A block of shell in a page.
struct Block {
    /// The commands, without the indentation of a list.
    commands: String,
    /// Whether the paragraph before the block is a note `*Needs …*`.
    needs: bool,
}

impl Block {
    /// Whether all commands are cargo's, which build for minutes.
    fn is_cargo(&self) -> bool {
        self.commands.lines().all(|line| line.starts_with("cargo "))
    }
}

/// Returns the blocks of shell in a page, in order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut note, mut block): (String, Option<String>) = (String::new(), None);
    let mut indent = 0;
    for line in page.lines() {
        match (&mut block, line.trim_start()) {
            (None, "```sh") => {
                block = Some(String::new());
                indent = line.len() - line.trim_start().len();
            }
            (Some(_), "```") => {
                let needs = note.starts_with("*Needs ");
                blocks.extend(block.take().map(|commands| Block { commands, needs }));
                note.clear();
            }
            (Some(block), _) => *block += &format!("{}\n", line.get(indent..).unwrap_or("")),
            (None, "") => {}
            (None, text) => {
                // A note is a paragraph of its own.
                if text.starts_with('*') || !note.starts_with('*') {
                    note.clear();
                }
                note += text;
            }
        }
    }
    assert!(block.is_none(), "a block does not end");
    blocks
}

/// Runs the blocks of a page, of which there must be at least `least`.
fn run(page: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    // Stands for the root of the repository, and collects the files that commands write.
    let scratch = tempfile::tempdir().unwrap();
    for name in ["examples", "runtime", "tests"] {
        std::os::unix::fs::symlink(root.join(name), scratch.path().join(name)).unwrap();
    }
    let tools = Path::new(env!("CARGO_BIN_EXE_hardtack")).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut ran = 0;
    for block in blocks(&text).iter().filter(|block| !block.needs && !block.is_cargo()) {
        let commands = &block.commands;
        let output = Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(scratch.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}:\n{commands}\n{messages}");
        ran += 1;
    }
    assert!(ran >= least, "{page}: only {ran} blocks were run");
}

#[test]
fn readme() {
    run("README.md", 1);
}

#[test]
fn getting_started() {
    run("docs/getting-started.md", 3);
}

#[test]
fn quantization() {
    run("docs/quantization.md", 4);
}

#[test]
fn pruning_and_size() {
    run("docs/pruning-and-size.md", 4);
}

#[test]
fn embedded() {
    run("docs/embedded.md", 5);
}

#[test]
fn mobile() {
    run("docs/mobile.md", 1);
}

#[test]
fn continuous_integration() {
    run("docs/ci.md", 3);
}

/// Pages whose commands all need something else, or are cargo's.
#[test]
fn other_pages_mark_every_block() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let run = ["getting-started", "quantization", "pruning-and-size", "embedded", "mobile", "ci"];
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in docs.chain([root.join("CONTRIBUTING.md")]) {
        if page.file_stem().is_some_and(|stem| run.iter().any(|name| stem == *name)) {
            continue;
        }
        for block in blocks(&std::fs::read_to_string(&page).unwrap()) {
            let commands = &block.commands;
            assert!(block.needs || block.is_cargo(), "{}:\n{commands}", page.display());
        }
    }
}

#[test]
fn notes_are_found() {
    let page = "text\n\n```sh\na\n```\n\n*Needs a board,\nor two:*\n\n```sh\nb\n```\n\ntext\n\
                ```sh\nc\n```\n\n1. text\n\n   ```sh\n   d \\\n       e\n   ```\n";
    let found = blocks(page);
    let found: Vec<_> = found.iter().map(|block| (block.commands.as_str(), block.needs)).collect();
    assert_eq!(found, [("a\n", false), ("b\n", true), ("c\n", false), ("d \\\n    e\n", false)]);
}
