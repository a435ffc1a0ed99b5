//! Puts the bundle `HARDTACK_BUNDLE`, the sizes of what it needs and the conversion of what it is
//! sent into the program, and the map of the board's memory where the linker looks.

use std::env::var;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hardtack_bundle::process::Preprocess;
use hardtack_bundle::{Bundle, Family};
use hardtack_engine::Program;
use hardtack_engine::program::{Port, PortType, Step};

#[path = "src/conversion.rs"]
#[allow(dead_code)]
mod conversion;

/// What of a board no bundle tells.
struct Board {
    name: &'static str,
    serial_port: u32,
    ticks_per_second: u64,
}

const BOARDS: [Board; 3] = [
    Board { name: "mps2-an386", serial_port: 0x4000_4000, ticks_per_second: 25_000_000 },
    Board { name: "mps2-an505", serial_port: 0x5020_0000, ticks_per_second: 20_000_000 },
    Board { name: "mps3-an547", serial_port: 0x5930_3000, ticks_per_second: 32_000_000 },
];

/// The bundle of the repository that is built without any other.
const FROZEN: &str = "../../tests/frozen/programs/kws_dscnn_i8.tack";

fn main() {
    let out = PathBuf::from(var("OUT_DIR").expect("cargo sets it"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["HARDTACK_BUNDLE", "HARDTACK_BOARD", "HARDTACK_MODEL"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let target = var("TARGET").expect("cargo sets it");
    let usual = if target.starts_with("thumbv8m") { "mps2-an505" } else { "mps2-an386" };
    let name = var("HARDTACK_BOARD").unwrap_or_else(|_| usual.into());
    let board = BOARDS.iter().find(|board| board.name == name).unwrap_or_else(|| {
        panic!("HARDTACK_BOARD={name}: this firmware knows {}", BOARDS.map(|b| b.name).join(", "))
    });
    let map = here.join("memory").join(format!("{name}.x"));
    println!("cargo:rerun-if-changed={}", map.display());
    let map = std::fs::read(&map).unwrap_or_else(|error| panic!("{}: {error}", map.display()));
    std::fs::write(out.join("memory.x"), map).expect("the output folder can be written");
    println!("cargo:rustc-link-search={}", out.display());

    let path = var("HARDTACK_BUNDLE").map_or_else(|_| here.join(FROZEN), PathBuf::from);
    println!("cargo:rerun-if-changed={}", path.display());
    let text =
        constants(&path, board).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::fs::write(out.join("bundle.rs"), text).expect("the output folder can be written");
}

fn constants(path: &Path, board: &Board) -> Result<String, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
    let bundle = Bundle::parse(&bytes).map_err(|error| error.to_string())?;
    let code = bundle.program(0).ok_or("has no integer program; convert it with --int8")?;
    let weights = bundle.weights(0, Family::Mcu).ok_or_else(|| {
        let families: Vec<_> = bundle.families(0).map(Family::name).collect();
        format!(
            "is made for {}; convert it with --target generic or the name of a board",
            families.join(", ")
        )
    })?;
    let program = Program::parse(code, weights).map_err(|error| error.to_string())?;
    let is_sparse = program.steps().any(|step| matches!(step, Step::Sparse(_)));
    if is_sparse && var("CARGO_FEATURE_SPARSE").is_err() {
        return Err("has sparse weights; build with --features sparse".into());
    }
    let elements = |ports: Vec<Port>| match ports[..] {
        [Port { element: PortType::I8, elements }] => Ok(elements),
        [_] => Err("exchanges reals; convert it with --integer-io"),
        _ => Err("has several inputs or outputs, and this firmware wants one of each"),
    };
    let model = match var("HARDTACK_MODEL") {
        Ok(model) => model,
        Err(_) => bundle.manifest().map_err(|error| error.to_string())?.name.into(),
    };
    let mut text = String::new();
    // Writing into a string cannot fail.
    let mut line = |line: String| writeln!(text, "{line}").expect("a string");
    for (name, size) in [
        ("BUNDLE", bytes.len() as u32),
        ("ARENA", program.arena_bytes() as u32),
        ("INPUT", elements(program.inputs().collect())?),
        ("OUTPUT", elements(program.outputs().collect())?),
    ] {
        line(format!("/// Bytes.\npub const {name}_SIZE: usize = {size};"));
    }
    line(format!(
        "/// Of the clock.\npub const TICKS_PER_SECOND: u64 = {};",
        board.ticks_per_second
    ));
    line(format!("/// Its address.\npub const SERIAL_PORT: usize = {:#x};", board.serial_port));
    line(format!("/// Its name.\npub const MODEL: &str = {model:?};"));
    // The benchmark wants to know of its autoencoder how far input and output are apart.
    let is_autoencoder = model.starts_with("ad");
    line(format!("/// Of the benchmark.\npub const IS_AUTOENCODER: bool = {is_autoencoder};"));
    line(format!(
        "/// How inputs are sent.\npub const SENT: Sent = {};",
        sent(&bundle, program.input_quantization(0).ok_or("has an input of several scales")?)?
    ));
    line(format!(
        "static BUNDLE: Aligned<[u8; BUNDLE_SIZE]> = Aligned(*include_bytes!({path:?}));"
    ));
    Ok(text)
}

/// How the elements are sent: pixels from 0 to 255, and arrays that are normalised, of 8 bits with
/// a sign, where all channels are treated alike; anything else as reals.
fn sent(bundle: &Bundle<'_>, (scale, zero_point): (f32, i8)) -> Result<String, String> {
    let process = bundle.preprocess().map_err(|error| error.to_string())?;
    let (mean, deviation, signed) = match &process {
        Some(Preprocess::Image(image)) => (&image.mean[..], &image.deviation[..], false),
        Some(Preprocess::Array(array)) => (&array.mean[..], &array.deviation[..], true),
        _ => (&[][..], &[][..], false),
    };
    let ([mean], [deviation]) = (mean, deviation) else {
        return Ok(format!("Sent::Real({:?}, {zero_point})", 1.0 / scale));
    };
    let table: Vec<i8> = (0..=255u8)
        .map(|byte| {
            let number = if signed { f32::from(byte as i8) } else { f32::from(byte) };
            conversion::quantized((number - mean) / deviation, 1.0 / scale, zero_point)
        })
        .collect();
    Ok(format!("Sent::Byte(&{table:?})"))
}
