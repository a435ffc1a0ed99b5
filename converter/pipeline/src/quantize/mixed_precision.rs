//! Mixed precision: chooses which layers use int16 activations or stay in float to meet an error
//! budget, by the measured error of the outputs and the work of the layers.

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Operator, ValueId};

use super::calibrate::Calibration;
use super::float_reason::{FloatReason, FormatChoice, Int16Reason};
use super::function;
use super::lower::assemble;
use super::output_error::{OutputError, Reference};
use super::partition::{self, FloatReasons, Int16Nodes};
use super::work::work;
use crate::error::Error;
use crate::graph::constants::variable_inputs;

/// The number of layers that are tried in a cheaper form again after the search.
const GIVEN_BACK: usize = 12;
/// The maximum number of groups of layers whose formats are chosen.
const MOST_GROUPS: usize = 64;

/// The number format of a layer and the element-wise ops that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberFormat {
    Int8,
    /// INT8 weights with int16 activations.
    Int16,
    /// int16 weights and activations.
    Int16Weights,
    Float,
}

/// The error with one layer quantized and all others in the most precise format of the search.
struct LayerAlone {
    /// The layer in int8.
    int8: OutputError,
    /// The layer in int16; `None` if this is the most precise format.
    int16: Option<OutputError>,
}

/// The factor by which the error may exceed that of int16 weights and activations everywhere, where
/// this exceeds the aim.
const NEAR: f64 = 1.05;

/// Moves layers to int16 activations, and then also to int16 weights, until the outputs are as
/// accurate as the reference asks for, or nearly as accurate as int16 makes them. If an output
/// exceeds its limit even so, moves layers to float instead. Records the reason for each. Without
/// `int16_weights`, all weights keep the bits that they have.
///
/// # Errors
/// Returns an error if the model cannot be run, or no mix meets the budget.
pub(super) fn search(
    model: &Model,
    calibration: &Calibration,
    (int16, float_reasons): (&mut Int16Nodes, &mut FloatReasons),
    (reference, int16_weights): (&Reference<'_>, bool),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let search = Search { model, calibration };
    let integer = reference.compare(&search.mixed(int16, float_reasons, [].into_iter()))?;
    if integer.excess <= 1.0 {
        return Ok(());
    }
    let groups = joined(groups(model, float_reasons));
    let work_of = |group: &Group| group.layers.iter().map(|layer| work(model, *layer)).sum();
    let work: Vec<f64> = groups.iter().map(work_of).collect();
    let mixed = |formats: &[NumberFormat]| {
        search.mixed(int16, float_reasons, groups.iter().zip(formats.iter().copied()))
    };
    let everywhere = |format| reference.compare(&mixed(&vec![format; groups.len()]));
    let mut most = NumberFormat::Int16;
    let mut error = everywhere(most)?;
    if error.excess > 1.0 && int16_weights {
        most = NumberFormat::Int16Weights;
        error = everywhere(most)?;
    }
    let mut reference = reference.clone();
    if error.exceeds_limit {
        most = NumberFormat::Float;
    } else if error.excess > 1.0 {
        reference.relax(NEAR * error.excess);
    }
    let measure = |formats: &[NumberFormat]| reference.compare(&mixed(formats));
    let sketch = |formats: &[NumberFormat]| reference.sketch(&mixed(formats));
    let alones = alones(groups.len(), most, &sketch, progress)?;
    let orders = Orders::of(&alones, &work);
    let (formats, reached) = fitted(&orders, most, &measure)?;
    for ((group, alone), format) in groups.iter().zip(&alones).zip(formats) {
        let choice = FormatChoice {
            int8_error: alone.int8.relative,
            int16_error: alone.int16.map(|int16| int16.relative),
            mix: reached.relative,
            int8: integer.relative,
        };
        group.assign(format, Some(choice), int16, float_reasons);
    }
    Ok(())
}

/// Layers whose number format is chosen together, and the nodes that share it.
#[derive(Default)]
struct Group {
    layers: Vec<usize>,
    /// The layers and the element-wise ops that follow them: these stay in float together.
    float: Vec<usize>,
    /// These and all other arithmetic up to the next layers: int16 is lost at the first node that
    /// does not keep it.
    int16: Vec<usize>,
    /// The softmax nodes among these, which stay in float unless the layers are int8.
    softmax: Vec<usize>,
}

impl Group {
    /// Gives the nodes a format. `choice` has the measurements behind it; `None` while the search
    /// tries formats.
    fn assign(
        &self,
        format: NumberFormat,
        choice: Option<FormatChoice>,
        int16: &mut Int16Nodes,
        float_reasons: &mut FloatReasons,
    ) {
        if format == NumberFormat::Int8 {
            return;
        }
        let softmax = self.softmax.iter();
        float_reasons.extend(softmax.map(|node| (*node, FloatReason::SoftmaxOfInt16)));
        if format == NumberFormat::Float {
            let reason = choice.map_or(FloatReason::KeepFloat, FloatReason::ErrorBudget);
            float_reasons.extend(self.float.iter().map(|node| (*node, reason.clone())));
            return;
        }
        let weights = format == NumberFormat::Int16Weights;
        let reason = match choice {
            None => Int16Reason::Tried,
            Some(choice) if weights => Int16Reason::WithWeights(choice),
            Some(choice) => Int16Reason::ErrorBudget(choice),
        };
        int16.activations.extend(self.int16.iter().map(|node| (*node, reason.clone())));
        if weights {
            int16.weights.extend(&self.layers);
        }
    }
}

/// Returns the layers of the partitions with the nodes that share their format.
fn groups(model: &Model, float_reasons: &mut FloatReasons) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // The groups of the layers whose results reach each node without another layer between.
    let mut reached: HashMap<usize, Vec<usize>> = HashMap::new();
    let partitions = partition::partitions(model, float_reasons);
    let mut nodes: Vec<usize> = partitions.into_iter().flat_map(|p| p.nodes).collect();
    nodes.sort_unstable();
    for node in nodes {
        if matches!(model.graph.nodes[node].operator, Operator::Conv(_) | Operator::Einsum(_)) {
            reached.insert(node, vec![groups.len()]);
            let float = with_followers(model, node);
            let group = Group { layers: vec![node], int16: vec![node], float, ..Group::default() };
            groups.push(group);
            continue;
        }
        let inputs = variable_inputs(model, node);
        let mut own: Vec<usize> = inputs
            .filter_map(|input| reached.get(&(input.node as usize)))
            .flatten()
            .copied()
            .collect();
        own.sort_unstable();
        own.dedup();
        let softmax = matches!(model.graph.nodes[node].operator, Operator::Softmax(_));
        for group in &own {
            groups[*group].int16.push(node);
            groups[*group].softmax.extend(softmax.then_some(node));
        }
        reached.insert(node, own);
    }
    groups
}

