use hardtack_bundle::process::{AudioFeature, Fit, Level, Spectrum};
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Spec, Error> {
    Spec::parse(text, Path::new("some/spec.toml"))
}

const IMAGE: &str = r#"
[image]
height = 224
width = 200
fit = "centre-crop"
short_side = 256
colour = "bgr"
order = "nchw"
mean = [104, 117.5, 123]
"#;

const AUDIO: &str = r#"
[audio]
sample_rate = 16000
window = 480
stride = 320
feature = "mfcc"
bands = 40
low_hz = 20
high_hz = 4000.0
coefficients = 10
"#;

#[test]
fn image_tables() {
    let spec = parse(&format!("{IMAGE}[classify]\nskip = 1\nlabels = [\"a\", \"b\"]")).unwrap();
    let Some(Preprocess::Image(image)) = spec.preprocess else { panic!("no image") };
    assert_eq!((image.height, image.width), (224, 200));
    assert_eq!(image.fit, Fit::CentreCrop { short_side: 256 });
    assert_eq!((&image.mean[..], &image.deviation[..]), (&[104.0, 117.5, 123.0][..], &[1.0][..]));
    assert_eq!(spec.postprocess, Some(Postprocess::Classify { softmax: false, skip: 1 }));
    assert_eq!(spec.labels, ["a", "b"]);
}

#[test]
fn audio_tables() {
    let Some(Preprocess::Audio(audio)) = parse(AUDIO).unwrap().preprocess else {
        panic!("no audio")
    };
    assert_eq!((audio.level, audio.spectrum), (Level::FullScale, Spectrum::Magnitude));
    assert_eq!((audio.frames, audio.mean, audio.deviation), (0, 0.0, 1.0));
    let AudioFeature::Mfcc { floor, coefficients, .. } = audio.feature else { panic!("no MFCC") };
    assert_eq!((floor, coefficients), (1e-6, 10));
}

#[test]
fn array_tables_and_empty_specifications() {
    let spec = parse("[array]\nmean = 83\ndeviation = 1.5").unwrap();
    let Some(Preprocess::Array(array)) = spec.preprocess else { panic!("no array") };
    assert_eq!((&array.mean[..], &array.deviation[..]), (&[83.0][..], &[1.5][..]));
    assert_eq!(parse("").unwrap(), Spec::default());
}

#[test]
fn errors_name_the_line_and_what_is_allowed() {
    let image = |from: &str, to: &str| IMAGE.replace(from, to);
    let audio = |from: &str, to: &str| AUDIO.replace(from, to);
    let cases = [
        (image("height", "hieght"), 3, "unknown field `hieght`, expected one of `height`, `width`"),
        (image("height = 224\n", ""), 2, "missing field `height`"),
        (image("centre-crop", "crop"), 5, "expected one of `stretch`, `centre-crop`, `letterbox`"),
        (image("224", "\"224\""), 3, "expected u32"),
        (image("224", "-1"), 3, "expected u32"),
        (image("224", "0"), 3, "[image] `height` must be from 1 to"),
        (image("short_side = 256\n", ""), 2, "[image] `short_side` is required with fit ="),
        (image("256", "100"), 6, "[image] `short_side` must be at least 224"),
        (
            image("short_side", "fill = 3\nshort_side"),
            6,
            "[image] `fill` is allowed only with fit = \"letterbox\"",
        ),
        (image("117.5, ", ""), 9, "[image] `mean` must be 1 or 3 numbers, not 2"),
        (image("[104", "[[1], 104"), 9, "expected f32"),
        (image("[104", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"), 9, "a list of at most 16 numbers"),
        (image("mean", "deviation = 0\nmean"), 9, "[image] `deviation` must be other than 0"),
        (audio("mfcc", "log-mel"), 10, "[audio] `coefficients` is not allowed with feature ="),
        (audio("bands = 40\n", ""), 2, "[audio] `bands` is required with feature = \"mfcc\""),
        (audio("4000.0", "9000"), 9, "[audio] `high_hz` must be above `low_hz` and at most half"),
        (format!("{IMAGE}[array]"), 10, "[array] conflicts with [image]; keep one of them"),
        ("[photo]".into(), 1, "unknown field `photo`, expected one of `image`, `audio`"),
        ("[array]\nmean = \"x\"".into(), 2, "expected a number or a list of at most 16 numbers"),
        ("[classify]\nlabels = 3".into(), 2, "expected a file name or a list of strings"),
        ("[image".into(), 1, "unclosed table"),
    ];
    for (text, line, part) in cases {
        let message = parse(&text).unwrap_err().to_string();
        let place = format!("some/spec.toml:{line}: ");
        assert!(message.starts_with(&place) && message.contains(part), "{text}\n{message}\n{part}");
    }
}

#[test]
fn labels_are_read_from_the_folder_of_the_specification() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    file("labels.txt", "no person\r\n person \r\n\r\n");
    let spec = file("spec.toml", "[classify]\nlabels = \"labels.txt\"");
    assert_eq!(Spec::read(&spec).unwrap().labels, ["no person", "person"]);
    let empty = file("empty.txt", " \n");
    assert!(matches!(read_labels(&empty), Err(Error::NoLabels { .. })));
    let lost = file("lost.toml", "[classify]\nlabels = \"lost.txt\"");
    let message = Spec::read(&lost).unwrap_err().to_string();
    assert!(message.contains("lost.txt: cannot be read"), "{message}");
}

#[test]
fn labels_outside_the_folder_are_rejected() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("specs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(outer.path().join("secret.txt"), "password").unwrap();
    let mut names = vec!["/etc/passwd", "../secret.txt", "./../secret.txt"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret.txt", folder.join("link.txt")).unwrap();
        names.push("link.txt");
    }
    let spec = folder.join("spec.toml");
    for name in names {
        std::fs::write(&spec, format!("[classify]\nlabels = {name:?}")).unwrap();
        let message = Spec::read(&spec).unwrap_err().to_string();
        let expected =
            format!("spec.toml:2: [classify] `labels` names {name:?}, which is outside the");
        assert!(message.contains(&expected) && message.contains("--labels"), "{message}");
    }
    std::fs::write(&spec, "[classify]\nlabels = \".\"").unwrap();
    let message = Spec::read(&spec).unwrap_err().to_string();
    assert!(message.contains("which is not a file"), "{message}");
}

#[test]
fn oversized_text_files_are_rejected() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MAX_TEXT + 1).unwrap();
    for error in [Spec::read(file.path()).unwrap_err(), read_labels(file.path()).unwrap_err()] {
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}

#[test]
fn all_example_specifications_are_valid() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/specs"));
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let spec = Spec::read(&path).unwrap();
        assert!(spec.preprocess.is_some(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 13, "{count}");
}

proptest! {
    #[test]
    fn damaged_specifications_never_panic(
        audio in any::<bool>(),
        damage in prop::collection::vec((any::<usize>(), any::<char>()), 0..5),
    ) {
        let mut text: Vec<char> = if audio { AUDIO } else { IMAGE }.chars().collect();
        for (at, value) in damage {
            let end = text.len();
            text[at % end] = value;
        }
        let _ = parse(&text.into_iter().collect::<String>());
    }
}
