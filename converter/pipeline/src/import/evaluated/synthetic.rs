//! Synthetic inputs: sizes for dynamic dimensions, and elements.

use std::collections::HashMap;

use hardtack_operators::{Dimension, ElementType, Graph, Problem, Tensor, Value, ValueType};

/// The number of runs of a model with dynamic dimensions.
pub(crate) const RUNS: usize = 3;

/// The sizes of named dimensions in one run.
pub(crate) type Sizes = HashMap<String, usize>;

/// How sizes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Odd sizes, which show where a size is rounded.
    Odd,
    /// Multiples of 32, which images and audio need, and small sizes for first axes.
    Large,
    /// Small sizes.
    Small,
    /// No elements.
    Empty,
}

/// How integers are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Integers {
    /// 0 and 1.
    Bits,
    /// 1.
    Ones,
    /// 0.
    Zeros,
}

/// Returns the sizes of the named dimensions of a graph's inputs for a run. No size is a linear
/// function of another one over all runs, so a size that depends on one of them shows on which.
pub(crate) fn sizes(graph: &Graph, scale: Scale, run: usize) -> Sizes {
    let mut sizes = Sizes::new();
    for input in &graph.inputs {
        let Some(ValueType::Tensor { shape: Some(shape), .. }) = &input.value_type else {
            continue;
        };
        for (axis, dimension) in shape.iter().enumerate() {
            let Dimension::Named(name) = dimension else { continue };
            if sum(name).is_some() {
                continue;
            }
            let place = sizes.len();
            let factor = 1 + place + [0, 1, 3 + place][run.min(RUNS - 1)];
            sizes.entry(name.clone()).or_insert(match (scale, axis) {
                (Scale::Large, 0) => 1 + factor,
                (Scale::Large, _) => 32 * factor,
                (Scale::Odd, 0) => 1 + factor,
                (Scale::Odd, _) => 16 * factor + [3, 1, 7][run.min(RUNS - 1)],
                (Scale::Small, _) => 2 + factor,
                (Scale::Empty, _) => 0,
            });
        }
    }
    sizes
}

/// Returns inputs for a graph. `None` if an input is not a numeric tensor of known rank.
pub(crate) fn inputs(
    graph: &Graph,
    sizes: &Sizes,
    integers: Integers,
    seed: u64,
) -> Option<HashMap<String, Value>> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut inputs = HashMap::new();
    for input in &graph.inputs {
        let Some(ValueType::Tensor { element, shape: Some(shape) }) = &input.value_type else {
            return None;
        };
        let shape: Option<Vec<usize>> = shape.iter().map(|dim| size(dim, sizes)).collect();
        let tensor = tensor(*element, shape?, integers, &mut random).ok()?;
        inputs.insert(input.name.clone(), tensor.into());
    }
    Some(inputs)
}

/// Returns the size of a dimension, which may be a sum or difference of a name and a number.
pub(crate) fn size(dimension: &Dimension, sizes: &Sizes) -> Option<usize> {
    match dimension {
        Dimension::Size(size) => Some(*size),
        Dimension::Unknown => None,
        Dimension::Named(name) => match sum(name) {
            Some((name, number)) => sizes.get(name)?.checked_add_signed(number),
            None => sizes.get(name).copied(),
        },
    }
}

/// Returns the parts of a dimension such as `past + 1`.
fn sum(text: &str) -> Option<(&str, isize)> {
    let (name, number) = text.split_once(['+', '-'])?;
    let number: isize = number.trim().parse().ok()?;
    Some((name.trim(), if text.contains('-') { -number } else { number }))
}

fn tensor(
    element: ElementType,
    shape: Vec<usize>,
    integers: Integers,
    random: &mut Random,
) -> Result<Tensor, Problem> {
    let count = hardtack_operators::elements(&shape)?;
    if element.is_float() {
        let values = (0..count).map(|_| random.next() * 2.0 - 1.0).collect();
        return Tensor::from_f64(element, shape, values);
    }
    let value = |random: &mut Random| match integers {
        Integers::Bits => i128::from(random.next() >= 0.5),
        Integers::Ones => 1,
        Integers::Zeros => 0,
    };
    Tensor::from_i128(element, shape, (0..count).map(|_| value(random)).collect())
}

/// Random numbers from 0 to 1, by the generator xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}
