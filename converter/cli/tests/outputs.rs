//! Tests the outputs of all subcommands: devices and pipes are refused, symbolic links are
//! followed, `-` is standard output, and a killed process leaves nothing behind.
#![cfg(unix)]

mod command;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hardtack::{DType, Tensor};
use hardtack_converter::arrays::{read_npz, write_npz};
use tempfile::TempDir;

use command::{Ran, file, hardtack, run};

const BUNDLE: &str = "tests/frozen/programs/kws_dscnn.tack";
const PACKED: &str = "tests/frozen/transport/kws_dscnn.tackz";

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let features = Tensor::zeros(DType::F32, &[1, 49, 10, 1]).unwrap();
        write_npz(&place.at("inputs.npz"), [("mfcc", &features)]).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns a command line for each option that writes a file, without the path of the output.
    fn verbs(&self) -> Vec<Vec<OsString>> {
        let (bundle, packed) = (file(BUNDLE), file(PACKED));
        let model = file("examples/data/keyword_spotting/kws_dscnn.onnx");
        let other = self.at("other.tack");
        let inputs = self.at("inputs.npz");
        let list = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
            words.iter().map(|word| word.as_ref().to_owned()).collect()
        };
        vec![
            list(&[&"decompress", &packed, &"-o"]),
            list(&[&"compress", &bundle, &"-o"]),
            list(&[&"run", &bundle, &"--inputs", &inputs, &"--output"]),
            list(&[&"inspect", &bundle, &"--plan-svg"]),
            list(&[&"bench", &bundle, &"--runs", &"2", &"--save"]),
            list(&[&"bench", &bundle, &"--runs", &"2", &"--junit"]),
            list(&[&"bench", &bundle, &"--runs", &"2", &"--markdown"]),
            list(&[&"convert", &model, &"-o"]),
            list(&[&"convert", &model, &"-o", &other, &"--transport"]),
            list(&[&"convert", &model, &"-o", &other, &"--report"]),
        ]
    }
}

fn with(verb: &[OsString], output: &Path) -> Ran {
    let mut arguments = verb.to_vec();
    arguments.push(output.into());
    run(&arguments)
}

