//! Compiles a region: one function for each kind of operator.

mod arrange;
mod chain;
mod conv;
mod einsum;
mod elementwise;
mod pool;
mod reduce;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Graph, Operator, ValueId};
use hardtack_kernels::float::{Function, Kernels, Map, Operand};

use crate::plan::{Operation, Plan};
use crate::region::is_constant;
use crate::tensor::{Halo, ImageAxes, Loops, Space, Tensor, strided};
use crate::{Constants, Region};

/// Tensors and packed weights start at multiples of this many elements: a cache line.
const ALIGNMENT: usize = 16;
/// The elements after a buffer that kernels may read.
const SLACK: usize = 16;
/// The largest number of elements of an arena or of all constants, because kernels use 32-bit
/// offsets.
const MOST: usize = 1 << 30;

/// The most operations of a plan.
const MOST_OPERATIONS: usize = 1 << 16;

/// Creates an operation when the places of all buffers in the arena are known.
type Draft = Box<dyn Fn(&[usize]) -> Option<Operation>>;
/// Writes a constant.
type Fill<'g> = Box<dyn Fn(&mut [f32]) + 'g>;

impl Plan {
    /// Compiles a region of a graph. `symbols` holds the value of each symbol of the graph. `limit`
    /// is the largest number of bytes of the arena and the packed weights.
    ///
    /// # Errors
    /// Returns the index of a node that cannot be compiled for these shapes, or whose region
    /// exceeds the limit.
    pub fn new(
        graph: &Graph,
        region: &Region,
        symbols: &[Option<i64>],
        constants: &dyn Constants,
        kernels: &'static Kernels,
        limit: u64,
    ) -> Result<Self, u32> {
        let builder = Builder::compile(graph, region, symbols, constants, kernels)?;
        builder.finish(region, limit)
    }
}

struct Builder<'g> {
    graph: &'g Graph,
    symbols: &'g [Option<i64>],
    source: &'g dyn Constants,
    kernels: &'static Kernels,
    values: HashMap<ValueId, Tensor>,
    /// The halo that the readers of a value want.
    wanted: HashMap<ValueId, Halo>,
    /// For each node, the chain of nodes that are computed together with it, if it starts one.
    chains: HashMap<u32, chain::Chain>,
    /// The elements of each buffer.
    buffers: Vec<usize>,
    /// The operations with their nodes and the buffers that they use.
    drafts: Vec<(u32, Vec<usize>, Draft)>,
    /// The number of elements of the constants.
    constants: usize,
    /// Writes a part of the constants. Nothing is copied or packed before the whole region is
    /// known to compile.
    fills: Vec<(Range<usize>, Fill<'g>)>,
    /// The node that is being compiled.
    node: u32,
}

impl<'g> Builder<'g> {
    fn compile(
        graph: &'g Graph,
        region: &Region,
        symbols: &'g [Option<i64>],
        source: &'g dyn Constants,
        kernels: &'static Kernels,
    ) -> Result<Self, u32> {
        let mut builder = Self {
            graph,
            symbols,
            source,
            kernels,
            values: HashMap::new(),
            wanted: HashMap::new(),
            chains: HashMap::new(),
            buffers: Vec::new(),
            drafts: Vec::new(),
            constants: 0,
            fills: Vec::new(),
            node: region.nodes.first().copied().unwrap_or(0),
        };
        let first = builder.node;
        let mut delayed = builder.find_chains(region);
        for node in &region.nodes {
            builder.node = *node;
            builder.want_halo(region).ok_or(*node)?;
        }
        for (index, value) in region.inputs.iter().enumerate() {
            builder.load(index, *value).ok_or(first)?;
        }
        for node in &region.nodes {
            // A chain is computed at its last node, when all that it reads is known.
            let head = match delayed.remove(node) {
                Some(chain::Place::Inside) => continue,
                Some(chain::Place::Last(head)) => head,
                None => *node,
            };
            builder.node = head;
            let tensor = builder.operator().ok_or(*node)?;
            let value = ValueId { node: *node, output: 0 };
            if builder.dims(value).as_ref() != Some(&tensor.dims) {
                return Err(*node);
            }
            builder.values.insert(value, tensor);
        }
        let last = region.nodes.last().copied().unwrap_or(first);
        builder.node = last;
        for (index, value) in region.outputs.iter().enumerate() {
            builder.store(index, *value).ok_or(last)?;
        }
        if builder.drafts.len() > MOST_OPERATIONS { Err(last) } else { Ok(builder) }
    }

