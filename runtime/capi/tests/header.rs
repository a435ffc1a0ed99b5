//! The header matches the code. `HARDTACK_UPDATE=1 cargo test -p hardtack-capi` regenerates it.

use std::path::Path;

#[test]
fn the_header_matches_the_code() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap());
    for file in ["status", "bundle", "tensor", "options", "session", "canceller", "classify"] {
        builder = builder.with_src(here.join("src").join(file).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = here.join("include/hardtack.h");
    if std::env::var_os("HARDTACK_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "include/hardtack.h does not match the code; run HARDTACK_UPDATE=1 cargo test -p hardtack-capi"
    );
}
