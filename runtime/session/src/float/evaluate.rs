//! Computations that the converter does ahead of time.

use std::sync::Arc;

use hardtack_bundle::graph::Node;
use tract_core::internal::*;

use super::budget::Budget;
use super::dims::{SymbolNames, Symbols};
use super::error::{Error, Problem, guard, tract};
use super::load::{Context, Loader, Purpose};
use super::optimize::declutter;
use super::plan::{check, engines};
use super::save::save;
use super::tensors::{constant_to_tract, from_tract};
use super::translate;
use crate::Limits;
use crate::backend::Backend;
use crate::model::{Constant, Model};

/// Simplifies a model independently of the machine, so that planning it is fast. Constants that are
/// stored as integers or in half precision stay so unless an operation needs another type. The
/// constants of `model` are freed before those of the result are created.
///
/// # Errors
/// Returns an error if the model is malformed, or [`Error::NoPlace`] if a bundle cannot represent
/// its simplified form. In the latter case the original model is still usable.
pub fn prepare(model: Model) -> Result<Model, Error> {
    check(&model)?;
    let backend = Backend::detect();
    let engines = engines(&model, &backend, &Limits::default())?;
    let limit = Limits::default().memory_bytes;
    let budget = Budget::of_memory(limit);
    let loader = Loader::new(&model, &engines, &backend, &[], Purpose::Save, budget);
    let mut simple = loader.model(None)?;
    let output_names = model.graph.output_names.clone();
    drop(model);
    guard("simplifying the model", || {
        declutter(&mut simple, &Budget::of_memory(u64::MAX)).map_err(tract("simplifying the model"))
    })?;
    let mut saved = save(&simple)?;
    saved.graph.output_names = output_names;
    Ok(saved)
}

/// Evaluates a single node, other than an input or a loop, on constants. `model` provides what the
/// attributes of the node refer to.
///
/// # Errors
/// Returns an error if the node does not match the inputs, or if its value depends on more than
/// them.
pub fn evaluate(model: &Model, node: &Node, inputs: &[Constant]) -> Result<Vec<Constant>, Error> {
    let limit = Limits::default().memory_bytes;
    let wrong = |problem: Problem| Error::Node {
        node: node.name.clone(),
        operator: node.operator.name(),
        problem: problem.to_string(),
    };
    guard("computing a constant", || {
        let backend = Backend::detect();
        let engines = engines(model, &backend, &Limits::default())?;
        let loader =
            Loader::new(model, &engines, &backend, &[], Purpose::Run, Budget::of_memory(limit));
        run(&loader, node, inputs).map_err(wrong)
    })
}

fn run(loader: &Loader<'_>, node: &Node, inputs: &[Constant]) -> Result<Vec<Constant>, Problem> {
    let symbols: &Symbols = &loader.symbols;
    let mut values = tvec!();
    let mut facts = vec![];
    for input in inputs {
        let dtype = match input {
            Constant::Tensor(tensor) => tensor.dtype(),
            Constant::Stored(stored) => stored.dtype(),
            Constant::Dims { .. } => hardtack_bundle::DType::Dim,
        };
        let value = constant_to_tract(input, dtype, symbols)?.into_arc_tensor();
        facts.push(TypedFact::try_from(value.clone())?);
        values.push(value.into_tvalue());
    }
    let facts: Vec<&TypedFact> = facts.iter().collect();
    let op = translate::load(&Context { loader, node, inputs: &facts, stated: &[] })?;
    for fact in op.output_facts(&facts)? {
        let Some(shape) = fact.shape.as_concrete() else { continue };
        let size = fact.datum_type.size_of() as u64;
        let bytes = shape.iter().fold(size, |bytes, dim| bytes.saturating_mul(*dim as u64));
        if bytes > loader.limit {
            return Err(Problem::TooLarge(bytes));
        }
    }
    let outputs = op.eval(&EvalContext::out_of_plan(), values)?;
    let mut names = SymbolNames(loader.model.graph.symbols.clone());
    let known = names.0.len();
    let outputs = outputs.iter().map(|output| constant(output, &mut names)).collect();
    if names.0.len() > known {
        return Err("its value has symbols that the model does not have".into());
    }
    outputs
}

fn constant(tensor: &Tensor, names: &mut SymbolNames) -> Result<Constant, Problem> {
    if tensor.datum_type().is_tdim() {
        let values = names.dims(tensor.try_as_plain_ram()?.as_slice::<TDim>()?);
        return Ok(Constant::Dims { shape: tensor.shape().into(), values });
    }
    Ok(Constant::Tensor(Arc::new(from_tract(tensor)?)))
}
