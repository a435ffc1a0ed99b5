//! One function for each parser of untrusted bytes. A panic is a bug, and so is a report of a
//! sanitizer or an exceeded limit of the fuzzer.

use std::ffi::c_char;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Extent, Limits, Port, Session, SessionOptions, Tensor};
use hardtack_bundle::golden::Content;
use hardtack_bundle::graph::Graph;
use hardtack_bundle::process::{
    Audio, AudioFeature, ChannelOrder, Colour, Fit, Image, Level, Postprocess, Preprocess, Spectrum,
};
use hardtack_bundle::{Golden, Labels, MAX_SECTIONS, SectionKind, verify_stream};

use super::sealed::seal;

/// The limits of sessions, so that limits are tested too.
const LIMITS: Limits = Limits::NONE
    .with_memory_bytes(2 << 20)
    .with_operations(1 << 22)
    .with_run_time(Duration::from_millis(200));

/// Reads the bytes as a bundle and as a list of sections, in memory and as a stream, with every
/// section.
pub fn bundle_read(bytes: &[u8]) {
    read(bytes);
    read(&seal(bytes));
    golden(bytes);
    let _ = Labels::parse(bytes);
    if let Ok(graph) = Graph::from_bytes(bytes) {
        let again = graph.to_bytes().and_then(|bytes| Graph::from_bytes(&bytes));
        assert!(again.is_ok(), "a decoded graph does not round-trip");
        let _ = graph.check_constants(bytes.len() as u64);
    }
}

/// Checks that both readers agree, and that decoding the sections does not panic.
fn read(bytes: &[u8]) {
    let streamed = verify_stream::<_, MAX_SECTIONS>(bytes, &mut [0; 61]);
    let Ok(bundle) = hardtack_bundle::Bundle::parse(bytes) else {
        assert!(streamed.is_err(), "the stream reader accepted an invalid bundle");
        return;
    };
    let verified = bundle.verify();
    assert_eq!(verified.is_ok(), streamed.is_ok());
    if let (Ok(verified), Ok(summary)) = (verified, streamed) {
        assert_eq!(verified.root(), summary.root);
    }
    let _ = bundle.manifest();
    let _ = bundle.graph();
    let _ = (bundle.preprocess(), bundle.postprocess(), bundle.notices());
    for program in 0..bundle.programs() {
        assert!(bundle.program(program).is_some());
        for family in bundle.families(program) {
            assert!(bundle.weights(program, family).is_some());
        }
    }
    if let Some(section) = bundle.section(SectionKind::Golden) {
        golden(section.bytes);
    }
    if let Ok(Some(labels)) = bundle.labels() {
        labels.iter().for_each(|label| assert!(!label.contains('\n')));
    }
}

fn golden(bytes: &[u8]) {
    let Ok(golden) = Golden::parse(bytes) else { return };
    let mut cases = 0;
    for case in golden.cases() {
        cases += 1;
        for vector in case.inputs().chain(case.outputs()) {
            let size = vector.dtype.size().expect("elements have a size") as u64;
            let elements = vector.shape().product::<u64>();
            match vector.content {
                Content::Stored(bytes) => assert_eq!(elements * size, bytes.len() as u64),
                Content::Generated(generator) => assert!(generator.element(elements).is_finite()),
                Content::Sampled { step, bytes } => {
                    assert_eq!(elements.div_ceil(step) * size, bytes.len() as u64);
                }
            }
        }
    }
    assert_eq!(cases, golden.len());
}

/// Builds a bundle from a list of sections, loads the model, runs it twice and compares the
/// outputs.
pub fn bundle_run(bytes: &[u8]) {
    let Ok(bundle) = Bundle::from_bytes(seal(bytes)) else { return };
    bundle.verify().expect("a sealed bundle has the digests of its sections");
    let options = SessionOptions { limits: LIMITS, ..SessionOptions::default() };
    let Ok(mut session) = Session::with_options(&bundle, options) else { return };
    let Some(inputs) = inputs(session.inputs()) else { return };
    let inputs = hardtack::golden::named(&inputs);
    let first = session.run(&inputs);
    let second = session.run(&inputs);
    if let (Ok(first), Ok(second)) = (&first, &second) {
        for ((name, a), (_, b)) in first.iter().zip(second) {
            assert_eq!(a.to_bytes(), b.to_bytes(), "{name} differs in the second run");
        }
    }
    let _ = session.run_profiled(&inputs);
    let _ = hardtack::golden::check(&bundle, &mut session);
    classify(&bundle, first.ok());
}

