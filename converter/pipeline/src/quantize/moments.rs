//! What layers are given over calibration data: the mean of each weight's input, and the sums of
//! products of every two, which tell how an error of one weight is made good by others.

use std::collections::HashMap;

use hardtack::Model;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder as _};

use super::lower::linear::Linear;
use super::region::sample_shape;
use crate::error::Error;
use crate::observe::Observer;
use crate::samples::{Source, each};

/// Weights whose products are kept: a longer row is taken as several that do not know of each
/// other, so that memory grows with its length and not with its square.
pub const BLOCK: usize = 1024;
/// Windows a layer is sampled at, over all samples.
const ROWS: usize = 8192;
/// Windows multiplied at once.
const BATCH: usize = 128;
/// Bytes of products held at once; more layers are measured in further passes over the data.
const HELD: usize = 96 << 20;

/// The inputs of one group of a layer's output channels.
#[derive(Clone, Debug)]
pub struct Group {
    /// Mean input of each weight, in the order of [`Weights`](super::weights::Weights).
    pub mean: Vec<f64>,
    /// For each run of [`BLOCK`] weights, the mean products of their inputs, row-major.
    pub products: Vec<Vec<f32>>,
}

/// Measures layers by their nodes, and hands each to `done` as soon as it is measured; `progress` is
/// told how many of how many samples a pass has seen.
///
/// # Errors
/// Where the model cannot be run on a sample.
pub fn measure(
    model: &Model,
    layers: &[usize],
    samples: &dyn Source,
    progress: &mut dyn FnMut(usize, usize),
    mut done: impl FnMut(usize, Linear, Vec<Group>),
) -> Result<(), Error> {
    let mut waiting: Vec<(usize, Linear)> = layers
        .iter()
        .filter_map(|index| Some((*index, Linear::of(model, *index).ok()?)))
        .rev()
        .collect();
    while !waiting.is_empty() {
        let mut gathering: HashMap<usize, Gathering> = HashMap::new();
        let mut held = 0;
        while let Some((index, linear)) = waiting.pop() {
            let Some(gathered) = Gathering::new(model, linear, samples.count()) else { continue };
            held += gathered.bytes();
            gathering.insert(index, gathered);
            if held >= HELD {
                break;
            }
        }
        let inputs = gathering.values().map(|gathered| gathered.linear.input);
        let mut observer = Observer::new(model, inputs)?;
        for (number, sample) in each(samples).enumerate() {
            observer.run(&sample?, |outlet, tensor| {
                let Some(value) = tensor.as_f32() else { return };
                let readers = gathering.values_mut();
                readers
                    .filter(|gathered| gathered.linear.input == outlet)
                    .for_each(|gathered| gathered.add(value, number));
            })?;
            progress(number + 1, samples.count());
        }
        let mut measured: Vec<(usize, Gathering)> = gathering.into_iter().collect();
        measured.sort_by_key(|(index, _)| *index);
        for (index, gathered) in measured {
            let (linear, groups) = gathered.finish();
            done(index, linear, groups);
        }
    }
    Ok(())
}

/// A layer whose inputs are being seen.
struct Gathering {
    linear: Linear,
    /// Dimensions of the input without the batch, as the model has them.
    shape: Vec<usize>,
    /// Height, width and channels of the input, in the layer's order.
    dims: [usize; 3],
    /// Height and width of the output.
    places: [usize; 2],
    /// Windows taken of a sample.
    per_sample: usize,
    rows: usize,
    groups: Vec<Group>,
    /// Windows that wait to be multiplied, of all groups.
    batch: Vec<f32>,
    waiting: usize,
}

impl Gathering {
    fn new(model: &Model, linear: Linear, samples: usize) -> Option<Gathering> {
        let shape = sample_shape(model.graph.fact(linear.input))?;
        let ordered: Vec<usize> = linear.input_order.iter().map(|axis| shape[*axis]).collect();
        let (channels, rest) = ordered.split_last()?;
        let (width, rest) = rest.split_last().unwrap_or((&1, &[]));
        let dims = [rest.iter().product(), *width, *channels];
        let window = &linear.window;
        let depth = linear.weights.depth;
        let places = [0, 1].map(|axis| {
            let reach = (window.kernel[axis] as usize - 1) * window.dilation[axis] as usize;
            // As many windows as begin within; those that reach beyond see zeros there.
            let room = (dims[axis] + 2 * window.pad[axis] as usize).saturating_sub(reach);
            room.div_ceil(window.stride[axis] as usize).max(1)
        });
        let group = Group {
            mean: vec![0.0; depth],
            products: (0..depth)
                .step_by(BLOCK)
                .map(|from| vec![0.0; (depth - from).min(BLOCK).pow(2)])
                .collect(),
        };
        let groups = vec![group; linear.groups as usize];
        let batch = vec![0.0; groups.len() * BATCH * depth];
        let per_sample = ROWS.div_ceil(samples.max(1)).min(places[0] * places[1]);
        Some(Gathering {
            linear,
            shape,
            dims,
            places,
            per_sample,
            rows: 0,
            groups,
            batch,
            waiting: 0,
        })
    }

