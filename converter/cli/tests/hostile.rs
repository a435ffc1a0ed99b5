//! Hostile and unsuitable files: names with control characters, compression bombs, arrays that do
//! not fit, and references to other files.

mod command;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use hardtack_converter::arrays::write_npz;
use zip::write::SimpleFileOptions;

use command::{Ran, file, hardtack};

const BUNDLE: &str = "tests/frozen/programs/kws_dscnn.tack";

/// A bundle with control characters and markup in its name, ports and labels.
fn escapes() -> std::path::PathBuf {
    file("converter/cli/tests/data/escapes.tack")
}

/// Checks that the output has no control characters and no forged line.
fn assert_plain(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let hidden =
            |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        assert!(!text.contains(hidden), "{text:?}");
        for line in text.lines() {
            assert!(!line.starts_with("root digest  000"), "a forged line: {text}");
        }
    }
}

#[test]
fn control_characters_in_a_bundle_are_escaped() {
    let (bundle, good) = (escapes(), file(BUNDLE));
    let shown = hardtack([&"inspect", &bundle, &"--nodes", &"--plan"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains(r"\u{1b}]0;PWNED\u{7}\u{1b}[2J"), "{}", shown.stdout);
    assert!(shown.stdout.contains(r"model\r\nroot digest  000"), "{}", shown.stdout);
    let json = hardtack([&"inspect", &bundle, &"--json"]);
    let name = json.json()["manifest"]["name"].as_str().unwrap().to_owned();
    assert!(name.contains("\u{1b}[2J") && name.contains('\n'), "JSON keeps the value of the name");
    let folder = tempfile::tempdir().unwrap();
    let (inputs, other) = (folder.path().join("inputs.npz"), folder.path().join("other.npz"));
    let x = hardtack::Tensor::new(&[2], vec![1.0f32, 2.0]).unwrap();
    write_npz(&inputs, [("x\u{1b}[5m", &x)]).unwrap();
    write_npz(&other, [("\u{1b}[2J\nroot digest  000 VERIFIED\u{202e}", &x)]).unwrap();
    let ran = hardtack([&"run", &bundle, &"--inputs", &inputs]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let wrong = hardtack([&"run", &bundle, &"--inputs", &other]);
    assert_eq!((wrong.code, wrong.stderr.lines().count()), (2, 1), "{}", wrong.stderr);
    let verified = hardtack([&"verify", &bundle]);
    let differ = hardtack([&"diff", &bundle, &good]);
    assert_eq!(differ.code, 1);
    let differ_json = hardtack([&"diff", &bundle, &good, &"--json"]);
    let timed = hardtack([&"bench", &bundle, &"--runs", &"2", &"--profile"]);
    // The path itself may be hostile.
    let named = folder.path().join("\u{1b}[2J\nroot digest  000 VERIFIED.tack");
    let missing = hardtack([&"verify", &named]);
    assert_eq!((missing.code, missing.stderr.lines().count()), (2, 1), "{}", missing.stderr);
    for ran in [&shown, &json, &ran, &wrong, &verified, &differ, &differ_json, &timed, &missing] {
        assert_plain(ran);
    }
}

#[test]
fn markup_in_names_is_escaped_in_reports() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Replace node names with hostile ones of the same length.
    let mut model = fs::read(file("examples/data/keyword_spotting/kws_dscnn.onnx")).unwrap();
    let (from, to) = (b"functional_1", b"<i>\x1b[31m</i>");
    let mut changed = 0;
    for at in 0..model.len() - from.len() {
        if model[at..].starts_with(from) {
            model[at..at + to.len()].copy_from_slice(to);
            changed += 1;
        }
    }
    assert!(changed > 10, "{changed}");
    fs::write(at("model.onnx"), &model).unwrap();
    let labels = "<script>alert(1)</script>\n\u{1b}[2J\n".to_owned() + &"x\n".repeat(10);
    fs::write(at("labels.txt"), labels).unwrap();
    let ran = hardtack([
        &"convert",
        &at("model.onnx"),
        &"-o",
        &at("model.tack"),
        &"--name",
        &"<script>alert(2)</script>\u{1b}[1m\nroot digest  000",
        &"--labels",
        &at("labels.txt"),
        &"--int8",
        &"--data",
        &file("examples/data/keyword_spotting/calibration.npz"),
        &"--samples",
        &"8",
        &"--pre",
        &file("examples/specs/keyword_features.toml"),
        &"--evaluate",
        &file("examples/data/keyword_spotting/evaluation.npz"),
        &"--report",
        &at("report.html"),
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_plain(&ran);
    let page = fs::read_to_string(at("report.html")).unwrap();
    assert!(page.contains("&lt;i&gt;\\u{1b}[31m&lt;/i&gt;"), "the names are there");
    assert!(!page.contains("<i>\\u") && !page.contains("<script>alert"));
    assert!(!page.contains(|c: char| c.is_control() && c != '\n'));
    let drawn = hardtack([&"inspect", &at("model.tack"), &"--plan-svg", &at("plan.svg")]);
    assert_plain(&drawn);
    let picture = fs::read_to_string(at("plan.svg")).unwrap();
    assert!(!picture.contains("<script>") && picture.contains("&lt;script&gt;alert(2)"));
    assert!(!picture.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn diff_refuses_damaged_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (file(BUNDLE), folder.path().join("bad.tack"));
    let mut bytes = fs::read(&good).unwrap();
    // Flip one bit of a weight. Header and table are intact.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bad, &bytes).unwrap();
    for (a, b) in [(&good, &bad), (&bad, &good), (&bad, &bad)] {
        let ran = hardtack([&"diff", a, b]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(
            ran.stderr.contains("bad.tack: ") && ran.stderr.contains("damaged"),
            "{}",
            ran.stderr
        );
        let ran = hardtack([&"diff", a, b, &"--json"]);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.code, &json["equal"]), (1, &false.into()));
        assert!(json["refused"].as_str().unwrap().ends_with("bad.tack"), "{json}");
    }
    let ran = hardtack([&"diff", &good, &good]);
    assert!(ran.code == 0 && ran.stdout.starts_with("equal: "), "{}", ran.stdout);
    let ran = hardtack([&"diff", &good, &folder.path().join("none.tack")]);
    assert_eq!(ran.code, 2);
    let ran = hardtack([&"diff", &good, &file("tests/frozen/programs/kws_dscnn_neon.tack")]);
    assert!(ran.code == 1 && ran.stdout.contains("section "), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn compression_bombs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.tack");
    for (name, expected) in [
        (
            "zeros-1-pebibyte.tackz",
            "states a bundle size of 1.0 PiB, but a file of its length expands to at most 728",
        ),
        (
            "zeros-64-mebibytes.tackz",
            "states a bundle size of 64.0 MiB, but a file of its length expands to at most 7",
        ),
    ] {
        let path = file("runtime/transport/tests/data").join(name);
        for more in ["--max-size=8GB", "--max-size=1KB"] {
            let ran = hardtack([&"decompress", &path, &"-o", &out, &more]);
            assert_eq!(ran.code, 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        }
    }
    let packed = file("tests/frozen/transport/kws_dscnn.tackz");
    let ran = hardtack([&"decompress", &packed, &"-o", &out, &"--max-size", &"20KB", &"--json"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("more than the limit of 19.5 KiB; raise the limit with --max-size"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("\"unpacked\": false"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(hardtack([&"decompress", &packed, &"-o", &out, &"--max-size", &"1MB"]).code, 0);
}

/// Writes an archive of f32 arrays: name, declared shape, and the number of bytes that are stored.
fn archive(path: &Path, arrays: &[(&str, &str, usize)]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, shape, bytes) in arrays {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(text.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
        zip.write_all(&vec![0; *bytes]).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn arrays_that_do_not_fit_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bundle) = (folder.path().join("data.npz"), file(BUNDLE));
    let run = || hardtack([&"run", &bundle, &"--inputs", &path]);
    let eval = || hardtack([&"eval", &bundle, &"--data", &path]);
    // An array with an impossible size that no input needs is not read.
    let other = ("other", "(1000000000000,)", 12);
    archive(&path, &[other, ("mfcc", "(1, 49, 10, 1)", 1960)]);
    assert_eq!(run().code, 0, "{}", run().stderr);
    archive(&path, &[other, ("x", "(2, 49, 10)", 3920), ("y", "(2,)", 8)]);
    assert_eq!(eval().code, 0, "{}", eval().stderr);
    // Arrays that do not fit are refused by their shape.
    for (shape, bytes, expected) in [
        ("(1, 49, 1000000000, 1)", 1960, "1960 of its"),
        ("(1, 49, 11, 1)", 2156, "takes the shape [any, 49, 10, 1], but got [1, 49, 11, 1]"),
    ] {
        archive(&path, &[("mfcc", shape, bytes)]);
        let ran = run();
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    for (x, y, bytes, expected) in [
        ("(2, 49, 11)", "(2,)", [4312, 8], "samples of x: input `mfcc` takes the shape"),
        ("(1000000000000, 0)", "(1000000000000, 0)", [0, 0], "has no elements"),
        ("(2, 49, 10)", "(2, 1000000)", [3920, 8_000_000], "y has 1000000 values per sample"),
        ("(2, 49, 10)", "(3,)", [3920, 12], "x has 2 samples, but y has 3"),
        ("(0, 49, 10)", "(0,)", [0, 0], "has no samples"),
    ] {
        archive(&path, &[("x", x, bytes[0]), ("y", y, bytes[1])]);
        let ran = eval();
        assert_eq!(ran.code, 2, "{expected}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
}

#[test]
fn arrays_of_another_model_are_not_resized_to_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (images, out, one) = (at("images.tack"), at("out.tack"), at("one.npy"));
    let (words, data) = (file(BUNDLE), file("examples/data/keyword_spotting/evaluation.npz"));
    let model = file("examples/data/mobilenet_v1/mobilenet_v1_0.25_128.onnx");
    let pre = file("examples/specs/mobilenet_v1.toml");
    let converted = hardtack([&"convert", &model, &"-o", &images, &"--pre", &pre]);
    assert_eq!(converted.code, 0, "{}", converted.stderr);
    let header = "{'descr': '|i1', 'fortran_order': False, 'shape': (49, 10, 1), }\n";
    let length = (header.len() as u16).to_le_bytes();
    let bytes = [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), &[0; 490]].concat();
    fs::write(&one, bytes).unwrap();
    let convert = |option: &str, more: &str| {
        hardtack([&"convert", &model, &"-o", &out, &"--pre", &pre, &option, &data, &more])
    };
    for (ran, name) in [
        (hardtack([&"eval", &images, &"--data", &data]), "evaluation.npz"),
        (hardtack([&"eval", &words, &"--data", &data, &"--against", &images]), "evaluation.npz"),
        (hardtack([&"run", &images, &one]), "one.npy"),
        (convert("--data", "--int8"), "evaluation.npz"),
        (convert("--evaluate", "--dynamic"), "evaluation.npz"),
        (
            hardtack([&"bisect", &model, &"--pre", &pre, &"--data", &data, &"--input", &one]),
            "evaluation.npz",
        ),
    ] {
        let errors = ran.stderr.lines().filter(|line| !line.starts_with("note: "));
        assert_eq!((ran.code, errors.count()), (2, 1), "{}", ran.stderr);
        for word in [name, "shape [49, 10, 1]", "the model expects [128, 128, 3]"] {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
    }
    assert!(!out.exists());
}

#[test]
fn a_specification_cannot_name_labels_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (spec, out) = (folder.path().join("spec.toml"), folder.path().join("out.tack"));
    fs::write(&spec, "[classify]\nlabels = \"/etc/passwd\"\n").unwrap();
    let model = file("examples/data/keyword_spotting/kws_dscnn.onnx");
    let ran = hardtack([&"convert", &model, &"-o", &out, &"--pre", &spec]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("spec.toml:2: [classify] `labels` names \"/etc/passwd\""),
        "{}",
        ran.stderr
    );
    assert!(!out.exists());
}
