//! The layers section of the report: size, error, activations and weights of each layer.

use std::collections::HashMap;

use hardtack_converter::{LayerReport, RangeReport, Report};

use super::plots;
use crate::output::{bytes, escaped};
use crate::support::profile::Profile;
use crate::verbs::bench::ms;

/// The SQNR in dB at which the bar is full.
const FULL_DB: f64 = 60.0;

/// Returns the plots of all layers, and a row per layer that expands to its details.
pub fn section(report: &Report, profile: &Profile) -> anyhow::Result<String> {
    let layers = &report.layers;
    let times: HashMap<&str, f64> = (profile.operations().iter())
        .map(|operation| (operation.name.as_str(), ms(operation.duration)))
        .collect();
    let sqnr: Vec<f64> = layers.iter().map(|layer| layer.sqnr_db).collect();
    let weights: Vec<_> = layers.iter().filter_map(|layer| layer.weights.as_ref()).collect();
    let sizes: Vec<(f64, f64)> = (weights.iter())
        .map(|w| (w.float_bytes as f64 / 1024.0, w.integer_bytes as f64 / 1024.0))
        .collect();
    let float: u64 = weights.iter().map(|weights| weights.float_bytes).sum();
    let integer: u64 = weights.iter().map(|weights| weights.integer_bytes).sum();
    let mut html = format!(
        "<div class=\"two\">\n<figure><figcaption>Weights and biases: {} as f32 <i \
         class=\"other\"></i>, {} in INT8 <i class=\"main\"></i></figcaption>{}</figure>\n\
         <figure><figcaption>Signal-to-quantization-noise ratio (SQNR); higher is \
         better</figcaption>{}</figure>\n\
         </div>\n",
        bytes(float),
        bytes(integer),
        plots::pairs(
            "size of each layer with weights, as f32 and in INT8",
            ("layer with weights, in execution order", "KiB"),
            &sizes
        )?,
        plots::by_layer("signal-to-quantization-noise ratio of each layer", "SQNR (dB)", &sqnr)?,
    );
    html += "<p class=\"tools\" hidden=\"\"><label>Filter <input type=\"search\" id=\"filter\"/>\
             </label> <label>Sort by <select id=\"sort\"><option value=\"order\">execution order</option>\
             <option value=\"db\">lowest SQNR</option><option value=\"bytes\">size</option>\
             <option value=\"ms\">time</option></select></label></p>\n<div id=\"layers\">\n";
    for (index, layer) in layers.iter().enumerate() {
        html += &row(index, layer, times.get(layer.name.as_str()).copied())?;
    }
    Ok(html + "</div>\n")
}

/// Returns the row of a layer. `time` is in milliseconds.
fn row(index: usize, layer: &LayerReport, time: Option<f64>) -> anyhow::Result<String> {
    let name = escaped(&layer.name);
    let size = layer.weights.as_ref().map(|weights| weights.integer_bytes);
    let part = (100.0 * layer.sqnr_db / FULL_DB).clamp(0.0, 100.0);
    let mut html = format!(
        "<details class=\"layer\" data-order=\"{index}\" data-db=\"{:.3}\" data-bytes=\"{}\" \
         data-ms=\"{}\">\n<summary><span class=\"name\">{name}</span><span \
         class=\"kind\">{}</span><span class=\"size\">{}</span><span class=\"time\">{}</span><span \
         class=\"bar\"><i style=\"width:{part:.0}%\"></i></span><span class=\"db\">{:.1} \
         dB</span></summary>\n<dl>{}{}",
        layer.sqnr_db,
        size.unwrap_or(0),
        time.unwrap_or(0.0),
        escaped(&layer.kind),
        size.map_or(String::new(), bytes),
        time.map_or(String::new(), |time| format!("{time:.3} ms")),
        layer.sqnr_db,
        term("cosine", &format!("{:.6}", layer.cosine)),
        term("max error", &format!("{:.4}", layer.largest)),
    );
    if let Some(range) = &layer.range {
        let pair = |[low, high]: [f32; 2]| format!("{low:.4} to {high:.4}");
        html += &term("calibration range", &pair(range.seen));
        html +=
            &term("quantized range", &format!("{} ({})", pair(range.covered), range.method.name()));
        html += &term("bits", &range.bits.to_string());
        html += &term("activation scale", &format!("{:.2e}", step(range)));
    }
    if let Some(weights) = &layer.weights {
        let [low, high] = weights.step;
        html += &term("weights", &weights.elements.to_string());
        html += &term("as f32", &bytes(weights.float_bytes));
        html += &term("in INT8", &bytes(weights.integer_bytes));
        html += &term("weight scales", &format!("{low:.2e} to {high:.2e}"));
        html += &term("integers in use", &format!("{} of 255", weights.levels));
    }
    html += "</dl>\n<div class=\"two\">\n";
    if let Some(spread) = &layer.spread {
        let all = spread.zeros + spread.counts.iter().sum::<u64>();
        let zeros = 100.0 * spread.zeros as f64 / all.max(1) as f64;
        let method = layer.range.map_or(String::new(), |range| {
            format!("; quantized range <i class=\"other\"></i> ({})", range.method.name())
        });
        html += &format!(
            "<figure><figcaption>Activations{method}. {zeros:.0} % are 0 and are not \
             drawn.</figcaption>{}</figure>\n",
            plots::spread(spread, layer.range.as_ref())?
        );
    }
    if let Some(weights) = &layer.weights {
        let figure = plots::levels(weights)?;
        html += &format!("<figure><figcaption>Quantized weights</figcaption>{figure}</figure>\n");
    }
    Ok(html + "</div>\n</details>\n")
}

/// Returns the scale of the activations: the float difference between two adjacent integers.
fn step(range: &RangeReport) -> f32 {
    let [low, high] = range.covered;
    (high.max(0.0) - low.min(0.0)) / (2f32.powi(range.bits as i32) - 1.0)
}

/// Returns an entry of the list of terms.
fn term(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
}
