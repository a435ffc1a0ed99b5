//! Runs a part of a float graph on our own kernels, as a tract operation.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Graph, ValueId};
use hardtack_float::{Constants, Plan, Region, is_constant, regions};
use hardtack_kernels::Isa;
use hardtack_kernels::float::Kernels;
use tract_core::internal::*;

use crate::Data;
use crate::backend::Backend;
use crate::float::budget::Budget;
use crate::float::run::control;
use crate::limits::Stopped;
use crate::model::{Constant, Model};

/// The number of nodes that may turn out to be unsuitable before the rest is left to tract.
const MOST_REFUSED: usize = 64;

/// The regions of a model, compiled for the shapes of its inputs.
#[derive(Clone, Debug, Default)]
pub(in crate::float) struct Regions(pub Vec<(Region, Arc<Plan>)>);

impl Regions {
    /// Compiles the regions of a model. `symbols` holds the values of the graph's symbols.
    ///
    /// # Errors
    /// Returns an error if the control stops the preparation.
    pub fn compile(
        model: &Model,
        symbols: &[Option<i64>],
        backend: &Backend,
        budget: &Budget,
    ) -> Result<Self, Stopped> {
        let kernels = match backend.isa() {
            // Without instructions for a fused multiply-add, tract is faster.
            Isa::Scalar => None,
            isa => Kernels::for_isa(isa),
        };
        let Some(kernels) = kernels else { return Ok(Self::default()) };
        let (mut refused, mut compiled) = (BTreeSet::new(), Vec::<(Region, Arc<Plan>)>::new());
        'again: while refused.len() < MOST_REFUSED {
            budget.control.check()?;
            let found = regions(&model.graph, &refused);
            // Plans of regions that are the same as before need not be compiled again.
            let before = std::mem::take(&mut compiled);
            for region in found {
                let known = before.iter().find(|(other, _)| *other == region);
                let plan = match known {
                    Some((_, plan)) => plan.clone(),
                    None => match Plan::new(
                        &model.graph,
                        &region,
                        symbols,
                        model,
                        kernels,
                        budget.memory,
                    ) {
                        Ok(plan) => Arc::new(plan),
                        Err(node) => {
                            refused.insert(node);
                            compiled = before;
                            continue 'again;
                        }
                    },
                };
                compiled.push((region, plan));
            }
            return Ok(Self(compiled));
        }
        Ok(Self::default())
    }

    /// Returns the bytes of packed weights and arenas.
    pub fn bytes(&self) -> u64 {
        let plans = self.0.iter().map(|(_, plan)| {
            (plan.constant_bytes() as u64).saturating_add(4 * plan.arena_elements() as u64)
        });
        plans.fold(0, u64::saturating_add)
    }
}

/// A step of the conversion to tract.
pub(in crate::float) enum Unit<'r> {
    /// The node with this index.
    Node(usize),
    Region(&'r (Region, Arc<Plan>)),
}

impl Regions {
    /// Returns the nodes outside of regions, and the regions, each after what it reads. Constants
    /// that only regions read are left out.
    pub fn order<'r>(&'r self, graph: &Graph) -> Vec<Unit<'r>> {
        let mut region_of = vec![None; graph.nodes.len()];
        for (region, (nodes, _)) in self.0.iter().enumerate() {
            nodes.nodes.iter().for_each(|node| region_of[*node as usize] = Some(region));
        }
        // Constants that something outside of regions reads, directly or dequantized.
        let constant = |index: usize| is_constant(graph, ValueId { node: index as u32, output: 0 });
        let mut is_read = vec![false; graph.nodes.len()];
        graph.outputs.iter().for_each(|output| is_read[output.node as usize] = true);
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            if region_of[index].is_none() && (is_read[index] || !constant(index)) {
                node.inputs.iter().for_each(|input| is_read[input.node as usize] = true);
            }
        }
        let mut order = Vec::with_capacity(graph.nodes.len());
        let mut done = vec![false; graph.nodes.len()];
        // Nodes whose inputs a later region computes wait for it. There are few regions, so there
        // are few rounds.
        let mut waiting: Vec<usize> = (0..graph.nodes.len()).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|index| {
                let node = &graph.nodes[*index];
                if let Some(region) = region_of[*index] {
                    let unit = &self.0[region];
                    let ready = unit.0.inputs.iter().all(|input| done[input.node as usize]);
                    if ready && !done[*index] {
                        unit.0.nodes.iter().for_each(|node| done[*node as usize] = true);
                        order.push(Unit::Region(unit));
                    }
                    return !ready;
                }
                let ready = node.inputs.iter().all(|input| done[input.node as usize]);
                if ready {
                    done[*index] = true;
                    let unused = constant(*index) && !is_read[*index];
                    if !unused || self.0.is_empty() {
                        order.push(Unit::Node(*index));
                    }
                }
                !ready
            });
            if waiting.len() == before {
                // Cannot happen, because no path leaves a region and comes back.
                break;
            }
        }
        order
    }
}

