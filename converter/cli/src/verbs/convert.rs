//! `hardtack convert`.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use hardtack_converter::guard;
use hardtack_converter::import::ImportError;
use hardtack_converter::spec::{self, Spec};
use hardtack_converter::{ConvertOptions, Error, FloatStorage, MatrixStorage, Progress, Report};
use hardtack_converter::{QuantizeOptions, Rounding};
use serde_json::json;

use crate::arguments::{Convert, Float, MaxError, Weights};
use crate::output::{print, say};
use crate::support::compare::{Baseline, Comparison};
use crate::support::frontier::{self, Point};
use crate::support::gates::Gates;
use crate::support::progress::Bar;
use crate::support::staged_output::StagedOutput;
use crate::support::summary::text;
use crate::{
    output,
    output::Answer,
    report,
    support::{bundles, foreign},
};

/// The output errors that `--max-error auto` tries, in this order, until the accuracy is kept.
pub const ERRORS: [f64; 6] = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005];

pub fn convert(arguments: &Convert, as_json: bool) -> anyhow::Result<Answer> {
    let path = &arguments.model;
    if let Some(kind) = foreign::kind(path) {
        return Ok(refused(path, &format!("is {}; {}", kind.is, kind.advice), as_json));
    }
    output::file::check(&arguments.outputs(), &arguments.inputs(), as_json)?;
    let options = options(arguments)?;
    if !arguments.frontier.is_empty() && options.quantize.rounding == Rounding::Nearest {
        bail!("--frontier needs --rounding adaptive, like --weight-bits");
    }
    let gates = Gates::of(&arguments.gates, arguments.evaluate.is_some())?;
    let keep = match (arguments.quantize.max_error, gates.drop()) {
        (Some(MaxError::Auto), None) => {
            bail!("--max-error auto needs an accuracy to keep; give --max-drop and --evaluate")
        }
        (Some(MaxError::Auto), drop) => drop,
        _ => None,
    };
    // A bundle that may fail a gate is staged in a temporary folder first.
    let mut judged = None;
    if !gates.is_empty() {
        judged = Some(StagedOutput::new(arguments, gates.need_transport())?);
    }
    let converted = converted(arguments, &options, keep, judged.as_ref(), as_json);
    let Converted { mut report, comparison, frontier } = match converted {
        Ok(converted) => converted,
        Err(error) => return refusal(path, error.downcast()?, as_json),
    };
    let unused = unused(arguments, &report);
    report.warnings.extend(unused);
    if let Some(aside) = judged {
        let missed = gates.missed(&aside.bundle(), &report, comparison.as_ref())?;
        if !missed.is_empty() {
            if as_json {
                let mut value = serde_json::to_value(&report)?;
                value["comparison"] = serde_json::to_value(&comparison)?;
                value["missed"] = serde_json::to_value(&missed)?;
                output::json(&value);
            }
            for sentence in &missed {
                say(&format!("{}: {sentence}", path.display()));
            }
            say("no bundle was written");
            return Ok(Answer::No);
        }
        aside.put_in_place(arguments)?;
    }
    if let Some(page) = &arguments.report {
        report::write(page, &report, comparison.as_ref(), &frontier, &arguments.output)?;
    }
    if as_json {
        let mut value = serde_json::to_value(&report)?;
        value["comparison"] = serde_json::to_value(&comparison)?;
        if !frontier.is_empty() {
            value["frontier"] = serde_json::to_value(&frontier)?;
        }
        output::json(&value);
    } else {
        print(&text(&report, arguments));
        print(&comparison.as_ref().map(Comparison::text).unwrap_or_default());
        if !frontier.is_empty() {
            print(&frontier::text(&frontier));
        }
    }
    for warning in &report.warnings {
        say(&format!("warning: {warning}"));
    }
    Ok(Answer::Yes)
}

/// The results of a conversion.
struct Converted {
    report: Report,
    comparison: Option<Comparison>,
    frontier: Vec<Point>,
}

