//! Second-order statistics of layer inputs over calibration data: the mean of each input, and the
//! Gram matrix (mean products of all pairs of inputs), which is GPTQ's Hessian.

use std::collections::HashMap;

use hardtack::internal::Model;
use hardtack_bundle::graph::{Graph, ValueId};
use hardtack_engine::program::Window;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder as _};

use crate::activations::Observer;
use crate::error::Error;
use crate::graph::shape::{sample_shape, strides};
use crate::offloaded_model::ModelSource;
use crate::quantize::weights::linear::Linear;
use crate::samples::{SampleSource, each};

/// The maximum size of a Gram matrix. A longer row of weights is split into blocks without products
/// between them, so that memory grows linearly with its length.
pub(crate) const BLOCK: usize = 1024;
/// The number of windows sampled per layer, over all samples.
const ROWS: usize = 8192;
/// The number of windows multiplied at once.
const BATCH: usize = 128;
/// Bytes reserved for activations and other memory, at most half of the weights' size. The rest of
/// the weights' size is the budget for Gram matrices; layers beyond it need further passes.
const LEFT: usize = 8 << 20;
/// The minimum budget for Gram matrices, in bytes.
const HELD: usize = 4 << 20;
/// The number of rows of a Gram matrix that are summed at once. Each panel starts at the column of
/// its first row, since the matrix is symmetric.
const PANEL: usize = 128;

/// Statistics of the inputs of one group of a layer.
#[derive(Clone, Debug)]
pub(crate) struct InputStatistics {
    /// The mean input of each weight, in the order of
    /// [`Weights`](crate::quantize::weights::Weights).
    pub mean: Vec<f64>,
    /// The Gram matrix of each block of [`BLOCK`] inputs, row-major.
    pub products: Vec<Vec<f32>>,
}

/// Measures layers, given by node index, and passes each to `done` when it is measured. `progress`
/// is called with the number of processed samples of a pass and their total.
///
/// # Errors
/// Returns an error if the model cannot be run on a sample.
pub(crate) fn measure(
    model: &dyn ModelSource,
    layers: &[usize],
    samples: &dyn SampleSource,
    progress: &mut dyn FnMut(usize, usize),
    mut done: impl FnMut(usize, Linear, Vec<InputStatistics>),
) -> Result<(), Error> {
    let linear = |model: &Model, index: usize| Linear::of(model, index).ok();
    let loaded = model.load()?;
    let inputs = layers.iter().filter_map(|index| linear(&loaded, *index)).map(|l| l.input);
    let mut observer = Observer::new(model, inputs);
    drop(loaded);
    let mut layers_left: Vec<usize> = layers.iter().copied().rev().collect();
    let weights = weight_bytes(model.graph());
    let most = (weights - LEFT.min(weights / 2)).max(HELD);
    while !layers_left.is_empty() {
        let loaded = model.load()?;
        let mut accumulators: HashMap<usize, Accumulator> = HashMap::new();
        let mut held = 0;
        while let Some(index) = layers_left.pop() {
            let accumulator =
                linear(&loaded, index).and_then(|l| Accumulator::new(&loaded, &l, samples.count()));
            let Some(accumulator) = accumulator else { continue };
            held += accumulator.bytes();
            accumulators.insert(index, accumulator);
            if held >= most {
                break;
            }
        }
        drop(loaded);
        observer.only(accumulators.values().map(|accumulator| accumulator.input).collect());
        for (number, sample) in each(samples).enumerate() {
            observer.run(&sample?, |value_id, _, value| {
                let readers = accumulators.values_mut();
                readers
                    .filter(|accumulator| accumulator.input == value_id)
                    .for_each(|accumulator| accumulator.add(value, number));
            })?;
            progress(number + 1, samples.count());
        }
        observer.unload();
        let mut measured: Vec<(usize, Accumulator)> = accumulators.into_iter().collect();
        measured.sort_by_key(|(index, _)| *index);
        for (index, accumulator) in measured {
            let groups = accumulator.finish();
            // The loaded weights are dropped again before `done` is called.
            let layer = linear(&model.load_layer(index)?, index);
            if let Some(layer) = layer {
                done(index, layer, groups);
            }
        }
    }
    Ok(())
}

/// Returns the total bytes of a model's constant tensors.
fn weight_bytes(graph: &Graph) -> usize {
    let elements = |shape: &[u64]| shape.iter().product::<u64>() as usize;
    let constants = graph.constants.iter();
    constants.map(|c| elements(&c.shape) * c.dtype.size().unwrap_or(0)).sum()
}

