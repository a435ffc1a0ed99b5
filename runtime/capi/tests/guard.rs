//! Every function of the interface does all its work where panics are caught.

use std::path::Path;

#[test]
fn every_function_catches_panics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        for function in source.split("extern \"C\" fn ").skip(1) {
            let name = function.split('(').next().unwrap();
            let (_, body) = function.split_once(" {\n").expect("it has a body");
            // Only constants may come before the call, and nothing after it.
            let body = body.split("\n}\n").next().unwrap();
            let statements = body.lines().filter(|line| {
                line.starts_with("    ")
                    && !line.starts_with("     ")
                    && !line.starts_with("    const ")
            });
            let mut statements = statements.skip_while(|line| {
                !["    guarded(|| ", "    value_or("].iter().any(|start| line.starts_with(start))
            });
            assert!(statements.next().is_some(), "{}: {name} is not guarded", path.display());
            let rest: Vec<&str> = statements.collect();
            assert!(
                rest.is_empty() || matches!(rest[..], ["    })" | "    });"]),
                "{}: {name} does work after its guard: {rest:?}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count >= 21, "only {count} functions were found");
}
