//! Operations of tract that keep the geometry of their inputs from when the model was optimized.
//!
//! Such an operation computes offsets from the shape that tract knew for its inputs, and then reads
//! and writes by pointer. It never looks at the shape of a tensor again. tract may later replace
//! what computes an input, so the fact of that input no longer says what the operation relies on.
//! The shapes are therefore recorded in the operation itself, in the patch that creates it: the
//! facts of the patch are those from which tract computed the geometry. They are compared with the
//! tensors each time before the operation runs.

use tract_core::internal::*;
use tract_core::ops::cnn::conv::Im2Col;
use tract_core::ops::cnn::{MaxPool, SumPool};
use tract_core::ops::logic::IfThenElse;
use tract_core::ops::scan::{OptScan, Scan};

use super::check::{Check, Fit};
use crate::float::run::control;

/// The operations of tract that read or write by pointer with a geometry of their own.
const FIXED: [&str; 9] = [
    "BlockedConv",
    "DeconvSum",
    "DepthWiseConv",
    "DepthwiseDeconv",
    "DirectSpatialConv",
    "Im2col",
    "LazyIm2col",
    "OptMaxPool",
    "OptSumPool",
];

/// An operation of quantized convolutions, which no graph contains. It reads packed matrices by
/// pointer.
const SUM: &str = "QSumB";

/// An operation with the shapes from which tract computed its geometry.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::float) struct Fixed {
    op: Box<dyn TypedOp>,
    /// The shape of each input; empty if none is fixed.
    shapes: TVec<ShapeFact>,
    /// The windows that must fit in the first input, for a geometry that follows the tensor.
    windows: Option<Check>,
}

impl Eq for Fixed {}

/// Records the shapes of the inputs in every operation of a patch that has a fixed geometry. Call
/// this before the patch is applied.
pub(in crate::float) fn fix_shapes(patch: &mut TypedModel) -> TractResult<()> {
    for index in 0..patch.nodes.len() {
        let node = &patch.nodes[index];
        if node.op_is::<Fixed>() || !FIXED.contains(&&*node.op.name()) {
            continue;
        }
        let facts = patch.node_input_facts(index)?;
        let shapes: TVec<ShapeFact> = facts.into_iter().map(|fact| fact.shape.clone()).collect();
        let gathers = node.op_as::<Im2Col>().filter(|_| shapes[0].as_concrete().is_none());
        let windows = gathers.map(|op| Check::Window(Fit::new(&op.pool_spec, None)));
        patch.nodes[index].op = Box::new(Fixed { op: node.op.clone(), shapes, windows });
    }
    Ok(())
}

/// Checks that every operation with a fixed geometry in an optimized model has its shapes, and adds
/// a check to the pools that follow the shape of their input.
///
/// # Errors
/// Returns an error if an operation is left that cannot run with these checks.
pub(in crate::float) fn check_fixed(model: &mut TypedModel) -> TractResult<()> {
    for index in 0..model.nodes.len() {
        let node = &model.nodes[index];
        let name = node.op.name();
        let pool = node.op_as::<MaxPool>().map(|op| &op.pool_spec);
        if let Some(pool) = pool.or(node.op_as::<SumPool>().map(|op| &op.pool_spec)) {
            let windows = Some(Check::Window(Fit::new(pool, None)));
            // The geometry follows the tensor, so no shape is fixed.
            let fixed = Fixed { op: node.op.clone(), shapes: tvec!(), windows };
            model.nodes[index].op = Box::new(fixed);
            continue;
        }
        let reads = !node.op_is::<Fixed>() && (FIXED.contains(&&*name) || name == SUM);
        // tract runs the bodies of these without the checks of this crate.
        let runs = node.op_is::<IfThenElse>() || node.op_is::<OptScan>() || node.op_is::<Scan>();
        ensure!(!reads && !runs, "node {:?} ({name}) cannot be checked while it runs", node.name);
    }
    Ok(())
}

impl Fixed {
    fn check(&self, inputs: &[TValue], context: &EvalContext) -> TractResult<()> {
        for (input, shape) in inputs.iter().zip(&self.shapes) {
            let same = match shape.as_concrete() {
                Some(shape) => input.shape() == shape,
                None => self.follows(input.shape(), shape, context.symbols),
            };
            let given = input.shape();
            ensure!(same, "it takes an input of shape {shape:?}, but was given {given:?}");
        }
        if let Some(windows) = &self.windows {
            windows.run(inputs, context.symbols)?;
            control(context).check_room(windows.listed_bytes(inputs))?;
        }
        Ok(())
    }

