//! Puts the bundle `HARDTACK_BUNDLE` and the sizes of what it needs into the program, and the map
//! of the board's memory where the linker looks.

use std::env::var;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hardtack_bundle::{Bundle, Family};
use hardtack_engine::Program;

fn main() {
    let out = PathBuf::from(var("OUT_DIR").expect("cargo sets it"));
    for name in ["HARDTACK_BUNDLE", "HARDTACK_BOARD"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let board = var("HARDTACK_BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("memory").join(format!("{board}.x"));
    println!("cargo:rerun-if-changed={}", map.display());
    let map = std::fs::read(&map).unwrap_or_else(|error| panic!("{}: {error}", map.display()));
    std::fs::write(out.join("memory.x"), map).expect("the output folder can be written");
    println!("cargo:rustc-link-search={}", out.display());

    let path = var("HARDTACK_BUNDLE").expect("HARDTACK_BUNDLE names a bundle");
    println!("cargo:rerun-if-changed={path}");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let bundle = Bundle::parse(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (Some(code), Some(weights)) = (bundle.program(0), bundle.weights(0, Family::Mcu)) else {
        panic!("{path}: has no integer program with weights of the family mcu");
    };
    let program = Program::parse(code, weights).unwrap_or_else(|error| panic!("{path}: {error}"));
    let elements = |ports: Vec<hardtack_engine::program::Port>| {
        assert_eq!(ports.len(), 1, "{path}: this firmware wants one input and one output");
        ports[0].elements
    };
    // Of a tick of the board's clock, where an instruction takes a nanosecond.
    let instructions = if board == "mps2-an505" { 50 } else { 40 };
    let mut text = format!("const INSTRUCTIONS: u64 = {instructions};\n");
    let sizes = [
        ("BUNDLE", bytes.len() as u32),
        ("ARENA", program.arena_bytes() as u32),
        ("INPUT", elements(program.inputs().collect())),
        ("OUTPUT", elements(program.outputs().collect())),
    ];
    for (name, size) in sizes {
        writeln!(text, "const {name}_SIZE: usize = {size};").expect("strings can be written");
    }
    writeln!(
        text,
        "static BUNDLE: Aligned<[u8; BUNDLE_SIZE]> = Aligned(*include_bytes!({path:?}));"
    )
    .expect("strings can be written");
    std::fs::write(out.join("bundle.rs"), text).expect("the output folder can be written");
}
