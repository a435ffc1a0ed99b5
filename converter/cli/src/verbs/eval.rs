//! `hardtack eval`.

use anyhow::Context as _;
use serde_json::json;

use crate::arguments::Eval;
use crate::output::{self, plain, print};
use crate::support::labeled::{self, Found, Sample, Truth, labels, measure};
use crate::{output::Answer, support::bundles};

pub fn eval(arguments: &Eval, as_json: bool) -> anyhow::Result<Answer> {
    let bundle = bundles::open(&arguments.bundle)?;
    let labels = labels(&bundle)?;
    let samples = labeled::read(&arguments.data, &bundle)?;
    let limits = arguments.limits.limits();
    let against = match &arguments.against {
        Some(path) => {
            let other = bundles::open(path)?;
            let fits = labeled::check(&samples, &arguments.data, &other);
            fits.with_context(|| path.display().to_string())?;
            Some((path, other))
        }
        None => None,
    };
    let found = measure(&bundle, &arguments.bundle, &samples, limits)?;
    let other = match &against {
        Some((path, other)) => Some(measure(other, path, &samples, limits)?),
        None => None,
    };
    let (mut text, mut result) = summary(&found, &samples);
    if let Some(other) = &other {
        let (other_text, other_result) = summary(other, &samples);
        text += &format!("against: {other_text}");
        result["against"] = other_result;
        if let (Found::Classes(a), Found::Classes(b)) = (&found, other) {
            let mut changed = Vec::new();
            for ((sample, a), b) in samples.iter().zip(a).zip(b) {
                if a != b {
                    let name =
                        |class: &usize| labels.get(*class).cloned().unwrap_or(class.to_string());
                    let Truth::Class(truth) = sample.truth else { continue };
                    text += &format!(
                        "{}: {}, against {}, label {}\n",
                        plain(&sample.name),
                        plain(&name(a)),
                        plain(&name(b)),
                        plain(&name(&truth))
                    );
                    changed.push(json!({
                        "sample": sample.name, "here": a, "there": b, "truth": truth,
                    }));
                }
            }
            text += &format!("{} of {} predictions differ\n", changed.len(), samples.len());
            result["changed"] = changed.into();
        }
    }
    if as_json {
        output::json(&result)
    } else {
        print(&text)
    }
    Ok(Answer::Yes)
}

/// Returns the accuracy or the error of the results, as text and as JSON.
fn summary(found: &Found, samples: &[Sample]) -> (String, serde_json::Value) {
    let count = samples.len();
    match found {
        Found::Classes(classes) => {
            let right = |(sample, class): &(&Sample, &usize)| matches!(sample.truth, Truth::Class(truth) if truth == **class);
            let right = samples.iter().zip(classes).filter(right).count();
            let top1 = right as f64 / count as f64;
            let text = format!("top-1 accuracy {top1:.4} ({right} of {count} samples)\n");
            (text, json!({ "top1": top1, "right": right, "samples": count }))
        }
        Found::Errors(errors) => {
            let error = errors.iter().sum::<f64>() / count as f64;
            let text = format!("mean squared error {error:.6} ({count} samples)\n");
            (text, json!({ "error": error, "samples": count }))
        }
    }
}
