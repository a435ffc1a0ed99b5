//! Runs the fuzz targets on their seeds and a fixed number of mutants of each, without a fuzzer.
//! `fuzz/README.md` describes how to run them for longer, with a fuzzer and a sanitizer.

#[path = "../fuzz/src/lib.rs"]
mod hardtack_fuzz;

use std::path::{Path, PathBuf};

/// A PNG of one pixel.
const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\
    \0\0\0\nIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

/// A deterministic pseudorandom number generator (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns a number that is likely to break a length, an offset or a dimension.
    fn telling(&mut self) -> u64 {
        match self.below(3) {
            0 => self.below(20) as u64,
            1 => u64::MAX >> self.below(64),
            _ => (1 << self.below(64)) + self.below(3) as u64,
        }
    }
}

/// Encodes a number like postcard.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Changes, adds or removes a few bytes.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len());
        let Some(byte) = bytes.get_mut(at) else { return };
        match numbers.below(8) {
            0 => *byte ^= 1 << numbers.below(8),
            1 => *byte = numbers.next() as u8,
            2 => *byte = [0, 1, 127, 128, 254, 255][numbers.below(6)],
            3 => drop(bytes.splice(at..at, varint(numbers.telling()))),
            4 => {
                let length = bytes[at..].iter().take_while(|byte| **byte > 127).count() + 1;
                let end = (at + length).min(bytes.len());
                drop(bytes.splice(at..end, varint(numbers.telling())));
            }
            5 => {
                let number = (numbers.telling() as u32).to_le_bytes();
                bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = new);
            }
            6 => {
                let end = (at + 1 + numbers.below(16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = numbers.below(bytes.len());
                drop(bytes.splice(to..to, piece));
            }
            _ => drop(bytes.drain(at..(at + 1 + numbers.below(8)).min(bytes.len()))),
        }
    }
}

/// Saves the input if the target panics.
struct Kept<'a>(&'a str, &'a [u8]);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.crash", self.0));
            let kept = std::fs::write(&file, self.1).map(|()| file);
            eprintln!("{} panicked; its input is saved: {kept:?}", self.0);
        }
    }
}

/// Calls a target with each seed, and with `mutants` mutants of each.
fn run(name: &str, seeds: &[Vec<u8>], mutants: usize, target: fn(&[u8])) {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let call = |bytes: &[u8]| {
        let kept = Kept(name, bytes);
        target(kept.1);
    };
    let mut numbers = Numbers(1);
    for seed in seeds {
        call(seed);
        for _ in 0..mutants {
            let mut bytes = seed.clone();
            mutate(&mut bytes, &mut numbers);
            call(&bytes);
        }
    }
}

/// Returns the contents of the files in a folder that have this extension and at most `most` bytes.
fn files(folder: &str, extension: &str, most: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    paths.into_iter().map(read).filter(|bytes| bytes.len() <= most).collect()
}

fn bundles() -> Vec<Vec<u8>> {
    let mut all = files("tests/hostile", "tack", 1 << 20);
    all.extend(files("tests/frozen/programs", "tack", 1 << 20));
    all.extend(files("tests/frozen/v1", "tack", 1 << 20));
    all
}

fn sections() -> Vec<Vec<u8>> {
    bundles().iter().map(|bundle| hardtack_fuzz::unseal(bundle)).collect()
}

#[test]
fn bundles_are_read() {
    run("bundle_read", &bundles(), 300, hardtack_fuzz::bundle_read);
    run("bundle_read", &sections(), 300, hardtack_fuzz::bundle_read);
}

#[test]
fn bundles_run() {
    run("bundle_run", &sections(), 60, hardtack_fuzz::bundle_run);
}

#[test]
fn bundles_run_through_the_c_interface() {
    run("c_interface", &sections(), 50, hardtack_fuzz::c_interface);
}

#[test]
fn compressed_bundles_are_decompressed() {
    let mut seeds = files("tests/frozen/transport", "tackz", 1 << 20);
    seeds.extend(files("tests/hostile", "tackz", 1 << 20));
    run("transport_unpack", &seeds, 100, hardtack_fuzz::transport_unpack);
}

#[test]
fn models_are_converted() {
    // No mutants: they may crash the process, so only a supervised conversion may read them. The
    // other files of the folder take minutes.
    let names = ["dilated_beyond_32_bits", "never_a_number", "topk_matmul"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("converter/cli/tests/hostile");
    let read = |name| std::fs::read(folder.join(name).with_extension("onnx")).unwrap();
    let seeds: Vec<Vec<u8>> = names.map(read).into();
    run("onnx_convert", &seeds, 0, hardtack_fuzz::onnx_convert);
}

#[test]
fn audio_is_read() {
    let mut seeds = files("examples/data/keyword_spotting", "wav", 1 << 20);
    seeds.truncate(1);
    run("audio", &seeds, 300, hardtack_fuzz::audio);
}

#[test]
fn images_are_read() {
    let mut seeds = files("examples/data/photos", "jpg", 1 << 20);
    seeds.truncate(1);
    run("image", &seeds, 100, hardtack_fuzz::image);
    run("image", &[PNG.to_vec()], 1000, hardtack_fuzz::image);
}

#[test]
fn arrays_are_read() {
    let mut seeds = files("tests/quantized", "npz", 1 << 20);
    seeds.truncate(2);
    run("arrays", &seeds, 500, hardtack_fuzz::arrays);
}

#[test]
fn settings_are_read() {
    run("spec", &files("examples/specs", "toml", 1 << 16), 300, hardtack_fuzz::spec);
}
