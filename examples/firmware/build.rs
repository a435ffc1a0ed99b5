//! Embeds the bundle `HARDTACK_BUNDLE` in the firmware. Generates constants for the sizes of its
//! buffers and the conversion of its input, and copies the memory map of the board for the linker.

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

/// The properties of a board that do not depend on the bundle.
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

/// The bundle that is embedded by default.
const FROZEN: &str = "../../tests/frozen/programs/kws_dscnn_i8.tack";

fn main() {
    let out = PathBuf::from(var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["HARDTACK_BUNDLE", "HARDTACK_BOARD", "HARDTACK_MODEL"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let target = var("TARGET").expect("cargo sets TARGET");
    let usual = if target.starts_with("thumbv8m") { "mps2-an505" } else { "mps2-an386" };
    let name = var("HARDTACK_BOARD").unwrap_or_else(|_| usual.into());
    let board = BOARDS.iter().find(|board| board.name == name).unwrap_or_else(|| {
        panic!("HARDTACK_BOARD={name} is not one of {}", BOARDS.map(|b| b.name).join(", "))
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
        [_] => Err("has float inputs or outputs; convert it with --integer-io"),
        _ => Err("does not have exactly one input and one output, which this firmware requires"),
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
        line(format!("/// Size in bytes.\npub const {name}_SIZE: usize = {size};"));
    }
    line(format!(
        "/// Ticks of the clock per second.\npub const TICKS_PER_SECOND: u64 = {};",
        board.ticks_per_second
    ));
    line(format!(
        "/// Address of the serial port.\npub const SERIAL_PORT: usize = {:#x};",
        board.serial_port
    ));
    line(format!("/// Name of the model.\npub const MODEL: &str = {model:?};"));
    // For its autoencoder, the benchmark expects the reconstruction error.
    let is_autoencoder = model.starts_with("ad");
    line(format!(
        "/// Whether MODEL is an autoencoder.\npub const IS_AUTOENCODER: bool = {is_autoencoder};"
    ));
    line(format!(
        "/// Format of the inputs that a host sends.\npub const SENT: Sent = {};",
        sent(&bundle, program.input_quantization(0).ok_or("has an input with several scales")?)?
    ));
    line(format!(
        "static BUNDLE: Aligned<[u8; BUNDLE_SIZE]> = Aligned(*include_bytes!({path:?}));"
    ));
    Ok(text)
}

/// Returns the format in which a host sends the input: u8 for images and i8 for normalized arrays,
/// if all channels have the same mean and deviation; f32 otherwise.
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
