//! Places images in the arena of an executor, with the padding borders (halos) that their
//! readers need.

use alloc::string::String;
use alloc::vec::Vec;

use hardtack_kernels::strided::{Halo, SLACK, View};
use hardtack_kernels::{StridedCopy, Window};

use super::remap::{Side, remap};
use crate::Program;
use crate::code::Code;
use crate::plan::{Lifetime, Placement, Plan, place, spans};
use crate::program::{Step, Tensor, TensorId};
use crate::reference;

/// The alignment of images in bytes: one cache line.
const ALIGNMENT: u64 = 64;

/// The size of a halo: rows above and below, columns to the left and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Margins {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Margins {
    /// Returns the halo that a window reads around an image.
    fn of(window: &Window, input: &Tensor, output: &Tensor) -> Self {
        let beyond = |axis: usize, input: u32, output: u32| {
            let last = (output as usize - 1) * window.stride[axis];
            let end = last + (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            end.saturating_sub(input as usize + window.pad[axis])
        };
        Self {
            top: window.pad[0],
            bottom: beyond(0, input.height, output.height),
            left: window.pad[1],
            right: beyond(1, input.width, output.width),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn max(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }
}

/// The shape of an image with its halo.
///
/// The columns to the right of a row overlap those to the left of the next row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    margins: Margins,
}

impl Shape {
    fn new(tensor: &Tensor, margins: Margins) -> Self {
        let (rows, columns) = (tensor.height as usize, tensor.width as usize);
        Self { rows, columns, channels: tensor.channels as usize, margins }
    }

    /// Returns the row pitch: the bytes from one row to the next.
    pub(super) fn pitch(&self) -> usize {
        (self.columns + self.margins.left.max(self.margins.right)).saturating_mul(self.channels)
    }

    /// Bytes before the first pixel of a row.
    fn left(&self) -> usize {
        self.margins.left.saturating_mul(self.channels)
    }

    /// Returns the bytes before the first pixel.
    fn lead(&self) -> usize {
        self.margins.top.saturating_mul(self.pitch()).saturating_add(self.left())
    }

    /// Returns the bytes of the image and its halo.
    fn bytes(&self) -> usize {
        let rows = self.margins.top + self.rows + self.margins.bottom;
        rows.saturating_mul(self.pitch()).saturating_add(self.left())
    }
}

/// An image with an assigned place in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) shape: Shape,
    pub(super) tensor: Tensor,
    start: usize,
}

impl Placed {
    pub(super) fn view(&self) -> View {
        View {
            offset: self.start + self.shape.lead(),
            row: self.shape.pitch(),
            pixel: self.shape.channels,
        }
    }

    /// Returns a view that starts at the first element of the top-left window, padding included.
    pub(super) fn window(&self, window: &Window) -> View {
        let view = self.view();
        let pad = window.pad[0] * view.row + window.pad[1] * view.pixel;
        View { offset: view.offset - pad, ..view }
    }

    /// Returns the byte range from the first element to the last.
    pub(super) fn range(&self) -> core::ops::Range<usize> {
        let view = self.view();
        let row = self.shape.columns * self.shape.channels;
        view.offset..view.offset + (self.shape.rows - 1) * view.row + row
    }

    pub(super) fn size(&self) -> [usize; 2] {
        [self.shape.rows, self.shape.columns]
    }

    /// Returns the operation that fills the halo with the zero point, if there is a halo.
    /// Activations are stored as i8 plus `activation_offset`.
    pub(super) fn halo(&self, activation_offset: i32) -> Option<Halo> {
        (!self.shape.margins.is_empty()).then(|| Halo {
            start: self.start,
            end: self.start + self.shape.bytes(),
            image: self.view(),
            rows: self.shape.rows,
            length: self.shape.columns * self.shape.channels,
            value: (i32::from(self.tensor.zero_point) + activation_offset) as u8,
        })
    }
}

/// The halos of a program's tensors.
struct Halos<'a> {
    code: Code<'a>,
    /// The halo of each tensor.
    margins: Vec<Margins>,
    /// Whether each tensor must not have a halo, because a step cannot skip it. A step that needs
    /// one reads a copy of the tensor.
    flat: Vec<bool>,
}

impl<'a> Halos<'a> {
    /// Chooses the halo of each tensor of a validated program: the largest that a step reads, or
    /// none if a step cannot skip it.
    fn new(code: Code<'a>, steps: &[Step]) -> Self {
        let count = usize::from(code.header.tensors);
        let margins = alloc::vec![Margins::default(); count];
        let mut halos = Self { code, margins, flat: alloc::vec![false; count] };
        for step in steps {
            if let Some((id, wanted)) = halos.wanted(step) {
                let margins = &mut halos.margins[usize::from(id)];
                *margins = margins.max(wanted);
            }
        }
        for step in steps {
            if !halos.can_skip(step) {
                for id in step.reads().chain(step.writes()) {
                    halos.flat[usize::from(id)] = true;
                }
            }
        }
        for (margins, _) in halos.margins.iter_mut().zip(&halos.flat).filter(|(_, flat)| **flat) {
            *margins = Margins::default();
        }
        halos
    }

