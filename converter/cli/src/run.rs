//! `hardtack run`.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context as _, bail};
use hardtack::process::{Class, Preprocessor};
use hardtack::{Bundle, Outputs, Session, Tensor};
use hardtack_converter::arrays;
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::Run;
use crate::bundles::{self, with_classes};
use crate::output::{self, print};

/// Elements of an output that are shown.
const SHOWN: usize = 8;

pub fn run(arguments: &Run, as_json: bool) -> anyhow::Result<Answer> {
    let bundle = bundles::open(&arguments.bundle)?;
    match &arguments.inputs {
        Some(inputs) => run_arrays(arguments, &bundle, inputs, as_json),
        None => run_files(arguments, &bundle, as_json),
    }
}

/// One run on arrays named as the inputs.
fn run_arrays(
    arguments: &Run,
    bundle: &Bundle,
    path: &Path,
    as_json: bool,
) -> anyhow::Result<Answer> {
    let mut session = bundles::session(bundle, &arguments.bundle, false)?;
    let arrays = arrays::read_npz(path)?;
    let manifest = bundle.manifest()?;
    let mut inputs = Vec::new();
    for port in &manifest.inputs {
        let name = port.name;
        let Some((_, tensor)) = arrays.iter().find(|(other, _)| other == name) else {
            let there: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
            bail!(
                "{}: has no array {name:?}, which is an input of the model; it has {}",
                path.display(),
                there.join(", ")
            );
        };
        // Reals become the integers that stand for them.
        let tensor = match port.quantization {
            Some(_) => Cow::Owned(Preprocessor::identity(port).array(tensor)?),
            None => Cow::Borrowed(tensor),
        };
        inputs.push((name, tensor));
    }
    let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, &**tensor)).collect();
    let outputs = session.run(&inputs).with_context(|| path.display().to_string())?;
    write(arguments, &outputs)?;
    if as_json {
        output::json(&json!({ "outputs": values(&outputs) }));
    } else {
        print(&shown(&outputs));
    }
    Ok(Answer::Yes)
}

/// Each file through the bundle's own pre- and post-processing.
fn run_files(arguments: &Run, bundle: &Bundle, as_json: bool) -> anyhow::Result<Answer> {
    let preprocessor = bundles::preprocessor(bundle)?;
    let mut session = bundles::session(bundle, &arguments.bundle, true)?;
    let input = session.inputs().first().map(|port| port.name.clone()).unwrap_or_default();
    let mut results = Vec::new();
    let mut last = None;
    with_classes(bundle, |classes| {
        for path in &arguments.files {
            session.reset();
            let inputs = match path.extension() {
                Some(extension) if extension.eq_ignore_ascii_case("npy") => {
                    vec![preprocessor.array(&arrays::read_npy(path)?)?]
                }
                _ => Vec::new(),
            };
            let mut period = None;
            let inputs: Vec<Tensor> = if inputs.is_empty() {
                let inputs = preprocessor.file(path)?;
                period = inputs.period();
                inputs.collect()
            } else {
                inputs
            };
            for (index, tensor) in inputs.iter().enumerate() {
                let outputs = once(&mut session, &input, tensor, path)?;
                let best = match &classes {
                    Some(classes) => Some(classes.top(&outputs[0].1, arguments.top_k as usize)?),
                    None => None,
                };
                let time = period.map(|period| index as f64 * period);
                if as_json {
                    results.push(json!({
                        "file": path,
                        "seconds": time,
                        "classes": best.as_deref().map(classes_json),
                        "outputs": best.is_none().then(|| values(&outputs)),
                    }));
                } else {
                    print(&line(path, time, best.as_deref(), &outputs));
                }
                last = Some(outputs);
            }
        }
        Ok(())
    })?;
    match (&last, results.len() > 1 || arguments.files.len() > 1) {
        (Some(outputs), false) => write(arguments, outputs)?,
        _ if arguments.output.is_some() => {
            bail!("--output takes the outputs of a single run; give one file, of one run");
        }
        _ => {}
    }
    if as_json {
        output::json(&json!({ "results": results }));
    }
    Ok(Answer::Yes)
}

fn once(
    session: &mut Session,
    input: &str,
    tensor: &Tensor,
    path: &Path,
) -> anyhow::Result<Outputs> {
    session.run(&[(input, tensor)]).with_context(|| path.display().to_string())
}

fn write(arguments: &Run, outputs: &Outputs) -> anyhow::Result<()> {
    if let Some(path) = &arguments.output {
        arrays::write_npz(path, outputs.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    }
    Ok(())
}

fn line(path: &Path, time: Option<f64>, best: Option<&[Class<'_>]>, outputs: &Outputs) -> String {
    let mut text = path.display().to_string();
    if let Some(time) = time {
        text += &format!(" {time:.3} s");
    }
    match best {
        Some(best) => {
            let named: Vec<String> = best
                .iter()
                .map(|class| match class.label {
                    Some(label) => format!("{label} {:.3}", class.score),
                    None => format!("class {} {:.3}", class.index, class.score),
                })
                .collect();
            text += &format!(": {}", named.join(", "));
        }
        // A stream's one number stands on its line.
        None if time.is_some() && outputs[0].1.len() == 1 => {
            text += &format!(": {:.4}", outputs[0].1.to_f32()[0]);
        }
        None => text += &format!("\n{}", shown(outputs)),
    }
    text
}

fn shown(outputs: &Outputs) -> String {
    let line = |(name, tensor): &(String, Tensor)| {
        let values = tensor.to_f32();
        let first: Vec<String> = values.iter().take(SHOWN).map(|x| format!("{x}")).collect();
        let more = if values.len() > SHOWN { ", …" } else { "" };
        format!("{name}: {} {:?} = {}{more}\n", tensor.dtype(), tensor.shape(), first.join(", "))
    };
    outputs.iter().map(line).collect()
}

fn classes_json(classes: &[Class<'_>]) -> Value {
    classes
        .iter()
        .map(|class| json!({ "index": class.index, "label": class.label, "score": class.score }))
        .collect()
}

fn values(outputs: &Outputs) -> Value {
    outputs
        .iter()
        .map(|(name, tensor)| {
            json!({
                "name": name,
                "dtype": tensor.dtype().name(),
                "shape": tensor.shape(),
                "values": tensor.to_f32(),
            })
        })
        .collect()
}