/// Converts the model, and compares it with the float model if `--evaluate` is given. Labeled data
/// are checked before the bundle is written. If top-1 accuracy drops by more than `keep` (a
/// fraction), converts again with smaller and smaller output errors.
fn converted(
    arguments: &Convert,
    options: &ConvertOptions,
    keep: Option<f64>,
    aside: Option<&StagedOutput>,
    quiet: bool,
) -> anyhow::Result<Converted> {
    let model = &arguments.model;
    let mut options = options.clone();
    let mut output = arguments.output.clone();
    if let Some(aside) = aside {
        output = aside.bundle();
        options.transport = aside.transport();
    }
    let output = &output;
    let mut bar = Bar::new(quiet);
    let baseline = match &arguments.evaluate {
        Some(data) => {
            let folder = temporary()?;
            let float = folder.path().join("float.tack");
            hardtack_converter::convert(model, &float, &in_float(&options), &mut bar)?;
            Progress::stage(&mut bar, "evaluate the float model");
            let float = bundles::open(&float)?;
            let states_scales = float.manifest()?.arena_bytes > 0;
            Some((Baseline::of(&float, model, data)?, states_scales))
        }
        None => None,
    };
    let mut report = hardtack_converter::convert(model, output, &options, &mut bar)?;
    if keep.is_some() && !has_integers(&report) {
        bail!("--max-error requires INT8; add --int8");
    }
    let Some((baseline, states_scales)) = baseline else {
        return Ok(Converted { report, comparison: None, frontier: Vec::new() });
    };
    let compare = |bar: &mut Bar| {
        Progress::stage(bar, "evaluate");
        baseline.compare(&bundles::open(output)?, output)
    };
    let mut comparison = compare(&mut bar)?;
    for error in ERRORS {
        let kept = |(drop, keep): (f64, f64)| drop <= keep + 1e-12;
        if comparison.drop().zip(keep).is_none_or(kept) {
            break;
        }
        options.quantize.max_error = Some(error);
        report = hardtack_converter::convert(model, output, &options, &mut bar)?;
        comparison = compare(&mut bar)?;
    }
    if states_scales {
        report.warnings.push(
            "the model is pre-quantized and runs in integers with or without --int8, so the \
             comparison is not with a float model"
                .into(),
        );
    }
    let frontier = frontier::measure(model, &options, &baseline, &arguments.frontier, &mut bar)?;
    Ok(Converted { report, comparison: Some(comparison), frontier })
}

/// Returns whether the conversion lowered parts of the model to integer programs.
fn has_integers(report: &Report) -> bool {
    report.stages.iter().any(|stage| stage.name == "quantize")
}

/// Returns a warning if options have no effect because the model stays in float.
fn unused(arguments: &Convert, report: &Report) -> Option<String> {
    let Convert { target, arena_limit, gates, .. } = arguments;
    let options = [
        ("--target", target.packing.is_some() || target.arena.is_some()),
        ("--arena-limit", arena_limit.is_some()),
        ("--max-arena", gates.max_arena.is_some()),
    ];
    let given = options.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    let given: Vec<&str> = given.collect();
    if given.is_empty() || has_integers(report) {
        return None;
    }
    Some(format!(
        "{}: the model stays in float, so this has no effect; add --int8 to quantize it",
        given.join(" and ")
    ))
}

/// Creates a folder for temporary files.
///
/// # Errors
/// If the folder cannot be created.
pub fn temporary() -> anyhow::Result<tempfile::TempDir> {
    tempfile::tempdir().with_context(|| {
        let folder = guard::temporary_folder();
        format!(
            "{}: cannot write temporary files; free some space, or set TMPDIR to another folder",
            folder.display()
        )
    })
}

/// Returns the options of the same conversion without quantization, pruning and packing.
fn in_float(options: &ConvertOptions) -> ConvertOptions {
    ConvertOptions {
        int8: false,
        integer_io: false,
        arena_limit: None,
        packing: None,
        float: FloatStorage::F32,
        weights: None,
        dynamic: false,
        matrix_bits: None,
        samples: options.samples.min(1),
        prune_channels: None,
        transport: None,
        quantize: QuantizeOptions::default(),
        ..options.clone()
    }
}

/// Returns whether the model is the cause of an error, and not the options, the data or a file.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Import(error) => match error {
            ImportError::Stopped(stopped) => stopped.cause.is_the_model(),
            ImportError::Read { .. }
            | ImportError::ExternalData { .. }
            | ImportError::Setting { .. }
            | ImportError::Temporary { .. }
            | ImportError::Process(_) => false,
            _ => true,
        },
        Error::Accuracy(_)
        | Error::Parity { .. }
        | Error::Input { .. }
        | Error::TooManyMacs { .. }
        | Error::Memory { .. }
        | Error::OutOfMemory { .. }
        | Error::Session(_)
        | Error::TestVectors { .. }
        | Error::Transport(_)
        | Error::Bundle(_)
        | Error::Run(_) => true,
        _ => false,
    }
}

