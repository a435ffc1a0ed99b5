//! Calibration and evaluation data of the networks of the shared assets.

use std::fmt;
use std::path::{Path, PathBuf};

use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Session, Tensor};
use hardtack_bundle::process::Postprocess;
use hardtack_converter::{arrays, samples};

/// The data of a model.
pub struct Task {
    /// The name of the preprocessing specification. Empty if there is none.
    pub spec: &'static str,
    /// The calibration data, in the data folder.
    pub calibration: &'static str,
    /// The labeled data, in the data folder. Empty if there is none.
    pub evaluation: &'static str,
}

/// Returns the task of a model.
pub fn task(name: &str) -> Option<Task> {
    let (spec, calibration, evaluation) = match name {
        "cifar_mobilenetv2s" | "cifar_resnet14" => {
            ("cifar_normalised", "cifar10/calib300.npz", "cifar10/test1000.npz")
        }
        "mlperf_tiny_ic_resnet8" => ("cifar_raw", "cifar10/calib300.npz", "cifar10/test1000.npz"),
        "mlperf_tiny_kws_dscnn" | "arm_kws_crnn_s" => {
            ("keyword_features", "kws01/calib100.npz", "kws01/eval400.npz")
        }
        "mlperf_tiny_vww_mobilenet" => ("person", "vww_calib/images30.npz", ""),
        "mlperf_tiny_ad_autoencoder" => ("", "toycar/normal_windows.npz", ""),
        "mnist_cntk" => ("mnist", "mnist/calib500.npz", "mnist/test1500.npz"),
        "mobilenet_v1_0.25_128" => ("mobilenet_v1", "imagenet_sample", "imagenet_sample"),
        "mobilenet_v2_1.0_224" => ("mobilenet_v2", "imagenet_sample", "imagenet_sample"),
        "squeezenet1_1" => ("squeezenet", "imagenet_sample", "imagenet_sample"),
        "shufflenet_v2_int8" => ("shufflenet", "imagenet_sample", "imagenet_sample"),
        "ultraface_rfb_320" => ("ultraface", "../models/ultraface_rfb_320/images", ""),
        "yolox_nano_416" => ("yolox", "../models/yolox_nano_416/images", ""),
        "fastestdet_352" => ("fastestdet", "imagenet_sample", ""),
        "mp_palm_detection_lite" => ("palm_detection", "imagenet_sample", ""),
        "sst2_tiny_transformer" => (
            "",
            "../models/sst2_tiny_transformer/calib.npz",
            "../models/sst2_tiny_transformer/test.npz",
        ),
        "sk_wine_minmax_pca_logreg" => (
            "",
            "../models/sk_wine_minmax_pca_logreg/train_calib.npz",
            "../models/sk_wine_minmax_pca_logreg/test.npz",
        ),
        _ => return None,
    };
    Some(Task { spec, calibration, evaluation })
}

/// Returns the path of a specification of the examples.
pub fn spec_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/specs").join(format!("{name}.toml"))
}

/// Top-1 accuracy.
#[derive(Clone, Copy, Debug)]
pub struct Top1 {
    /// The number of correct answers.
    pub right: usize,
    /// The number of samples.
    pub samples: usize,
}

impl Top1 {
    /// Returns the fraction of correct answers.
    pub fn part(self) -> f64 {
        self.right as f64 / self.samples as f64
    }
}

impl fmt::Display for Top1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} ({}/{})", self.part(), self.right, self.samples)
    }
}

/// The answers of a bundle, and the correct classes.
#[derive(Default)]
pub struct Answers {
    /// The names of the samples.
    pub names: Vec<String>,
    /// The class with the highest score, per sample.
    pub given: Vec<usize>,
    /// The correct class, per sample.
    pub truth: Vec<usize>,
    /// The scores of all classes, per sample.
    pub scores: Vec<Vec<f32>>,
}

impl Answers {
    /// Returns the top-1 accuracy.
    pub fn top1(&self) -> Top1 {
        let right = self.given.iter().zip(&self.truth).filter(|(a, b)| a == b).count();
        Top1 { right, samples: self.truth.len() }
    }
}

/// Runs a bundle on labeled data and returns the top-1 accuracy.
pub fn top1(bundle: &Bundle, session: &mut Session, data: &Path) -> Result<Top1, String> {
    Ok(answers(bundle, session, data)?.top1())
}

/// Runs a bundle on labeled data.
pub fn answers(bundle: &Bundle, session: &mut Session, data: &Path) -> Result<Answers, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let manifest = bundle.manifest().map_err(|e| text(&e))?;
    let input = &manifest.inputs[0];
    let preprocessor = match bundle.preprocess().map_err(|e| text(&e))? {
        Some(preprocess) => Preprocessor::new(preprocess, input).map_err(|e| text(&e))?,
        None => Preprocessor::identity(input),
    };
    let post = bundle.postprocess().map_err(|e| text(&e))?;
    let post = post.unwrap_or(Postprocess::Classify { softmax: false, skip: 0 });
    let classes = Postprocessor::new(post, &manifest.outputs[0], std::iter::empty());
    let mut labelled: Vec<(String, Tensor, usize)> = Vec::new();
    if data.is_dir() {
        for file in samples::files(data).map_err(|e| text(&e))? {
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned());
            let class = name.as_deref().and_then(|n| n.split('_').next()?.parse().ok());
            let class = class.ok_or("the name of an image does not start with its class")?;
            for tensor in preprocessor.file(&file).map_err(|e| text(&e))? {
                labelled.push((name.clone().unwrap_or_default(), tensor, class));
            }
        }
    } else {
        let arrays = arrays::read_npz(data).map_err(|e| text(&e))?;
        let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        // Arrays have the name "x", or that of the model's input.
        let x = find("x").or_else(|| find(input.name)).ok_or("no x")?;
        let y = find("y").ok_or("no y")?;
        for (index, class) in y.to_f32().iter().enumerate() {
            let tensor = preprocessor.array(&samples::row(x, index)).map_err(|e| text(&e))?;
            labelled.push((index.to_string(), tensor, *class as usize));
        }
    }
    let mut answers = Answers::default();
    for (name, tensor, class) in labelled {
        let outputs = session.run(&[(input.name, &tensor)]).map_err(|e| text(&e))?;
        let scores = outputs[0].1.to_f32();
        // A single number is the class itself.
        answers.given.push(match scores[..] {
            [class] => class as usize,
            _ => classes.top(&outputs[0].1, 1).map_err(|e| text(&e))?[0].index,
        });
        answers.scores.push(scores);
        answers.names.push(name);
        answers.truth.push(class);
    }
    Ok(answers)
}