    /// Places the buffers and creates the operations.
    fn finish(self, region: &Region, limit: u64) -> Result<Plan, u32> {
        let first = region.nodes.first().copied().unwrap_or(0);
        let shapes = |values: &[ValueId]| -> Option<Vec<Vec<usize>>> {
            values.iter().map(|value| self.dims(*value)).collect()
        };
        let inputs = shapes(&region.inputs).ok_or(first)?;
        let outputs = shapes(&region.outputs).ok_or(first)?;
        let mut spans: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (index, (_, used, _)) in self.drafts.iter().enumerate() {
            for buffer in used {
                let first = spans[*buffer].map_or(index, |(first, _)| first);
                spans[*buffer] = Some((first, index));
            }
        }
        let (places, arena) = place(&self.buffers, &spans);
        let mut operations = Vec::with_capacity(self.drafts.len());
        for (node, _, draft) in &self.drafts {
            if arena > MOST {
                return Err(*node);
            }
            operations.push((*node, draft(&places).ok_or(*node)?));
        }
        let packed = operations.iter().map(|(_, operation)| match operation {
            Operation::Product(product) => product.packed_elements(),
            _ => 0,
        });
        let packed = packed.max().unwrap_or(0);
        if 4 * (arena + packed + self.constants) as u64 > limit {
            return Err(first);
        }
        // Packed weights start a cache line.
        let mut constants = vec![0.0; self.constants + ALIGNMENT];
        let start = constants.as_ptr().align_offset(4 * ALIGNMENT).min(ALIGNMENT);
        for (range, fill) in &self.fills {
            fill(&mut constants[start..][range.clone()]);
        }
        let kernels = self.kernels;
        Ok(Plan { kernels, operations, arena, packed, constants, start, inputs, outputs })
    }

    /// Compiles the current node, and the chain that it starts.
    fn operator(&mut self) -> Option<Tensor> {
        let node = self.current();
        let inputs = node.inputs.clone();
        match &node.operator {
            Operator::Conv(a) => self.conv(a, &inputs),
            Operator::Einsum(a) => self.einsum(&a.expression, &inputs),
            Operator::Binary(function) => self.binary(*function, &inputs),
            Operator::Unary(function) => self.unary(*function, &inputs),
            Operator::MaxPool(a) => self.max_pool(&a.window, &inputs),
            Operator::SumPool(a) => self.sum_pool(a, &inputs),
            Operator::Reduce(a) => self.reduce(a, &inputs),
            Operator::Softmax(a) => self.softmax(a, &inputs),
            Operator::RmsNorm(a) => self.rms_norm(a, &inputs),
            Operator::Concat(axis) => self.concat(*axis as usize, &inputs),
            Operator::Reshape(_) => self.reshape(&inputs),
            Operator::NearestUpsample(factors) => self.upsample(factors, &inputs),
            _ => self.view(&inputs),
        }
    }