/// Postprocesses the outputs of a model with the settings of its bundle.
fn classify(bundle: &Bundle, outputs: Option<hardtack::Outputs>) {
    let (Some(outputs), Ok(manifest)) = (outputs, bundle.manifest()) else { return };
    let (Ok(process), Ok(labels)) = (bundle.postprocess(), bundle.labels()) else { return };
    let Some(port) = manifest.outputs.first() else { return };
    let labels: Vec<&str> = labels.iter().flat_map(|labels| labels.iter()).collect();
    let process = process.unwrap_or(Postprocess::Classify { softmax: true, skip: 0 });
    if let Some((_, tensor)) = outputs.iter().next() {
        let _ = Postprocessor::new(process, port, labels).top(tensor, 5);
    }
}

/// Returns inputs for a model: a ramp with some NaN and infinite values. `None` for large inputs.
fn inputs(ports: &[Port]) -> Option<Vec<(String, Tensor)>> {
    let mut inputs = Vec::new();
    for port in ports {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Named(_) => 2,
        };
        let shape: Vec<usize> = port.shape.iter().map(size).collect();
        let count = shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size))?;
        let width = port.dtype.size()?;
        if count.checked_mul(width)? > 1 << 20 {
            return None;
        }
        let bytes: Vec<u8> = match port.dtype {
            hardtack::DType::Bool => (0..count).map(|index| (index % 2) as u8).collect(),
            hardtack::DType::F32 => {
                (0..count).flat_map(|index| real(index).to_le_bytes()).collect()
            }
            _ => (0..count * width).map(|index| (index * 37 / width) as u8).collect(),
        };
        inputs.push((port.name.clone(), Tensor::from_bytes(port.dtype, &shape, &bytes)?));
    }
    Some(inputs)
}

fn real(index: usize) -> f32 {
    match index % 97 {
        13 => f32::NAN,
        41 => f32::INFINITY,
        67 => -1e38,
        other => other as f32 / 16.0 - 2.0,
    }
}

/// Decompresses the bytes as a compressed bundle, and as the coded part of one after a valid
/// header.
pub fn transport_unpack(bytes: &[u8]) {
    decompress(bytes);
    let bundle = seal(bytes);
    if bundle.len() > 1 << 16 || hardtack_bundle::Bundle::parse(&bundle).is_err() {
        return;
    }
    let mut framed = hardtack_transport::pack(&bundle).expect("a bundle has a compressed form");
    let mut back = Vec::new();
    assert!(hardtack_transport::unpack(&framed[..], &mut back).is_ok() && back == bundle);
    // The bytes before the coded part.
    framed.truncate(12 + 64);
    framed.extend(bytes);
    decompress(&framed);
}

/// Checks that a successful result is a valid bundle, and that the expansion is bounded.
fn decompress(bytes: &[u8]) {
    let mut bundle = Vec::new();
    let unpacked = hardtack_transport::unpack(bytes, &mut bundle);
    assert!(bundle.len() as u64 <= hardtack_transport::most_bytes(bytes.len() as u64));
    if let Ok(summary) = unpacked {
        let bundle = hardtack_bundle::Bundle::parse(&bundle);
        let verified = bundle.and_then(hardtack_bundle::Bundle::verify).expect("it was verified");
        assert_eq!(verified.root(), summary.root);
    }
}

/// Converts the bytes as an ONNX file.
pub fn onnx_convert(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, bytes).expect("room for it");
    let output = folder.path().join("model.tack");
    let options = hardtack_converter::ConvertOptions { guarded: false, ..Default::default() };
    let mut silent = hardtack_converter::NoProgress;
    if hardtack_converter::convert(&model, &output, &options, &mut silent).is_ok() {
        let bundle = Bundle::read(&output).expect("the converter writes bundles");
        bundle.verify().expect("the converter writes valid bundles");
    }
}

