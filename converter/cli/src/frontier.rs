//! The size frontier: what the same model answers with fewer bits per weight, and how small it is.

use std::path::Path;

use anyhow::Context as _;
use hardtack_converter::{Options, Progress, convert};
use serde::Serialize;

use crate::bundles;
use crate::compare::{Answers, Baseline, Comparison};
use crate::output::{bytes, table};

/// A conversion with so many bits per weight.
#[derive(Debug, Serialize)]
pub struct Point {
    /// Entropy of a weight in the mean, in bits.
    pub weight_bits: f64,
    /// Bytes of the transport form.
    pub transport_bytes: u64,
    /// The same as a part of the ONNX file.
    pub part: f64,
    /// What it answers.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Converts anew for each number of bits, and compares with float; keeps no bundle.
///
/// # Errors
/// As converting.
pub fn measure(
    model: &Path,
    options: &Options,
    baseline: &Baseline,
    weight_bits: &[f64],
    progress: &mut dyn Progress,
) -> anyhow::Result<Vec<Point>> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let bundle = folder.path().join("point.tack");
    let packed = folder.path().join("point.tackz");
    let mut points = Vec::new();
    for bits in weight_bits {
        let mut options = Options { transport: Some(packed.clone()), ..options.clone() };
        options.quantize.weight_bits = Some(*bits).filter(|bits| *bits < 8.0);
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

/// For a terminal.
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
    let head = ["bits per weight", "for transport", "of the ONNX file", "accuracy", "beside float"];
    format!("\n{}", table(head, rows))
}

impl Point {
    /// What it answers, and how that compares with float.
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
    use crate::compare::Right;

    #[test]
    fn a_point_tells_what_it_costs_and_what_it_takes() {
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
