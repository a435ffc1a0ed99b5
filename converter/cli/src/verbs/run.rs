//! `hardtack run`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hardtack::process::{Class, Preprocessor};
use hardtack::{Bundle, Outputs, Session, Tensor};
use hardtack_converter::arrays::{self, Archive, Description};
use serde_json::{Value, json};

use crate::arguments::Run;
use crate::output::Answer;
use crate::output::file::{self, Output};
use crate::output::{self, plain};
use crate::support::bundles::{self, with_classes};

/// The maximum number of elements that are printed of an output.
const SHOWN: usize = 8;

pub fn run(arguments: &Run, as_json: bool) -> anyhow::Result<Answer> {
    let inputs = arguments.files.iter().chain(&arguments.inputs).chain([&arguments.bundle]);
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    file::check(&outputs(arguments), &inputs, as_json)?;
    let bundle = bundles::open(&arguments.bundle)?;
    match &arguments.inputs {
        Some(inputs) => run_arrays(arguments, &bundle, inputs, as_json),
        None => run_files(arguments, &bundle, as_json),
    }
}

/// Returns the files that the command writes.
fn outputs(arguments: &Run) -> Vec<&Path> {
    arguments.output.as_deref().into_iter().collect()
}

/// Runs one inference on arrays that are named after the inputs.
fn run_arrays(
    arguments: &Run,
    bundle: &Bundle,
    path: &Path,
    as_json: bool,
) -> anyhow::Result<Answer> {
    let mut session = bundles::session(bundle, &arguments.bundle, true, arguments.limits.limits())?;
    let manifest = bundle.manifest()?;
    let mut archive = open(bundle, path)?;
    let mut inputs = Vec::new();
    for (index, port) in manifest.inputs.iter().enumerate() {
        let name = port.name;
        let Some(Description { dtype, shape }) = archive.describe(name)? else {
            let is_state = manifest.states.iter().any(|state| usize::from(state.input) == index);
            if is_state || session.inputs()[index].default.is_some() {
                continue;
            }
            let there: Vec<&str> = archive.names().collect();
            bail!(
                "{}: has no array {name:?} for the input of that name; it has {}",
                path.display(),
                there.join(", ")
            );
        };
        let preprocessor = Preprocessor::identity(port);
        // Check the shape before reading the elements, which may be huge.
        if !shape.contains(&0) {
            preprocessor.accepts(dtype, &shape).with_context(|| path.display().to_string())?;
        }
        let tensor = archive.read(name)?.expect("the array has a description");
        // Quantize floats if the input is quantized.
        let tensor = match port.quantization {
            Some(_) => preprocessor.array(&tensor)?,
            None => bundles::cast(tensor, name, path, &preprocessor)?,
        };
        inputs.push((name, tensor));
    }
    let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = session.run(&inputs).with_context(|| path.display().to_string())?;
    write(arguments, &outputs)?;
    if as_json {
        output::json(&json!({ "outputs": values(&outputs) }));
    } else {
        file::summary(&self::outputs(arguments), &shown(&outputs));
    }
    Ok(Answer::Yes)
}

/// Opens the arrays of `--inputs`. A `.npy` file has the array of the input with the name of the
/// file; otherwise that of the data input.
fn open(bundle: &Bundle, path: &Path) -> anyhow::Result<Archive> {
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
        return Ok(Archive::open(path)?);
    }
    let (manifest, stem) = (bundle.manifest()?, path.file_stem().unwrap_or_default());
    let named = manifest.inputs.iter().find(|port| *port.name == *stem.to_string_lossy());
    let input = match named {
        Some(port) => port,
        None => &manifest.inputs[bundles::data_input(bundle)?],
    };
    Ok(Archive::of_array(path, input.name))
}

