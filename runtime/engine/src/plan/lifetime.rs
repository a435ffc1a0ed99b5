//! The plan of a program: what lies where in the arena, and from when to when.

use alloc::string::String;
use alloc::vec::Vec;

use hardtack_kernels::packed::Packing;

use crate::Program;
use crate::lower::Lowered;
use crate::program::{Step, TensorId};

/// A tensor's place and lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The tensor's name; empty where the program has no names.
    pub name: String,
    /// First byte in the arena.
    pub offset: u32,
    /// Number of bytes.
    pub bytes: u32,
    /// First step that writes or reads it.
    pub first: u32,
    /// Last step that writes or reads it.
    pub last: u32,
}

/// What lies where in the arena of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the arena.
    pub arena_bytes: u32,
    /// By tensor number; tensors that no step names are left out.
    pub tensors: Vec<Placement>,
}

impl Plan {
    /// The plan of a program on kernels that read weights in this layout, images with their halos;
    /// `None`: on the definition.
    pub fn of<B: AsRef<[u8]>>(program: &Program<B>, packing: Option<Packing>) -> Self {
        let steps: Vec<Step> = program.steps().collect();
        let lowered = packing.and_then(|packing| {
            let packed = program.pack(Some(packing)).ok()?;
            Lowered::with_layout(program, &steps, packed.bytes(), packing)
        });
        match lowered {
            Some((_, layout)) => layout.plan(program, &steps),
            None => Self::dense(program),
        }
    }

    fn dense<B: AsRef<[u8]>>(program: &Program<B>) -> Self {
        let spans = spans(program.tensor_count(), program.steps());
        let tensors = (0..).zip(spans).filter_map(|(id, span)| {
            let (first, last) = span?;
            let tensor = program.tensor(id)?;
            let name = program.tensor_name(id).unwrap_or_default().into();
            let (offset, bytes) = (tensor.offset, tensor.elements());
            Some(Placement { name, offset, bytes, first, last })
        });
        Self { arena_bytes: program.arena_bytes() as u32, tensors: tensors.collect() }
    }
}

/// First and last step that names each tensor.
pub(crate) fn spans(tensors: usize, steps: impl Iterator<Item = Step>) -> Vec<Option<(u32, u32)>> {
    let mut spans: Vec<Option<(u32, u32)>> = alloc::vec![None; tensors];
    for (index, step) in (0..).zip(steps) {
        let mut name = |id: TensorId| {
            if let Some(span) = spans.get_mut(usize::from(id)) {
                *span = Some((span.map_or(index, |(first, _)| first), index));
            }
        };
        step.reads().for_each(&mut name);
        step.writes().into_iter().for_each(&mut name);
    }
    spans
}
