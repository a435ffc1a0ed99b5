//! Classifies photos with an ImageNet network. The bundle contains the preprocessing, the
//! postprocessing and the labels.
//!
//!     cargo run --release --example image_classification [PHOTO.jpg]...

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Session};
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, NoProgress, convert};

fn main() -> anyhow::Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let model = examples.join("data/mobilenet_v1");
    let folder = tempfile::tempdir()?;
    let bundle_path = folder.path().join("mobilenet.tack");

    // On the development machine: convert the model.
    let settings = Spec::read(&examples.join("specs/mobilenet_v1.toml"))?;
    let options = ConvertOptions {
        preprocess: settings.preprocess,
        postprocess: settings.postprocess,
        labels: settings.labels,
        ..ConvertOptions::default()
    };
    convert(&model.join("mobilenet_v1_0.25_128.onnx"), &bundle_path, &options, &mut NoProgress)?;

    // In the app: everything that the app needs is in the bundle.
    let bundle = Bundle::open(&bundle_path)?;
    bundle.verify()?;
    let manifest = bundle.manifest()?;
    let (input, output) = (&manifest.inputs[0], &manifest.outputs[0]);
    let photo = Preprocessor::new(bundle.preprocess()?.context("no preprocessing")?, input)?;
    let labels: Vec<&str> = bundle.labels()?.context("no labels")?.iter().collect();
    let classes =
        Postprocessor::new(bundle.postprocess()?.context("no postprocessing")?, output, labels);
    let mut session = Session::new(&bundle)?;

    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = ["cat.jpg", "beach.jpg"].map(|n| examples.join("data/photos").join(n)).into();
    }
    for file in files {
        println!("{}", file.file_name().map(|n| n.to_string_lossy()).unwrap_or_default());
        for sample in photo.file(&file)? {
            let outputs = session.run(&[(input.name, &sample)])?;
            for class in classes.top(&outputs[0].1, 3)? {
                println!("  {:5.1} %  {}", 100.0 * class.score, class.label.unwrap_or("?"));
            }
        }
    }
    Ok(())
}
