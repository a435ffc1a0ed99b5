//! Runs the command in tests.
#![allow(dead_code, reason = "each test file uses only some of these functions")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Returns the path of a file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The exit code and the output of a command.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Parses the output of `--json`. Panics if the command failed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// Runs the command.
pub fn hardtack<const N: usize>(arguments: [&dyn AsRef<OsStr>; N]) -> Ran {
    run(&arguments.map(|argument| argument.as_ref().to_owned()))
}

/// Runs the command with a list of arguments.
pub fn run(arguments: &[impl AsRef<OsStr>]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: status.code().expect("not ended by a signal"),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}
