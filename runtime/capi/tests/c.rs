//! The examples in C and C++, compiled against the header and the static library of this build,
//! with and without the address and undefined-behavior sanitizers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Returns the newest static library, which was built together with this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().expect("it is in a folder");
    let libraries = std::fs::read_dir(folder).expect("which can be read").filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let is_library = name.starts_with("libhardtack_capi") && name.ends_with(".a");
        is_library.then(|| (entry.metadata().and_then(|m| m.modified()).ok(), entry.path()))
    });
    let newest = libraries.max_by_key(|(time, _)| time.unwrap_or(SystemTime::UNIX_EPOCH));
    newest.expect("the static library was built with this test").1
}

/// Compiles and runs an example, and returns its output.
fn run(compiler: &str, source: &str, flags: &[&str], arguments: &[&Path]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("program");
    let mut compile = Command::new(compiler);
    compile.args(["-Wall", "-Wextra", "-Werror", "-O1", "-g"]).args(flags);
    compile.arg("-I").arg(root.join("runtime/capi/include"));
    compile.arg(root.join("examples/c").join(source)).arg(library());
    compile.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
    let compiled = compile.output().unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{source} {flags:?}: {errors}{text}");
    assert!(errors.is_empty(), "{source} {flags:?}: {errors}");
    text
}

const SANITIZED: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
#[cfg(all(target_os = "linux", not(target_env = "musl")))]
fn the_examples_run() {
    let bundle = data("tests/frozen/programs/kws_dscnn_i8.tack");
    let seven = data("examples/firmware/data/seven.bin");
    for flags in [&[][..], SANITIZED] {
        let classified =
            run("cc", "classify.c", &[&["-std=c11"], flags].concat(), &[&bundle, &seven]);
        assert!(classified.contains("golden vectors match"), "{classified}");
        assert!(classified.contains(" 97.7 %  Stop"), "{classified}");
        let answered = run("c++", "integers.cpp", &[&["-std=c++17"], flags].concat(), &[&bundle]);
        assert!(answered.starts_with("probs: "), "{answered}");
        assert_eq!(answered.split_whitespace().count(), 13, "{answered}");
    }
}
