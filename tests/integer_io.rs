//! A bundle with integer inputs and outputs computes the same results as one with float ones.

use std::path::{Path, PathBuf};

use hardtack::process::{Preprocessor, dequantize};
use hardtack::{Bundle, Session, Tensor};
use hardtack_bundle::DType;
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, arrays, convert, samples};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/keyword_spotting").join(name)
}

fn options() -> ConvertOptions {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/specs/keyword_features.toml");
    ConvertOptions {
        int8: true,
        calibration: Some(data("calibration.npz")),
        preprocess: Spec::read(&spec).unwrap().preprocess,
        ..ConvertOptions::default()
    }
}

#[test]
fn integer_inputs_and_outputs_match_float_ones() {
    let scratch = tempfile::tempdir().unwrap();
    let bundles = [false, true].map(|integer_io| {
        let output = scratch.path().join(format!("{integer_io}.tack"));
        let options = ConvertOptions { integer_io, ..options() };
        convert(&data("kws_dscnn.onnx"), &output, &options, &mut NoProgress).unwrap();
        Bundle::open(&output).unwrap()
    });
    let (_, x) = &arrays::read_npz(&data("evaluation.npz")).unwrap()[0];
    let samples: Vec<Tensor> = (0..40).map(|index| samples::row(x, index)).collect();
    let [from_reals, from_integers] = bundles.each_ref().map(|bundle| {
        let manifest = bundle.manifest().unwrap();
        let (input, output) = (&manifest.inputs[0], &manifest.outputs[0]);
        let preprocess = bundle.preprocess().unwrap().unwrap();
        let preprocessor = Preprocessor::new(preprocess, input).unwrap();
        let mut session = Session::new(bundle).unwrap();
        assert!(session.is_integer());
        let answers = samples.iter().map(|sample| {
            let given = preprocessor.array(sample).unwrap();
            let answer = &session.run(&[(input.name, &given)]).unwrap()[0].1;
            (given.dtype(), dequantize(answer, output.quantization))
        });
        answers.collect::<Vec<_>>()
    });
    assert!(from_reals.iter().all(|(dtype, _)| *dtype == DType::F32));
    assert!(from_integers.iter().all(|(dtype, _)| *dtype == DType::I8));
    for ((_, real), (_, integer)) in from_reals.iter().zip(&from_integers) {
        assert_eq!(real, integer);
    }
    let mut session = Session::new(&bundles[1]).unwrap();
    let checked = hardtack::golden::check(&bundles[1], &mut session).unwrap();
    assert!(checked.cases > 0 && checked.holds());
}

#[test]
fn integer_io_requires_int8() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("none.tack");
    let options = ConvertOptions { int8: false, calibration: None, integer_io: true, ..options() };
    let error = convert(&data("kws_dscnn.onnx"), &output, &options, &mut NoProgress).unwrap_err();
    assert_eq!(error.to_string(), "--integer-io requires INT8; add --int8");
    assert!(!output.exists());
}
