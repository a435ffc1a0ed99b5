//! The section of the report on size and accuracy with fewer bits per weight.

use super::plots;
use crate::output::bytes;
use crate::support::compare::Answers;
use crate::support::frontier::Point;

/// Returns the points of the frontier as a plot and a table.
pub fn section(points: &[Point]) -> anyhow::Result<String> {
    let figure = |point: &Point| match &point.comparison.answers {
        Answers::Classes { float, bundle, .. } => (100.0 * bundle.top1, 100.0 * float.top1),
        Answers::Values { float, bundle } => (*bundle, *float),
    };
    let classes =
        points.iter().any(|point| matches!(point.comparison.answers, Answers::Classes { .. }));
    let y_title = if classes { "top-1 accuracy, %" } else { "mean squared error" };
    let drawn: Vec<(f64, f64)> =
        points.iter().map(|point| (100.0 * point.part, figure(point).0)).collect();
    let float = points.first().map_or(0.0, |point| figure(point).1);
    let mut html = String::from(
        "<p>Size and accuracy of the compressed bundle for different numbers of bits per weight. \
         The horizontal line is the float model.</p>\n",
    );
    html += &plots::frontier(("size, % of the ONNX file", y_title), &drawn, float)?;
    html += "<div class=\"wide\"><table><tr><th>bits per weight</th><th>compressed</th>\
             <th>of the ONNX file</th><th>accuracy</th><th>vs. float</th></tr>\n";
    for point in points {
        let [figure, change] = point.figures();
        html += &format!(
            "<tr><td>{}</td><td>{}</td><td>{:.1} %</td><td>{figure}</td><td>{change}</td></tr>\n",
            point.weight_bits,
            bytes(point.transport_bytes),
            100.0 * point.part,
        );
    }
    Ok(html + "</table></div>\n")
}
