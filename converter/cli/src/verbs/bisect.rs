//! `hardtack bisect`.

use anyhow::bail;
use hardtack_converter::spec::Spec;
use hardtack_converter::{ConvertOptions, LayerReport, convert};
use serde_json::json;

use crate::arguments::{Bisect, MaxError};
use crate::output::Answer;
use crate::output::{self, print, say, table};
use crate::support::progress::Bar;
use crate::verbs::convert::{refusal, temporary};

/// The number of layers that are printed on each side of the first layer that deviates.
const AROUND: usize = 4;

pub fn bisect(arguments: &Bisect, as_json: bool) -> anyhow::Result<Answer> {
    if arguments.quantize.max_error == Some(MaxError::Auto) {
        bail!(
            "--max-error auto needs an accuracy to keep, which one input does not have; give a \
             percentage"
        );
    }
    let spec = arguments.pre.as_deref().map(Spec::read).transpose()?;
    let options = ConvertOptions {
        int8: true,
        set: arguments.set.clone(),
        calibration: Some(arguments.data.clone()),
        samples: arguments.samples as usize,
        measure: Some(arguments.input.clone()),
        quantize: arguments.quantize.settings(),
        preprocess: spec.and_then(|spec| spec.preprocess),
        guarded: true,
        import_limits: arguments.limits.of_import(),
        ..ConvertOptions::default()
    };
    let folder = temporary()?;
    let bundle = folder.path().join("bisected.tack");
    let model = arguments.model.display();
    let mut bar = Bar::new(as_json);
    let converted = convert(&arguments.model, &bundle, &options, &mut bar);
    drop(bar);
    let report = match converted {
        Ok(report) => report,
        Err(error) => return refusal(&arguments.model, error, as_json),
    };
    if report.layers.is_empty() {
        bail!("{model}: no layer runs in integers, so there is nothing to compare");
    }
    let layers = &report.layers;
    let first = layers.iter().position(|layer| layer.sqnr_db < arguments.threshold);
    if as_json {
        output::json(&json!({
            "first": first.map(|index| &layers[index].name),
            "threshold_db": arguments.threshold,
            "layers": layers.iter().map(row_json).collect::<Vec<_>>(),
        }));
    } else {
        let at = first.unwrap_or_else(|| worst(layers));
        let shown = at.saturating_sub(AROUND)..(at + AROUND + 1).min(layers.len());
        let rows = shown.map(|index| {
            let layer = &layers[index];
            let [low, high] = layer.range.map_or([f32::NAN; 2], |range| range.covered);
            let [least, greatest] = layer.range.map_or([f32::NAN; 2], |range| range.seen);
            [
                format!("{}{}", if Some(index) == first { "→ " } else { "  " }, layer.name),
                format!("{:.1}", layer.sqnr_db),
                format!("{:.4}", layer.cosine),
                format!("{:.3}", layer.largest),
                format!("{low:.3} to {high:.3}"),
                format!("{least:.3} to {greatest:.3}"),
            ]
        });
        let heads =
            ["layer", "SQNR dB", "cosine", "max error", "quantized range", "calibration range"];
        print(&table(heads, rows));
    }
    let Some(first) = first.map(|index| &layers[index]) else {
        let worst = &layers[worst(layers)];
        say(&format!(
            "no layer has an SQNR below {} dB on {}; the lowest is {:.1} dB, of layer {:?}",
            arguments.threshold,
            arguments.input.display(),
            worst.sqnr_db,
            worst.name
        ));
        return Ok(Answer::Yes);
    };
    say(&format!(
        "layer {:?} is the first that deviates: SQNR {:.1} dB on {}; keep it in float with \
         --keep-float {:?}",
        first.name,
        first.sqnr_db,
        arguments.input.display(),
        first.name
    ));
    Ok(Answer::No)
}

/// Returns the index of the layer with the lowest SQNR.
fn worst(layers: &[LayerReport]) -> usize {
    let least = layers.iter().enumerate().min_by(|a, b| a.1.sqnr_db.total_cmp(&b.1.sqnr_db));
    least.map_or(0, |(index, _)| index)
}

fn row_json(layer: &LayerReport) -> serde_json::Value {
    json!({
        "name": layer.name,
        "sqnr_db": layer.sqnr_db,
        "cosine": layer.cosine,
        "largest": layer.largest,
        "range": layer.range,
    })
}
