//! Measures on a board: copies the runner and the bundle to it, runs the test vectors, measures the
//! time, and removes the files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::remote::Remote;
use crate::arguments::Bench;
use crate::output::say;
use crate::support::bundles;

/// The file name of the runner, the program that runs on the board.
const RUNNER: &str = "hardtack-runner";

pub fn bench(arguments: &Bench, address: &str) -> anyhow::Result<Value> {
    if arguments.profile {
        bail!(
            "--profile is not supported with --board: the runner does not time single operations"
        );
    }
    if let Some(name) = &arguments.isa {
        super::isa(name)?;
    }
    let bundle = bundles::open(&arguments.bundle)?;
    if bundle.manifest()?.needs_float {
        bail!(
            "{}: some operators run in float, but the runner only supports integer models; \
             `hardtack inspect` lists the operators in float",
            arguments.bundle.display()
        );
    }
    let path = runner(arguments.runner.as_deref())?;
    let program =
        std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let timeout = Duration::from_secs(arguments.timeout.into());
    let board = Remote::connect(address, &arguments.ssh, timeout)?;
    if arguments.wrapper.is_none() {
        check_processor(&path, &program, &board.processor, address)?;
    }
    say(&format!("{address}: {}, copying", board.processor));
    board.put(RUNNER, &program, true)?;
    board.put("model.tack", bundle.bytes(), false)?;

    let wrapper = arguments.wrapper.as_deref().map(|words| format!("{words} ")).unwrap_or_default();
    let mut flags = format!("--threads {}", arguments.threads);
    if let Some(isa) = &arguments.isa {
        flags += &format!(" --isa {isa}");
    }
    say(&format!("{address}: checking the test vectors"));
    let checked = board.run(&format!("{wrapper}./{RUNNER} {flags} model.tack"))?;
    let equal = checked.answer("the check", address)?;
    if let Some(runs) = arguments.runs {
        flags += &format!(" --runs {runs}");
    }
    say(&format!("{address}: measuring"));
    let run = board.run(&format!("{wrapper}./{RUNNER} --bench {flags} model.tack"))?;
    if !run.answer("the measurement", address)? {
        bail!("{address}: the measurement failed: {}", run.stdout.trim());
    }
    let mut measured: Value = serde_json::from_str(run.stdout.trim())
        .ok()
        .filter(|value: &Value| value["noise"].is_number())
        .with_context(|| {
            let path = path.display();
            format!("{address}: {path} is not a runner of this release; build it again")
        })?;
    measured["golden"] = json!(if equal { "equal" } else { "different" });
    measured["checked"] = json!(checked.stdout.trim());
    measured["board"] = json!(address);
    measured["bundle"] = bundle.root().to_string().into();
    Ok(measured)
}

/// Returns the path of `--runner`, or of the runner next to this command.
fn runner(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name(RUNNER);
    if !beside.exists() {
        bail!(
            "--board needs a runner; build one for the board's processor and give it as --runner:\n  \
             cargo build --profile runner -p {RUNNER} --target aarch64-unknown-linux-musl"
        );
    }
    Ok(beside)
}

/// Checks that a program is built for the board's processor, before it is copied. The board itself
/// would only report that it cannot execute the program.
fn check_processor(
    path: &Path,
    program: &[u8],
    processor: &str,
    address: &str,
) -> anyhow::Result<()> {
    let [is_for, triple] = match machine(program) {
        Some(62) => ["x86_64", "x86_64-unknown-linux-musl"],
        Some(183) => ["aarch64", "aarch64-unknown-linux-musl"],
        Some(40) => ["arm", "armv7-unknown-linux-musleabihf"],
        _ => return Ok(()),
    };
    let runs = match processor {
        // 64-bit systems can run 32-bit programs if they support them.
        "aarch64" | "arm64" => is_for != "x86_64",
        other if other.starts_with("arm") => is_for == "arm",
        "x86_64" | "amd64" => is_for == "x86_64",
        _ => true,
    };
    if runs {
        return Ok(());
    }
    let wanted = match processor {
        "aarch64" | "arm64" => "aarch64-unknown-linux-musl",
        "x86_64" | "amd64" => "x86_64-unknown-linux-musl",
        _ => "armv7-unknown-linux-musleabihf",
    };
    bail!(
        "{address}: the processor is {processor}, but {} is built for {triple}; build a runner for \
         {wanted} and give it as --runner",
        path.display()
    )
}

/// Returns the machine field of an ELF header; `None` for other files.
fn machine(program: &[u8]) -> Option<u16> {
    let header = program.first_chunk::<20>()?;
    header.starts_with(b"\x7fELF").then(|| u16::from_le_bytes([header[18], header[19]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_another_processor_is_refused_before_it_is_copied() {
        let mut program = [0; 64];
        program[..4].copy_from_slice(b"\x7fELF");
        let check = |program: &[u8], processor| {
            check_processor(Path::new("runner"), program, processor, "pi@board")
        };
        program[18] = 183;
        assert!(check(&program, "aarch64").is_ok());
        let error = check(&program, "armv7l").unwrap_err().to_string();
        assert_eq!(
            error,
            "pi@board: the processor is armv7l, but runner is built for \
             aarch64-unknown-linux-musl; build a runner for armv7-unknown-linux-musleabihf and give \
             it as --runner"
        );
        program[18] = 40;
        assert!(check(&program, "aarch64").is_ok() && check(&program, "x86_64").is_err());
        assert!(check(b"#!/bin/sh", "x86_64").is_ok(), "a script is not ELF");
    }
}