    /// Returns the input of a step and the halo that the step reads around it. `None` if it reads
    /// no halo.
    fn wanted(&self, step: &Step) -> Option<(TensorId, Margins)> {
        let tile = step.tile(|id| self.tensor(id))?;
        let window = reference::window(&tile.conv.window);
        let input = tile.input(&self.tensor(tile.conv.input))?;
        let output = tile.output(&self.tensor(tile.conv.output))?;
        let margins = Margins::of(&window, &input, &output);
        (!margins.is_empty()).then_some((tile.conv.input, margins))
    }

    /// Returns [`Halos::wanted`] if the step reads a copy of its input, because the input must not
    /// have a halo.
    fn wanted_copy(&self, step: &Step) -> Option<(TensorId, Margins)> {
        self.wanted(step).filter(|(id, _)| self.flat[usize::from(*id)])
    }

    /// Returns whether a step can skip the halos of its tensors. Some strided copies cannot, and
    /// neither can a lookup that changes the shape.
    fn can_skip(&self, step: &Step) -> bool {
        match step {
            Step::Quantize(step) => {
                self.remap(reference::copy(&step.copy), Side::Target, step.output).is_some()
            }
            Step::Dequantize(step) => {
                self.remap(reference::copy(&step.copy), Side::Source, step.input).is_some()
            }
            Step::Move(step) => self
                .remap(reference::copy(&step.copy), Side::Source, step.input)
                .and_then(|copy| self.remap(copy, Side::Target, step.output))
                .is_some(),
            Step::Lookup(step) => {
                let (a, b) = (self.tensor(step.input), self.tensor(step.output));
                (a.height, a.width, a.channels) == (b.height, b.width, b.channels)
            }
            _ => true,
        }
    }

    /// Adapts one side of a strided copy to the image of a tensor with its halo.
    fn remap(&self, copy: StridedCopy, side: Side, id: TensorId) -> Option<StridedCopy> {
        remap(copy, side, &Shape::new(&self.tensor(id), self.margins[usize::from(id)]))
    }

    fn tensor(&self, id: TensorId) -> Tensor {
        self.code.tensor(id).expect("tensors of steps were checked")
    }
}

/// The arena layout of a program.
#[derive(Debug)]
pub(crate) struct Layout {
    images: Vec<Option<Placed>>,
    /// For each step, the copy of its input with a halo, if it needs one.
    copies: Vec<Option<Placed>>,
    pub(super) arena_bytes: usize,
}

impl Layout {
    /// Places all images of a program.
    pub(crate) fn new<B: AsRef<[u8]>>(program: &Program<B>, steps: &[Step]) -> Self {
        let halos = Halos::new(program.code(), steps);
        let mut lifetimes = Vec::new();
        let mut add = |tensor: Tensor, margins: Margins, first: u32, last: u32| {
            let shape = Shape::new(&tensor, margins);
            let bytes = (shape.bytes() as u64).saturating_add(SLACK as u64);
            lifetimes.push(Lifetime { bytes, first, last });
            (lifetimes.len() - 1, shape, tensor)
        };
        let spans = spans(program.tensor_count(), steps.iter().copied());
        let mut owners = Vec::new();
        for (id, span) in (0..).zip(&spans) {
            owners.push(span.map(|(first, last)| {
                let tensor = halos.tensor(id);
                add(tensor, halos.margins[usize::from(id)], first, last)
            }));
        }
        let copied: Vec<_> = (0..)
            .zip(steps)
            .map(|(index, step)| {
                let (id, margins) = halos.wanted_copy(step)?;
                Some(add(halos.tensor(id), margins, index, index))
            })
            .collect();

        let (offsets, total) = place(&lifetimes, ALIGNMENT);
        let placed = |owner: Option<(usize, Shape, Tensor)>| {
            let (index, shape, tensor) = owner?;
            Some(Placed { shape, tensor, start: usize::try_from(offsets[index]).ok()? })
        };
        Self {
            images: owners.into_iter().map(placed).collect(),
            copies: copied.into_iter().map(placed).collect(),
            arena_bytes: usize::try_from(total).unwrap_or(usize::MAX),
        }
    }

    /// Returns the layout as a memory plan for reports.
    pub(crate) fn plan<B: AsRef<[u8]>>(&self, program: &Program<B>, steps: &[Step]) -> Plan {
        let spans = spans(program.tensor_count(), steps.iter().copied());
        let name = |id| program.tensor_name(id).unwrap_or_default();
        let placement = |name: String, placed: &Placed, first: u32, last: u32| Placement {
            name,
            offset: placed.start as u32,
            bytes: placed.shape.bytes() as u32,
            first,
            last,
        };
        let images = (0..).zip(&self.images).zip(&spans).filter_map(|((id, image), span)| {
            let (first, last) = (*span)?;
            Some(placement(name(id).into(), image.as_ref()?, first, last))
        });
        let copies = (0..).zip(&self.copies).zip(steps).filter_map(|((index, copy), step)| {
            let name = step.reads().next().map(name).unwrap_or_default();
            Some(placement(alloc::format!("{name} with a halo"), copy.as_ref()?, index, index))
        });
        Plan { arena_bytes: self.arena_bytes as u32, tensors: images.chain(copies).collect() }
    }

    /// Returns the image of a tensor that some step uses.
    pub(super) fn image(&self, id: TensorId) -> &Placed {
        self.images[usize::from(id)].as_ref().expect("a step names it")
    }

    /// Returns the copy with a halo that a step reads instead of its input, if there is one.
    pub(super) fn copy(&self, step: usize) -> Option<&Placed> {
        self.copies[step].as_ref()
    }
}
