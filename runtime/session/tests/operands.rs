//! Operands that an untrusted graph computes. If tract would not check them, an invalid operand is
//! an error that names the node, and a valid one gives the right values.
#![cfg(feature = "float")]

mod graphs;

use graphs::{Sketch, fact, tensor};
use hardtack::float::Error;
use hardtack::{DType, Data, Tensor};
use hardtack_bundle::graph::*;

/// Runs an operator on `x` and integer operands, which are inputs of the graph or constants.
struct Case {
    operator: Operator,
    x: Tensor,
    operands: Vec<Tensor>,
    outputs: Vec<Fact>,
}

impl Case {
    fn run(&self, constant: bool) -> Result<Vec<Tensor>, Error> {
        let mut sketch = Sketch::default();
        let shape = |t: &Tensor| t.shape().iter().map(|size| *size as i64).collect::<Vec<_>>();
        let mut inputs = vec![self.x.clone()];
        let mut value_ids = vec![sketch.input(self.x.dtype(), &shape(&self.x))];
        for operand in &self.operands {
            value_ids.push(if constant {
                sketch.constant(operand.clone())
            } else {
                inputs.push(operand.clone());
                sketch.input(operand.dtype(), &shape(operand))
            });
        }
        let node = sketch.node(self.operator.clone(), &value_ids, self.outputs.clone());
        sketch.output(node);
        sketch.run(&inputs)
    }

    /// Checks that the values are right for operands as inputs and as constants.
    fn gives(&self, expected: &[Tensor]) {
        for constant in [false, true] {
            let values = self.run(constant).unwrap_or_else(|error| panic!("{constant}: {error}"));
            assert_eq!(values, expected, "{constant}");
        }
    }

    /// Checks that operands as inputs and as constants are errors that name the node.
    fn fails(&self, with: &str) {
        for constant in [false, true] {
            let error = self.run(constant).expect_err("the operand is invalid").to_string();
            assert!(error.contains("node ") && error.contains(with), "{constant}: {error}");
            assert!(error.lines().count() == 1, "{error}");
        }
    }
}

fn matrix() -> Tensor {
    tensor(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])
}

fn gather(indices: &[i64]) -> Case {
    Case {
        operator: Operator::Gather(Gather { axis: 1, output_dtype: None }),
        x: matrix(),
        operands: vec![tensor(&[indices.len()], indices)],
        outputs: vec![fact(DType::F32, &[2, indices.len() as i64])],
    }
}

#[test]
fn gather_checks_that_indices_are_in_range() {
    gather(&[2, -3]).gives(&[tensor(&[2, 2], &[3f32, 1.0, 6.0, 4.0])]);
    for index in [3, -4, 1 << 40, i64::MAX, i64::MIN] {
        gather(&[0, index]).fails("out of range");
    }
}

fn gather_elements(axis: u32, shape: &[usize], indices: &[i64]) -> Case {
    let stated: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
    Case {
        operator: Operator::GatherElements(axis),
        x: matrix(),
        operands: vec![tensor(shape, indices)],
        outputs: vec![fact(DType::F32, &stated)],
    }
}

#[test]
fn gather_elements_checks_that_indices_are_in_range() {
    gather_elements(1, &[2, 1], &[-1, 0]).gives(&[tensor(&[2, 1], &[3f32, 4.0])]);
    gather_elements(0, &[1, 3], &[1, 0, -1]).gives(&[tensor(&[1, 3], &[4f32, 2.0, 6.0])]);
    for index in [2, -3, 1 << 33] {
        gather_elements(0, &[1, 3], &[0, 0, index]).fails("out of range");
    }
    gather_elements(0, &[1, 4], &[0; 4]).fails("does not match the shape");
}

fn gather_nd(batch: u32, shape: &[usize], indices: &[i64], output: &[i64]) -> Case {
    Case {
        operator: Operator::GatherNd(batch),
        x: matrix(),
        operands: vec![tensor(shape, indices)],
        outputs: vec![fact(DType::F32, output)],
    }
}

