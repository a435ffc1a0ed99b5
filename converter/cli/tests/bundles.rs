//! Tests bundles with false declarations: subcommands refuse them with a one-line error and little
//! memory.
#![cfg(target_os = "linux")]

mod command;

use std::process::Command;
use std::time::{Duration, Instant};

use command::file;

/// The limit of the address space, in KiB. The program itself needs a part of it.
const ADDRESS_SPACE: u32 = 1 << 20;

/// Runs the command with limits on memory and processor time. Returns its exit code and stderr.
fn limited(arguments: &[&str]) -> (i32, String) {
    let script = format!("ulimit -v {ADDRESS_SPACE}; ulimit -t 20; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_hardtack")]).args(arguments);
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{arguments:?} takes too long");
    let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?}: {}", output.status));
    (code, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn false_declarations_are_refused() {
    let mut refused = 0;
    let mut paths: Vec<_> = std::fs::read_dir(file("tests/hostile"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tack"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 8, "the bundles are missing");
    for path in paths {
        let path = path.to_str().unwrap();
        for verb in [&["verify"][..], &["bench", "--runs", "1"]] {
            let arguments = [verb, &[path]].concat();
            let (code, words) = limited(&arguments);
            // `verify` does not detect some faults in a bundle without test vectors.
            assert!((0..=2).contains(&code), "{arguments:?}: {code}");
            if verb[0] == "bench" {
                assert_ne!(code, 0, "{arguments:?}");
                refused += 1;
            }
            let sentences = usize::from(code != 0);
            assert_eq!(words.lines().count(), sentences, "{arguments:?}: {words}");
            assert!(code == 0 || words.contains(path), "{arguments:?}: {words}");
        }
    }
    assert!(refused >= 8);
}

#[test]
fn limits_are_options() {
    let bundle = file("tests/frozen/programs/kws_dscnn.tack");
    let bundle = bundle.to_str().unwrap();
    for (option, value, word) in [
        ("--max-memory", "1KB", "bytes of memory, beyond the limit of 1000"),
        ("--max-operations", "1000", "operations, beyond the limit of 1000"),
        ("--max-run-time", "0.000000001", "took longer than its limit"),
    ] {
        let (code, words) = limited(&["bench", "--runs", "1", option, value, bundle]);
        assert_eq!(code, 2, "{option}: {words}");
        assert!(words.contains(word), "{option}: {words}");
    }
    assert_eq!(limited(&["verify", "--max-memory", "64MB", bundle]).0, 0);
}