    fn current(&self) -> &'g hardtack_bundle::graph::Node {
        &self.graph.nodes[self.node as usize]
    }

    /// Returns the sizes of a value for the current symbols; `None` if one is unknown or 0.
    fn dims(&self, value: ValueId) -> Option<Vec<usize>> {
        let shape = &self.graph.fact(value).shape;
        let dims: Vec<usize> = shape.iter().map(|dim| self.dim(dim)).collect::<Option<_>>()?;
        let all = dims.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim))?;
        (1..=MOST).contains(&all).then_some(dims)
    }

    fn dim(&self, dim: &Dim) -> Option<usize> {
        dim.evaluate(self.symbols).and_then(|size| usize::try_from(size).ok())
    }

    /// The value that the chain of the current node ends with: the one that is computed.
    fn result(&self) -> ValueId {
        let last = self.chains.get(&self.node).map_or(self.node, |chain| chain.last);
        ValueId { node: last, output: 0 }
    }

    /// Returns the elements of a constant, row-major.
    fn constant(&self, value: ValueId) -> Option<Cow<'g, [f32]>> {
        let node = &self.graph.nodes[value.node as usize];
        let values = match &node.operator {
            Operator::DequantizeLinear(a) => Cow::Owned(self.dequantized(a, &node.inputs)?),
            _ => self.stored(value)?,
        };
        let dims = self.dims(value)?;
        (values.len() == dims.iter().product::<usize>()).then_some(values)
    }

    /// Returns the elements of a constant that is not quantized, or of one in 4 bits.
    fn stored(&self, value: ValueId) -> Option<Cow<'g, [f32]>> {
        let node = self.graph.nodes.get(value.node as usize)?;
        match node.operator {
            Operator::Constant(index) => self.source.values(index),
            Operator::Unpack => {
                let [packed] = *node.inputs.as_slice() else { return None };
                let packed = self.stored(packed)?;
                let count = self.dims(value)?.iter().product();
                // The low half of each byte comes first.
                let halves = packed.iter().flat_map(|byte| {
                    let byte = *byte as u8;
                    [byte & 15, byte >> 4]
                });
                let signed = self.graph.fact(value).dtype == DType::I8;
                let number = |half: u8| {
                    let number = f32::from(half);
                    if signed && half >= 8 { number - 16.0 } else { number }
                };
                let values: Vec<f32> = halves.map(number).take(count).collect();
                (values.len() == count).then_some(Cow::Owned(values))
            }
            _ => None,
        }
    }

    /// Returns the elements of quantized constants.
    fn dequantized(
        &self,
        a: &hardtack_bundle::graph::DequantizeLinear,
        inputs: &[ValueId],
    ) -> Option<Vec<f32>> {
        let [values, scale, zero_point] = *inputs else { return None };
        let dims = self.dims(values)?;
        let [values, scale, zero_point] =
            [values, scale, zero_point].map(|value| self.stored(value));
        let (mut values, scale, zero_point) = (values?.into_owned(), scale?, zero_point?);
        // The elements from one index of the axis to the next, and the number of indices.
        let (each, count) = match a.axis {
            None => (values.len(), 1),
            Some(axis) => {
                let axis = axis as usize;
                (dims.get(axis + 1..)?.iter().product(), *dims.get(axis)?)
            }
        };
        if each == 0 || scale.len() != count || ![1, count].contains(&zero_point.len()) {
            return None;
        }
        for (index, values) in values.chunks_mut(each).enumerate() {
            let index = index % count;
            let (scale, zero) = (scale[index], zero_point[index.min(zero_point.len() - 1)]);
            values.iter_mut().for_each(|value| *value = (*value - zero) * scale);
        }
        Some(values)
    }

    fn is_constant(&self, value: ValueId) -> bool {
        is_constant(self.graph, value)
    }

    /// Returns a value as a tensor. Constants are copied into the plan.
    fn tensor(&mut self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.values.get(&value) {
            return Some(tensor.clone());
        }
        let (values, dims) = (self.constant(value)?, self.dims(value)?);
        let count = values.len();
        let offset = self.reserve(count, move |place| place.copy_from_slice(&values))?.start;
        let strides = row_major(&dims);
        let tensor = Tensor { space: Space::Constants, offset, dims, strides, halo: None };
        self.values.insert(value, tensor.clone());
        Some(tensor)
    }

    /// Reserves space in the constants, which `fill` writes. Returns its place.
    fn reserve(&mut self, elements: usize, fill: impl Fn(&mut [f32]) + 'g) -> Option<Range<usize>> {
        let start = self.constants.next_multiple_of(ALIGNMENT);
        let end = start.checked_add(elements).filter(|end| *end <= MOST)?;
        self.constants = end;
        self.fills.push((start..end, Box::new(fill)));
        Some(start..end)
    }

    /// Creates a tensor. `order` lists its axes from the outermost in memory to the innermost.
    fn create(&mut self, dims: &[usize], order: &[usize], halo: Option<Halo>) -> Option<Tensor> {
        let halo = halo.filter(|halo| {
            // The image must be innermost: rows, columns, channels.
            let ImageAxes { row, column, channel } = halo.axes;
            let inner = [row, Some(column), Some(channel)];
            let inner: Vec<usize> = inner.into_iter().flatten().collect();
            order.ends_with(&inner)
        });
        let mut strides = vec![0; dims.len()];
        let (mut size, mut offset) = (1usize, 0);
        for axis in order.iter().rev() {
            strides[*axis] = size;
            size = size.checked_mul(dims[*axis])?;
            let Some(Halo { axes, margins }) = halo else { continue };
            let around = margins.left.max(margins.right);
            if *axis == axes.column {
                size = size.checked_add(around.checked_mul(strides[*axis])?)?;
                let rows = axes.row.map_or(1, |row| dims[row]);
                let (pitch, pixel) = (size, strides[*axis]);
                let all = margins.top.checked_add(margins.bottom)?.checked_add(rows)?;
                offset = margins.top.checked_mul(pitch)?.checked_add(margins.left * pixel)?;
                let image = all.checked_mul(pitch)?.checked_add(margins.left * pixel)?;
                if axes.row.is_none() {
                    size = image;
                }
            }
            if Some(*axis) == axes.row {
                let pitch = strides[*axis];
                size = offset.checked_add((rows_of(&halo, dims)).checked_mul(pitch)?)?;
                size = size.checked_add(margins.bottom.checked_mul(pitch)?)?;
            }
        }
        let buffer = self.buffers.len();
        self.buffers.push(size.checked_add(SLACK).filter(|size| *size <= MOST)?);
        let space = Space::Buffer(buffer);
        let tensor = Tensor { space, offset, dims: dims.to_vec(), strides, halo };
        self.fill_halo(&tensor)?;
        Some(tensor)
    }

    /// Creates a tensor for the result of the current node, with the halo that its readers want.
    fn create_result(&mut self, dims: &[usize], order: &[usize]) -> Option<Tensor> {
        let halo = self.wanted.get(&self.result()).copied();
        self.create(dims, order, halo)
    }

    /// Writes zeros around the images of a tensor.
    fn fill_halo(&mut self, tensor: &Tensor) -> Option<()> {
        let Some(Halo { axes, margins }) = tensor.halo else { return Some(()) };
        let (rows, columns) = (rows_of(&tensor.halo, &tensor.dims), tensor.dims[axes.column]);
        let pixel = tensor.strides[axes.column];
        let around = margins.left.max(margins.right);
        let pitch = (columns + around) * pixel;
        let lead = margins.top * pitch + margins.left * pixel;
        // Axes outside of the image: each index has its own image.
        let inside =
            |axis: usize| Some(axis) == axes.row || axis == axes.column || axis == axes.channel;
        let outer: Vec<usize> = (0..tensor.dims.len()).filter(|axis| !inside(*axis)).collect();
        let mut parts = vec![
            // Above, with what is to the left of the first row.
            (0, vec![(lead, 1)]),
            // Between the rows.
            (lead + columns * pixel, vec![(rows, pitch), (around * pixel, 1)]),
            // Below.
            (lead + rows * pitch, vec![(margins.bottom * pitch, 1)]),
        ];
        parts.retain(|(_, dims)| dims.iter().all(|(size, _)| *size > 0));
        let Space::Buffer(buffer) = tensor.space else { return None };
        for (offset, inner) in parts {
            let mut dims: Vec<(usize, [usize; 1])> =
                outer.iter().map(|axis| (tensor.dims[*axis], [tensor.strides[*axis]])).collect();
            dims.sort_by_key(|(_, stride)| std::cmp::Reverse(stride[0]));
            dims.extend(inner.iter().map(|(size, stride)| (*size, [*stride])));
            dims.retain(|(size, _)| *size != 1);
            let (dims, [strides]) = Loops { dims }.strided()?;
            self.push(vec![buffer], move |places| {
                let target = strided(places[buffer] + offset, strides);
                Map::new(Function::Fill(0.0), dims, target).map(Operation::Map)
            });
        }
        Some(())
    }

    fn push(
        &mut self,
        buffers: Vec<usize>,
        draft: impl Fn(&[usize]) -> Option<Operation> + 'static,
    ) {
        // Beyond the limit the region is refused.
        if self.drafts.len() <= MOST_OPERATIONS {
            self.drafts.push((self.node, buffers, Box::new(draft)));
        }
    }

    /// Adds a function over whole tensors. Sources must have the dimensions of the target or be
    /// broadcast to them.
    fn map<const N: usize, const M: usize>(
        &mut self,
        sources: [&Tensor; N],
        target: &Tensor,
        function: impl Fn([Operand; N]) -> Function + 'static,
    ) -> Option<()> {
        let broadcast: Vec<Vec<usize>> =
            sources.iter().map(|source| source.broadcast(&target.dims)).collect::<Option<_>>()?;
        let strides: [&[usize]; M] = std::array::from_fn(|index| {
            broadcast.get(index).map_or(target.strides.as_slice(), Vec::as_slice)
        });
        let (dims, strides) = Loops::<M>::new(&target.dims, strides).strided()?;
        let places: [(Space, usize); N] = sources.map(|source| (source.space, source.offset));
        let (Space::Buffer(to), offset) = (target.space, target.offset) else { return None };
        let mut buffers = vec![to];
        buffers.extend(sources.iter().filter_map(|source| match source.space {
            Space::Buffer(buffer) => Some(buffer),
            Space::Constants => None,
        }));
        self.push(buffers, move |bases| {
            let mut index = 0;
            let operands = places.map(|(space, offset)| {
                let strides = strides[index];
                index += 1;
                match space {
                    Space::Buffer(buffer) => {
                        Operand::Arena(strided(bases[buffer] + offset, strides))
                    }
                    Space::Constants => Operand::Constants(strided(offset, strides)),
                }
            });
            let target = strided(bases[to] + offset, strides[M - 1]);
            Map::new(function(operands), dims, target).map(Operation::Map)
        });
        Some(())
    }

    fn copy(&mut self, source: &Tensor, target: &Tensor) -> Option<()> {
        self.map::<1, 2>([source], target, |[operand]| Function::Copy(operand))
    }

    /// Copies a tensor into a new one with this order of axes.
    fn reordered(
        &mut self,
        tensor: &Tensor,
        order: &[usize],
        halo: Option<Halo>,
    ) -> Option<Tensor> {
        let target = self.create(&tensor.dims, order, halo)?;
        self.copy(tensor, &target)?;
        Some(target)
    }

    /// Copies an input of the region into the arena, in the order that its readers prefer.
    fn load(&mut self, index: usize, value: ValueId) -> Option<()> {
        let dims = self.dims(value)?;
        let halo = self.wanted.get(&value).copied();
        let order = match halo {
            Some(Halo { axes, .. }) => image_order(dims.len(), axes),
            None => (0..dims.len()).collect(),
        };
        let target = self.create(&dims, &order, halo)?;
        let source = row_major(&dims);
        let loops = Loops::<2>::new(&dims, [&source, &target.strides]);
        let (sizes, [from, to]) = loops.strided()?;
        let (Space::Buffer(buffer), offset) = (target.space, target.offset) else { return None };
        self.push(vec![buffer], move |places| {
            let target = strided(places[buffer] + offset, to);
            let source = Operand::Constants(strided(0, from));
            Some(Operation::Load(index, Map::new(Function::Copy(source), sizes, target)?))
        });
        self.values.insert(value, target);
        Some(())
    }

    /// Copies a value into an output of the region.
    fn store(&mut self, index: usize, value: ValueId) -> Option<()> {
        let tensor = self.values.get(&value)?.clone();
        let target = row_major(&tensor.dims);
        let loops = Loops::<2>::new(&tensor.dims, [&tensor.strides, &target]);
        let (sizes, [from, to]) = loops.strided()?;
        let Space::Buffer(buffer) = tensor.space else { return None };
        self.push(vec![buffer], move |places| {
            let source = Operand::Constants(strided(places[buffer] + tensor.offset, from));
            let target = strided(0, to);
            Some(Operation::Store(index, Map::new(Function::Copy(source), sizes, target)?))
        });
        Some(())
    }

    /// Notes the halo that the current node wants around its input.
    fn want_halo(&mut self, region: &Region) -> Option<()> {
        let (Operator::Conv(a), [input, ..]) =
            (&self.current().operator, self.current().inputs.as_slice())
        else {
            return Some(());
        };
        let Some(mut halo) = self.conv_halo(a, *input)? else { return Some(()) };
        let mut value = *input;
        loop {
            let entry = self.wanted.entry(value).or_insert(halo);
            if entry.axes == halo.axes {
                entry.margins = entry.margins.max(halo.margins);
            }
            // The value may be a view of another one, which gets the halo then.
            let node = &self.graph.nodes[value.node as usize];
            let back = match node.operator {
                Operator::AddAxis(axis) => halo.axes.map(|own| match own.cmp(&(axis as usize)) {
                    std::cmp::Ordering::Less => Some(own),
                    std::cmp::Ordering::Equal => None,
                    std::cmp::Ordering::Greater => Some(own - 1),
                }),
                Operator::RemoveAxis(axis) => {
                    halo.axes.map(|own| Some(if own >= axis as usize { own + 1 } else { own }))
                }
                _ => None,
            };
            let (Some(axes), true) = (back, region.nodes.binary_search(&value.node).is_ok()) else {
                return Some(());
            };
            halo.axes = axes;
            value = node.inputs[0];
        }
    }
}

