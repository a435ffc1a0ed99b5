//! Foreign bytes as an ONNX file: the guarded import gives a model or an error, whatever panics
//! inside.

#![no_main]

use std::io::Write as _;

use hardtack_converter::guard::{Limits, import_guarded};
use hardtack_converter::import::ImportOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: {
    // Panics are what the guard is there for; only one that gets past it ends the process.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let _ = import_guarded(file.path(), &ImportOptions::default(), &Limits::default());
});
