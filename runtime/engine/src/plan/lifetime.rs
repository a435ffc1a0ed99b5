//! The memory plan of a program: the place and lifetime of each tensor in the arena.

use alloc::string::String;
use alloc::vec::Vec;

use hardtack_kernels::packed::Packing;

use crate::Program;
use crate::prepared::Lowered;
use crate::program::{Step, TensorId};

/// The place and lifetime of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The tensor's name; empty if the program has no names.
    pub name: String,
    /// The first byte in the arena.
    pub offset: u32,
    /// The number of bytes.
    pub bytes: u32,
    /// The index of the first step that reads or writes the tensor.
    pub first: u32,
    /// The index of the last step that reads or writes the tensor.
    pub last: u32,
}

/// The memory plan of a program's arena.
///
/// # Examples
///
/// ```
/// use hardtack_engine::{Plan, Program};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = "/../../tests/frozen/programs/kws_dscnn_i8.tack";
/// # let file = std::fs::read(format!("{}{file}", env!("CARGO_MANIFEST_DIR")))?;
/// # let (code, weights) = (&file[1024..3431], &file[3456..31_200]);
/// // `code` and `weights` are the two sections of a bundle that contain the program.
/// let program = Program::parse(code, weights)?;
/// let plan = Plan::of(&program, None);
/// for tensor in &plan.tensors {
///     println!("{}: {} bytes at {}", tensor.name, tensor.bytes, tensor.offset);
/// }
/// assert_eq!(plan.arena_bytes as usize, program.arena_bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The size of the arena in bytes.
    pub arena_bytes: u32,
    /// The tensors in index order, without those that no step uses. Copies of tensors with a halo
    /// follow at the end.
    pub tensors: Vec<Placement>,
}

impl Plan {
    /// Returns the memory plan of a program for the kernels with the weight layout `packing`, or
    /// for the reference kernels if `packing` is `None` or those kernels do not support the
    /// program.
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

/// Returns the first and last step that use each tensor; `None` for unused tensors.
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
