//! Tests of the command line on the files of the examples.

mod command;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use command::{file, hardtack, run};

/// Converts the keyword network to INT8, with features as its input. Returns the bundle.
fn keywords(folder: &TempDir) -> PathBuf {
    let bundle = folder.path().join("keywords.tack");
    let ran = hardtack([
        &"convert",
        &file("examples/data/keyword_spotting/kws_dscnn.onnx"),
        &"-o",
        &bundle,
        &"--int8",
        &"--data",
        &file("examples/data/keyword_spotting/calibration.npz"),
        &"--pre",
        &file("examples/specs/keyword_features.toml"),
        &"--json",
    ]);
    let report = ran.json();
    assert_eq!(report["float_nodes"], serde_json::json!([]));
    assert!(report["layers"].as_array().unwrap().len() >= 10);
    let bytes = std::fs::metadata(&bundle).unwrap().len();
    assert_eq!(report["bundle_bytes"], bytes);
    bundle
}

#[test]
fn dynamic_quantization_of_a_model_without_large_matmuls_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = file("examples/data/keyword_spotting/kws_dscnn.onnx");
    let [plain, dynamic] = ["plain.tack", "dynamic.tack"].map(|name| folder.path().join(name));
    let converted = hardtack([&"convert", &model, &"-o", &dynamic, &"--dynamic"]);
    assert_eq!(converted.code, 0, "{}", converted.stderr);
    assert!(converted.stderr.contains("no matmul with a large constant matrix"));
    assert_eq!(hardtack([&"convert", &model, &"-o", &plain, &"--weights", &"int8"]).code, 0);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&dynamic).abs_diff(size(&plain)) < 256);
}