/// A layer whose statistics are being collected.
struct Accumulator {
    input: ValueId,
    /// The order in which the layer reads the axes of its input.
    order: Vec<usize>,
    window: Window,
    /// The number of inputs of a group in a window.
    depth: usize,
    /// The dimensions of the input without the batch, in the model's axis order.
    shape: Vec<usize>,
    /// The height, width and channels of the input, in the layer's axis order.
    dims: [usize; 3],
    /// The height and width of the output.
    places: [usize; 2],
    /// The number of windows taken per sample.
    per_sample: usize,
    rows: usize,
    groups: Vec<GroupSums>,
    /// Windows not yet multiplied, each with the inputs of all groups.
    batch: Vec<f32>,
    queued: usize,
}

/// The sums of one group.
#[derive(Clone)]
struct GroupSums {
    inputs: Vec<f64>,
    /// The products of each block of [`BLOCK`] inputs.
    products: Vec<GramSums>,
}

impl Accumulator {
    fn new(model: &Model, linear: &Linear, samples: usize) -> Option<Accumulator> {
        let shape = sample_shape(model.graph.fact(linear.input))?;
        let ordered: Vec<usize> = linear.input_order.iter().map(|axis| shape[*axis]).collect();
        let (channels, rest) = ordered.split_last()?;
        let (width, rest) = rest.split_last().unwrap_or((&1, &[]));
        let dims = [rest.iter().product(), *width, *channels];
        let window = &linear.window;
        let depth = linear.weights.depth;
        let places = [0, 1].map(|axis| {
            let reach = (window.kernel[axis] as usize - 1) * window.dilation[axis] as usize;
            // One window per start inside the padded input; parts beyond it read zeros.
            let room = (dims[axis] + 2 * window.pad[axis] as usize).saturating_sub(reach);
            room.div_ceil(window.stride[axis] as usize).max(1)
        });
        let blocks = (0..depth).step_by(BLOCK);
        let group = GroupSums {
            inputs: vec![0.0; depth],
            products: blocks.map(|from| GramSums::new((depth - from).min(BLOCK))).collect(),
        };
        let groups = vec![group; linear.groups as usize];
        let per_sample = ROWS.div_ceil(samples.max(1)).min(places[0] * places[1]);
        Some(Accumulator {
            input: linear.input,
            order: linear.input_order.clone(),
            window: linear.window,
            depth,
            shape,
            dims,
            places,
            per_sample,
            rows: 0,
            groups,
            batch: Vec::new(),
            queued: 0,
        })
    }

    /// Returns the bytes of products, and of the windows kept between two samples.
    fn bytes(&self) -> usize {
        let products = self.groups.iter().flat_map(|group| &group.products);
        let queued = self.per_sample.min(BATCH) * self.groups.len() * self.depth;
        4 * (products.map(|products| products.sums.len()).sum::<usize>() + queued)
    }

    /// Adds evenly spread windows of the first sample of a batch, at positions that vary by sample.
    fn add(&mut self, value: &[f32], number: usize) {
        let elements: usize = self.shape.iter().product();
        let Some(value) = value.get(..elements) else { return };
        let image = ordered(value, &self.shape, &self.order);
        let all = self.places[0] * self.places[1];
        for taken in 0..self.per_sample {
            let at = (taken * all / self.per_sample + number * 7) % all;
            self.window(&image, at / self.places[1], at % self.places[1]);
            self.queued += 1;
            if self.queued == BATCH {
                self.multiply();
            }
        }
        self.batch.shrink_to_fit();
    }

    /// Appends the window of the output position `(y, x)` to the batch.
    fn window(&mut self, image: &[f32], y: usize, x: usize) {
        let [height, width, channels] = self.dims;
        let window = &self.window;
        let depth = self.depth;
        let each = channels / self.groups.len();
        let inside = |out: usize, tap: usize, axis: usize, size: usize| {
            let place = out * window.stride[axis] as usize + tap * window.dilation[axis] as usize;
            place.checked_sub(window.pad[axis] as usize).filter(|place| *place < size)
        };
        let taps = [window.kernel[0] as usize, window.kernel[1] as usize];
        let row = self.queued * self.groups.len() * depth;
        self.batch.resize(row + self.groups.len() * depth, 0.0);
        for tap in 0..taps[0] * taps[1] {
            let (line, column) =
                (inside(y, tap / taps[1], 0, height), inside(x, tap % taps[1], 1, width));
            // Padding stays zero.
            let Some((line, column)) = line.zip(column) else { continue };
            let pixel = (line * width + column) * channels;
            for group in 0..self.groups.len() {
                let to = row + group * depth + tap * each;
                let from = pixel + group * each;
                self.batch[to..to + each].copy_from_slice(&image[from..from + each]);
            }
        }
    }