#[test]
fn devices_pipes_and_links_to_them_are_not_replaced() {
    let place = Place::new();
    let (pipe, link) = (place.at("pipe"), place.at("link"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink(&pipe, &link).unwrap();
    for verb in place.verbs() {
        let converts = verb[0] == "convert";
        for (output, is) in [
            (&pipe, "is a pipe, not a file; give the name of a file"),
            (&link, "is a pipe, not a file; give the name of a file"),
            (&"/dev/null".into(), "/dev/null: is a character device, not a file"),
        ] {
            let ran = with(&verb, output);
            assert_eq!(ran.code, 2, "{verb:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(is), "{verb:?}: {}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(converts || ran.stderr.contains("or - for standard output"), "{}", ran.stderr);
        }
    }
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(!place.at("other.tack").exists(), "the other output was not written");
}

#[test]
fn a_missing_folder_is_named() {
    let place = Place::new();
    for verb in place.verbs() {
        let ran = with(&verb, &place.at("no/such/output"));
        assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{verb:?}: {}", ran.stderr);
        let folder = place.at("no/such");
        let expected =
            format!("/output: the folder {} does not exist; create it", folder.display());
        assert!(ran.stderr.contains(&expected), "{verb:?}: {}", ran.stderr);
    }
    assert!(!place.at("no").exists() && !place.at("other.tack").exists());
}

#[test]
fn links_to_files_are_followed_and_kept() {
    let place = Place::new();
    for (index, verb) in place.verbs().into_iter().take(8).enumerate() {
        let [target, link] = ["target", "link"].map(|name| place.at(&format!("{name}-{index}")));
        symlink(target.file_name().unwrap(), &link).unwrap();
        // First create the target, then replace it.
        for _ in 0..2 {
            let ran = with(&verb, &link);
            assert_eq!(ran.code, 0, "{verb:?}: {}", ran.stderr);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "{verb:?}");
            assert!(fs::symlink_metadata(&target).unwrap().is_file(), "{verb:?}");
            fs::write(&target, "as it was").unwrap();
        }
    }
    let hidden = fs::read_dir(place.0.path()).unwrap();
    let hidden = hidden
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "no temporary file is left");
}

/// Runs a command with `-` as the output. Returns stdout and stderr.
fn piped(verb: &[OsString]) -> (Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    let output = command.args(verb).arg("-").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{verb:?}: {said}");
    (output.stdout, said)
}

#[test]
fn a_dash_is_standard_output() {
    let place = Place::new();
    let verbs = place.verbs();
    let (bundle, said) = piped(&verbs[0]);
    assert!(bundle == fs::read(file(BUNDLE)).unwrap() && said.contains("root digest"), "{said}");
    let (packed, said) = piped(&verbs[1]);
    assert!(
        packed == fs::read(file(PACKED)).unwrap() && said.contains("% of the bundle"),
        "{said}"
    );
    let (arrays, said) = piped(&verbs[2]);
    let path = place.at("outputs.npz");
    fs::write(&path, arrays).unwrap();
    let (name, tensor) = &read_npz(&path).unwrap()[0];
    assert!(tensor.shape() == [1, 12] && said.contains(name.as_str()), "{said}");
    let (svg, said) = piped(&verbs[3]);
    assert!(svg.starts_with(b"<svg ") && said.contains("in integers, with an arena of"), "{said}");
    let (saved, said) = piped(&verbs[4]);
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
    assert!(saved["runs"] == 2 && said.contains("latency"), "{said}");
    for (verb, start) in [(&verbs[5], "<?xml "), (&verbs[6], "### ")] {
        assert!(piped(verb).0.starts_with(start.as_bytes()), "{verb:?}");
    }
    for verb in &verbs {
        let mut arguments = verb.clone();
        arguments.extend(["-".into(), "--json".into()]);
        let ran = run(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{verb:?}");
        assert!(ran.stderr.contains("give the"), "{}", ran.stderr);
    }
    assert!(!place.at("-").exists() && !Path::new("-").exists());
    // A file named `-` can be given by its path.
    let json = hardtack([&"decompress", &file(PACKED), &"-o", &place.at("-"), &"--json"]).json();
    assert!(json["unpacked"] == true && place.at("-").exists());
}

#[test]
fn inputs_are_not_overwritten() {
    let place = Place::new();
    let model = place.at("model.onnx");
    fs::copy(file("examples/data/keyword_spotting/kws_dscnn.onnx"), &model).unwrap();
    let before = fs::read(&model).unwrap();
    let link = place.at("link.onnx");
    symlink(&model, &link).unwrap();
    for output in [&model, &link] {
        let ran = hardtack([&"convert", &model, &"-o", output]);
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains("is also an input"), "{}", ran.stderr);
    }
    // Data files too, and the samples of a folder, but not other files there.
    let data = place.at("data.npz");
    let samples = place.at("samples");
    fs::create_dir(&samples).unwrap();
    let (sample, other) = (samples.join("cat.png"), samples.join("old.tack"));
    for path in [&data, &sample, &other] {
        fs::write(path, "content").unwrap();
    }
    for (calibrate, output, is_input) in
        [(&data, &data, true), (&samples, &sample, true), (&samples, &other, false)]
    {
        let ran = hardtack([&"convert", &model, &"-o", output, &"--int8", &"--data", calibrate]);
        assert_ne!(ran.code, 0);
        assert_eq!(ran.stderr.contains("is also an input"), is_input, "{}", ran.stderr);
        assert_eq!(fs::read_to_string(output).unwrap(), "content");
    }
    let out = place.at("out.tack");
    let ran = hardtack([&"convert", &model, &"-o", &out, &"--transport", &out]);
    assert!(ran.code == 2 && ran.stderr.contains("is given for two outputs"), "{}", ran.stderr);
    assert!(fs::read(&model).unwrap() == before && !out.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_unpack_leaves_nothing_behind() {
    let place = Place::new();
    let (pipe, output) = (place.at("pipe"), place.at("out.tack"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for signal in ["-INT", "-TERM", "-KILL"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hardtack"))
            .args(["decompress".as_ref(), pipe.as_os_str(), "-o".as_ref(), output.as_ref()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Send half of the input, then nothing more.
        let packed = fs::read(file(PACKED)).unwrap();
        let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        writer.write_all(&packed[..packed.len() / 2]).unwrap();
        let began = Instant::now();
        let written = || {
            let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten();
            let lengths = files.filter_map(|file| {
                let there = fs::metadata(file.ok()?.path()).ok()?;
                (there.is_file() && there.len() > 4096).then_some(())
            });
            lengths.count() > 0
        };
        while !written() {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing was written");
            std::thread::sleep(Duration::from_millis(10));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(!child.wait().unwrap().success());
        let names = fs::read_dir(place.0.path()).unwrap().count();
        assert_eq!(names, 2, "after {signal}: only the pipe and the inputs are there");
    }
}
