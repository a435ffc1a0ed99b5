//! Evaluates nodes on constants while a model is loaded.

use hardtack_bundle::graph::{Graph, Node, Operator};
use tract_core::internal::*;
use tract_core::optim::CONST_FOLD_MEM_BUDGET;

use super::custom_ops::{Dequantize, DequantizeBlocks, Late, Unpack};
use super::error::Problem;
use super::load::{Loader, Purpose};
use super::measure::check_dims;
use super::value_size;
use super::work::Counter;

/// A node is evaluated while loading if all of its inputs are constants of fewer elements than
/// this. tract uses the same threshold.
const EAGER_ELEMENTS: usize = 16;

/// A node is costly if it takes more operations than this for each byte that it reads or writes.
const COSTLY: u64 = 64;

impl Loader<'_> {
    /// Returns the outputs of a node if they are known before the model runs. Their bytes count
    /// against the memory limit before they are computed, since they stay until the model is freed.
    pub(super) fn values(
        &self,
        op: &dyn TypedOp,
        inputs: &[&TypedFact],
        outputs: &[TypedFact],
    ) -> Result<Option<TVec<TValue>>, Problem> {
        let values = match self.nothing(outputs)? {
            Some(values) => Some(values),
            None => self.fold(op, inputs, outputs)?,
        };
        for value in values.iter().flatten().filter(|value| value.datum_type().is_tdim()) {
            let dims = value.try_as_plain_ram()?;
            for dim in dims.as_slice::<TDim>()? {
                check_dims(std::iter::once(std::slice::from_ref(dim)))?;
            }
        }
        Ok(values)
    }

    /// Returns the outputs of a node if none of them has any element.
    fn nothing(&self, facts: &[TypedFact]) -> Result<Option<TVec<TValue>>, Problem> {
        let shapes: Option<Vec<&[usize]>> =
            facts.iter().map(|fact| fact.shape.as_concrete().filter(|s| s.contains(&0))).collect();
        let Some(shapes) = shapes.filter(|_| self.purpose == Purpose::Run) else { return Ok(None) };
        let values = facts
            .iter()
            .zip(shapes)
            .map(|(fact, shape)| Ok(Tensor::zero_dt(fact.datum_type, shape)?.into_tvalue()));
        values.collect::<Result<_, Problem>>().map(Some)
    }

    /// Evaluates a node if its inputs are all constant and small, or are to be dequantized.
    fn fold(
        &self,
        op: &dyn TypedOp,
        inputs: &[&TypedFact],
        outputs: &[TypedFact],
    ) -> Result<Option<TVec<TValue>>, Problem> {
        let Some(values) = inputs.iter().map(|fact| fact.konst.clone()).collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        // Dimensions are always computed here, where it is seen how they grow.
        let small = values.iter().all(|value| value.volume() < EAGER_ELEMENTS)
            || values.iter().any(|value| value.datum_type().is_tdim());
        let values: TVec<TValue> = values.into_iter().map(|value| value.into_tvalue()).collect();
        if op.is::<Dequantize>() || op.is::<DequantizeBlocks>() || op.is::<Unpack>() {
            if self.purpose != Purpose::Run {
                return Ok(None);
            }
            self.take_memory(outputs.iter().map(bytes).fold(0, u64::saturating_add))?;
            self.used.check_memory(scratch(op, inputs, outputs), &self.budget)?;
            return Ok(Some(op.eval(&EvalContext::out_of_plan(), values)?));
        }
        if values.is_empty() || !small {
            return Ok(None);
        }
        self.take_memory(outputs.iter().map(bytes).fold(0, u64::saturating_add))?;
        // If the operator cannot be evaluated here, it is evaluated when the model runs.
        Ok(op.eval_out_of_plan(values).unwrap_or(None))
    }

    /// Prepares an operation whose inputs depend on constants only. tract evaluates it while it
    /// optimizes, without a limit of time, and once in every pass if it then discards the result.
    pub(super) fn bound_constant(
        &self,
        op: Box<dyn TypedOp>,
        (graph, node): (&Graph, &Node),
        inputs: &[&TypedFact],
        outputs: &[TypedFact],
    ) -> Result<Box<dyn TypedOp>, Problem> {
        let nested =
            matches!(node.operator, Operator::Scan(_) | Operator::If(_) | Operator::Program(_));
        // tract does not evaluate operations that keep a state.
        if nested {
            return Ok(op);
        }
        let sum = |facts: &mut dyn Iterator<Item = &TypedFact>| {
            facts.map(bytes).fold(0, u64::saturating_add)
        };
        let (read, written) = (sum(&mut inputs.iter().copied()), sum(&mut outputs.iter()));
        let operations =
            Counter::new(&self.model.graph, self.symbols.values(), 0).cost(graph, node);
        let discarded = written > read.max(CONST_FOLD_MEM_BUDGET);
        if operations <= COSTLY.saturating_mul(read.saturating_add(written)) {
            let late = discarded && self.used.discard(written);
            return Ok(if late { Box::new(Late::new(op)) } else { op });
        }
        self.used.take_operations(operations)?;
        Ok(if discarded { Box::new(Late::new(op)) } else { op })
    }

    fn take_memory(&self, bytes: u64) -> Result<(), Problem> {
        Ok(self.used.take_memory(bytes, &self.budget)?)
    }
}

/// Returns the bytes that dequantizing takes besides its output: copies of the parameters as f32
/// and i64, and elements that are f32 before they get the type of the output.
fn scratch(op: &dyn TypedOp, inputs: &[&TypedFact], outputs: &[TypedFact]) -> u64 {
    const PARAMETER: u64 = 2 * (size_of::<f32>() + size_of::<i64>()) as u64;
    let elements = |fact: &TypedFact| bytes(fact) / value_size::element(fact.datum_type);
    let parameters = match op.downcast_ref::<Dequantize>() {
        // A single parameter is repeated along the axis.
        Some(op) => op.axis.and_then(|axis| inputs[0].shape[axis].as_i64()).unwrap_or(1) as u64,
        None => inputs.get(1).map_or(0, |scale| elements(scale)),
    };
    let cast = outputs
        .iter()
        .filter(|output| output.datum_type.is_float() && output.datum_type != DatumType::F32);
    let cast = cast.map(|output| elements(output).saturating_mul(size_of::<f32>() as u64));
    cast.fold(parameters.saturating_mul(PARAMETER), u64::saturating_add)
}

/// Returns the size of a value, or 0 if it is unknown. Saturates.
fn bytes(fact: &TypedFact) -> u64 {
    let Some(shape) = fact.shape.as_concrete() else { return 0 };
    let element = value_size::element(fact.datum_type);
    shape.iter().fold(element, |bytes, dim| bytes.saturating_mul(*dim as u64))
}