#[test]
fn gather_nd_checks_that_index_tuples_are_in_range() {
    gather_nd(0, &[2, 2], &[1, 2, 0, 1], &[2]).gives(&[tensor(&[2], &[6f32, 2.0])]);
    gather_nd(0, &[1, 1], &[1], &[1, 3]).gives(&[tensor(&[1, 3], &[4f32, 5.0, 6.0])]);
    // Negative indices count from the end.
    gather_nd(0, &[1, 2], &[-1, -3], &[1]).gives(&[tensor(&[1], &[4f32])]);
    gather_nd(1, &[2, 1], &[2, -3], &[2]).gives(&[tensor(&[2], &[3f32, 4.0])]);
    for index in [3, -4, 1 << 40, i64::MIN] {
        gather_nd(0, &[1, 2], &[0, index], &[1]).fails("out of range");
    }
    gather_nd(1, &[1, 1], &[0], &[1]).fails("does not match the shape");
}

fn scatter(operator: Operator, shape: &[usize], indices: &[i64], updates: Tensor) -> Case {
    Case {
        operator,
        x: matrix(),
        operands: vec![tensor(shape, indices), updates],
        outputs: vec![fact(DType::F32, &[2, 3])],
    }
}

#[test]
fn scatter_elements_checks_that_indices_are_in_range() {
    for reduction in [ScatterReduction::None, ScatterReduction::Add] {
        let elements = || Operator::ScatterElements(ScatterElements { axis: 1, reduction });
        let kept = if reduction == ScatterReduction::None { 0f32 } else { 1.0 };
        scatter(elements(), &[1, 2], &[0, -1], tensor(&[1, 2], &[10f32, 20.0]))
            .gives(&[tensor(&[2, 3], &[10.0 + kept, 2.0, 20.0 + 3.0 * kept, 4.0, 5.0, 6.0])]);
        for index in [3, -4, 1 << 40] {
            scatter(elements(), &[1, 1], &[index], tensor(&[1, 1], &[0f32])).fails("out of range");
        }
        scatter(elements(), &[1, 1], &[0], tensor(&[1, 2], &[0f32; 2])).fails("does not match");
        scatter(elements(), &[3, 1], &[0; 3], tensor(&[3, 1], &[0f32; 3])).fails("does not match");
    }
}

#[test]
fn scatter_nd_checks_that_index_tuples_are_in_range() {
    for reduction in [ScatterReduction::None, ScatterReduction::Maximum] {
        let tuples = || Operator::ScatterNd(reduction);
        scatter(tuples(), &[1, 2], &[1, -3], tensor(&[1], &[9f32]))
            .gives(&[tensor(&[2, 3], &[1f32, 2.0, 3.0, 9.0, 5.0, 6.0])]);
        scatter(tuples(), &[1, 1], &[0], tensor(&[1, 3], &[7f32, 8.0, 9.0]))
            .gives(&[tensor(&[2, 3], &[7f32, 8.0, 9.0, 4.0, 5.0, 6.0])]);
        for index in [3, -4, 1 << 40] {
            scatter(tuples(), &[1, 2], &[0, index], tensor(&[1], &[0f32])).fails("out of range");
        }
        scatter(tuples(), &[1, 1], &[0], tensor(&[1, 2], &[0f32; 2])).fails("does not match");
        scatter(tuples(), &[1, 3], &[0; 3], tensor(&[1], &[0f32])).fails("beyond the rank");
    }
}

fn one_hot(indices: Tensor) -> Result<Vec<Tensor>, Error> {
    let mut sketch = Sketch::default();
    let input = sketch.input(indices.dtype(), &[indices.shape()[0] as i64]);
    let (off, on) = (sketch.store(Tensor::scalar(0f32)), sketch.store(Tensor::scalar(1f32)));
    let node = sketch.node(
        Operator::OneHot(OneHot { axis: 1, depth: 2, off, on }),
        &[input],
        vec![fact(DType::F32, &[indices.shape()[0] as i64, 2])],
    );
    sketch.output(node);
    sketch.run(&[indices])
}

