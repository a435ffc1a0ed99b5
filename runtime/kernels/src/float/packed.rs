//! Packed weights of float layers.
//!
//! A dense layer consists of blocks of columns (output channels). A block of `width` columns holds
//! their biases, then for each `k` the weights of the columns: `(1 + terms) · width` f32. Columns
//! without a channel are 0. The width is [`DenseShape::vectors`] vectors, or one in the last block
//! of a group if no more channels are left.
//!
//! A depthwise layer consists of blocks of one vector of channels: their biases, then for each
//! kernel element the weights of the channels.

/// The shape of a dense layer: a convolution or a matmul with constant weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// The number of groups.
    pub groups: usize,
    /// The output channels of a group.
    pub outputs: usize,
    /// The terms of each output: kernel rows · kernel columns · input channels of a group.
    pub terms: usize,
}

/// A block of columns of a dense layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct DenseBlock {
    pub(super) group: usize,
    /// The first column, within the group.
    pub(super) first: usize,
    /// The columns with a channel.
    pub(super) channels: usize,
    /// The number of vectors.
    pub(super) vectors: usize,
    /// The first element in the packed weights.
    pub(super) offset: usize,
}

/// The number of vectors in a wide block.
pub(super) const VECTORS: usize = 2;

impl DenseShape {
    /// Returns the blocks of a group, or of all, for vectors of `lanes` elements. The sizes were
    /// checked by [`DenseShape::elements`].
    pub(super) fn blocks(self, lanes: usize) -> impl Iterator<Item = DenseBlock> {
        let Self { groups, outputs, terms } = self;
        let wide = VECTORS * lanes;
        let per_group = outputs.div_ceil(wide);
        let group_elements = self.columns(lanes) * (terms + 1);
        (0..groups * per_group).map(move |index| {
            let (group, block) = (index / per_group, index % per_group);
            let first = block * wide;
            let channels = (outputs - first).min(wide);
            let vectors = channels.div_ceil(lanes);
            let offset = group * group_elements + first * (terms + 1);
            DenseBlock { group, first, channels, vectors, offset }
        })
    }

    /// The number of blocks.
    pub(super) fn block_count(self, lanes: usize) -> usize {
        self.groups * self.outputs.div_ceil(VECTORS * lanes)
    }

    /// The columns of a group, including those without a channel.
    fn columns(self, lanes: usize) -> usize {
        self.outputs.next_multiple_of(lanes)
    }

    /// Returns the number of f32 of the packed weights for vectors of `lanes` elements. `None` if
    /// it is 0 or overflows.
    pub fn elements(self, lanes: usize) -> Option<usize> {
        let columns = self.outputs.checked_next_multiple_of(lanes)?;
        let all = self.terms.checked_add(1)?.checked_mul(columns)?.checked_mul(self.groups)?;
        (self.terms > 0 && all > 0).then_some(all)
    }

    /// Packs weights for vectors of `lanes` elements. `weight` returns the weight of a group, an
    /// output channel of this group and a term, and `bias` the bias of an output channel of all.
    ///
    /// # Panics
    /// If `packed` does not have [`DenseShape::elements`] elements.
    pub fn pack(
        self,
        lanes: usize,
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
        packed: &mut [f32],
    ) {
        assert_eq!(Some(packed.len()), self.elements(lanes), "the packed size is wrong");
        packed.fill(0.0);
        for block in self.blocks(lanes) {
            let width = block.vectors * lanes;
            let out = &mut packed[block.offset..][..width * (self.terms + 1)];
            let (biases, weights) = out.split_at_mut(width);
            for (place, out) in biases.iter_mut().enumerate().take(block.channels) {
                *out = bias(block.group * self.outputs + block.first + place);
            }
            for (term, out) in weights.chunks_exact_mut(width).enumerate() {
                for (place, out) in out.iter_mut().enumerate().take(block.channels) {
                    *out = weight(block.group, block.first + place, term);
                }
            }
        }
    }
}

/// The shape of a depthwise layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseShape {
    /// The number of channels.
    pub channels: usize,
    /// The height and width of the kernel.
    pub kernel: [usize; 2],
}

impl DepthwiseShape {
    /// Returns the number of f32 of the packed weights for vectors of `lanes` elements. `None` if
    /// it is 0 or overflows.
    pub fn elements(self, lanes: usize) -> Option<usize> {
        let terms = self.kernel[0].checked_mul(self.kernel[1])?;
        let columns = self.channels.checked_next_multiple_of(lanes)?;
        let all = terms.checked_add(1)?.checked_mul(columns)?;
        (terms > 0 && all > 0).then_some(all)
    }

    /// Packs weights for vectors of `lanes` elements. `weight` returns the weight of a channel and
    /// a kernel element.
    ///
    /// # Panics
    /// If `packed` does not have [`DepthwiseShape::elements`] elements.
    pub fn pack(
        self,
        lanes: usize,
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
        packed: &mut [f32],
    ) {
        assert_eq!(Some(packed.len()), self.elements(lanes), "the packed size is wrong");
        packed.fill(0.0);
        let terms = self.kernel[0] * self.kernel[1];
        for (block, out) in packed.chunks_exact_mut((terms + 1) * lanes).enumerate() {
            let first = block * lanes;
            let channels = (self.channels - first).min(lanes);
            let (biases, weights) = out.split_at_mut(lanes);
            for (place, out) in biases.iter_mut().enumerate().take(channels) {
                *out = bias(first + place);
            }
            for (term, out) in weights.chunks_exact_mut(lanes).enumerate() {
                for (place, out) in out.iter_mut().enumerate().take(channels) {
                    *out = weight(first + place, term);
                }
            }
        }
    }
}