/// Runs the model on each file, with the pre- and post-processing of the bundle.
fn run_files(arguments: &Run, bundle: &Bundle, as_json: bool) -> anyhow::Result<Answer> {
    let preprocessor = bundles::preprocessor(bundle)?;
    let mut session = bundles::session(bundle, &arguments.bundle, true, arguments.limits.limits())?;
    let input = session.inputs()[bundles::data_input(bundle)?].name.clone();
    let mut results = Vec::new();
    let mut last = None;
    with_classes(bundle, |classes| {
        for path in &arguments.files {
            session.reset();
            let is_array = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"));
            let (inputs, period): (Box<dyn Iterator<Item = Tensor>>, _) = match is_array {
                true => {
                    let input = preprocessor.array(&read_array(path, &preprocessor)?)?;
                    (Box::new(std::iter::once(input)), None)
                }
                false => {
                    let inputs = preprocessor.file(path)?;
                    let period = inputs.period();
                    (Box::new(inputs), period)
                }
            };
            for (index, tensor) in inputs.enumerate() {
                let outputs = once(&mut session, &input, &tensor, path)?;
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
                    let text = line(path, time, best.as_deref(), &outputs);
                    file::summary(&self::outputs(arguments), &text);
                }
                last = Some(outputs);
            }
        }
        Ok(())
    })?;
    match (&last, results.len() > 1 || arguments.files.len() > 1) {
        (Some(outputs), false) => write(arguments, outputs)?,
        _ if arguments.output.is_some() => {
            bail!(
                "--output can write one inference only; give one file that is one input of the model"
            );
        }
        _ => {}
    }
    if as_json {
        output::json(&json!({ "results": results }));
    }
    Ok(Answer::Yes)
}

/// Reads a `.npy` file after checking that it is a sample of the model.
fn read_array(path: &Path, preprocessor: &Preprocessor) -> anyhow::Result<Tensor> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut archive = Archive::of_array(path, &name);
    if let Some(Description { dtype, shape }) = archive.describe(&name)? {
        preprocessor.accepts_sample(dtype, &shape).with_context(|| path.display().to_string())?;
    }
    let array = archive.read(&name)?;
    let array = array.with_context(|| format!("{}: contains no array", path.display()))?;
    bundles::cast(array, &name, path, preprocessor)
}

/// Runs one inference; an error names the file.
fn once(
    session: &mut Session,
    input: &str,
    tensor: &Tensor,
    path: &Path,
) -> anyhow::Result<Outputs> {
    session.run(&[(input, tensor)]).with_context(|| path.display().to_string())
}

/// Writes the outputs to the file of `--output`, if it is given.
fn write(arguments: &Run, outputs: &Outputs) -> anyhow::Result<()> {
    if let Some(path) = &arguments.output {
        let arrays = outputs.iter().map(|(name, tensor)| (name.as_str(), tensor));
        if file::is_stdout(path) {
            let mut output = Output::new(path)?;
            arrays::write_npz_to(&mut output, arrays)?;
            output.put()?;
        } else {
            arrays::write_npz(path, arrays)?;
        }
    }
    Ok(())
}

/// Formats the result of one inference.
fn line(path: &Path, time: Option<f64>, best: Option<&[Class<'_>]>, outputs: &Outputs) -> String {
    let mut text = plain(&path.display().to_string()).into_owned();
    if let Some(time) = time {
        text += &format!(" {time:.3} s");
    }
    match best {
        Some(best) => {
            let named: Vec<String> = best
                .iter()
                .map(|class| match class.label {
                    Some(label) => format!("{} {:.3}", plain(label), class.score),
                    None => format!("class {} {:.3}", class.index, class.score),
                })
                .collect();
            text += &format!(": {}", named.join(", "));
        }
        // A stream with one number per inference is printed one line per inference.
        None if time.is_some() && outputs[0].1.len() == 1 => {
            text += &format!(": {:.4}", outputs[0].1.to_f32()[0]);
        }
        None => text += &format!("\n{}", shown(outputs)),
    }
    text
}

/// Formats each output: name, type, shape and the first elements.
fn shown(outputs: &Outputs) -> String {
    let line = |(name, tensor): &(String, Tensor)| {
        let values = tensor.to_f32();
        let first: Vec<String> = values.iter().take(SHOWN).map(|x| format!("{x}")).collect();
        let more = if values.len() > SHOWN { ", …" } else { "" };
        let (name, dtype, first) = (plain(name), tensor.dtype(), first.join(", "));
        format!("{name}: {dtype} {:?} = {first}{more}\n", tensor.shape())
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