#[test]
fn one_hot_is_all_off_for_indices_out_of_range() {
    let values = one_hot(tensor(&[6], &[0i64, 1, -1, 2, 1 << 40, i64::MIN])).unwrap();
    let expected = [1f32, 0., 0., 1., 0., 1., 0., 0., 0., 0., 0., 0.];
    assert_eq!(values, [tensor(&[6, 2], &expected)]);
}

fn range(start: Tensor, end: Tensor, step: Tensor, length: i64) -> Case {
    let dtype = start.dtype();
    Case {
        operator: Operator::Range(Dim::Value(length)),
        x: start,
        operands: vec![end, step],
        outputs: vec![fact(dtype, &[length])],
    }
}

#[test]
fn ranges_have_the_stated_length() {
    let numbers = |start: i64, end: i64, step: i64, length| {
        range(Tensor::scalar(start), Tensor::scalar(end), Tensor::scalar(step), length)
    };
    let computed = numbers(1, 6, 2, 3).run(false).unwrap();
    assert_eq!(computed, [tensor(&[3], &[1i64, 3, 5])]);
    for (start, end, step) in
        [(0, 2, 1), (0, 4_000_000, 1), (0, 3, 0), (0, i64::MAX, 1), (0, -3, 1)]
    {
        numbers(start, end, step, 3).fails("");
    }
    let unsigned = |start: u64, end: u64, step: u64| {
        range(Tensor::scalar(start), Tensor::scalar(end), Tensor::scalar(step), 3)
    };
    assert_eq!(unsigned(1, 6, 2).run(false).unwrap(), [tensor(&[3], &[1u64, 3, 5])]);
    unsigned(0, 1 << 63, 1 << 29).fails("");
    let floats = |start: f32, end: f32, step: f32| {
        range(Tensor::scalar(start), Tensor::scalar(end), Tensor::scalar(step), 2)
    };
    assert_eq!(floats(0.0, 1.0, 0.5).run(false).unwrap(), [tensor(&[2], &[0f32, 0.5])]);
    for (start, end, step) in
        [(0.0, 1.0, 0.0), (0.0, f32::NAN, 1.0), (0.0, f32::INFINITY, 1.0), (0.0, 1.0, 1e-30)]
    {
        floats(start, end, step).fails("");
    }
}

fn top_k(x: Tensor, k: i64, stated: i64) -> Case {
    Case {
        operator: Operator::TopK(TopK { axis: 0, largest: true, k: Dim::Value(stated) }),
        x,
        operands: vec![Tensor::scalar(k)],
        outputs: vec![fact(DType::F32, &[stated]), fact(DType::I64, &[stated])],
    }
}

#[test]
fn top_k_takes_no_more_elements_than_there_are() {
    let x = tensor(&[4], &[1f32, 4.0, f32::NAN, 3.0]);
    top_k(x.clone(), 2, 2).gives(&[tensor(&[2], &[4f32, 3.0]), tensor(&[2], &[1i64, 3])]);
    for k in [5, -1, i64::MAX] {
        top_k(x.clone(), k, 5).fails("");
    }
}

fn slice(start: i64, end: i64, length: i64) -> Case {
    Case {
        operator: Operator::DynamicSlice(DynamicSlice { axis: 1, length: Dim::Value(length) }),
        x: matrix(),
        operands: vec![Tensor::scalar(start), Tensor::scalar(end)],
        outputs: vec![fact(DType::F32, &[2, length])],
    }
}