/// Returns an order of axes with the image innermost.
fn image_order(rank: usize, axes: ImageAxes) -> Vec<usize> {
    let inner = [axes.row, Some(axes.column), Some(axes.channel)];
    let inner: Vec<usize> = inner.into_iter().flatten().collect();
    let mut order: Vec<usize> = (0..rank).filter(|axis| !inner.contains(axis)).collect();
    order.extend(inner);
    order
}

/// The number of rows of the image that a halo surrounds.
fn rows_of(halo: &Option<Halo>, dims: &[usize]) -> usize {
    halo.and_then(|halo| halo.axes.row).map_or(1, |row| dims[row])
}

/// Returns the strides of a contiguous tensor.
fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Places buffers in an arena, so that those that are alive at the same time do not overlap.
/// `spans` holds the first and last operation that uses each; unused buffers have no place.
/// Returns the offsets and the size of the arena.
fn place(buffers: &[usize], spans: &[Option<(usize, usize)>]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> =
        (0..buffers.len()).filter(|index| spans[*index].is_some()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(buffers[*index]), spans[*index]));
    let mut places = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut arena = 0;
    for index in order {
        let Some((first, last)) = spans[index] else { continue };
        let size = buffers[index].next_multiple_of(ALIGNMENT);
        // `placed` is in the order of offsets: take the first gap that is large enough.
        let mut offset = 0;
        for other in &placed {
            let overlaps = spans[*other].is_some_and(|(start, end)| start <= last && first <= end);
            if !overlaps {
                continue;
            }
            if places[*other] >= offset + size {
                break;
            }
            offset = offset.max(places[*other] + buffers[*other].next_multiple_of(ALIGNMENT));
        }
        places[index] = offset;
        arena = arena.max(offset + size);
        let at = placed.partition_point(|other| places[*other] < offset);
        placed.insert(at, index);
    }
    (places, arena)
}