    fn bytes(&self) -> usize {
        let products = self.groups.iter().flat_map(|group| &group.products);
        4 * (products.map(Vec::len).sum::<usize>() + self.batch.len())
    }

    /// Takes windows of the first sample of a batch, spread evenly and elsewhere in each.
    fn add(&mut self, value: &[f32], number: usize) {
        let elements: usize = self.shape.iter().product();
        let Some(value) = value.get(..elements) else { return };
        let image = ordered(value, &self.shape, &self.linear.input_order);
        let all = self.places[0] * self.places[1];
        for taken in 0..self.per_sample {
            let at = (taken * all / self.per_sample + number * 7) % all;
            self.window(&image, at / self.places[1], at % self.places[1]);
            self.waiting += 1;
            if self.waiting == BATCH {
                self.multiply();
            }
        }
    }

    /// Lays the window at an output's place behind those that wait.
    fn window(&mut self, image: &[f32], y: usize, x: usize) {
        let [height, width, channels] = self.dims;
        let window = &self.linear.window;
        let depth = self.linear.weights.depth;
        let each = channels / self.groups.len();
        let inside = |out: usize, tap: usize, axis: usize, size: usize| {
            let place = out * window.stride[axis] as usize + tap * window.dilation[axis] as usize;
            place.checked_sub(window.pad[axis] as usize).filter(|place| *place < size)
        };
        let taps = [window.kernel[0] as usize, window.kernel[1] as usize];
        for tap in 0..taps[0] * taps[1] {
            let row = inside(y, tap / taps[1], 0, height);
            let column = inside(x, tap % taps[1], 1, width);
            let pixel = row.zip(column).map(|(row, column)| (row * width + column) * channels);
            for group in 0..self.groups.len() {
                let to = (group * BATCH + self.waiting) * depth + tap * each;
                let to = &mut self.batch[to..to + each];
                match pixel {
                    Some(pixel) => to.copy_from_slice(&image[pixel + group * each..][..each]),
                    None => to.fill(0.0),
                }
            }
        }
    }

    /// Adds the products of the windows that wait.
    fn multiply(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let depth = self.linear.weights.depth;
        let windows = self.batch.chunks_exact(BATCH * depth);
        for (group, rows) in self.groups.iter_mut().zip(windows) {
            let rows = &rows[..self.waiting * depth];
            for row in rows.chunks_exact(depth) {
                group.mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x));
            }
            for (block, products) in group.products.iter_mut().enumerate() {
                let from = block * BLOCK;
                add_products(&rows[from..], depth, self.waiting, products);
            }
        }
        self.rows += self.waiting;
        self.waiting = 0;
    }

    fn finish(mut self) -> (Linear, Vec<Group>) {
        self.multiply();
        let rows = self.rows.max(1) as f64;
        for group in &mut self.groups {
            group.mean.iter_mut().for_each(|sum| *sum /= rows);
            let products = group.products.iter_mut().flatten();
            products.for_each(|sum| *sum = (f64::from(*sum) / rows) as f32);
        }
        (self.linear, self.groups)
    }
}

/// Elements with their axes in another order.
fn ordered(value: &[f32], shape: &[usize], order: &[usize]) -> Vec<f32> {
    let view = super::lattice::View::dense(super::lattice::Source::Port(0), shape, order);
    let mut moved = vec![0.0; value.len()];
    // A dense view tells where each element of the row-major order stands in the stored one.
    view.each(|stored, row_major| moved[stored] = value[row_major]);
    moved
}

/// Adds to `products` the products of every two of its columns, over rows `stride` apart.
fn add_products(rows: &[f32], stride: usize, count: usize, products: &mut [f32]) {
    let columns = products.len().isqrt();
    let rows = ArrayView2::from_shape((count, columns).strides((stride, 1)), rows);
    let products = ArrayViewMut2::from_shape((columns, columns), products);
    let (rows, mut products) = (rows.expect("rows of a batch"), products.expect("a square"));
    general_mat_mul(1.0, &rows.t(), &rows, 1.0, &mut products);
}