/// Decodes the bytes as an image.
pub fn image(bytes: &[u8]) {
    let image = Image {
        height: 8,
        width: 8,
        fit: Fit::Stretch,
        colour: Colour::Rgb,
        order: ChannelOrder::Nhwc,
        mean: [127.5].into_iter().collect(),
        deviation: [127.5].into_iter().collect(),
    };
    preprocess(Preprocess::Image(image), &[1, 8, 8, 3], bytes);
}

/// Decodes the bytes as audio.
pub fn audio(bytes: &[u8]) {
    let audio = Audio {
        sample_rate: 16_000,
        level: Level::Peak,
        window: 480,
        stride: 320,
        frames: 49,
        spectrum: Spectrum::Magnitude,
        feature: AudioFeature::Mfcc {
            bands: 40,
            low_hz: 20.0,
            high_hz: 4000.0,
            floor: 1e-6,
            coefficients: 10,
        },
        mean: 0.0,
        deviation: 1.0,
    };
    preprocess(Preprocess::Audio(audio), &[1, 49, 10, 1], bytes);
}

/// Computes the inputs of a model from the bytes.
fn preprocess(process: Preprocess, shape: &[u64], bytes: &[u8]) {
    let port = hardtack_bundle::manifest::Port {
        name: "x",
        dtype: hardtack_bundle::DType::F32,
        shape: shape.iter().map(|size| hardtack_bundle::manifest::Extent::Fixed(*size)).collect(),
        layout: hardtack_bundle::manifest::Layout::Plain,
        quantization: None,
    };
    let preprocessor = Preprocessor::new(process, &port).expect("a valid pre-processing");
    if let Ok(inputs) = preprocessor.bytes(bytes) {
        let elements: usize = shape.iter().map(|size| *size as usize).product();
        for input in inputs.take(100) {
            assert_eq!(input.len(), elements);
        }
    }
}

/// Reads the bytes as NumPy arrays: `.npy` and `.npz`.
pub fn arrays(bytes: &[u8]) {
    with_file(bytes, |path| {
        let _ = hardtack_converter::arrays::read_npy(path);
        let _ = hardtack_converter::arrays::read_npz(path);
    });
}

fn with_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    read(file.path());
}

/// Parses the bytes as preprocessing and postprocessing settings.
pub fn spec(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let nowhere = Path::new("/nowhere/spec.toml");
        let _ = hardtack_converter::spec::Spec::parse(text, nowhere);
    }
}

/// Builds a bundle from a list of sections and runs it through the C interface.
pub fn c_interface(bytes: &[u8]) {
    use hardtack_capi::*;
    let bytes = seal(bytes);
    let mut bundle = std::ptr::null_mut();
    // SAFETY: every pointer is to a variable or buffer of this function, with its length. Handles
    // are freed once and not used afterwards.
    unsafe {
        if hardtack_bundle_copy(bytes.as_ptr(), bytes.len(), &mut bundle) != HardtackStatus::Ok {
            return;
        }
        let mut digest = [0; 32];
        let _ = hardtack_bundle_digest(bundle, digest.as_mut_ptr());
        for name in [hardtack_bundle_name(bundle), hardtack_bundle_label(bundle, 0)] {
            let name: *const c_char = name;
            assert!(name.is_null() || std::ffi::CStr::from_ptr(name).count_bytes() < bytes.len());
        }
        let mut session = std::ptr::null_mut();
        let options = HardtackOptions {
            memory_limit: 64 << 20,
            operation_limit: 1 << 26,
            run_time_limit: 2000,
            ..hardtack_options()
        };
        if hardtack_session_new(bundle, &options, &mut session) == HardtackStatus::Ok {
            let _ = hardtack_session_run(session, std::ptr::null(), 0);
            for index in 0..hardtack_session_input_count(session) {
                let mut port = std::mem::zeroed();
                let _ = hardtack_session_input(session, index, &mut port);
            }
            let _ = hardtack_session_check(session, std::ptr::null_mut());
            hardtack_session_free(session);
        }
        hardtack_bundle_free(bundle);
    }
}
