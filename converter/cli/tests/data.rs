//! Tests of the command line on the data that users give: arrays, images and audio.

mod command;

use std::path::Path;

use hardtack::Tensor;
use hardtack_converter::arrays::{read_npz, write_npz};
use tempfile::TempDir;

use command::{Ran, file, hardtack, run};

/// Converts the keyword network in float with these further arguments.
fn convert(folder: &TempDir, arguments: &[&str]) -> Ran {
    let model = file("examples/data/keyword_spotting/kws_dscnn.onnx");
    let output = folder.path().join("kws.tack");
    let mut all = vec!["convert", model.to_str().unwrap(), "-o", output.to_str().unwrap()];
    all.extend(arguments);
    run(&all)
}

#[test]
fn data_serve_the_checks_and_test_vectors_of_float_models() {
    let folder = tempfile::tempdir().unwrap();
    let data = file("examples/data/keyword_spotting/calibration.npz");
    let pre = file("examples/specs/keyword_features.toml");
    let (data, pre) = (data.to_str().unwrap(), pre.to_str().unwrap());
    let mut bundles = Vec::new();
    for option in ["--data", "--calibrate"] {
        let ran = convert(&folder, &[option, data, "--pre", pre]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        bundles.push(std::fs::read(folder.path().join("kws.tack")).unwrap());
    }
    assert!(bundles[0] == bundles[1]);
    let inspected = hardtack([&"inspect", &folder.path().join("kws.tack")]).stdout;
    let readings = inspected.lines().find(|line| line.starts_with("readings")).unwrap();
    assert!(readings.contains("48 values of 4 calibration.npz samples differ by at most"));
}

#[test]
fn files_in_other_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let gif = images.join("cat.gif");
    std::fs::write(&gif, b"GIF89a\x01\0\x01\0\0\0\0;").unwrap();
    let spec = file("examples/specs/mobilenet_v1.toml");
    let model = file("examples/data/mobilenet_v1/mobilenet_v1_0.25_128.onnx");
    let expected = "cat.gif: is a GIF; convert it to PNG or JPEG";
    for data in [&images, &gif] {
        let output = folder.path().join("m.tack");
        let ran = hardtack([&"convert", &model, &"-o", &output, &"--pre", &spec, &"--data", data]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    // A model without pre-processing for images.
    let ran = convert(&folder, &["--data", images.to_str().unwrap()]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let expected = "no pre-processing for images; convert it with --pre SPEC.toml, where SPEC.toml \
                    has the table [image] with height = 49, width = 10, fit = \"stretch\", \
                    order = \"nhwc\"";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn arrays_are_cast_with_one_note() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(convert(&folder, &[]).code, 0);
    let bundle = folder.path().join("kws.tack");
    let inputs = |name: &str, tensor: &Tensor| {
        let path = folder.path().join("inputs.npz");
        write_npz(&path, [(name, tensor)]).unwrap();
        path
    };
    let output = folder.path().join("out.npz");
    let ran = |path: &Path| {
        let ran = hardtack([&"run", &bundle, &"--inputs", &path, &"--output", &output]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (ran.stderr, read_npz(&output).unwrap())
    };
    let shape = [1, 49, 10, 1];
    let floats = Tensor::new(&shape, vec![3.0f32; 490]).unwrap();
    let (stderr, expected) = ran(&inputs("mfcc", &floats));
    assert_eq!(stderr, "");
    let doubles = Tensor::new(&shape, vec![3.0f64; 490]).unwrap();
    let bytes = Tensor::new(&shape, vec![3u8; 490]).unwrap();
    for (tensor, dtype) in [(doubles, "f64"), (bytes, "u8")] {
        let path = inputs("mfcc", &tensor);
        let (stderr, outputs) = ran(&path);
        let note = format!("array \"mfcc\" is {dtype}; it is cast to f32\n");
        assert!(stderr.ends_with(&note) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(outputs, expected);
    }
    let huge = Tensor::new(&shape, vec![1e300f64; 490]).unwrap();
    let path = inputs("mfcc", &huge);
    let refused = hardtack([&"run", &bundle, &"--inputs", &path]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("array \"mfcc\": it is f64 and has the value 1000000"));
    // The only array of a `.npy` file.
    let mut archive = zip::ZipArchive::new(std::fs::File::open(inputs("x", &floats)).unwrap());
    let mut entry = archive.as_mut().unwrap().by_index(0).unwrap();
    for name in ["mfcc.npy", "features.npy"] {
        let path = folder.path().join(name);
        if name == "mfcc.npy" {
            std::io::copy(&mut entry, &mut std::fs::File::create(&path).unwrap()).unwrap();
        } else {
            std::fs::copy(folder.path().join("mfcc.npy"), &path).unwrap();
        }
        assert_eq!(ran(&path).1, expected, "{name}");
    }
}