/// Joins the groups of layers in a row, so that the time of the search is bounded.
fn joined(groups: Vec<Group>) -> Vec<Group> {
    let size = groups.len().div_ceil(MOST_GROUPS).max(1);
    let mut joined: Vec<Group> = Vec::new();
    for (index, group) in groups.into_iter().enumerate() {
        if index.is_multiple_of(size) {
            joined.push(Group::default());
        }
        let Some(last) = joined.last_mut() else { continue };
        last.layers.extend(group.layers);
        last.float.extend(group.float);
        last.int16.extend(group.int16);
        last.softmax.extend(group.softmax);
    }
    joined
}

/// Measures mixes with a number format for each layer.
type Measure<'m> = dyn Fn(&[NumberFormat]) -> Result<OutputError, Error> + 'm;

/// Measures each layer alone in int8, and in int16 if the other layers are more precise.
fn alones(
    count: usize,
    most: NumberFormat,
    measure: &Measure<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<LayerAlone>, Error> {
    let both = most != NumberFormat::Int16;
    let alone = |layer: usize, format: NumberFormat| {
        let mut formats = vec![most; count];
        formats[layer] = format;
        measure(&formats)
    };
    let steps = count * (1 + usize::from(both));
    let mut alones = Vec::new();
    for layer in 0..count {
        progress(alones.len() * steps / count, steps);
        let int16 = both.then(|| alone(layer, NumberFormat::Int16)).transpose()?;
        alones.push(LayerAlone { int8: alone(layer, NumberFormat::Int8)?, int16 });
    }
    Ok(alones)
}

/// The orders in which layers leave int8, those that need it most first.
struct Orders {
    /// The order in which layers take the most precise format.
    most: Vec<usize>,
    /// The order in which layers become int16.
    int16: Vec<usize>,
}

impl Orders {
    fn of(alones: &[LayerAlone], work: &[f64]) -> Orders {
        // Errors of layers are nearly independent, so their squares add up.
        let first = |error: &dyn Fn(&LayerAlone) -> OutputError| {
            let worth: Vec<f64> = alones
                .iter()
                .zip(work)
                .map(|(alone, work)| error(alone).excess.powi(2) / work.max(1.0))
                .collect();
            let mut order: Vec<usize> = (0..alones.len()).collect();
            order.sort_by(|a, b| worth[*b].total_cmp(&worth[*a]));
            order
        };
        Orders {
            most: first(&|alone| alone.int16.unwrap_or(alone.int8)),
            int16: first(&|alone| alone.int8),
        }
    }

    /// Returns the mix with this number of layers in the most precise format, `int16` of the others
    /// in int16, and the rest in int8.
    fn mix(&self, (most, count): (NumberFormat, usize), int16: usize) -> Vec<NumberFormat> {
        let mut formats = vec![NumberFormat::Int8; self.most.len()];
        self.most[..count].iter().for_each(|layer| formats[*layer] = most);
        let others = self.int16.iter().filter(|layer| !self.most[..count].contains(layer));
        others.take(int16).for_each(|layer| formats[*layer] = NumberFormat::Int16);
        formats
    }
}

/// Returns the mix with the fewest layers in the most precise format and then in int16 that meets
/// the budget, after layers that do not need their format are moved to a cheaper one.
fn fitted(
    orders: &Orders,
    most: NumberFormat,
    measure: &Measure<'_>,
) -> Result<(Vec<NumberFormat>, OutputError), Error> {
    let count = orders.most.len();
    let precise = match most {
        NumberFormat::Int16 => 0,
        _ => fewest(0..count, |precise| measure(&orders.mix((most, precise), count)))?,
    };
    let mix = |int16| orders.mix((most, precise), int16);
    let int16 = fewest(0..count - precise, |int16| measure(&mix(int16)))?;
    let mut formats = mix(int16);
    let mut reached = measure(&formats)?;
    if reached.excess > 1.0 {
        return Err(Error::Options(format!(
            "--max-error {:.2} %: the error is still {:.2} % with all layers in float; \
             allow a larger error",
            100.0 * reached.relative / reached.excess,
            100.0 * reached.relative
        )));
    }
    // The last layers of each order need their format least.
    let last = orders.most[..precise].iter().rev().chain(orders.int16.iter().rev());
    let last: Vec<usize> =
        last.copied().filter(|layer| formats[*layer] != NumberFormat::Int8).collect();
    for layer in last.into_iter().take(GIVEN_BACK) {
        let cheaper: &[NumberFormat] = match formats[layer] {
            NumberFormat::Float | NumberFormat::Int16Weights => {
                &[NumberFormat::Int8, NumberFormat::Int16]
            }
            _ => &[NumberFormat::Int8],
        };
        for format in cheaper {
            let kept = std::mem::replace(&mut formats[layer], *format);
            let measured = measure(&formats)?;
            if measured.excess <= 1.0 {
                reached = measured;
                break;
            }
            formats[layer] = kept;
        }
    }
    Ok((formats, reached))
}

/// Returns the smallest number that meets the budget, or the end of the range if none does.
fn fewest(
    numbers: std::ops::Range<usize>,
    measure: impl Fn(usize) -> Result<OutputError, Error>,
) -> Result<usize, Error> {
    let (mut least, mut enough) = (numbers.start, numbers.end);
    while least < enough {
        let middle = usize::midpoint(least, enough);
        match measure(middle)?.excess <= 1.0 {
            true => enough = middle,
            false => least = middle + 1,
        }
    }
    Ok(enough)
}

/// Returns a layer and the element-wise ops that follow it.
pub(super) fn with_followers(model: &Model, layer: usize) -> Vec<usize> {
    let value = ValueId { node: layer as u32, output: 0 };
    std::iter::once(layer).chain(function::of(model, value)).collect()
}

/// Makes mixes of one model.
struct Search<'a> {
    model: &'a Model,
    calibration: &'a Calibration,
}

impl Search<'_> {
    /// Returns the mix in which these nodes have other forms than chosen so far.
    fn mixed<'n>(
        &self,
        int16: &Int16Nodes,
        float_reasons: &FloatReasons,
        formats: impl Iterator<Item = (&'n Group, NumberFormat)>,
    ) -> Model {
        let (mut int16, mut float_reasons) = (int16.clone(), float_reasons.clone());
        for (group, format) in formats {
            group.assign(format, None, &mut int16, &mut float_reasons);
        }
        assemble::quantized(self.model, self.calibration, &int16, &mut float_reasons)
    }
}
