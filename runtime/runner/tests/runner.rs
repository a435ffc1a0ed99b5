//! Tests of the program as it is called on a device, with a frozen bundle.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs/kws_dscnn.tack")
}

fn runner(arguments: &[&str], bundle: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack-runner"));
    let Output { status, stdout, stderr } = command.args(arguments).arg(bundle).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_bundle_is_checked_on_every_instruction_set() {
    let (code, said, _) = runner(&[], &frozen());
    assert_eq!(code, Some(0));
    assert!(said.trim_end().ends_with("scalar equal"), "{said}");
    let (code, said, _) = runner(&["--isa", "scalar", "--threads", "2"], &frozen());
    assert_eq!((code, said.matches("equal").count()), (Some(0), 1));
}

#[test]
fn a_bundle_is_measured() {
    let (code, line, _) = runner(&["--bench", "--runs", "3", "--isa", "scalar"], &frozen());
    assert_eq!(code, Some(0));
    for part in ["{\"latency_ms\": {\"p50\": ", "\"runs\": 3,", "\"isa\": \"scalar\"", "}\n"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn errors_are_reported() {
    let (code, _, message) = runner(&["--isa", "z80"], &frozen());
    assert_eq!(code, Some(2));
    assert!(
        message.starts_with("z80 is not an instruction set; use one of avx512vnni"),
        "{message}"
    );
    let (code, _, message) = runner(&["--threads", "0"], &frozen());
    assert_eq!((code, message.trim()), (Some(2), "0 is not a positive integer"));
    let (code, _, message) = runner(&[], Path::new("absent.tack"));
    assert_eq!(code, Some(2));
    assert!(message.starts_with("absent.tack: cannot be read"), "{message}");

    let folder = std::env::temp_dir().join(format!("hardtack-runner-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let damaged = folder.join("damaged.tack");
    let mut bytes = std::fs::read(frozen()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let (code, said, message) = runner(&[], &damaged);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(message.contains("damaged.tack"), "{message}");
}
