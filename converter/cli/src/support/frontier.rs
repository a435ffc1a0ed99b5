//! `--frontier`: size and accuracy of the same model with different numbers of bits per weight.

use std::path::Path;

use anyhow::Context as _;
use hardtack_converter::{ConvertOptions, Progress, convert};
use serde::Serialize;

use crate::output::{bytes, table};
use crate::support::bundles;
use crate::support::compare::{Answers, Baseline, Comparison};

/// The result of a conversion with a given number of bits per weight.
#[derive(Debug, Serialize)]
pub struct Point {
    /// The target of the average entropy of a weight, in bits.
    pub weight_bits: f64,
    /// The size of the compressed bundle in bytes.
    pub transport_bytes: u64,
    /// The size of the compressed bundle as a fraction of the ONNX file.
    pub part: f64,
    /// The comparison with the float model.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Converts the model once for each number of bits and compares it with the float model. The
/// bundles are temporary. Returns the points in order of size.
///
/// # Errors
/// If a conversion or an evaluation fails.
pub fn measure(
    model: &Path,
    options: &ConvertOptions,
    baseline: &Baseline,
    weight_bits: &[f64],
    progress: &mut dyn Progress,
) -> anyhow::Result<Vec<Point>> {
    let folder = tempfile::tempdir()
        .context("cannot create a temporary folder; set TMPDIR to a folder that can be written")?;
    let bundle = folder.path().join("point.tack");
    let packed = folder.path().join("point.tackz");
    let mut points = Vec::new();
    for bits in weight_bits {
        let mut options = ConvertOptions { transport: Some(packed.clone()), ..options.clone() };
        options.quantize.weight_bits = Some(*bits);
        options.matrix_bits = Some(*bits);
        let report = convert(model, &bundle, &options, progress)?;
        progress.stage("evaluate");
        let transport_bytes = report.transport_bytes.unwrap_or_default();
        points.push(Point {
            weight_bits: *bits,
            transport_bytes,
            part: transport_bytes as f64 / report.source_bytes.max(1) as f64,
            comparison: baseline.compare(&bundles::open(&bundle)?, &bundle)?,
        });
    }
    points.sort_by_key(|point| point.transport_bytes);
    Ok(points)
}

/// Formats the points as a table.
pub fn text(points: &[Point]) -> String {
    let rows = points.iter().map(|point| {
        let [figure, change] = point.figures();
        [
            point.weight_bits.to_string(),
            bytes(point.transport_bytes),
            format!("{:.1} %", 100.0 * point.part),
            figure,
            change,
        ]
    });
    let head = ["bits per weight", "compressed", "of the ONNX file", "accuracy", "vs. float"];
    format!("\n{}", table(head, rows))
}

impl Point {
    /// Returns the accuracy, and its difference from the float model, as text.
    pub fn figures(&self) -> [String; 2] {
        match &self.comparison.answers {
            Answers::Classes { float, bundle, .. } => [
                format!("{:.2} % top-1", 100.0 * bundle.top1),
                format!("{:+.2} points", 100.0 * (bundle.top1 - float.top1)),
            ],
            Answers::Values { float, bundle } => [
                format!("{bundle:.6} mean squared error"),
                format!("{:+.2} %", 100.0 * (bundle / float - 1.0)),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::compare::Right;

    #[test]
    fn a_point_shows_its_size_and_accuracy() {
        let right = |right| Right { right, top1: right as f64 / 200.0 };
        let of = |answers| Point {
            weight_bits: 3.5,
            transport_bytes: 2048,
            part: 0.125,
            comparison: Comparison { data: "d".into(), samples: 200, answers },
        };
        let classes = Answers::Classes { float: right(100), bundle: right(97), changed: vec![] };
        let text = text(&[of(classes)]);
        for cell in ["3.5", "2.0 KiB", "12.5 %", "48.50 % top-1", "-1.50 points"] {
            assert!(text.contains(cell), "{cell}: {text}");
        }
        let values = of(Answers::Values { float: 2.0, bundle: 2.5 });
        assert_eq!(values.figures()[1], "+25.00 %");
    }
}