    /// Returns whether a shape is that of the symbols, and the operation can run with it. The
    /// matrix of a convolution is gathered with the geometry of the tensor if a size is unknown, so
    /// it need not have a value before.
    fn follows(&self, given: &[usize], shape: &ShapeFact, symbols: &SymbolValues) -> bool {
        let gathers = self.windows.is_some();
        given.len() == shape.rank()
            && given.iter().zip(shape.iter()).all(|(given, dim)| {
                dim.eval(symbols).as_i64().map_or(gathers, |dim| *given as i64 == dim)
            })
    }
}

impl Op for Fixed {
    fn name(&self) -> StaticName {
        self.op.name()
    }

    fn validation(&self) -> Validation {
        self.op.validation()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.op.info()
    }

    fn required_bound_symbols(&self, inputs: &[&TypedFact]) -> TVec<Symbol> {
        self.op.required_bound_symbols(inputs)
    }

    op_as_typed_op!();
}

impl EvalOp for Fixed {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.check(&inputs, context)?;
        self.op.eval(context, inputs)
    }
}

impl TypedOp for Fixed {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.op.output_facts(inputs)
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec};
    use tract_core::ops::nn::DataFormat;

    use super::*;
    use crate::float::budget::Budget;
    use crate::float::optimize::ready;

    fn spec(kernel: &[usize]) -> PoolSpec {
        PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: kernel.into(),
            padding: PaddingSpec::Valid,
            dilations: None,
            strides: None,
            input_channels: 4,
            output_channels: 4,
        }
    }

    /// An operation and its constant inputs.
    type Reader = (Box<dyn TypedOp>, Vec<Tensor>);

    fn conv(group: usize, kernel: &[usize]) -> Reader {
        let (pool_spec, kernel_fmt) = (spec(kernel), KernelFormat::OIHW);
        let op = Box::new(Conv { pool_spec, kernel_fmt, group, q_params: None });
        (op, weights(&[4, 4 / group, kernel[0], kernel[1]]))
    }

    fn deconv(group: usize) -> Reader {
        let (pool_spec, kernel_format) = (spec(&[2, 3]), KernelFormat::OIHW);
        let op = Box::new(Deconv { pool_spec, kernel_format, adjustments: tvec!(0, 0), group });
        (op, weights(&[4, 4 / group, 2, 3]))
    }

    fn weights(shape: &[usize]) -> Vec<Tensor> {
        vec![Tensor::zero::<f32>(shape).unwrap(), Tensor::zero::<f32>(&[4]).unwrap()]
    }

    /// Every kernel that reads by pointer is wrapped, in a batch of 2, and refuses other shapes.
    #[test]
    fn operations_with_a_fixed_geometry_refuse_other_shapes() {
        let max = MaxPool { pool_spec: spec(&[2, 2]), with_index_outputs: None };
        let sum = SumPool { pool_spec: spec(&[2, 2]), count_include_pad: false, normalize: false };
        let cases: Vec<(&[&str], Reader)> = vec![
            (&["DepthWiseConv"], conv(4, &[1, 3])),
            (&["Im2col", "LazyIm2col"], conv(2, &[1, 3])),
            (&["DirectSpatialConv", "Im2col", "LazyIm2col"], conv(1, &[3, 3])),
            (&["DeconvSum"], deconv(1)),
            (&["DepthwiseDeconv"], deconv(4)),
            (&["OptMaxPool"], (Box::new(max), vec![])),
            (&["OptSumPool"], (Box::new(sum), vec![])),
        ];
        for (names, (op, constants)) in cases {
            let mut model = TypedModel::default();
            let mut inputs = vec![model.add_source("x", f32::fact([1, 4, 6, 200])).unwrap()];
            for (index, constant) in constants.into_iter().enumerate() {
                inputs.push(model.add_const(format!("c{index}"), constant).unwrap());
            }
            let outputs = model.wire_node("y", op, &inputs).unwrap();
            model.select_output_outlets(&outputs).unwrap();
            ready(&mut model, true, &Budget::of_memory(1 << 30)).unwrap();
            let node = model.nodes.iter().find(|node| node.op_is::<Fixed>()).expect(names[0]);
            assert!(names.contains(&&*node.op.name()), "{names:?} {}", node.op.name());
            let facts = model.node_input_facts(node.id).unwrap();
            let value = |fact: &&TypedFact, smaller: bool| {
                let mut shape =
                    fact.shape.eval_to_usize(&SymbolValues::default()).unwrap().to_vec();
                *shape.last_mut().unwrap() -= usize::from(smaller);
                Tensor::zero_dt(fact.datum_type, &shape).unwrap().into_tvalue()
            };
            let run = |smaller: bool| {
                let inputs = facts.iter().enumerate();
                let inputs = inputs.map(|(slot, fact)| value(fact, smaller && slot == 0)).collect();
                node.op.eval(&EvalContext::out_of_plan(), inputs)
            };
            assert!(run(false).is_ok(), "{names:?}");
            let error = run(true).unwrap_err();
            assert!(format!("{error:#}").contains("but was given"), "{names:?} {error:#}");
        }
    }
}