impl Constants for Model {
    fn values(&self, index: u32) -> Option<Cow<'_, [f32]>> {
        let index = index as usize;
        let dtype = self.graph.constants.get(index)?.dtype;
        if !matches!(dtype, DType::F32 | DType::I8 | DType::U8) {
            return None;
        }
        match self.constants.get(index)? {
            Constant::Tensor(tensor) => floats_of(tensor),
            Constant::Stored(stored) => floats(stored.dtype(), stored.bytes()),
            Constant::Dims { .. } => None,
        }
    }
}

/// Returns the elements of a tensor as f32.
fn floats_of(tensor: &crate::Tensor) -> Option<Cow<'_, [f32]>> {
    match tensor.data() {
        Data::F32(values) => Some(Cow::Borrowed(values)),
        Data::F16(_) | Data::BF16(_) | Data::I8(_) | Data::U8(_) => {
            Some(Cow::Owned(tensor.to_f32()))
        }
        _ => None,
    }
}

/// Returns little-endian elements as f32.
fn floats(dtype: DType, bytes: &[u8]) -> Option<Cow<'_, [f32]>> {
    let halves = |convert: fn([u8; 2]) -> f32| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        rest.is_empty().then(|| pairs.iter().map(|pair| convert(*pair)).collect())
    };
    match dtype {
        DType::F32
            if cfg!(target_endian = "little")
                && bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok() =>
        {
            bytemuck::try_cast_slice(bytes).ok().map(Cow::Borrowed)
        }
        DType::F32 => {
            let (words, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| words.iter().map(|word| f32::from_le_bytes(*word)).collect())
        }
        DType::F16 => halves(|pair| half::f16::from_le_bytes(pair).to_f32()),
        DType::BF16 => halves(|pair| half::bf16::from_le_bytes(pair).to_f32()),
        DType::I8 => Some(bytes.iter().map(|byte| f32::from(*byte as i8)).collect()),
        DType::U8 => Some(bytes.iter().map(|byte| f32::from(*byte)).collect()),
        _ => None,
    }
}

/// A region. Its inputs and outputs are those of the plan.
#[derive(Clone)]
pub(in crate::float) struct RegionOp {
    plan: Arc<Plan>,
    backend: Arc<Backend>,
}

impl RegionOp {
    pub fn new(plan: Arc<Plan>, backend: Arc<Backend>) -> Self {
        Self { plan, backend }
    }

    /// Returns the types and shapes of the outputs.
    pub fn facts(&self) -> TVec<TypedFact> {
        self.plan.output_shapes().map(|shape| f32::datum_type().fact(shape)).collect()
    }
}

impl fmt::Debug for RegionOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionOp({} f32 of arena)", self.plan.arena_elements())
    }
}

impl PartialEq for RegionOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }
}

impl Eq for RegionOp {}

impl Op for RegionOp {
    fn name(&self) -> StaticName {
        "Region".into()
    }

    op_as_typed_op!();
}

impl EvalOp for RegionOp {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let elements = self.plan.arena_elements() + ALIGNMENT;
        let mut arena = Vec::new();
        let reserved = arena.try_reserve_exact(elements);
        reserved.with_context(|| format!("there is no memory for {elements} numbers"))?;
        arena.resize(elements, 0.0);
        Ok(Some(Box::new(Arena(arena))))
    }
}

impl TypedOp for RegionOp {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts())
    }

    as_op!();
}

/// A cache line, in f32.
const ALIGNMENT: usize = 16;

/// The arena of one stream of inferences, with room to align it.
#[derive(Clone, Debug)]
struct Arena(Vec<f32>);

impl OpState for Arena {
    fn eval(
        &mut self,
        context: &EvalContext,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<RegionOp>().context("the state is of another operation")?;
        let shapes = op.plan.input_shapes();
        ensure!(
            shapes.eq(inputs.iter().map(|input| input.shape())),
            "the shapes of its inputs are not those that the graph states"
        );
        let mut outputs: Vec<Tensor> = op
            .plan
            .output_shapes()
            .map(|shape| Tensor::zero_dt(f32::datum_type(), shape))
            .collect::<TractResult<_>>()?;
        let given =
            inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let given =
            given.iter().map(|view| view.as_slice::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let mut views = outputs
            .iter_mut()
            .map(|output| output.try_as_plain_ram_mut())
            .collect::<TractResult<Vec<_>>>()?;
        let mut wanted = views
            .iter_mut()
            .map(|view| view.as_slice_mut::<f32>())
            .collect::<TractResult<Vec<_>>>()?;
        let start = self.0.as_ptr().align_offset(4 * ALIGNMENT).min(ALIGNMENT);
        let control = control(context);
        let pool = op.backend.pool();
        op.plan
            .run(pool, &mut self.0[start..], &given, &mut wanted, &mut || control.check().is_ok());
        control.check()?;
        Ok(outputs.into_iter().map(|output| output.into_tvalue()).collect())
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}