#[test]
fn dynamic_slices_are_in_range() {
    slice(1, 3, 2).gives(&[tensor(&[2, 2], &[2f32, 3.0, 5.0, 6.0])]);
    for (start, end) in [(2, 4), (-1, 1), (3, 1), (1 << 40, (1 << 40) + 2), (i64::MIN, 0)] {
        slice(start, end, 2).fails("");
    }
    assert!(slice(0, 1, 2).run(false).is_err());
}

fn strided(start: i64, end: i64, stated: i64) -> Case {
    Case {
        operator: Operator::StridedSlice(StridedSlice {
            axes_input: None,
            steps_input: None,
            begin_mask: 0b1,
            end_mask: 0b1,
            shrink_axis_mask: 0,
        }),
        x: matrix(),
        operands: vec![tensor(&[2], &[0, start]), tensor(&[2], &[0, end])],
        outputs: vec![fact(DType::F32, &[2, stated])],
    }
}

#[test]
fn strided_slices_count_from_the_end_and_are_clamped() {
    strided(1, 3, 2).gives(&[tensor(&[2, 2], &[2f32, 3.0, 5.0, 6.0])]);
    strided(-2, 1 << 40, 2).gives(&[tensor(&[2, 2], &[2f32, 3.0, 5.0, 6.0])]);
    strided(-(1 << 40), 1, 1).gives(&[tensor(&[2, 1], &[1f32, 4.0])]);
    // The graph states a size that the operands do not give.
    strided(0, 1, 3).fails("");
}

#[test]
fn axes_of_strided_slices_are_in_range_and_unique() {
    let run = |axes: &[i64], steps: &[i64]| {
        let mut sketch = Sketch::default();
        let x = sketch.input(DType::F32, &[2, 3]);
        let zeros = vec![0i64; axes.len()];
        let operands = [&zeros[..], &vec![2; axes.len()], axes, steps];
        let mut inputs = vec![x];
        inputs.extend(operands.map(|list| sketch.constant(tensor(&[list.len()], list))));
        let operator = Operator::StridedSlice(StridedSlice {
            axes_input: Some(3),
            steps_input: Some(4),
            begin_mask: 0,
            end_mask: 0,
            shrink_axis_mask: 0,
        });
        let node = sketch.node(operator, &inputs, vec![fact(DType::F32, &[2, 2])]);
        sketch.output(node);
        sketch.run(&[matrix()])
    };
    assert_eq!(run(&[1], &[1]).unwrap(), [tensor(&[2, 2], &[1f32, 2.0, 4.0, 5.0])]);
    assert_eq!(run(&[-1], &[1]).unwrap(), [tensor(&[2, 2], &[1f32, 2.0, 4.0, 5.0])]);
    for (axes, steps) in [(&[2][..], &[1][..]), (&[-3], &[1]), (&[1, 1], &[1, 1]), (&[1], &[0])] {
        assert!(run(axes, steps).is_err(), "{axes:?} {steps:?}");
    }
}

fn tile(counts: &[i64], stated: &[i64]) -> Case {
    Case {
        operator: Operator::DynamicTile(
            stated.iter().zip([2, 3]).map(|(s, x)| Dim::Value(s / x)).collect(),
        ),
        x: matrix(),
        operands: vec![tensor(&[counts.len()], counts)],
        outputs: vec![fact(DType::F32, stated)],
    }
}

#[test]
fn tile_counts_are_checked() {
    tile(&[2, 1], &[4, 3])
        .gives(&[tensor(&[4, 3], &[1f32, 2., 3., 4., 5., 6., 1., 2., 3., 4., 5., 6.])]);
    for counts in [&[1, 1][..], &[-1, 1], &[1 << 40, 1], &[i64::MAX, 2], &[2]] {
        tile(counts, &[4, 3]).fails("");
    }
}