    /// Adds the products of the windows in the batch.
    fn multiply(&mut self) {
        if self.queued == 0 {
            return;
        }
        let depth = self.depth;
        let stride = self.groups.len() * depth;
        for (index, group) in self.groups.iter_mut().enumerate() {
            let rows = &self.batch[index * depth..];
            for row in rows.chunks(stride) {
                group.inputs.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            for (block, products) in group.products.iter_mut().enumerate() {
                products.add(&rows[block * BLOCK..], stride, self.queued);
            }
        }
        self.rows += self.queued;
        self.queued = 0;
        self.batch.clear();
    }

    fn finish(mut self) -> Vec<InputStatistics> {
        self.multiply();
        let rows = self.rows.max(1) as f64;
        let mean = |sums: GroupSums| InputStatistics {
            mean: sums.inputs.iter().map(|sum| sum / rows).collect(),
            products: sums.products.into_iter().map(|products| products.mean(rows)).collect(),
        };
        self.groups.into_iter().map(mean).collect()
    }
}

/// Sums of the products of all pairs of columns.
#[derive(Clone)]
struct GramSums {
    size: usize,
    /// The panels of the upper triangle, each row-major.
    sums: Vec<f32>,
}

impl GramSums {
    fn new(size: usize) -> GramSums {
        let rows = |from: usize| (size - from).min(PANEL);
        let elements = (0..size).step_by(PANEL).map(|from| rows(from) * (size - from)).sum();
        GramSums { size, sums: vec![0.0; elements] }
    }

    /// Returns each panel's first row, which is also its first column, and its sums.
    fn panels(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        let (size, mut rest) = (self.size, &mut self.sums[..]);
        (0..size).step_by(PANEL).map(move |from| {
            let elements = (size - from).min(PANEL) * (size - from);
            let (panel, others) = std::mem::take(&mut rest).split_at_mut(elements);
            rest = others;
            (from, panel)
        })
    }

    /// Adds the products of the columns of `count` rows that are `stride` elements apart.
    fn add(&mut self, rows: &[f32], stride: usize, count: usize) {
        let size = self.size;
        let columns = |from: usize, width: usize| {
            let columns =
                ArrayView2::from_shape((count, width).strides((stride, 1)), &rows[from..]);
            columns.expect("the rows hold these columns")
        };
        for (from, panel) in self.panels() {
            let (height, width) = ((size - from).min(PANEL), size - from);
            let sums = ArrayViewMut2::from_shape((height, width), panel);
            let mut sums = sums.expect("the panel has height · width elements");
            general_mat_mul(1.0, &columns(from, height).t(), &columns(from, width), 1.0, &mut sums);
        }
    }

    /// Returns the full symmetric matrix, divided by the number of rows.
    fn mean(mut self, rows: f64) -> Vec<f32> {
        let size = self.size;
        let mut mean = vec![0.0; size * size];
        for (from, panel) in self.panels() {
            for (row, sums) in panel.chunks_exact(size - from).enumerate() {
                let row = from + row;
                for (column, sum) in (from..).zip(sums) {
                    let each = (f64::from(*sum) / rows) as f32;
                    mean[row * size + column] = each;
                    mean[column * size + row] = each;
                }
            }
        }
        mean
    }
}

/// Returns the elements with their axes in another order.
fn ordered(value: &[f32], shape: &[usize], order: &[usize]) -> Vec<f32> {
    let from = strides(shape);
    let mut moved = Vec::with_capacity(value.len());
    let mut place = vec![0; order.len()];
    let mut at = 0;
    for _ in value {
        moved.push(value[at]);
        // Advance the last axis, and carry over to those before it.
        for (place, axis) in place.iter_mut().zip(order).rev() {
            *place += 1;
            at += from[*axis];
            if *place < shape[*axis] {
                break;
            }
            at -= *place * from[*axis];
            *place = 0;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_those_of_all_pairs_of_columns() {
        // More columns than one panel, and a stride larger than a row.
        let (size, stride, count) = (PANEL + 5, PANEL + 9, 7);
        let rows: Vec<f32> = (0..stride * count).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        let mut products = GramSums::new(size);
        products.add(&rows, stride, count);
        products.add(&rows, stride, count);
        let mean = products.mean(2.0);
        for i in 0..size {
            for j in 0..size {
                let each = (0..count).map(|row| rows[row * stride + i] * rows[row * stride + j]);
                assert_eq!(mean[i * size + j], each.sum::<f32>(), "{i} {j}");
            }
        }
    }
}
