//! Post-training static quantization to INT8: activations by their range over calibration data,
//! weights per output channel, and as much of the graph as can be as programs of the engine.
//!
//! Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, has the scheme.

pub mod arena;
mod assemble;
mod calibrate;
mod clip;
mod error;
mod function;
mod fuse;
mod histogram;
pub mod integer_io;
mod lattice;
pub mod lookup;
mod lower;
pub mod matrices;
mod mixed;
mod moments;
mod rate;
mod region;
mod round;
mod scale;
mod sparse;
#[cfg(test)]
mod tests;
mod weights;

use hardtack::{Model, Tensor};
use hardtack_bundle::graph::{Operator, Outlet};

use self::calibrate::Calibration;
use self::region::Refused;
use crate::edit::Editor;
use crate::error::Error;
use crate::observe::Observer;
use crate::outline::outline;
use crate::report::{GraphNode, LayerReport};

pub use self::clip::Method;
pub(crate) use self::region::is_constant;
pub use self::sparse::Sparsity;

/// A quantized model.
pub struct Quantized {
    /// The model, with its INT8 regions as programs.
    pub model: Model,
    /// The error of each layer, in the order they run.
    pub layers: Vec<LayerReport>,
    /// The graph that was quantized, and what became of each node.
    pub graph: Vec<GraphNode>,
    /// How many layers had weights of more than eight bits, which were rounded.
    pub rounded_weights: usize,
    /// What stays in float, causes before what follows from them.
    pub left_in_float: Vec<LeftInFloat>,
    /// What the user should know of the calibration.
    pub warnings: Vec<String>,
}

/// A node that stays in float.
pub struct LeftInFloat {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// How a model is quantized.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How the ranges of activations are chosen.
    pub method: Method,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// How many bits a weight may have in the mean, as an entropy; steps become coarser for it, and
    /// the transport form smaller.
    pub weight_bits: Option<f64>,
    /// How many weights become zero; those of depthwise layers all stay.
    pub sparsity: Option<Sparsity>,
    /// Names of nodes that stay in float.
    pub keep_float: Vec<String>,
    /// The most error that the outputs may have over calibration data: root mean square difference
    /// as a part of the root mean square, of the worst output. Layers stay in float to keep it.
    pub max_error: Option<f64>,
}

impl Settings {
    /// What differs from the default, as a bundle's provenance names it.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        let mut text = |name: &str, value: Option<String>| {
            texts.extend(value.map(|value| (name.to_string(), value)));
        };
        text("ranges", (self.method != Method::Auto).then(|| self.method.name().into()));
        text("rounding", (self.rounding == Rounding::Nearest).then(|| "nearest".into()));
        text("weight-bits", self.weight_bits.map(|bits| bits.to_string()));
        text("sparsity", self.sparsity.map(|sparsity| sparsity.to_string()));
        text("max-error", self.max_error.map(|error| format!("{}%", 100.0 * error)));
        self.keep_float.iter().for_each(|node| text("keep-float", Some(node.clone())));
        texts
    }

    /// # Errors
    /// Where one setting takes away what another needs.
    fn check(&self) -> Result<(), Error> {
        let adaptive = self.weight_bits.is_some() || self.sparsity.is_some();
        if self.rounding == Rounding::Nearest && adaptive {
            return Err(Error::Options(
                "--weight-bits and --sparsity need --rounding adaptive: the error they make is \
                 spread among weights"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// How weights are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// So that the outputs of their layer are nearest to the real ones over calibration data.
    #[default]
    Adaptive,
    /// Each to the nearest integer.
    Nearest,
}

/// Quantizes a model; `progress` is told how many of how many parts are done. The error of each
/// layer is that on the samples `measured`.
///
/// Scales that the model does not state come from its values on the samples where these are
/// `calibration`. Where they are not, what only such a scale could run in integers stays in float.
///
/// # Errors
/// Where the model cannot be run on a sample, or its values are not finite.
pub fn quantize(
    model: Model,
    samples: &[Vec<Tensor>],
    measured: &[Vec<Tensor>],
    calibration: bool,
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    settings.check()?;
    let mut editor = Editor::new(model);
    fuse::fuse(&mut editor);
    let model = editor.finish();

    let mut refused = kept(&model, &settings.keep_float)?;
    let regions = region::regions(&model, &mut refused);
    let within = regions.iter().flat_map(|region| &region.nodes);
    let values = within.flat_map(|index| {
        let made = Outlet { node: *index as u32, slot: 0 };
        region::reads(&model, *index).chain([made])
    });
    let mut observer = Observer::new(&model, values)?;
    weights::finite(&model, &regions)?;
    let mut warnings = Vec::new();
    let calibration = match calibration {
        true => {
            let statistics = calibrate::statistics(&mut observer, &model, samples, progress)?;
            warnings.extend(statistics.warning(samples.len()));
            let histograms = statistics.histograms;
            Calibration::new(&model, &regions, histograms, samples, settings, progress)?
        }
        false => Calibration::default(),
    };
    if let Some(budget) = settings.max_error {
        mixed::keep_in_float(&model, &calibration, &mut refused, samples, budget, progress)?;
    }

    let (regions, lowered) = assemble::lower(&model, &calibration, &mut refused);
    let layers = error::measure(&model, &lowered, &calibration, &mut observer, measured)?;
    let graph =
        outline(&model, |index| regions.iter().position(|region| region.nodes.contains(&index)));
    let left_in_float = left_in_float(&model, &refused);
    let rounded_weights = regions.iter().flat_map(|region| &region.nodes);
    let rounded_weights = rounded_weights.filter(|index| weights::wide(&model, **index)).count();
    let model = assemble::assemble(model, &regions, lowered);
    Ok(Quantized { model, layers, graph, rounded_weights, left_in_float, warnings })
}

/// The nodes that the user keeps in float, each with the functions that follow it.
fn kept(model: &Model, names: &[String]) -> Result<Refused, Error> {
    let mut refused = Refused::new();
    for name in names {
        let nodes = &model.graph.nodes;
        let Some(index) = nodes.iter().position(|node| node.name == *name) else {
            let alike = nodes.iter().filter(|node| {
                let (a, b) = (node.name.to_lowercase(), name.to_lowercase());
                !matches!(node.operator, Operator::Constant(_))
                    && (a.contains(&b) || b.contains(&a))
            });
            let alike: Vec<&str> = alike.map(|node| node.name.as_str()).take(5).collect();
            return Err(Error::Options(format!(
                "--keep-float {name:?}: the model has no node of that name{}; `hardtack inspect \
                 --nodes` lists those of a float bundle",
                match alike[..] {
                    [] => String::new(),
                    _ => format!(" (it has {})", alike.join(", ")),
                }
            )));
        };
        for node in mixed::with_followers(model, index) {
            refused.insert(node, "kept in float as asked".into());
        }
    }
    Ok(refused)
}

fn left_in_float(model: &Model, refused: &Refused) -> Vec<LeftInFloat> {
    let mut left: Vec<(&usize, &String)> = refused.iter().collect();
    left.sort_by_key(|(index, reason)| (region::follows_others(reason), **index));
    left.into_iter()
        .map(|(index, reason)| {
            let node = &model.graph.nodes[*index];
            LeftInFloat {
                node: node.name.clone(),
                operator: node.operator.name().into(),
                reason: reason.clone(),
            }
        })
        .collect()
}