#[test]
fn diagonals_may_be_out_of_range() {
    let case = |k: i64, upper| Case {
        operator: Operator::Trilu(upper),
        x: matrix(),
        operands: vec![Tensor::scalar(k)],
        outputs: vec![fact(DType::F32, &[2, 3])],
    };
    case(1, true).gives(&[tensor(&[2, 3], &[0f32, 2., 3., 0., 0., 6.])]);
    for k in [i64::MAX, 1 << 41] {
        case(k, true).gives(&[tensor(&[2, 3], &[0f32; 6])]);
        case(k, false).gives(&[matrix()]);
    }
    case(i64::MIN, true).gives(&[matrix()]);
}

#[test]
fn operands_without_elements_are_rejected() {
    // tract reads the first element of an operand without checking that there is one.
    let empty = || Tensor::new(&[0], Vec::<i64>::new()).unwrap();
    let cases = [
        (Operator::Trilu(true), vec![empty()], vec![fact(DType::F32, &[2, 3])]),
        (
            Operator::TopK(TopK { axis: 1, largest: true, k: Dim::Value(1) }),
            vec![empty()],
            vec![fact(DType::F32, &[2, 1]), fact(DType::I64, &[2, 1])],
        ),
        (
            Operator::DynamicSlice(DynamicSlice { axis: 1, length: Dim::Value(1) }),
            vec![empty(), empty()],
            vec![fact(DType::F32, &[2, 1])],
        ),
    ];
    for (operator, operands, outputs) in cases {
        Case { operator, x: matrix(), operands, outputs }.fails("not a single element");
    }
}

#[test]
fn distant_coordinates_are_reflected_into_the_image() {
    let case = |padding, coordinate: f32| Case {
        operator: Operator::GridSample(GridSample {
            interpolation: GridInterpolation::Nearest,
            padding,
            align_corners: false,
        }),
        x: tensor(&[1, 1, 1, 3], &[1f32, 2.0, 3.0]),
        operands: vec![tensor(&[1, 1, 1, 2], &[coordinate, 0.0])],
        outputs: vec![fact(DType::F32, &[1, 1, 1, 1])],
    };
    for padding in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
        case(padding, 0.0).gives(&[tensor(&[1, 1, 1, 1], &[2f32])]);
        for far in [1e30, -1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert!(case(padding, far).run(false).is_ok(), "{padding:?} {far}");
        }
    }
    // 400 periods from 0.1, which is the middle element, and from -0.9, which is the first.
    case(GridPadding::Reflection, 1600.1).gives(&[tensor(&[1, 1, 1, 1], &[2f32])]);
    case(GridPadding::Reflection, 1599.1).gives(&[tensor(&[1, 1, 1, 1], &[1f32])]);
}

#[test]
fn constants_stay_within_the_limit_while_a_model_is_loaded() {
    let mut sketch = Sketch::default();
    let x = sketch.input(DType::F32, &[1]);
    let one = sketch.constant(tensor(&[1], &[1f32]));
    let size = 1i64 << 40;
    sketch.node(
        Operator::Broadcast(vec![Dim::Value(size)]),
        &[one],
        vec![fact(DType::F32, &[size])],
    );
    let y = sketch.node(Operator::Unary(Unary::Abs), &[x], vec![fact(DType::F32, &[1])]);
    sketch.output(y);
    let error = sketch.run(&[tensor(&[1], &[1f32])]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn gather_supports_every_element_type() {
    let indices = tensor(&[1], &[-1i64]);
    let of = |x: Data, y: Data| {
        let x = Tensor::new(&[2], x).unwrap();
        Case {
            operator: Operator::Gather(Gather { axis: 0, output_dtype: None }),
            outputs: vec![fact(x.dtype(), &[1])],
            x,
            operands: vec![indices.clone()],
        }
        .gives(&[Tensor::new(&[1], y).unwrap()]);
    };
    of(vec![true, false].into(), vec![false].into());
    of(vec![1i8, 2].into(), vec![2i8].into());
    of(vec![1u64, 2].into(), vec![2u64].into());
    of(vec![1f64, 2.0].into(), vec![2f64].into());
}