#[test]
fn a_network_is_converted_inspected_verified_evaluated_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = keywords(&folder);

    let inspected = hardtack([&"inspect", &bundle, &"--plan", &"--nodes", &"--json"]).json();
    assert_eq!(inspected["manifest"]["needs_float"], false);
    assert_eq!(inspected["families"][0][0], "mcu");
    assert_eq!(inspected["operators"]["Program"], 1);
    assert!(inspected["plans"][0]["arena_bytes"].as_u64().unwrap() > 1000);
    let shown = hardtack([&"inspect", &bundle, &"--plan"]);
    for word in [
        "mfcc: f32[batch, 49, 10, 1]",
        "in integers, with an arena of",
        "weights      packed for mcu; ",
        "program 0",
    ] {
        assert!(shown.stdout.contains(word), "{word}: {}", shown.stdout);
    }

    let picture = folder.path().join("plan.svg");
    let drawn = hardtack([&"inspect", &bundle, &"--plan-svg", &picture, &"--target", &"native"]);
    assert_eq!(drawn.code, 0, "{}", drawn.stderr);
    let picture = std::fs::read_to_string(&picture).unwrap();
    let bars = picture.matches("<rect class=\"bar\"").count();
    assert_eq!(bars, inspected["plans"][0]["tensors"].as_array().unwrap().len());

    let verified = hardtack([&"verify", &bundle, &"--json"]).json();
    assert_eq!(verified["holds"], true);
    assert_eq!(verified["outputs"][0]["difference"], 0.0);
    assert_eq!(verified["digest"], inspected["digest"]);

    let labelled = file("examples/data/keyword_spotting/evaluation.npz");
    let evaluated = hardtack([&"eval", &bundle, &"--data", &labelled, &"--json"]).json();
    assert_eq!(evaluated["samples"], 400);
    assert!(evaluated["top1"].as_f64().unwrap() > 0.88, "{evaluated}");

    let timed = hardtack([&"bench", &bundle, &"--runs", &"5", &"--profile", &"--json"]).json();
    assert_eq!(timed["runs"], 5);
    assert_eq!(timed["integer"], true);
    assert!(timed["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    assert!(timed["profile"].as_array().unwrap().len() > 10);
    let threads =
        hardtack([&"bench", &bundle, &"--runs", &"2", &"--threads", &"3", &"--isa", &"scalar"]);
    assert!(threads.stdout.contains("kernels scalar on 3 threads"), "{}", threads.stdout);
    let refused = hardtack([&"bench", &bundle, &"--isa", &"z80"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("use one of avx512vnni"), "{}", refused.stderr);

    let same = hardtack([&"diff", &bundle, &bundle]);
    assert_eq!((same.code, same.stderr.as_str()), (0, ""));
}

#[test]
fn float_and_int8_are_compared_sample_by_sample() {
    let folder = tempfile::tempdir().unwrap();
    let int8 = keywords(&folder);
    let float = folder.path().join("float.tack");
    let ran = hardtack([
        &"convert",
        &file("examples/data/keyword_spotting/kws_dscnn.onnx"),
        &"-o",
        &float,
        &"--pre",
        &file("examples/specs/keyword_features.toml"),
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("root digest"), "{}", ran.stdout);
    let labelled = file("examples/data/keyword_spotting/evaluation.npz");
    let compared =
        hardtack([&"eval", &int8, &"--data", &labelled, &"--against", &float, &"--json"]).json();
    let (a, b) =
        (compared["right"].as_i64().unwrap(), compared["against"]["right"].as_i64().unwrap());
    let changed = compared["changed"].as_array().unwrap().len() as i64;
    assert!((a - b).abs() <= changed && changed <= 20, "{a} {b} {changed}");

    let differ = hardtack([&"diff", &int8, &float, &"--json"]);
    assert_eq!(differ.code, 1);
    let differences: Value = serde_json::from_str(&differ.stdout).unwrap();
    assert_eq!(differences["equal"], false);
    assert!(differences["differences"].as_array().unwrap().len() > 3);
}

#[test]
fn an_image_gives_classes_and_a_stream_gives_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures.tack");
    let converted = hardtack([
        &"convert",
        &file("examples/data/mobilenet_v1/mobilenet_v1_0.25_128.onnx"),
        &"-o",
        &pictures,
        &"--float",
        &"f16",
        &"--pre",
        &file("examples/specs/mobilenet_v1.toml"),
        &"--labels",
        &file("examples/specs/imagenet_labels.txt"),
    ]);
    assert_eq!(converted.code, 0, "{}", converted.stderr);
    assert!(converted.stdout.contains("by f16 weights"), "{}", converted.stdout);
    let cat = file("examples/data/photos/cat.jpg");
    let named = hardtack([&"run", &pictures, &cat, &"--top-k", &"2", &"--json"]).json();
    let classes = named["results"][0]["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 2);
    assert!(classes.iter().any(|class| class["label"].as_str().unwrap().contains("cat")));

    let outputs = folder.path().join("outputs.npz");
    let ran = hardtack([&"run", &pictures, &cat, &"--output", &outputs]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let arrays = hardtack_converter::arrays::read_npz(&outputs).unwrap();
    assert_eq!(arrays[0].1.shape(), [1, 1001]);

    let voice = folder.path().join("voice.tack");
    let converted = hardtack([
        &"convert",
        &file("examples/data/voice_detection/silero_vad.onnx"),
        &"-o",
        &voice,
        &"--set",
        &"sr=16000",
        &"--set",
        &"input=1x576",
        &"--set",
        &"state=2x1x128",
        &"--state",
        &"stateN=state",
        &"--pre",
        &file("examples/specs/silero_vad.toml"),
    ]);
    assert_eq!(converted.code, 0, "{}", converted.stderr);
    let speech = file("examples/data/voice_detection/speech_6s.wav");
    let heard = hardtack([&"run", &voice, &speech, &"--json"]).json();
    let results = heard["results"].as_array().unwrap();
    assert!(results.len() > 100);
    assert!((results[1]["seconds"].as_f64().unwrap() - 0.032).abs() < 1e-6);
}

#[test]
fn arrays_are_matched_to_inputs_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = keywords(&folder);
    let arrays = folder.path().join("inputs.npz");
    let features = hardtack::Tensor::zeros(hardtack::DType::F32, &[2, 49, 10, 1]).unwrap();
    let write = |name: &str| {
        hardtack_converter::arrays::write_npz(&arrays, [("other", &features), (name, &features)])
            .unwrap();
    };
    write("mfcc");
    let ran = hardtack([&"run", &bundle, &"--inputs", &arrays, &"--json"]).json();
    assert_eq!(ran["outputs"][0]["shape"], serde_json::json!([2, 12]));
    write("mel");
    let ran = hardtack([&"run", &bundle, &"--inputs", &arrays]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("has no array \"mfcc\""), "{}", ran.stderr);
    assert!(ran.stderr.contains("other, mel"), "{}", ran.stderr);
}

#[test]
fn a_damaged_bundle_is_refused_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = keywords(&folder);
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, &bytes).unwrap();
    let verified = hardtack([&"verify", &bundle]);
    assert_eq!(verified.code, 1);
    assert!(verified.stderr.contains("keywords.tack"), "{}", verified.stderr);
    bytes.truncate(middle);
    std::fs::write(&bundle, &bytes).unwrap();
    assert_eq!(hardtack([&"verify", &bundle]).code, 1);
    assert_eq!(hardtack([&"inspect", &bundle]).code, 2);
    assert_eq!(hardtack([&"verify", &folder.path().join("none.tack")]).code, 2);
}

#[test]
fn a_failed_conversion_leaves_the_existing_file_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.tack");
    std::fs::write(&output, "as it was").unwrap();
    let source = folder.path().join("model.onnx");
    let mut answers = Vec::new();
    for (content, sentence) in [
        (&b"\x1c\0\0\0TFL3\0\0\0\0"[..], "--tflite"),
        (b"\x80\x04\x95\x10\0\0\0sklearn.linear_model", "skl2onnx"),
        (b"PK\x03\x04\0\0archive/data.pkl", "torch.onnx.export"),
        (b"\x89HDF\r\n\x1a\n\0\0", "keras"),
        (b"not a model", "is not an ONNX model"),
        (b"", "is not an ONNX model"),
    ] {
        std::fs::write(&source, content).unwrap();
        let ran = hardtack([&"convert", &source, &"-o", &output]);
        assert_eq!(ran.code, 1, "{sentence}: {}{}", ran.stdout, ran.stderr);
        answers.push((ran.stderr, sentence));
    }
    for (stderr, sentence) in answers {
        assert!(stderr.contains(sentence), "{sentence}: {stderr}");
        assert_eq!(stderr.matches("model.onnx:").count(), 1, "{stderr}");
    }
    let ran = hardtack([&"convert", &folder.path().join("none.onnx"), &"-o", &output]);
    assert_eq!(ran.code, 2);
    let model = file("examples/data/mobilenet_v1/mobilenet_v1_0.25_128.onnx");
    let wrong = file("examples/data/keyword_spotting/calibration.npz");
    let ran = hardtack([&"convert", &model, &"-o", &output, &"--int8", &"--data", &wrong]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("calibration.npz: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("[1, 128, 128, 3]"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&output).unwrap(), b"as it was");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half-written");
}

#[test]
fn inputs_that_must_be_fixed_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (model, output) =
        (file("examples/data/voice_detection/silero_vad.onnx"), folder.path().join("voice.tack"));
    let convert = |set: &[&str]| {
        let mut words: Vec<&OsStr> = vec!["convert".as_ref(), model.as_ref()];
        words.extend([OsStr::new("-o"), output.as_os_str()]);
        words.extend(set.iter().flat_map(|text| [OsStr::new("--set"), OsStr::new(text)]));
        run(&words)
    };
    // Without a size for the state, the reference implementation runs the model. Without any, no
    // random input fits.
    let cases: [(&[&str], i32, &str, &str); 3] = [
        (
            &[],
            1,
            "the dynamic shape [2, state_1, 128] of input \"state\" and the unknown value of input \
             \"sr\"",
            "--set batch=1 --set input_1=SIZE --set state_1=SIZE --set sr=NUMBER",
        ),
        (&["sr=16000", "input=1x576"], 0, "[2, state_1, 128]", "; pass --set state_1=1\n"),
        (
            &["input=1x576", "state=2x1x128"],
            1,
            "with the unknown value",
            "; pass --set sr=NUMBER\n",
        ),
    ];
    for (set, code, unknown, settings) in cases {
        let ran = convert(set);
        assert_eq!((ran.code, ran.stderr.lines().count()), (code, 1), "{}", ran.stderr);
        for word in [unknown, settings, "the model cannot be converted with"] {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("LSTM") && !ran.stderr.contains("Sym"), "{}", ran.stderr);
    }
    // The names in the message are accepted.
    let ran = convert(&["sr=16000", "batch=1", "input_1=576", "state_1=1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// Returns an ONNX model of one node without attributes, from `x` to `y`.
fn model_of_one_node(operator: &str) -> Vec<u8> {
    let bytes = |field: u8, content: &[u8]| {
        [&[field << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let number = |field: u8, value: u8| vec![field << 3, value];
    let dim = bytes(1, &number(1, 4));
    let tensor = [number(1, 1), bytes(2, &dim)].concat();
    let value = |name: &[u8]| [bytes(1, name), bytes(2, &bytes(1, &tensor))].concat();
    let node = [bytes(1, b"x"), bytes(2, b"y"), bytes(4, operator.as_bytes())].concat();
    let graph = [bytes(1, &node), bytes(2, b"g"), bytes(11, &value(b"x")), bytes(12, &value(b"y"))];
    [number(1, 8), bytes(8, &number(2, 13)), bytes(7, &graph.concat())].concat()
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, content: &[u8]| std::fs::write(at(name), content).unwrap();
    write("tanh.onnx", &model_of_one_node("Tanh"));
    write("loop.onnx", &model_of_one_node("Loop"));
    write("resize.onnx", &model_of_one_node("Resize"));
    write("text.onnx", b"not a model");
    write("lite.onnx", b"\x1c\0\0\0TFL3\0\0\0\0");
    let whole = model_of_one_node("Tanh");
    write("short.onnx", &whole[..whole.len() - 3]);
    let bundle = keywords(&folder);
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write("damaged.tack", &bytes);
    write("damaged.tackz", &bytes);
    let kws = file("examples/data/keyword_spotting/kws_dscnn.onnx");
    let calibration = file("examples/data/keyword_spotting/calibration.npz");
    let (kws, data) = (kws.to_str().unwrap(), calibration.to_str().unwrap());
    let out = &*at("out.tack");
    // The exit code and the arguments. A word with a dot and no slash is a file in the folder.
    let cases: &[(i32, &[&str])] = &[
        (0, &["--help"]),
        (0, &["--version"]),
        (0, &["targets"]),
        (0, &["convert", "tanh.onnx", "-o", out]),
        (0, &["verify", "keywords.tack"]),
        (0, &["inspect", "keywords.tack"]),
        (0, &["diff", "keywords.tack", "keywords.tack"]),
        (0, &["compress", "keywords.tack", "-o", &at("keywords.tackz")]),
        // Models that cannot be converted.
        (1, &["convert", "loop.onnx", "-o", out]),
        (1, &["convert", "resize.onnx", "-o", out]),
        (1, &["convert", "text.onnx", "-o", out]),
        (1, &["convert", "short.onnx", "-o", out]),
        (1, &["convert", "lite.onnx", "-o", out]),
        (1, &["convert", "keywords.tack", "-o", out]),
        (1, &["bisect", "loop.onnx", "--input", data, "--data", data]),
        (1, &["bisect", "text.onnx", "--input", data, "--data", data]),
        // Gates, differences and refused bundles.
        (1, &["convert", "tanh.onnx", "-o", out, "--max-size", "10"]),
        (1, &["diff", "keywords.tack", out]),
        (1, &["diff", "keywords.tack", "damaged.tack"]),
        (1, &["verify", "damaged.tack"]),
        (1, &["verify", "text.onnx"]),
        (1, &["compress", "text.onnx", "-o", out]),
        (1, &["decompress", "damaged.tackz", "-o", out]),
        // Options.
        (2, &[]),
        (2, &["bake"]),
        (2, &["convert", "tanh.onnx"]),
        (2, &["convert", "tanh.onnx", "-o", out, "--fast"]),
        (2, &["convert", "tanh.onnx", "-o", out, "--int8"]),
        (2, &["convert", "tanh.onnx", "-o", out, "--set", "z=1"]),
        (2, &["convert", "tanh.onnx", "-o", out, "--state", "y=z"]),
        (2, &["convert", "tanh.onnx", "-o", "tanh.onnx"]),
        (2, &["convert", kws, "-o", out, "--int8", "--data", "absent.npz"]),
        (2, &["convert", "tanh.onnx", "-o", out, "--int8", "--data", data]),
        (2, &["bisect", kws, "--input", "absent.npz", "--data", data]),
        // Files that cannot be read or written.
        (2, &["convert", "absent.onnx", "-o", out]),
        (2, &["convert", "tanh.onnx", "-o", &at("absent/out.tack")]),
        (2, &["bisect", "absent.onnx", "--input", data, "--data", data]),
        (2, &["verify", "absent.tack"]),
        (2, &["diff", "keywords.tack", "absent.tack"]),
        (2, &["compress", "absent.tack", "-o", out]),
        (2, &["decompress", "absent.tackz", "-o", out]),
        (2, &["run", "absent.tack", "absent.wav"]),
        (2, &["run", "keywords.tack", "absent.wav"]),
        (2, &["eval", "keywords.tack", "--data", "absent.npz"]),
        (2, &["bench", "absent.tack"]),
        (2, &["inspect", "absent.tack"]),
        // Subcommands that need a bundle for something else than to check it.
        (2, &["inspect", "text.onnx"]),
        (2, &["run", "text.onnx", "absent.wav"]),
        (2, &["bench", "damaged.tack"]),
    ];
    for (code, words) in cases {
        let is_file = |word: &str| word.contains('.') && !word.contains('/');
        let words: Vec<String> = words
            .iter()
            .map(|word| if is_file(word) { at(word) } else { (*word).into() })
            .collect();
        let ran = run(&words);
        assert_eq!(ran.code, *code, "{words:?}: {}{}", ran.stdout, ran.stderr);
    }
    let help = hardtack([&"--help"]);
    assert!(help.stdout.contains("Exit codes: 0 = success, 1 = negative result"));
}

#[test]
fn mutated_models_give_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (source, output) = (folder.path().join("model.onnx"), folder.path().join("model.tack"));
    let whole = std::fs::read(file("examples/data/keyword_spotting/kws_dscnn.onnx")).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut refused = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        // The first and last kilobytes have the structure of the model, the rest weights.
        for _ in 0..1 + round % 4 {
            let near_an_end = random(3000);
            let at = if round % 2 == 0 { near_an_end } else { bytes.len() - 1 - near_an_end };
            bytes[at] = random(256) as u8;
        }
        if round % 7 == 0 {
            bytes.truncate(random(whole.len()));
        }
        std::fs::write(&source, &bytes).unwrap();
        let ran = hardtack([&"convert", &source, &"-o", &output]);
        assert!((0..=2).contains(&ran.code), "round {round}: {}", ran.stderr);
        assert!(!ran.stderr.contains("stack backtrace"), "round {round}: {}", ran.stderr);
        if ran.code != 0 {
            refused += 1;
            assert!(ran.stderr.contains("model.onnx"), "round {round}: {}", ran.stderr);
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn boards_are_targets() {
    let listed = hardtack([&"targets"]);
    for word in ["rpi4", "Raspberry Pi 4", "aarch64-unknown-linux-gnu", "neondot", "96.0 KiB"] {
        assert!(listed.stdout.contains(word), "{word}: {}", listed.stdout);
    }
    let boards = hardtack([&"targets", &"--json"]).json();
    assert!(boards.as_array().unwrap().iter().any(|board| board["name"] == "mps2-an386"));

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("board.tack");
    let model = file("examples/data/keyword_spotting/kws_dscnn.onnx");
    let samples = file("examples/data/keyword_spotting/calibration.npz");
    let convert = |target: &dyn AsRef<std::ffi::OsStr>| {
        hardtack([
            &"convert",
            &model,
            &"-o",
            &output,
            &"--int8",
            &"--data",
            &samples,
            &"--samples",
            &"4",
            &"--target",
            target,
            &"--json",
        ])
    };
    let report = convert(&"rpi5").json();
    assert!(report["arena_bytes"].as_u64().unwrap() > 12_000);
    let inspected = hardtack([&"inspect", &output, &"--json"]).json();
    assert_eq!(inspected["families"][0][0], "neon-dot");

    // A custom board, whose memory limits the arena.
    let board = folder.path().join("small.toml");
    let text = "title = \"Small\"\ntriple = \"thumbv7em-none-eabihf\"\ncpu = \"cortex-m4\"\n\
                kernels = \"scalar\"\ncores = 1\nram = \"32KiB\"\nflash = \"64KiB\"\n\
                arena = \"16KiB\"\nrunner = \"probe\"\n";
    std::fs::write(&board, text).unwrap();
    let report = convert(&board).json();
    assert!(report["arena_bytes"].as_u64().unwrap() <= 16 << 10, "{report}");
    std::fs::write(&board, text.replace("16KiB", "8KiB")).unwrap();
    let refused = convert(&board);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("the arena is limited to 8192 bytes"), "{}", refused.stderr);

    std::fs::write(&board, text.replace("cores", "coers")).unwrap();
    let refused = convert(&board);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("small.toml, line 5: unknown field"), "{}", refused.stderr);
    let refused = convert(&"rpi");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("hardtack targets"), "{}", refused.stderr);
}

#[test]
fn a_bundle_is_compressed_and_decompressed() {
    let folder = tempfile::tempdir().unwrap();
    let [bundle, beside, packed, back] =
        ["a.tack", "a.tackz", "again.tackz", "back.tack"].map(|name| folder.path().join(name));
    let convert = |extra: &str| {
        let ran = hardtack([
            &"convert",
            &file("examples/data/keyword_spotting/kws_dscnn.onnx"),
            &"-o",
            &bundle,
            &"--int8",
            &"--data",
            &file("examples/data/keyword_spotting/calibration.npz"),
            &"--transport",
            &beside,
            &"--samples",
            &extra,
            &"--json",
        ]);
        ran.json()
    };
    let report = convert("4");
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(report["transport_bytes"], size(&beside));
    assert!(size(&beside) < size(&bundle) * 9 / 10);

    let json = hardtack([&"compress", &bundle, &"-o", &packed, &"--json"]).json();
    assert_eq!(json["bundle_bytes"], size(&bundle));
    assert_eq!(json["transport_bytes"], size(&beside));
    let read = |path: &Path| std::fs::read(path).unwrap();
    assert!(read(&packed) == read(&beside));
    // The names of earlier versions still work.
    assert_eq!(hardtack([&"pack", &bundle, &"-o", &packed]).code, 0);
    assert_eq!(hardtack([&"unpack", &packed, &"-o", &back]).code, 0);
    let json = hardtack([&"decompress", &packed, &"-o", &back, &"--json"]).json();
    assert_eq!(json["digest"], report["digest"]);
    assert!(read(&back) == read(&bundle));

    // Subcommands that need a bundle tell the user to decompress the file.
    for (verb, code) in [("inspect", 2), ("verify", 1), ("bench", 2), ("compress", 1)] {
        let ran = match verb {
            "compress" => hardtack([&verb, &packed, &"-o", &back]),
            _ => hardtack([&verb, &packed]),
        };
        assert_eq!(ran.code, code, "{verb}: {}", ran.stderr);
        assert!(ran.stderr.contains("decompress it first"), "{verb}: {}", ran.stderr);
    }
    let ran = hardtack([&"run", &packed, &bundle]);
    assert!(ran.code == 2 && ran.stderr.contains("decompress it first"), "{}", ran.stderr);

    // A damaged file is refused, and the existing output is kept.
    let mut damaged = read(&packed);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&packed, &damaged).unwrap();
    let ran = hardtack([&"decompress", &packed, &"-o", &back]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("again.tackz"), "{}", ran.stderr);
    let ran = hardtack([&"decompress", &bundle, &"-o", &back, &"--json"]);
    assert!(ran.code == 1 && ran.stdout.contains("\"unpacked\": false"), "{}", ran.stdout);
    assert!(ran.stderr.contains("not compressed"), "{}", ran.stderr);
    assert!(read(&back) == read(&bundle));
    assert_eq!(hardtack([&"decompress", &"nowhere.tackz", &"-o", &back]).code, 2);
}