/// Reports that a model is refused, in one sentence.
fn refused(path: &Path, sentence: &str, as_json: bool) -> Answer {
    if as_json {
        output::json(&json!({ "model": path, "refused": sentence }));
    }
    say(&named(path, sentence));
    Answer::No
}

/// Returns a sentence that begins with the path of the model, unless it names the path already.
fn named(path: &Path, sentence: &str) -> String {
    let path = path.display().to_string();
    if sentence.contains(&path) { sentence.into() } else { format!("{path}: {sentence}") }
}

/// Reports a model that cannot be converted and returns [`Answer::No`]. Returns all other errors.
pub fn refusal(path: &Path, error: Error, as_json: bool) -> anyhow::Result<Answer> {
    match &error {
        Error::Import(ImportError::Unsupported(operators)) => {
            if as_json {
                let list: Vec<_> = operators
                    .iter()
                    .map(|of| json!({ "operator": of.operator, "nodes": of.nodes, "reason": of.reason }))
                    .collect();
                output::json(&json!({ "model": path, "unsupported": list }));
            }
            say(&named(path, &error.to_string()));
            Ok(Answer::No)
        }
        error if is_refusal(error) => Ok(refused(path, &error.to_string(), as_json)),
        // These errors name their file themselves.
        Error::Arrays(_)
        | Error::Spec(_)
        | Error::Read { .. }
        | Error::Write { .. }
        | Error::NoFolder { .. }
        | Error::Data { .. } => Err(anyhow!(error)),
        _ if error.to_string().contains(&path.display().to_string()) => Err(anyhow!(error)),
        _ => Err(anyhow!(error).context(path.display().to_string())),
    }
}

/// Returns the options of the converter.
fn options(arguments: &Convert) -> anyhow::Result<ConvertOptions> {
    let spec = arguments.pre.as_deref().map(Spec::read).transpose()?;
    let calibration = arguments.data_pre.as_deref().map(Spec::read).transpose()?;
    let labels = match (&arguments.labels, &spec) {
        (Some(path), _) => spec::read_labels(path)?,
        (None, Some(spec)) => spec.labels.clone(),
        (None, None) => Vec::new(),
    };
    if let Some(spec) = &calibration
        && spec.preprocess.is_none()
    {
        bail!("--data-pre: the file has no pre-processing; add [image], [audio] or [array]");
    }
    let quantize = arguments.quantize.settings();
    let weights = arguments.weights.map(|weights| match weights {
        Weights::Float => MatrixStorage::Float,
        Weights::Int8 => MatrixStorage::Int8,
        Weights::Int4 => MatrixStorage::Int4,
    });
    let matrix_bits = quantize.weight_bits;
    // 8 bits is the full resolution: nothing to allocate.
    Ok(ConvertOptions {
        name: arguments.name.clone(),
        version: arguments.model_version.clone(),
        set: arguments.set.clone(),
        prune_channels: arguments.prune_channels,
        int8: arguments.int8,
        calibration: arguments.data.clone(),
        calibration_preprocess: calibration.and_then(|spec| spec.preprocess),
        samples: arguments.samples as usize,
        measure: None,
        quantize,
        float: match arguments.float {
            Float::F32 => FloatStorage::F32,
            Float::F16 => FloatStorage::F16,
            Float::Bf16 => FloatStorage::Bf16,
        },
        weights,
        dynamic: arguments.dynamic,
        matrix_bits,
        preprocess: spec.as_ref().and_then(|spec| spec.preprocess.clone()),
        postprocess: spec.as_ref().and_then(|spec| spec.postprocess),
        labels,
        states: arguments.state.clone(),
        arena_limit: arguments.arena_limit.or(arguments.target.arena),
        packing: arguments.target.packing,
        dense: arguments.dense,
        integer_io: arguments.integer_io,
        transport: arguments.transport.clone(),
        guarded: true,
        import_limits: arguments.limits.of_import(),
    })
}
