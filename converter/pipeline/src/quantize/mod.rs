//! Post-training static quantization to INT8: activations by their range over calibration data,
//! weights per output channel, and as much of the graph as can be as programs of the engine.
//!
//! Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, has the scheme.

pub mod arena;
pub(crate) mod calibrate;
mod error;
mod fuse;
pub mod integer_io;
mod lattice;
mod lower;
mod region;
mod scale;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashMap;

use hardtack::{Model, Program, Tensor};
use hardtack_bundle::graph::{Node, Operator, Outlet};

use self::calibrate::Observer;
use self::lower::Lowered;
use self::region::{Refused, Region};
use crate::edit::Editor;
use crate::error::Error;

pub use self::error::LayerError;

/// Samples on which the error of each layer is measured.
const MEASURED: usize = 8;

/// A quantized model.
pub struct Quantized {
    /// The model, with its INT8 regions as programs.
    pub model: Model,
    /// The error of each layer, in the order they run.
    pub layers: Vec<LayerError>,
    /// What stays in float.
    pub left_in_float: Vec<LeftInFloat>,
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

/// Quantizes a model by its values on calibration samples; `progress` is told how many of how
/// many are done.
///
/// # Errors
/// Where the model cannot be run on a sample.
pub fn quantize(
    model: Model,
    samples: &[Vec<Tensor>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, Error> {
    let mut editor = Editor::new(model);
    fuse::fuse(&mut editor);
    let model = editor.finish();

    let mut refused = Refused::new();
    let regions = region::regions(&model, &mut refused);
    let within = regions.iter().flat_map(|region| &region.nodes);
    let values = within.flat_map(|index| {
        let made = Outlet { node: *index as u32, slot: 0 };
        region::reads(&model, *index).chain([made])
    });
    let mut observer = Observer::new(&model, values)?;
    let ranges = calibrate::ranges(&mut observer, samples, progress)?;

    let (regions, lowered) = lower_all(&model, &ranges, &mut refused);
    let measured = &samples[..samples.len().min(MEASURED)];
    let layers = error::measure(&model, &lowered, &mut observer, measured)?;
    let left_in_float = left_in_float(&model, &refused);
    let model = assemble(model, &regions, lowered);
    Ok(Quantized { model, layers, left_in_float })
}

/// Lowers every region. A node that is refused stays in float, and the regions are made anew
/// without it.
fn lower_all(
    model: &Model,
    ranges: &HashMap<Outlet, scale::Range>,
    refused: &mut Refused,
) -> (Vec<Region>, Vec<Lowered>) {
    loop {
        let regions = region::regions(model, refused);
        let lowered: Result<Vec<Lowered>, _> =
            regions.iter().map(|region| lower::lower(model, region, ranges)).collect();
        match lowered {
            Ok(lowered) => return (regions, lowered),
            Err(refusal) => {
                refused.insert(refusal.node, refusal.reason);
            }
        }
    }
}

fn left_in_float(model: &Model, refused: &Refused) -> Vec<LeftInFloat> {
    let mut left: Vec<(&usize, &String)> = refused.iter().collect();
    left.sort();
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

/// Puts programs in place of their regions.
fn assemble(model: Model, regions: &[Region], lowered: Vec<Lowered>) -> Model {
    let mut editor = Editor::new(model);
    for (region, lowered) in regions.iter().zip(lowered) {
        let index = editor.model.programs.len();
        let graph = &editor.model.graph;
        let last = region.nodes.last().map(|last| graph.nodes[*last].name.as_str());
        let program = Node {
            name: format!("{}.int8", last.unwrap_or("program")),
            operator: Operator::Program(index as u32),
            outputs: lowered.outputs.iter().map(|outlet| graph.fact(*outlet).clone()).collect(),
            inputs: lowered.inputs.clone(),
        };
        editor.model.programs.push(Program {
            code: lowered.built.code.into(),
            weights: lowered.built.weights.into(),
            packing: None,
        });
        let node = editor.add(program).node;
        for (slot, outlet) in lowered.outputs.iter().enumerate() {
            editor.redirect(*outlet, Outlet { node, slot: slot as u32 });
        }
    }
    editor.finish()
}
